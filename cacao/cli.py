"""The command `cacao`: serve the app that a file or a module makes, record it, replay it."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from datetime import UTC, datetime
from getpass import getpass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cacao import __version__
from cacao.app import App
from cacao.errors import HostingError
from cacao.recording.as_test import write_test
from cacao.recording.recorder import record
from cacao.recording.replay import play
from cacao.recording.tape import Header, Tape, TapeError, read_tape

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__all__ = ["main"]

_DEFAULT_NAME = "app"
_MAX_PORT = 2**16 - 1

# Whose frames stand above the author's in the traceback of an import.
_IMPORTERS = ("<frozen importlib", importlib.__file__, __file__)


class _NoAppError(Exception):
    """What was named on the command line is no App."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks for, and give the exit code.

    What is wrong with the command line is told in one line; an error in the author's file shows
    its traceback, without our part of it.

    Args:
        arguments: The words after `cacao`; by default those of this process.

    Raises:
        SystemExit: After help, a version, or an error, as `argparse` does.
    """
    words = _parser().parse_args(arguments)
    try:
        return int(words.do(words))
    except (_NoAppError, HostingError, TapeError) as error:
        _complain(str(error))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cacao", description="Serve, record, replay a Cacao app.")
    parser.add_argument("--version", action="version", version=f"cacao {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve an app until Ctrl-C or SIGTERM")
    run.set_defaults(do=_run)
    run.add_argument(
        "target",
        metavar="FILE_OR_MODULE[:NAME]",
        help="app.py or package.module; the NAME of its App, if it has several and none is 'app'",
    )
    run.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    run.add_argument(
        "--port", type=_port, default=8000, help="TCP port (%(default)s); 0 picks a free one"
    )
    run.add_argument(
        "--record", metavar="FILE", type=Path, help="write down all that clients and server say"
    )
    run.add_argument(
        "--record-others",
        action="store_true",
        help="also on an address that other machines reach",
    )
    run.add_argument(
        "--seed", type=int, default=0, help="of a recording: the order of ready tasks (%(default)s)"
    )
    replay = commands.add_parser("replay", help="play a recording again, and compare each frame")
    replay.set_defaults(do=_replay)
    replay.add_argument("file", metavar="FILE", type=Path)
    replay.add_argument("--app", metavar="TARGET", help="the app, if it is elsewhere by now")
    replay.add_argument(
        "--secret",
        metavar="EVENT.FIELD[=VALUE]",
        type=_secret,
        action="append",
        default=[],
        help="what is masked in the recording; without a value it is asked for",
    )
    replay.add_argument(
        "--to-test",
        metavar="TEST_FILE",
        type=Path,
        nargs="?",
        const=Path(),
        help="write a pytest file instead (test_recorded.py beside the app)",
    )
    return parser


def _run(words: argparse.Namespace) -> int:
    app, target = _find_app(words.target)
    if words.record is None:
        app.run(port=words.port, host=words.host)
        return 0
    if not (words.record_others or _is_for_us_alone(words.host)):
        raise TapeError(
            f"--record writes down what everybody types who can reach {words.host}; "
            "record on 127.0.0.1, or say --record-others"
        )
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    with Tape(
        words.record, Header(app=target, seed=words.seed, started=now, version=__version__)
    ) as tape:
        _complain(f"what users of this server type is written to {words.record}")
        try:
            record(app, tape, host=words.host, port=words.port)
        except HostingError:
            words.record.unlink()  # there is nothing in it
            raise
    return 0


def _is_for_us_alone(host: str) -> bool:
    """Tell whether only this machine reaches an address to listen on."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _replay(words: argparse.Namespace) -> int:
    header, entries = read_tape(words.file)
    app, target = _find_app(words.app or header.app)
    if words.to_test is not None:
        path, unstable = write_test(target, header, entries, words.to_test, dict(words.secret))
        but = f", and does not assert what depends on real time: {', '.join(unstable)}"
        _say(f"{path} passes{but if unstable else ''}")
        return 0
    played = play(app, header, entries, dict(words.secret))
    if played.difference is None:
        end = "" if played.is_whole else ", up to where the recording was cut off"
        _say(f"{played.events} events, {played.frames} frames: the same{end}")
        return 0
    _say(f"after {played.frames} frames that are the same, {played.difference.describe()}")
    masked = {name for entry in entries for name in entry.secrets} - dict(words.secret).keys()
    if masked:
        _complain(
            "what was typed in secret is masked in the recording, and the app got that now; if it "
            f"needs the secret, give it: --secret {min(masked)}"
        )
    return 1


def _secret(word: str) -> tuple[str, str]:
    name, is_given, value = word.partition("=")
    return name, value if is_given else getpass(f"{name}: ")


def _say(text: str) -> None:
    print(text)  # noqa: T201 - a command speaks so


def _complain(text: str) -> None:
    print(f"cacao: {text}", file=sys.stderr)  # noqa: T201 - the same


def _port(word: str) -> int:
    port = int(word)
    if not 0 <= port <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{port} is no TCP port; give one up to {_MAX_PORT}")
    return port


def _find_app(target: str) -> tuple[App, str]:
    """Find an app, and how it is to be named so that it is found again."""
    where, colon, name = target.rpartition(":")
    if not colon:
        where, name = target, ""
    module = _import(where)
    name = name or _only_name(module, where)
    return _app_called(name, module, where), f"{where}:{name}"


def _app_called(name: str, module: ModuleType, where: str) -> App:
    found = getattr(module, name, None)
    if isinstance(found, App):
        return found
    what = f"no {name!r}" if found is None else f"{name!r} of type {type(found).__name__}, no App"
    raise _NoAppError(f"{where} has {what}; {_next_step(module, where)}")


def _only_name(module: ModuleType, where: str) -> str:
    apps = _apps(module)
    if _DEFAULT_NAME in apps:
        return _DEFAULT_NAME
    if len(set(apps.values())) != 1:
        count = len(apps) or "no"
        raise _NoAppError(f"{where} makes {count} Apps; {_next_step(module, where)}")
    return next(iter(apps))


def _next_step(module: ModuleType, where: str) -> str:
    apps = _apps(module)
    if not apps:
        return "write app = App() there"
    return "name one: " + " or ".join(f"cacao run {where}:{name}" for name in apps)


def _apps(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _import(where: str) -> ModuleType:
    """Import a file, with its folder on the path as `python file.py` has it, or a module."""
    if where.endswith(".py") or "/" in where:
        return _import_file(Path(where))
    sys.path.insert(0, "")
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{where}.".startswith(f"{error.name}."):
            raise _NoAppError(_not_there(where)) from None
        _show_and_exit(error)
    except Exception as error:  # noqa: BLE001 - the author's, and shown
        _show_and_exit(error)


def _not_there(where: str) -> str:
    if Path(f"{where}.py").is_file():
        return f"no module {where!r}; do you mean: cacao run {where}.py"
    return f"no module {where!r} here; give a file, such as app.py, or a module that imports"


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _NoAppError(f"no file '{path}' in {Path.cwd()}; give the file that makes the App")
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise _NoAppError(f"'{path}' is no Python file; give the file that makes the App")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # for its neighbours, and for pickle
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - the author's, and shown
        _show_and_exit(error)
    return module


def _show_and_exit(error: Exception) -> NoReturn:
    """Show an error of the author's as running the file would, and exit with 1."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_IMPORTERS):
        frames = frames.tb_next
    traceback.print_exception(error.with_traceback(frames))
    raise SystemExit(1)
