"""What a blocked task waits for, in words, where trio's clock or a thread has to bring it."""

from __future__ import annotations

import math
import sys
from functools import partial
from inspect import isbuiltin
from typing import TYPE_CHECKING, Any

import trio

from cacao.errands import Errand
from cacao.testing.clock import StepClock
from cacao.testing.inspection.frames import Spot, authors, innermost, name_spot, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextvars import Context
    from types import FrameType

    Frames = list[tuple[FrameType, int]]

__all__ = [
    "abandoned_threads",
    "describe_wait",
    "is_trios",
    "name_thread",
    "needs_real_time",
    "runs_authors",
    "spot_of",
]

_SLEEPS = {trio.sleep_until.__code__, StepClock.sleep_until.__code__}
_THREAD = trio.to_thread.run_sync.__code__
_ERRAND = Errand.result.__code__
# Trio's own functions, known by their names: in a thread, around what the author has asked for;
# and in the task that waits for it, around what the thread has asked for in turn.
_IN_THREAD = "worker_fn"
_CALLED_BACK = "unprotected_afn"


def needs_real_time(task: trio.lowlevel.Task) -> bool:
    """Tell whether a task waits for a thread, or for asyncio in one, which no clock can hurry."""
    needs = False
    for frame, _ in task.iter_await_frames():
        if frame.f_code is _THREAD or frame.f_code is _ERRAND:
            needs = True
        elif frame.f_code.co_name == _CALLED_BACK:
            needs = False  # the thread waits for what this task does for it
    return needs


def spot_of(task: trio.lowlevel.Task) -> Spot | None:
    """Find the author's line at which a task is, whether it waits or runs; in any thread."""
    outermost: FrameType | None = getattr(task.coro, "cr_frame", None)
    for stack in _stacks():
        if any(
            frame is outermost for frame in _outward(stack)
        ):  # only what is suspended can be asked for its frames
            return nearest(stack)[1]
    spot = innermost(task.iter_await_frames())
    return spot if spot is not None and authors(spot[0]) else None


def describe_wait(frames: Frames) -> str | None:
    """Tell what a task waits for, if it is the time, a thread, or asyncio.

    Args:
        frames: The task's, the outer ones first.
    """
    for frame, _ in reversed(frames):
        if frame.f_code in _SLEEPS:
            return _describe_timer(frame.f_locals["deadline"])
        if frame.f_code is _THREAD:
            return _describe_thread(frame)
        if frame.f_code is _ERRAND:
            return _describe_errand(frame.f_locals["self"])
    return None


def _describe_timer(deadline: float) -> str:
    if deadline == math.inf:
        return "timer that is never due"
    clock = trio.lowlevel.current_clock()
    kind = "" if type(clock).__name__ == "SystemClock" else " (virtual)"
    return f"timer due in {deadline - clock.current_time():g} s{kind}"


def _describe_thread(frame: FrameType) -> str:
    context = frame.f_locals.get("context")
    for worker, stack in _workers():
        if worker.f_locals.get("context") is context:
            return f"waits for {name_thread(stack, frame.f_locals['sync_fn'])}"
    return f"waits for a place or a thread to run {_name_function(frame.f_locals['sync_fn'])!r}"


def _describe_errand(errand: Any) -> str:
    """Tell where an errand's coroutine stands on the asyncio side."""
    coroutine = errand.task.get_coro()
    frames = []
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        frames.append((frame, frame.f_lineno))
        coroutine = coroutine.cr_await
    spot = innermost(frames)
    place = "its end" if spot is None else name_spot(spot)
    return f"waits for asyncio, which is at {place}"


def abandoned_threads() -> Iterator[tuple[Context, FrameType, Any]]:
    """Go through the threads of trio's that run the author's code and have nobody waiting.

    Yields:
        The context in which each runs, the innermost frame of it, and its function.
    """
    for worker, stack in _workers():
        waiting, context = (worker.f_locals.get(name) for name in ("task_register", "context"))
        if waiting == [None] and context is not None and runs_authors(stack):
            yield context, stack, worker.f_locals.get("sync_fn")


def _workers() -> Iterator[tuple[FrameType, FrameType]]:
    """Go through trio's threads at work: the frame that began the work, and the innermost one."""
    for stack in _stacks():
        for frame in _outward(stack):
            if frame.f_code.co_name == _IN_THREAD:
                yield frame, stack


def _stacks() -> tuple[FrameType, ...]:
    """Give the innermost frame of each thread."""
    return tuple(sys._current_frames().values())  # noqa: SLF001 -- public but for its name


def is_trios(stack: FrameType) -> bool:
    """Tell whether a thread, given its innermost frame, works for a task."""
    return any(frame.f_code.co_name == _IN_THREAD for frame in _outward(stack))


def runs_authors(stack: FrameType) -> bool:
    """Tell whether a thread, given its innermost frame, runs anything of the author's."""
    return any(authors(frame.f_code) for frame in _outward(stack))


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def name_thread(stack: FrameType, function: Any) -> str:
    """Name a thread by the author's function that it runs, and the line at which it is.

    Args:
        stack: Its innermost frame.
        function: What it was started for: its name, if it runs nothing of the author's.
    """
    frames = [(frame, frame.f_lineno) for frame in _outward(stack)][::-1]
    first = next((frame.f_code for frame, _ in frames if authors(frame.f_code)), None)
    spot = innermost(frames)  # a builtin has none
    name = _name_function(function) if first is None else first.co_qualname
    return f"thread {name!r}" + ("" if spot is None else f", which is at {name_spot(spot)}")


def _name_function(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    name = getattr(function, "__qualname__", repr(function))
    module = function.__module__ if isbuiltin(function) else None
    return f"{module}.{name}" if module else name
