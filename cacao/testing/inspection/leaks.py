"""What an app has left behind when its last user is gone."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

import trio

from cacao.errors import CacaoError
from cacao.testing.inspection.origins import Origins
from cacao.testing.inspection.taken import Taken, hear_of_takings
from cacao.testing.inspection.tasks import describe_task, is_below, is_only_around, tasks_below

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

__all__ = ["LeakError", "Leaks"]

_POLL = 0.001


class LeakError(CacaoError):
    """Something outlived the app's last client: a task, a thread, a subscription, an open file.

    Attributes:
        leaks: One line for each thing, with where it was started or opened.
    """

    def __init__(self, leaks: Iterable[str]) -> None:
        self.leaks = tuple(sorted(leaks))
        super().__init__(
            "left behind after the last client had gone:\n"
            + "".join(f"  {leak}\n" for leak in self.leaks)
            + "start tasks in a nursery that ends with the session, or with the app; close, join "
            "and unsubscribe in 'finally' or by 'with'"
        )


class Leaks:
    """Watches one run of an app, and tells what it leaves behind."""

    def __init__(self) -> None:
        self._taken = Taken()
        self._origins = Origins(self._taken)
        self._own: frozenset[trio.lowlevel.Task] = frozenset()
        self._threads: list[str] = []

    def watch(self) -> AbstractContextManager[None]:
        """Count what this task starts and takes within the block, and all below it, as the app's.

        Watched are tasks wherever they are put, and what handlers and threads of trio's open.
        """
        hear_of_takings()
        self._root = trio.lowlevel.current_task()
        return self._origins.watch()

    def mark_start(self) -> None:
        """Take what runs now, and what that will start, for the app's own. Call it in the run."""
        self._own = frozenset(self._tasks())

    def tasks(self) -> dict[trio.lowlevel.Task, str]:
        """Find and describe the tasks that should have ended with the users. Call it in the run."""
        found = {task for task in self._tasks() if not is_below(task, self._own)} - self._own
        return {task: describe_task(task) for task in found if not is_only_around(task)}

    def things(self) -> list[str]:
        """Describe what should have been given back; to be asked when the app has ended.

        These are open files and sockets, subscriptions, and threads that were waited for in vain.
        """
        if any(self._taken.held()):
            gc.collect()  # what is only not collected yet, is closed now
        return [*self._taken.held(), *self._threads]

    def wait_for_strays(self, timeout: float) -> Iterator[float]:
        """Let the threads end that no task waits for; not for ever.

        Args:
            timeout: Real seconds.

        Yields:
            0: that many seconds its owner must let pass, before it goes on.
        """
        give_up = time.monotonic() + timeout
        while (threads := list(self._taken.threads_at_work())) and time.monotonic() < give_up:
            time.sleep(_POLL)
            yield 0
        self._threads = threads

    def _tasks(self) -> list[trio.lowlevel.Task]:
        root = trio.lowlevel.current_root_task()
        if root is None:
            return []
        return [
            task
            for task in tasks_below(root)
            if task is not self._root and self._origins.owns(task)
        ]
