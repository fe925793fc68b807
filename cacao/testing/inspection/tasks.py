"""Tasks, in words: where each is, what it waits for, and where it was started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacao.testing.inspection.frames import authors, innermost, name_spot, near
from cacao.testing.inspection.origins import start_of
from cacao.testing.inspection.waits import describe_wait

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    import trio

__all__ = ["describe_task", "is_below", "is_only_around", "tasks_below"]


def describe_task(task: trio.lowlevel.Task) -> str:
    """Name a task, the author's line at which it stands, and what else is known of it.

    Must be called in the task's run.
    """
    frames = list(task.iter_await_frames())
    spot = innermost(frames)
    place = "inside trio" if spot is None else f"at {name_spot(spot)}"
    facts = [fact for fact in (describe_wait(frames), _describe_start(task, frames)) if fact]
    return f"task {task.name!r} {place}" + (f" ({'; '.join(facts)})" if facts else "")


def _describe_start(task: trio.lowlevel.Task, frames: list[tuple[FrameType, int]]) -> str | None:
    """Tell who has started a task: a line of the author's; or Cacao, and then for what."""
    start = start_of(task)
    if start is not None and start.spot is not None:
        return f"started at {name_spot(start.spot)}"
    job = next((frame.f_code for frame, _ in frames if authors(frame.f_code)), None)
    if job is None:
        return None
    return f"started for {job.co_name}, declared at {near(job.co_filename)}:{job.co_firstlineno}"


def tasks_below(task: trio.lowlevel.Task) -> Iterator[trio.lowlevel.Task]:
    """Go through all tasks in the nurseries of a task, and in theirs, the outer ones first."""
    waiting = [task]
    while waiting:
        parent = waiting.pop()
        for nursery in parent.child_nurseries:
            children = list(nursery.child_tasks)
            yield from children
            waiting.extend(children)


def is_below(task: trio.lowlevel.Task, owners: frozenset[trio.lowlevel.Task]) -> bool:
    """Tell whether a task is in a nursery of one of these, or in one of theirs."""
    nursery = task.parent_nursery
    while nursery is not None:
        if nursery.parent_task in owners:
            return True
        nursery = nursery.parent_task.parent_nursery
    return False


def is_only_around(task: trio.lowlevel.Task) -> bool:
    """Tell whether a task runs nothing of the author's itself, and waits for those below it."""
    return any(tasks_below(task)) and not any(
        authors(frame.f_code) for frame, _ in task.iter_await_frames()
    )
