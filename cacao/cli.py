"""The command `cacao`: serve the app that a file or a module makes."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cacao import __version__
from cacao.app import App
from cacao.errors import HostingError

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
        app = _find_app(words.target)
        app.run(port=words.port, host=words.host)
    except (_NoAppError, HostingError) as error:
        print(f"cacao: {error}", file=sys.stderr)  # noqa: T201 - a command speaks so
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cacao", description="Serve a Cacao app.")
    parser.add_argument("--version", action="version", version=f"cacao {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="serve an app until Ctrl-C or SIGTERM")
    run.add_argument(
        "target",
        metavar="FILE_OR_MODULE[:NAME]",
        help="app.py or package.module; the NAME of its App, if it has several and none is 'app'",
    )
    run.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    run.add_argument(
        "--port", type=_port, default=8000, help="TCP port (%(default)s); 0 picks a free one"
    )
    return parser


def _port(word: str) -> int:
    port = int(word)
    if not 0 <= port <= _MAX_PORT:
        raise argparse.ArgumentTypeError(f"{port} is no TCP port; give one up to {_MAX_PORT}")
    return port


def _find_app(target: str) -> App:
    where, colon, name = target.rpartition(":")
    if not colon:
        where, name = target, ""
    module = _import(where)
    return _app_called(name, module, where) if name else _only_app(module, where)


def _app_called(name: str, module: ModuleType, where: str) -> App:
    found = getattr(module, name, None)
    if isinstance(found, App):
        return found
    what = f"no {name!r}" if found is None else f"{name!r} of type {type(found).__name__}, no App"
    raise _NoAppError(f"{where} has {what}; {_next_step(module, where)}")


def _only_app(module: ModuleType, where: str) -> App:
    apps = _apps(module)
    if _DEFAULT_NAME in apps:
        return apps[_DEFAULT_NAME]
    if len(set(apps.values())) != 1:
        count = len(apps) or "no"
        raise _NoAppError(f"{where} makes {count} Apps; {_next_step(module, where)}")
    return next(iter(apps.values()))


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
