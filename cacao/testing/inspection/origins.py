"""Where each task of an app under test was started, and by that, which tasks are the app's.

How it works. Trio tells an instrument of each new task while its starter is on the stack. What is
found there is put into the task's own context, from where it goes along: to the tasks that it
starts, wherever it puts them, and to the threads that trio runs for it. So anything can be asked
later, in whatever thread, for which app it runs; and nothing is kept of a task that has ended.
"""

from __future__ import annotations

import contextvars
import sys
import weakref
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from cacao.testing.inspection.frames import Spot, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cacao.testing.inspection.taken import Taken

__all__ = ["Origins", "Start", "current_start", "start_in", "start_of"]


class Start(NamedTuple):
    """How a task came to be.

    Attributes:
        taken: What its app has taken.
        task: The task.
        name: What it is called.
        spot: The author's line that started it, or one of the tasks above it; None if Cacao did.
    """

    taken: Taken
    task: weakref.ref[trio.lowlevel.Task]
    name: str
    spot: Spot | None


_start: contextvars.ContextVar[Start] = contextvars.ContextVar("cacao_start")


def current_start() -> Start | None:
    """Tell for which task of an app under test this code runs, in whatever thread; if any."""
    return _start.get(None)


def start_in(context: contextvars.Context) -> Start | None:
    """Tell for which task of an app under test code runs in a context; if any."""
    return context.get(_start)


def start_of(task: trio.lowlevel.Task) -> Start | None:
    """Tell how a task came to be; None if it is of no app under test."""
    return task.context.get(_start)


class Origins(trio.abc.Instrument):
    """Notes where the tasks of one app are started.

    Args:
        taken: Of that app.
    """

    def __init__(self, taken: Taken) -> None:
        self._taken = taken

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count what begins below this task, within the block, as the app's."""
        task = trio.lowlevel.current_task()
        _start.set(Start(self._taken, weakref.ref(task), task.name, None))
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    def owns(self, task: trio.lowlevel.Task) -> bool:
        """Tell whether a task is the app's."""
        start = start_of(task)
        return start is not None and start.taken is self._taken

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Note where a task was started, if it is one of the app's. Called by trio."""
        nursery = task.parent_nursery
        above = None if nursery is None else start_of(nursery.parent_task)
        is_below = above is not None and above.taken is self._taken
        starter = _start.get(None)
        if not is_below and (starter is None or starter.taken is not self._taken):
            return
        owner, spot = nearest(sys._getframe(1))  # noqa: SLF001 -- what `inspect` does, faster
        if not is_below and owner == "cacao":
            return  # a system task of Cacao's own, which ends with the run
        if spot is None and above is not None:
            spot = above.spot
        start = Start(self._taken, weakref.ref(task), task.name, spot)
        with suppress(RuntimeError):  # the starter's own context, given to the new task as well
            task.context.run(_start.set, start)
