"""When the guest takes its turns: trio's ticks in an asyncio loop, without a thread in between.

How it works. A guest run waits for I/O and deadlines in a thread, so each message costs two hops
between threads, more than all else on its way. Here it never gets that far. Its clock says that the
next deadline is now, so trio never waits, and asks for another tick at once, through `soon`. If the
last tick left nothing to do, that tick is held back until there is something: a deadline (a timer
of the loop), I/O of trio's (its epoll, which the loop watches as one more file), or a task that was
made runnable from the asyncio side (`run`, or trio's own wakeup, which arrives by that epoll).

A few names of trio's are private, all of them in `_Guest`. Where they do not fit (another trio, a
platform without epoll) every tick is given at once and trio waits in its thread, as it always did;
so it does while a task is in `trio.testing.wait_all_tasks_blocked`, which asks for just that.
"""

from __future__ import annotations

import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import asyncio
    import select
    from collections.abc import Callable

    Tick = Callable[[], object]

__all__ = ["Turns"]

# What of a guest run this file reads, and, of the second, writes.
_NEEDED = (
    "runner.io_manager._epoll",
    "runner.guest_tick_scheduled",
    "runner.waiting_for_idle",
    "unrolled_run_next_send",
)

# Longest wait for a deadline, in seconds: a loop's timers do not reach to infinity.
_LONGEST = 24 * 3600.0


def _nothing() -> None:
    """Only give trio its turn."""


class Turns(trio.abc.Clock):
    """The host's side of one guest run: pass it as `clock`, and `soon` as the run's scheduler.

    Args:
        loop: The host's.

    Attributes:
        count: How many turns trio has been given.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.count = 0
        self._loop = loop
        self._guest: _Guest | None = None
        self._is_holding = False
        self._idle_for: float | None = None  # of the last tick, if it left nothing runnable
        self._held: Tick | None = None
        self._timer: asyncio.TimerHandle | None = None

    # --- trio's clock --------------------------------------------------------------------------

    def start_clock(self) -> None:
        """Do nothing: this clock always runs."""

    def current_time(self) -> float:
        """Return the time in seconds, on a scale of its own."""
        return time.perf_counter()

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Note how long trio could sleep, and keep it from doing so."""
        seconds = deadline - time.perf_counter()
        if self._guest is None or not self._is_holding or self._guest.is_watched():
            return seconds
        self._idle_for = seconds
        return 0

    # --- the host's scheduler ------------------------------------------------------------------

    def soon(self, tick: Tick) -> None:
        """Give trio its next tick as soon as there is something to do in it."""
        self.count += 1
        if self._guest is None:
            self._adopt(tick)
        idle_for, self._idle_for = self._idle_for, None
        if idle_for is None or idle_for <= 0 or self._guest is None or self._guest.has_events():
            self._loop.call_soon(tick)
        else:
            self._held = tick
            self._guest.expect_wakeup(is_scheduled=False)
            self._set_timer(self._loop.time() + min(idle_for, _LONGEST))

    def run(self, function: Callable[[], object] = _nothing) -> None:
        """Call, on the asyncio side, what makes a task runnable, and let it run before returning.

        Args:
            function: Must not wait.
        """
        tick, self._held = self._held, None
        if tick is None or self._guest is None:
            function()
        else:
            self._guest.expect_wakeup(is_scheduled=True)
            function()
            tick()

    def stop(self) -> None:
        """Let trio wait by itself from now on: the run ends, and its epoll with it."""
        if self._is_holding and self._guest is not None:
            self._is_holding = False
            self._loop.remove_reader(self._guest.epoll)
        if self._timer is not None:
            self._timer.cancel()

    def _adopt(self, tick: Tick) -> None:
        self._guest = _Guest.of(tick)
        if self._guest is not None:
            self._is_holding = True
            self._loop.add_reader(self._guest.epoll, self.run)

    def _set_timer(self, when: float) -> None:
        # One that comes too early is kept: its tick does nothing but ask again.
        if self._timer is None or self._timer.when() > when:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_at(when, self._time_out)

    def _time_out(self) -> None:
        self._timer = None
        self.run()


class _Guest:
    """What of a guest run's inside has to be known: the private names of trio's are here.

    Attributes:
        epoll: File number of what trio waits for.
    """

    def __init__(self, state: Any, epoll: select.epoll) -> None:
        self._state = state
        self.epoll = epoll.fileno()

    @classmethod
    def of(cls, tick: Any) -> _Guest | None:
        """Look into a run by its tick; None where trio is not built as expected."""
        state = getattr(tick, "__self__", None)
        try:
            epoll, *_ = attrgetter(*_NEEDED)(state)
        except AttributeError:
            return None
        return cls(state, epoll)

    def has_events(self) -> bool:
        """Tell whether the last tick has found I/O, which the next one must see to."""
        return bool(getattr(self._state.unrolled_run_next_send, "value", True))

    def is_watched(self) -> bool:
        """Tell whether a task waits for all others to be blocked."""
        return bool(self._state.runner.waiting_for_idle)

    def expect_wakeup(self, *, is_scheduled: bool) -> None:
        """Tell trio whether a tick is coming anyway, or has to be asked for by its epoll."""
        self._state.runner.guest_tick_scheduled = is_scheduled
