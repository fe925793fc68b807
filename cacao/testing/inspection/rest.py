"""Waiting until threads have brought what tasks wait for, or telling which one never does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cacao.errors import HostingError
from cacao.testing.inspection.tasks import describe_task, tasks_below
from cacao.testing.inspection.waits import needs_real_time

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

__all__ = ["UnsettledError", "wait_for_threads"]

_POLL = 0.001


class UnsettledError(HostingError):
    """An app did not come to rest, for some task waits for a thread that does not end.

    Attributes:
        tasks: One line for each such task.
    """

    def __init__(self, tasks: tuple[str, ...], timeout: float) -> None:
        self.tasks = tasks
        super().__init__(
            f"not at rest after {timeout:g} s of real time:\n"
            + "".join(f"  {task}\n" for task in tasks)
            + "let the thread end, replace its work in the test, or wait with "
            "wait(predicate) for what the test needs"
        )


def wait_for_threads(root: trio.lowlevel.Task, timeout: float = 5.0) -> Iterator[float]:
    """Let real time pass until no task of an app waits for a thread, or for asyncio in one.

    Args:
        root: The task in which the app runs. Tasks below it count.
        timeout: Real seconds.

    Yields:
        0: that many seconds its owner must let pass, settling, before it goes on in the run.

    Raises:
        UnsettledError: Some still wait; names them, and where the threads are.
    """
    yield 0
    give_up = time.monotonic() + timeout
    while waiting := [task for task in tasks_below(root) if needs_real_time(task)]:
        if time.monotonic() > give_up:
            raise UnsettledError(tuple(sorted(map(describe_task, waiting))), timeout)
        time.sleep(_POLL)
        yield 0
