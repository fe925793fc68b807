"""A recording as a pytest file: readable, and proved by running it."""

from __future__ import annotations

import importlib.util
import io
import json
import keyword
import multiprocessing
import re
import runpy
import subprocess
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cacao.protocol import SUBPROTOCOL
from cacao.recording.script import script_of
from cacao.recording.secrets import put_back
from cacao.recording.tape import TapeError
from cacao.testing.open_worlds import keep_worlds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cacao.recording.script import Actor, Effects, Step
    from cacao.recording.tape import Entry, Header

__all__ = ["write_test"]

_FILE = "test_recorded.py"
_WIDTH = 100
# A longer literal tells a reader nothing; its length does.
_LONGEST = 1000
# How exactly time passes, in digits of a second: as little as the test needs (None: not at all);
# and whether `random` is to give what it gave.
_TRIES = (None, False), (1, False), (3, False), (6, False), (6, True)
# Where a try has failed for a value.
_UNSTABLE = re.compile(r'assert \w+\.state\[(".*?")\] ')
# What each process of a try needs; where processes can be forked, it is loaded once.
_PRELOADED = ["cacao.recording.as_test", "cacao.testing.client", "pytest"]
_INDENT = 4
# What stands in a recording for what is another in each run.
_VARIABLE = "<session-", "<token-", "<error-", "<secret-"


def write_test(
    target: str,
    header: Header,
    entries: Sequence[Entry],
    path: Path,
    told: Mapping[str, str] | None = None,
) -> tuple[Path, tuple[str, ...]]:
    """Write a recording as a pytest file that passes.

    The test asserts what the clients were shown in the recording. It lets time pass as coarsely as
    it can: that is tried out, each time in a new process, and what has passed is run by pytest.

    Args:
        target: The app, as on the command line: `app.py:app`.
        header: Of the recording.
        entries: Of the recording.
        path: The file, which may exist; a folder for `test_recorded.py` in it; `Path()` for that
            beside the app.
        told: What was masked, by its name such as `login.password`.

    Returns:
        The file; and the values that it does not assert, as they were others when it was run: they
        depend on real time, such as that of threads.

    Raises:
        TapeError: There is no pytest, the recording cannot be told as a test, or none passes.
    """
    if importlib.util.find_spec("pytest") is None:
        raise TapeError("--to-test runs what it writes by pytest; pip install 'cacao[test]'")
    path = _place(path, target)
    facts = _Facts(target, header, told or {})
    unstable: set[str] = set()
    while True:
        for digits, is_random in _TRIES:
            path.write_text(_Writer(facts, digits, unstable, is_random=is_random).write(entries))
            line = _try(path)
            if line is None:
                break
        found = None if line is None else _UNSTABLE.match(line)
        if found is None or not any(entry.kind == "outside" for entry in entries):
            break
        unstable.add(json.loads(found[1]))
    output = _failure_of(path)
    if output:
        raise TapeError(
            f"'{path}' is written but does not pass: the app does something else than when it was "
            f"recorded, or depends on real time; pytest says:\n{output}"
        )
    return path, tuple(sorted(unstable))


def _place(path: Path, target: str) -> Path:
    where = target.rpartition(":")[0]
    if path == Path():
        path = Path(where).parent if _is_file(where) else Path()
    return path / _FILE if path.is_dir() else path


def _is_file(where: str) -> bool:
    return where.endswith(".py") or "/" in where


def _try(path: Path) -> str | None:
    """Run a test file in a new process; gives the line that has failed, and None if it passes."""
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(_PRELOADED)
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as pool:
        try:
            return pool.submit(_failing_line, path).result()
        except BrokenProcessPool:
            return ""  # the app has ended its process, which no line of the test can tell


def _failing_line(path: Path) -> str | None:
    """Run a test file here, in silence; gives what `_try` does."""
    silence = io.StringIO()
    try:
        with redirect_stdout(silence), redirect_stderr(silence), keep_worlds() as worlds:
            runpy.run_path(str(path))["test_recorded"]()
            for world in worlds:
                world.close()
    except BaseException as error:  # noqa: BLE001 -- pytest's own are no Exceptions
        frames = traceback.extract_tb(error.__traceback__)
        return next((each.line or "" for each in frames if each.filename == str(path)), "")
    return None


def _failure_of(path: Path) -> str:
    """Run a test file; gives what pytest says, and nothing if it passes."""
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    ran = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)  # noqa: S603 -- our own file
    said = ran.stdout + ran.stderr
    return (said or f"nothing, and exits with {ran.returncode}") if ran.returncode else ""


class _Facts(NamedTuple):
    target: str
    header: Header
    told: Mapping[str, str]


