"""What an app under test looks like right now, in words: for the report of a test that failed.

It only looks: nothing of the app runs but the computed signals that are out of date. Whatever
cannot be told is said to be so; a look never raises.
"""

# ruff: noqa: SLF001 -- it looks at what others keep for themselves, and changes nothing

from __future__ import annotations

import shutil
from functools import partial
from traceback import format_exception_only
from typing import TYPE_CHECKING, Any

import orjson

from cacao.protocol import encode_value
from cacao.reactive import Computed, Signal
from cacao.testing.client_half import ClientHalf
from cacao.testing.inspection.difference import brief, differences
from cacao.testing.inspection.tree import draw, grow
from cacao.testing.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cacao.session import Session
    from cacao.testing.line import Frame, Line
    from cacao.testing.sockets.live_world import LiveWorld
    from cacao.testing.stage import Stage

__all__ = ["describe_stage", "describe_world"]

_MOST_TASKS = 100  # lines of the tree
_MOST_CLIENTS = 10
_MOST_VALUES = 20  # of one client, that differ
_LAST_FRAMES = 8
_WIDEST = 160
_BEAT = {"type": "beat"}
# What may take a session up again is nobody's business, and what is random tells nothing.
_FOLDED = {"type", "rev", "token", "resume", "sessionId", "errorId", "patches", "lastEvent"}


def describe_world(world: World | LiveWorld) -> str:
    """Describe the app of a synchronous client, whatever state its world is in."""
    tell = partial(_world, world) if isinstance(world, World) else partial(_live_world, world)
    return _fitting(_safely(tell))


def describe_stage(stage: Stage) -> str:
    """Describe a run of an app: its tasks, its clients, what they show, and what they do not.

    Must be called in the run.

    Returns:
        Lines that fit the terminal.
    """
    return _fitting(
        _safely(partial(_stage, stage, lambda: f"{_seconds(stage.time)} after the start"))
    )


def _world(world: World) -> list[str]:
    state = "; it goes no further" if world.is_broken else ""
    title = f"{_seconds(world.time)} of virtual time, seed {world.seed}{state}"
    return world._pump.call(_stage, world.stage, lambda: title)


def _live_world(world: LiveWorld) -> Iterator[str]:
    yield f"{_seconds(world.time)} of real time, the server is not in this process"
    yield from _clients(world.lines, None)


def _stage(stage: Stage, title: Callable[[], str]) -> list[str]:
    tree = _safely(lambda: draw(grow(stage)))
    return [title(), "", *_some(tree, _MOST_TASKS), *_clients(stage.lines, stage)]


def _safely(tell: Callable[[], Iterable[str]]) -> list[str]:
    """Give the lines that `tell` gives, as far as it gets."""
    lines: list[str] = []
    try:
        lines.extend(tell())
    except Exception as error:  # noqa: BLE001 -- the test has failed for another reason
        *_, what = format_exception_only(error)
        lines.append(f"(what follows cannot be told: {what.strip()})")
    return lines


def _seconds(time: float) -> str:
    return f"{time:.3f}".rstrip("0").rstrip(".") + " s"


def _some(lines: list[str], most: int) -> list[str]:
    left_out = len(lines) - most
    return lines if left_out <= 0 else [*lines[:most], f"and {left_out} more lines"]


def _fitting(lines: list[str]) -> str:
    """Let no line be wider than the terminal."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    one_by_one = (" ".join(line.splitlines()) for line in lines)
    return "\n".join(line if len(line) <= width else line[: width - 1] + "…" for line in one_by_one)


# --- Clients -----------------------------------------------------------------------------------


def _clients(lines: list[Line], stage: Stage | None) -> Iterator[str]:
    for line in lines[:_MOST_CLIENTS]:
        facts = ", ".join(_safely(partial(_connection, line)))
        yield ""
        yield f"{line.name} ({facts})" if facts else line.name
        if stage is not None and line.closing is None:
            yield from _safely(partial(_state, stage, line))
        yield from _safely(partial(_frames, line.frames))
    if len(lines) > _MOST_CLIENTS:
        yield ""
        yield f"and {len(lines) - _MOST_CLIENTS} more clients"


def _connection(line: Line) -> Iterator[str]:
    """Tell what is wrong with a client's connection, if anything is."""
    if line.closing is not None:
        yield f"closed with {line.closing.code}: {line.closing.reason}"
        return
    yield from line.network.troubles()
    waiting = sum(not sent.session_id and sent.result is None for sent in line.half.events)
    if waiting:
        yield f"events that wait for it: {waiting}"


