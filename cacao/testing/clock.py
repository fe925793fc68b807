"""Virtual time that passes from deadline to deadline.

How it works. Trio asks its clock how long it may sleep when no task is runnable, and then looks for
I/O. If even that has made nobody runnable, all tasks are blocked. `StepClock` sees this moment,
steps to the next deadline in it, and answers that there is no time to sleep: trio goes on in the
very same pass, and a deadline costs no more than the tasks that it wakes. What it costs to sleep
with trio's deadlines is more than that: a scope made, cancelled and left. `StepClock.sleep_until`
has none, for timers that tick a day away.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import trio
import trio.testing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cacao.testing.seat import Seat

__all__ = ["StepClock", "check_seconds", "pass_time"]

# A deadline within a nanosecond after the target counts as reached: 0.1 + 0.1 + 0.1 > 0.3.
_TOLERANCE = 1e-9


class StepClock(trio.abc.Clock, trio.abc.Instrument):
    """The clock of a hand-pumped run, which is to have it as an instrument as well.

    Args:
        seat: The run's; knows whether a task is runnable.
        is_busy: Asked while every task is blocked: whether real sockets still bring something.

    Attributes:
        now: Virtual seconds since the run began. May be read in any thread.
        is_idle: Whether, at the time aimed at, every task is blocked and no deadline is due.
        passes: How often trio's scheduler has gone round in the present moment of virtual time.
    """

    def __init__(self, seat: Seat, is_busy: Callable[[], bool] = lambda: False) -> None:
        self._seat = seat
        self._is_busy = is_busy
        self._sleepers: list[tuple[float, int, trio.lowlevel.Task]] = []  # a heap
        self._slept = 0
        self._deadline = -math.inf
        self.now = 0.0
        self.aim(0.0)

    def aim(self, target: float) -> None:
        """Let time pass up to `target`; what the run's owner has done meanwhile is seen to."""
        self._target = target
        self._deadline = -math.inf  # an older answer of trio's is worth nothing
        self.is_idle = False
        self.passes = 0

    def start_clock(self) -> None:
        """Do nothing: this clock moves only as told."""

    def current_time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now

    @property
    def next_deadline(self) -> float:
        """When the next thing is due, or infinity; to be asked while the run is idle."""
        return min(self._deadline, self._sleepers[0][0]) if self._sleepers else self._deadline

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Note the next deadline, and let trio not sleep at all.

        A task in `wait_all_tasks_blocked` is woken only if trio thinks it could sleep.
        """
        self._deadline = deadline
        return math.inf if deadline > self.now and self._seat.is_watched() else 0.0

    def after_io_wait(self, timeout: float) -> None:  # noqa: ARG002 -- trio's signature
        """Step to the next deadline, or come to rest at the target, if every task is blocked."""
        self.passes += 1
        if self._seat.is_runnable() or self._seat.is_watched():
            return
        if self._is_busy():
            self.passes = 0
            return
        deadline = self.next_deadline
        if deadline > self._target + _TOLERANCE:
            self.now = max(self.now, self._target)
            self.is_idle = True
        elif deadline > self.now:
            self.now = deadline
            self.passes = 0
            self._wake()

    def _wake(self) -> None:
        while self._sleepers and self._sleepers[0][0] <= self.now:
            _, _, task = heappop(self._sleepers)
            trio.lowlevel.reschedule(task)

    async def sleep_until(self, deadline: float) -> None:
        """Sleep as `trio.sleep_until` does, in half the time.

        Args:
            deadline: In virtual seconds; one that has passed is only a checkpoint.
        """
        if deadline <= self.now:
            await trio.lowlevel.checkpoint()
            return
        self._slept += 1  # among equals the first one to sleep is the first to wake
        sleeper = deadline, self._slept, trio.lowlevel.current_task()

        def abort(_: Callable[[], object]) -> trio.lowlevel.Abort:
            self._sleepers.remove(sleeper)
            heapify(self._sleepers)
            return trio.lowlevel.Abort.SUCCEEDED

        heappush(self._sleepers, sleeper)
        await trio.lowlevel.wait_task_rescheduled(abort)


def check_seconds(seconds: float) -> None:
    """Refuse what time cannot be advanced by.

    Raises:
        TypeError: `seconds` is no number.
        ValueError: It is negative or not finite.
    """
    if not isinstance(seconds, int | float):
        raise TypeError(f"time is advanced by seconds, as in advance(86_400), not by {seconds!r}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"time can be advanced by 0 or more seconds, not by {seconds!r}")


async def pass_time(
    seconds: float, rest: Callable[[], Awaitable[None]], *, is_in_memory: bool
) -> None:
    """Let time pass on the clock of this trio run, then let everything come to rest.

    A MockClock that stands still goes from deadline to deadline; on any other clock it is slept.

    Args:
        seconds: How long, at least 0.
        rest: Waits until everything is at rest.
        is_in_memory: Whether what is blocked is at rest, for there is nothing but this run.

    Raises:
        Exception: As `check_seconds`.
    """
    check_seconds(seconds)
    await rest()
    clock = trio.lowlevel.current_clock()
    if isinstance(clock, trio.testing.MockClock) and _stands_still(clock):
        target = clock.current_time() + seconds
        if is_in_memory:
            await _jump(clock, target)
            await rest()
        while jump := _next_jump(clock, target):
            clock.jump(jump)
            await rest()
    else:
        await trio.sleep(seconds)
        await rest()


def _stands_still(clock: trio.testing.MockClock) -> bool:
    return clock.rate == 0 and clock.autojump_threshold == math.inf


async def _jump(clock: trio.testing.MockClock, target: float) -> None:
    """Jump as an autojumping clock does, which no task has to wake up for, but not beyond."""
    clock.autojump_threshold = 0
    try:
        await trio.sleep_until(target)
    finally:
        clock.autojump_threshold = math.inf


def _next_jump(clock: trio.testing.MockClock, target: float) -> float:
    """Tell how far to move the clock so that the next thing happens on the way to `target`.

    Must be called with everything settled.

    Args:
        clock: The clock of the run that is current.
        target: Where it is to be in the end, on that clock.

    Returns:
        Seconds to jump, to the next deadline or to the target; 0 when the target is reached.
    """
    now = clock.current_time()
    to_deadline = trio.lowlevel.current_statistics().seconds_to_next_deadline
    if now + to_deadline <= target + _TOLERANCE:
        return to_deadline
    return max(target - now, 0.0)
