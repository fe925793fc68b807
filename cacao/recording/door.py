"""Where what threads have to say to a trio run waits until its owner lets it in."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import trio

from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Job = tuple[int, Callable[[], object]]

__all__ = ["Door"]

# Whose job it is when it is no task's: of work that was abandoned, or of a bare callback.
_NOBODY = 0

_log = logging.getLogger("cacao")


class Door(trio.abc.Instrument):
    """The way from threads into one hand-pumped run: open only while the owner holds it.

    A thread's result comes in when it happens to be there, and another time a little sooner.
    Here it waits, under the number of the task that waits for it; tasks are numbered in the order
    in which they began, which is the same in every run of the same inputs.

    Args:
        knock: Called, in whatever thread, when something has come to the door.
    """

    def __init__(self, knock: Callable[[], object]) -> None:
        self._knock = knock
        self._jobs: deque[Job] = deque()
        self._numbers: dict[trio.lowlevel.Task, int] = {}
        self._count = _NOBODY
        self._is_closed = False

    def install(self) -> None:
        """Stand between the threads and the current run; before anything has started a thread.

        Raises:
            HostingError: This version of trio keeps its token elsewhere.
        """
        core: Any = trio._core  # noqa: SLF001 -- the one private place of this file
        try:
            runner = core._run.GLOBAL_RUN_CONTEXT.runner  # noqa: SLF001 -- the same
            runner.trio_token = trio.lowlevel.TrioToken._create(self)  # noqa: SLF001 -- the same
            is_known = trio.lowlevel.current_trio_token() is runner.trio_token
        except AttributeError:
            is_known = False
        if not is_known:
            raise HostingError(
                f"trio {trio.__version__} keeps its token where cacao.recording does not know it; "
                "install the trio that this version of cacao asks for"
            )
        trio.lowlevel.add_instrument(self)

    def task_spawned(self, task: trio.lowlevel.Task) -> None:
        """Give a task its number."""
        self._count += 1
        self._numbers[task] = self._count

    def task_exited(self, task: trio.lowlevel.Task) -> None:
        """Forget a task."""
        self._numbers.pop(task, None)

    def run_sync_soon(
        self,
        function: Callable[..., object],
        *args: object,
        idempotent: bool = False,  # noqa: ARG002 -- the signature of trio's own queue
    ) -> None:
        """Take a job for the run, as trio's own queue does; in any thread."""
        if self._is_closed:
            raise trio.RunFinishedError("the recorded run has ended")
        owner = _task_of(function)
        number = _NOBODY if owner is None else self._numbers.get(owner, _NOBODY)
        self._jobs.append((number, lambda: function(*args)))
        self._knock()

    @property
    def waiting(self) -> list[int]:
        """The tasks whose work waits at the door, in the order it came."""
        return [number for number, _ in list(self._jobs)]

    def has(self, numbers: Sequence[int]) -> bool:
        """Tell whether work of all these tasks waits."""
        waiting = self.waiting
        return all(waiting.count(number) >= numbers.count(number) for number in set(numbers))

    def let_in(self, numbers: Sequence[int]) -> None:
        """Let the work of these tasks in, in this order; must be called inside the run."""
        for number in numbers:
            job = next(job for job in list(self._jobs) if job[0] == number)
            self._jobs.remove(job)
            try:
                job[1]()
            except Exception:  # noqa: BLE001 -- as trio, it must not end here
                _log.exception("what a thread asked of the trio run has failed")

    def close(self) -> None:
        """Take nothing more."""
        self._is_closed = True


def _task_of(function: Callable[..., object]) -> trio.lowlevel.Task | None:
    """Find the task that a job reschedules, among what its function closes over."""
    for cell in getattr(function, "__closure__", None) or ():
        held = cell.cell_contents
        for candidate in held if isinstance(held, list) else (held,):
            if isinstance(candidate, trio.lowlevel.Task):
                return candidate
    return None
