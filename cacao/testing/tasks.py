"""Where tasks are, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import trio

from cacao.errands import Errand

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["describe_task", "needs_real_time", "system_tasks", "tasks_below"]

_WAITS_FOR_THREADS = {trio.to_thread.run_sync.__code__, Errand.result.__code__}
_TRIO = str(Path(trio.__file__).parent)


def describe_task(task: trio.lowlevel.Task) -> str:
    """Name a task and the line it stands at: the innermost one that is not trio's."""
    place = "its first line"
    for frame, line in task.iter_await_frames():
        if not _is_trio(frame):
            place = f"{frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return f"task {task.name!r} at {place}"


def needs_real_time(task: trio.lowlevel.Task) -> bool:
    """Tell whether a task waits for a thread, or for asyncio in one, which no clock can hurry."""
    return any(frame.f_code in _WAITS_FOR_THREADS for frame, _ in task.iter_await_frames())


def tasks_below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """Go through all tasks in the nurseries of a task, and in theirs, the outer ones first."""
    waiting = [task]
    while waiting:
        parent = waiting.pop()
        for nursery in parent.child_nurseries:
            children = list(nursery.child_tasks)
            yield from children
            waiting.extend(children)


def system_tasks() -> Iterator[trio.lowlevel.Task]:
    """Go through the tasks that belong to the run as a whole, not to its main function."""
    root = trio.lowlevel.current_root_task()
    if root is not None:
        # The run's nurseries nest: trio's own jobs, then system tasks, then the main function.
        for nursery in root.child_nurseries[:2]:
            yield from nursery.child_tasks


def _is_trio(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(_TRIO)