class _Writer:
    """Writes one file.

    Args:
        facts: The app, the header of the recording, and what was masked in it.
        digits: Of the times; None lets no time pass.
        unstable: Names of values that are not asserted.
        is_random: Whether `random` is to give what it gave.
    """

    def __init__(
        self, facts: _Facts, digits: int | None, unstable: set[str], *, is_random: bool
    ) -> None:
        where, _, self._app = facts.target.rpartition(":")
        self._module = Path(where).stem if _is_file(where) else where
        self._header = facts.header
        self._told = facts.told
        self._digits = digits
        self._unstable = unstable
        self._is_random = is_random
        self._imports: set[str] = set()
        self._lines: list[str] = []
        self._open: list[Actor] = []
        self._time = 0.0

    def write(self, entries: Sequence[Entry]) -> str:
        """Give the file's text."""
        steps, seen_at = script_of(entries)
        if not steps:
            raise TapeError("nobody came while this was recorded; there is nothing to test")
        last = max(at for at, step in enumerate(steps) if at == 0 or _shows(step))
        for at, step in enumerate(steps[: last + 1]):
            self._do(step, steps[at + 1 :])
            is_last = at == last
            self._pass_time(step, seen_at if is_last else steps[at + 1].at, is_last=is_last)
        return "\n".join([*self._top(), *self._lines, ""])

    def _top(self) -> Iterator[str]:
        start = self._header.start
        title = f'"""What happened on {start:%Y-%m-%d at %H:%M:%S}, recorded; now a test.'
        if self._unstable:
            names = ", ".join(sorted(self._unstable))
            yield from (title, "", f"Not asserted, as it depends on real time: {names}.", '"""')
        else:
            yield f'{title}"""'
        yield ""
        standard = ["from datetime import UTC, datetime"]
        if self._is_random:
            standard.append("import random")
        yield from sorted(standard, reverse=True)
        yield ""
        if any("pytest." in line for line in self._lines):
            yield "import pytest"
        yield "from cacao.testing import TestClient"
        yield ""
        yield from sorted({f"from {self._module} import {self._app}", *self._imports})
        yield ""
        yield ""
        yield "def test_recorded() -> None:"
        if self._is_random:
            yield f"    random.seed({self._header.seed})"

    # --- Steps ---------------------------------------------------------------------------------

    def _do(self, step: Step, rest: Sequence[Step]) -> None:
        name, effects = step.actor.name, step.at_once
        match step.verb:
            case "join":
                self._say(effects, f"{name} = {self._client(step.actor)}")
                self._open.append(step.actor)
            case "send":
                self._send(step)
            case "text":
                self._say(effects, f"{name}.send_text({_literal(step.name)})")
            case "wait":
                self._wait(effects)
            case "close" if len(self._open) > 1 or all(each.verb != "join" for each in rest):
                self._say(effects, f"{name}.close()")
                self._open.remove(step.actor)
            case "drop" | "close":  # closing the last client would end the run for later ones, too
                self._say(effects, f"{name}.network.drop()")
            case _:
                self._say(effects, f"{name}.network.restore()")
        self._assert(effects, step)

    def _client(self, actor: Actor) -> str:
        arguments = [self._app]
        if actor.user is not None:
            if _is_variable(actor.user):
                raise TapeError(
                    "the name of a user is what lets them in, and masked in the recording; "
                    "write the test by hand: TestClient(app, headers={...})"
                )
            arguments.append(f"user={_literal(actor.user)}")
        if actor.subprotocol != SUBPROTOCOL:
            arguments.append("subprotocol=None")
        if not self._open:
            start = self._header.start
            parts = (start.year, start.month, start.day, start.hour, start.minute, start.second)
            arguments.append(f"now=datetime({', '.join(map(str, parts))}, tzinfo=UTC)")
            if self._header.seed:
                arguments.append(f"seed={self._header.seed}")
        return f"TestClient({', '.join(arguments)})"

    def _send(self, step: Step) -> None:
        data = self._unmasked(step)
        arguments = [_literal(step.name)]
        if all(_is_name(key) for key in data):
            arguments += [f"{key}={_literal(value)}" for key, value in data.items()]
        else:
            arguments.append(_literal(data))
        call = f"{step.actor.name}.send("
        start, end = call, ")"
        if (message := _own_result(step)) is not None:
            if not message.get("ok"):
                start, end = f"assert {call}", f").code == {_literal(message['code'])}"
            elif not any(step.at_once.values.values()):
                start, end = f"assert {call}", ").ok"
        self._say(step.at_once, start + ", ".join(arguments) + end, (start, arguments, end))

    def _unmasked(self, step: Step) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(json.dumps(step.data))
        for name in step.secrets:
            if name in self._told:
                put_back(data, name.removeprefix(f"{step.name}."), self._told[name])
        return data

    def _wait(self, effects: Effects) -> None:
        """Wait in real time for what work in a thread has brought, if anybody can see it."""
        seen = [
            f"{actor.name}.wait(lambda: {actor.name}.result({number}))"
            for actor, number, _ in effects.results
        ]
        seen += [
            f"{actor.name}.wait(lambda: {actor.name}.state[{_literal(name)}] == {literal})"
            for actor, names in effects.values.items()
            for name in names
            if len(literal := _literal(effects.states[actor].get(name))) < _WIDTH // 2
        ]
        if seen:
            self._say(effects, seen[0])

    def _pass_time(self, step: Step, until: float, *, is_last: bool) -> None:
        """Let time pass up to the next step, and look at what it has brought."""
        if self._digits is not None:
            grid = 10**-self._digits
            until = round(until, self._digits) + (grid if is_last else 0)
            seconds = round(until - self._time, self._digits)
            if seconds > 0 and self._open and (not is_last or step.later != type(step.later)()):
                self._say(step.later, f"{self._open[0].name}.advance({seconds!r})")
                self._time = until
        self._assert(step.later, step)

    def _say(
        self, effects: Effects, line: str, parts: tuple[str, list[str], str] | None = None
    ) -> None:
        """Write a call, and what it raises."""
        indent = _INDENT
        if effects.errors:
            self._lines.append(f"{' ' * indent}with pytest.raises({self._error(effects)}):")
            indent += _INDENT
        if indent + len(line) > _WIDTH and parts is not None:
            start, arguments, end = parts
            inner = " " * (indent + _INDENT)
            self._lines.append(" " * indent + start)
            self._lines += [f"{inner}{argument}," for argument in arguments]
            self._lines.append(" " * indent + end)
        else:
            self._lines.append(" " * indent + line)

    def _error(self, effects: Effects) -> str:
        if len(effects.errors) > 1:
            return "ExceptionGroup"
        module, _, name = effects.errors[0].rpartition(".")
        if "<locals>" in module:
            return "Exception"
        if module != "builtins":
            self._imports.add(f"from {module} import {name}")
        return name

    # --- Assertions ----------------------------------------------------------------------------

    def _assert(self, effects: Effects, step: Step) -> None:
        for actor in effects.resumed:
            self._lines.append(f"    assert {actor.name}.resumed")
        for actor, number, message in effects.results:
            if number and not message.get("ok") and message is not _own_result(step):
                code = _literal(message["code"])
                line = f"    assert {actor.name}.result({number}).code == {code}"
                self._lines.append(line)
        for actor, code in effects.refusals.items():
            # Not of the last message: other ones may have followed.
            errors = f'm["code"] for m in {actor.name}.messages if m["type"] == "error"'
            self._lines.append(f"    assert [{errors}][-1] == {_literal(code)}")
        for actor, names in effects.values.items():
            if step.verb == "join" and actor is step.actor and effects is step.at_once:
                continue  # the defaults: every test of this app begins so
            for name in names:
                value = effects.states[actor].get(name)
                if name not in self._unstable and not _is_variable(value):
                    self._lines += _assertion(f"{actor.name}.state[{_literal(name)}]", value)