def _state(stage: Stage, line: Line) -> list[str]:
    """Compare what a client shows with what the server has."""
    session = stage.runtime.sessions.get(line.half.session_id)
    if session is None:
        return ["  its session has ended"]
    found = differences(line.half.state, _values(stage, session))
    lines = [f"  {place}: shows {mine}, the server has {theirs}" for place, mine, theirs in found]
    return _some(lines, _MOST_VALUES)


def _values(stage: Stage, session: Session) -> dict[str, Any]:
    """Give the values of a session by name; of one that cannot be had, what it raises."""
    values: dict[str, Any] = {}
    for signal in stage._app.registry.synced:
        if isinstance(signal, Signal | Computed):
            try:
                values[signal.label] = orjson.loads(
                    encode_value(signal.label, signal.peek(session))
                )
            except Exception as error:  # noqa: BLE001 -- the author's code, asked for a report
                values[signal.label] = error
    return values


# --- Frames ------------------------------------------------------------------------------------


def _frames(frames: list[Frame]) -> Iterator[str]:
    """Write the last frames, with what each has changed; heartbeats would crowd out the others."""
    told = [(frame, _message(frame)) for frame in frames]
    told = [(frame, message) for frame, message in told if message != _BEAT]
    begin = max(len(told) - _LAST_FRAMES, 0)
    if begin:
        yield f"  the last {_LAST_FRAMES} of {len(told)} frames:"
    widest = max((len(_seconds(frame.time)) for frame, _ in told[begin:]), default=0)
    seen = ClientHalf(is_numbered=False)
    for number, (frame, message) in enumerate(told):
        before = seen.state
        if frame.direction == "received" and message:
            seen.receive(message)
        if number >= begin:
            arrow = "←" if frame.direction == "received" else "→"
            text = _frame(message, before, seen.state) if message else brief(frame.text, _WIDEST)
            yield f"  {_seconds(frame.time):>{widest}} {arrow} {text}"


def _message(frame: Frame) -> dict[str, Any] | None:
    """Decode a frame; None if it is none of the protocol's, as a test may send."""
    try:
        message = frame.message
    except ValueError:
        return None
    return message if isinstance(message, dict) and "type" in message else None


def _frame(message: dict[str, Any], before: dict[str, Any], after: dict[str, Any]) -> str:
    match message:
        case {"type": "update"}:
            changes = [f"{place}: {old} -> {new}" for place, old, new in differences(before, after)]
            return f"update {', '.join(changes) or '(no change)'}"
        case {"type": "init", "state": state}:
            values = [f"{name}: {brief(value)}" for name, value in state.items()]
            return f"init ({message.get('outcome', 'fresh')}) {', '.join(values)}".rstrip()
        case {"type": "hello", "resume": _}:
            return "hello, to take its session up again"
        case {"type": "event", "name": name}:
            return f"event{_number(message)} {name} {brief(message.get('data', {}))}"
        case {"type": "result", "ok": True}:
            return f"result{_number(message)} ok"
        case {"type": "result" | "error" as kind, "code": code}:
            return f"{kind}{_number(message)} {code}: {message.get('message')}"
    rest = {name: value for name, value in message.items() if name not in _FOLDED}
    return f"{message['type']} {brief(rest, _WIDEST) if rest else ''}".rstrip()


def _number(message: dict[str, Any]) -> str:
    return f" #{message['id']}" if "id" in message else ""
