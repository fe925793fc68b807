"""What an app under test has taken and not given back: files, sockets, subscriptions, threads.

How it works. Python tells *audit hooks* of each file that is about to be opened, each socket that
is made, each thread that is started; `Signal.subscribe` tells them, too. A hook cannot be removed,
so there is one for the process, from the first world on, and it looks for whom the code runs (see
`origins.py`): what the test itself opens is not the app's. Only what the author's code asks for
counts, directly or through the standard library; not what a library or Cacao opens for itself.

Which descriptor a file will get is not told, but the system gives the lowest one that is free. It
is noted with the file's path, until anyone opens a file that gets it anew.
"""

# ruff: noqa: SLF001 - who subscribes to a signal is nobody else's business

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary, ref

from cacao.reactive import Signal
from cacao.testing.inspection.frames import Spot, authors, name_spot, nearest
from cacao.testing.inspection.origins import current_start, start_in
from cacao.testing.inspection.waits import (
    abandoned_threads,
    is_trios,
    name_thread,
    runs_authors,
    spot_of,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from types import FrameType

    from cacao.testing.inspection.origins import Start

__all__ = ["Taken", "hear_of_takings"]

# Devices and the system's own tables have no end that could be forgotten.
_NO_FILES = tuple(f"{os.sep}{name}{os.sep}" for name in ("dev", "proc", "sys"))


class _File(NamedTuple):
    """A file that was opened, as far as that is known."""

    taken: ref[Taken]
    path: str
    spot: Spot


# What tells of a taking from a frame of its own.
_TELLERS = {Signal.subscribe.__code__}

# By descriptor. Of the whole process, as descriptors are.
_files: dict[int, _File] = {}


class Taken:
    """What one app under test has taken. It keeps none of it alive."""

    def __init__(self) -> None:
        self._sockets: WeakKeyDictionary[socket.socket, Spot] = WeakKeyDictionary()
        self._threads: WeakKeyDictionary[threading.Thread, Spot] = WeakKeyDictionary()
        self._subscriptions: WeakKeyDictionary[Signal[Any], dict[object, Spot]] = (
            WeakKeyDictionary()
        )

    def add_file(self, descriptor: int, path: str, spot: Spot) -> None:
        """Note that a file is about to be opened."""
        _files[descriptor] = _File(ref(self), path, spot)

    def add_socket(self, made: socket.socket, spot: Spot) -> None:
        """Note a new socket."""
        self._sockets[made] = spot

    def add_thread(self, thread: threading.Thread, spot: Spot) -> None:
        """Note a new thread."""
        self._threads[thread] = spot

    def add_subscription(self, signal: Signal[Any], token: object, spot: Spot) -> None:
        """Note a new subscriber of a signal, and forget those that have ended."""
        live = signal._subscribers or {}
        noted = self._subscriptions.get(signal, {})
        still = {each: noted[each] for each in noted if each in live}
        self._subscriptions[signal] = {**still, token: spot}

    def held(self) -> Iterator[str]:
        """Describe what has not been given back, but for threads."""
        for descriptor, file in list(_files.items()):
            if file.taken() is self and _is_open(descriptor, file.path):
                yield f"file {file.path!r}, opened at {name_spot(file.spot)}"
        for made, spot in list(self._sockets.items()):
            if made.fileno() >= 0:
                yield f"{_name_socket(made)}, opened at {name_spot(spot)}"
        for signal, noted in list(self._subscriptions.items()):
            for token, spot in noted.items():
                callback = (signal._subscribers or {}).get(token)
                if callback is not None:
                    name = getattr(callback, "__qualname__", repr(callback))
                    yield (
                        f"subscription of {name} to signal {signal.label!r}, "
                        f"made at {name_spot(spot)}"
                    )

    def threads_at_work(self) -> Iterator[str]:
        """Describe the threads that run the author's code, and that no task waits for."""
        stacks = sys._current_frames()
        if len(stacks) == 1:
            return
        for thread, spot in list(self._threads.items()):
            stack = stacks.get(thread.ident or 0)
            if stack is not None and _is_at_work(thread, stack):
                name = name_thread(stack, _function_of(thread))
                yield f"{name}, started at {name_spot(spot)}"
        for context, stack, function in abandoned_threads():
            start = start_in(context)
            if start is not None and start.taken is self:
                yield f"{name_thread(stack, function)}, abandoned by task {start.name!r}"


@cache
def hear_of_takings() -> None:
    """Install the hook, once in a process."""
    sys.addaudithook(_hear)
    if sys.version_info < (3, 12):
        _tell_of_threads(threading)


def _tell_of_threads(module: Any) -> None:
    """Let the threads of a Python be told of that does not do so itself."""
    begin = module._start_new_thread

    def tell_and_begin(function: Callable[..., object], *arguments: object) -> object:
        sys.audit("_thread.start_new_thread", function)
        return begin(function, *arguments)

    module._start_new_thread = tell_and_begin
    _TELLERS.add(tell_and_begin.__code__)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    note = _NOTES.get(event)
    if note is None:
        return
    frame = sys._getframe(1)
    with suppress(Exception):  # what a hook raises would keep the author's file from opening
        start = current_start()
        note(start, None if start is None else _spot_of_taker(start, frame), arguments)


def _note_file(start: Start | None, spot: Spot | None, arguments: tuple[Any, ...]) -> None:
    path = arguments[0]
    if isinstance(path, int) or (spot is None and not _files):
        return  # a descriptor that is opened already, or nothing that matters
    descriptor = _next_descriptor()
    _files.pop(descriptor, None)
    name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 -- no Path, which costs more
    if start is not None and spot is not None and not name.startswith(_NO_FILES):
        start.taken.add_file(descriptor, name, spot)


def _note_socket(start: Start | None, spot: Spot | None, arguments: tuple[Any, ...]) -> None:
    if start is not None and spot is not None:
        start.taken.add_socket(arguments[0], spot)


def _note_thread(start: Start | None, spot: Spot | None, arguments: tuple[Any, ...]) -> None:
    thread = getattr(arguments[0], "__self__", None)  # of its bound method `_bootstrap`
    if start is not None and spot is not None and isinstance(thread, threading.Thread):
        start.taken.add_thread(thread, spot)


def _note_subscription(start: Start | None, spot: Spot | None, arguments: tuple[Any, ...]) -> None:
    if start is not None and spot is not None:
        start.taken.add_subscription(arguments[0], arguments[1], spot)


_NOTES: dict[str, Callable[[Start | None, Spot | None, tuple[Any, ...]], None]] = {
    "open": _note_file,
    "sqlite3.connect": _note_file,
    "socket.__new__": _note_socket,
    "_thread.start_new_thread": _note_thread,
    "_thread.start_joinable_thread": _note_thread,  # from Python 3.13 on
    "cacao.subscribe": _note_subscription,
}


def _spot_of_taker(start: Start, frame: FrameType) -> Spot | None:
    """Find the author's line that takes something; None if it is taken by others.

    Args:
        start: Of the task for which the code runs.
        frame: Of the function that takes it.
    """
    if frame.f_code in _TELLERS:
        frame = frame.f_back or frame
    owner, spot = nearest(frame)
    task = start.task()
    if owner is not None or task is None:
        return spot if owner == "author" else None
    # Plumbing alone, such as `trio.open_file` in its thread: the author's line is in the task.
    return spot_of(task) or start.spot


def _next_descriptor() -> int:
    """Tell which descriptor the system gives next; -1 if it has none left."""
    ends: tuple[int, ...] = ()
    with suppress(OSError):
        ends = os.pipe()
    for end in ends:
        os.close(end)
    return min(ends, default=-1)


def _is_open(descriptor: int, path: str) -> bool:
    """Tell whether a descriptor still stands for the file of this path, or for a deleted one."""
    try:
        here = os.fstat(descriptor)
    except OSError:
        return False
    try:
        return here.st_nlink == 0 or os.path.samestat(here, os.stat(path))  # noqa: PTH116
    except OSError:
        return False


def _name_socket(made: socket.socket) -> str:
    ends = []
    for ask in (made.getsockname, made.getpeername):
        with suppress(OSError):
            ends.append(str(ask()))
    return f"socket {' to '.join(ends) or made.fileno()}"


def _is_at_work(thread: threading.Thread, stack: FrameType) -> bool:
    """Tell a thread that has something of the author's to do from one of a pool that waits."""
    if is_trios(stack):
        return False  # which is named by the task that waits for it, or as an abandoned one
    code = getattr(_function_of(thread), "__code__", None)  # a builtin has none
    return code is None or authors(code) or runs_authors(stack)


def _function_of(thread: threading.Thread) -> Any:
    """Give what a thread, or a `threading.Timer`, was made to run."""
    return getattr(thread, "_target", None) or getattr(thread, "function", None) or thread.run