def _assertion(shown: str, value: Any) -> list[str]:
    literal = _literal(value)
    if len(literal) > _LONGEST:
        return [f"    assert len({shown}) == {len(value)}"]
    line = f"    assert {shown} == {literal}"
    if len(line) <= _WIDTH or not isinstance(value, list | dict):
        return [line]
    return _layout(f"    assert {shown} == ", value, _INDENT, "")


def _layout(start: str, value: Any, indent: int, end: str) -> list[str]:
    """Write a value over several lines where one does not hold it, as ruff would."""
    literal = _literal(value)
    if len(start) + len(literal) + len(end) <= _WIDTH or not isinstance(value, list | dict):
        return [start + literal + end]
    inner = " " * (indent + _INDENT)
    pairs: list[tuple[str, Any]] = (
        [(f"{_literal(key)}: ", item) for key, item in value.items()]
        if isinstance(value, dict)
        else [("", item) for item in value]
    )
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    lines = [start + opening]
    for key, item in pairs:
        lines += _layout(inner + key, item, indent + _INDENT, ",")
    return [*lines, " " * indent + closing + end]


def _literal(value: Any) -> str:
    """Write a JSON value as Python, with the quotes that ruff takes."""
    match value:
        case str():
            text = json.dumps(value, ensure_ascii=False)
            return text if text.isprintable() else json.dumps(value)
        case list():
            return f"[{', '.join(map(_literal, value))}]"
        case dict():
            return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
        case _:
            return repr(value)


def _is_variable(value: Any) -> bool:
    return any(mark in _literal(value) for mark in _VARIABLE)


def _is_name(key: str) -> bool:
    return key.isidentifier() and not keyword.iskeyword(key)


def _own_result(step: Step) -> dict[str, Any] | None:
    """Find how the event that a step sends has ended, if it did so at once and raised nothing."""
    if step.verb != "send" or step.at_once.errors:
        return None
    return next((each for who, at, each in step.at_once.results if (who, at) == step.event), None)


def _shows(step: Step) -> bool:
    """Tell whether anything came of a step that a test can see."""
    empty = type(step.at_once)()
    return step.at_once != empty or step.later != empty
