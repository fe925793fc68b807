"""A trio run that moves only while somebody turns the handle.

How it works. The run is a guest of a host that is nothing but a queue of callbacks: trio puts
its next tick there, and `settle` takes it out and runs it, until the run's clock (`clock.py`) has
seen that every task is blocked and no deadline is due. That clock never lets trio sleep, so trio
never starts the thread in which a guest otherwise waits for I/O: there is one thread, and between
two calls the run stands perfectly still. Only `advance` moves the clock, from deadline to deadline.
"""

from __future__ import annotations

import gc
import math
import signal
import threading
import warnings
import weakref
from collections import Counter
from contextlib import suppress
from contextvars import copy_context
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar

import trio

from cacao.errors import ConnectionClosed, HostingError
from cacao.testing.clock import StepClock, check_seconds
from cacao.testing.inspection.tasks import describe_task
from cacao.testing.seat import Seat

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import outcome

__all__ = ["HandPump", "SpinningError"]

T = TypeVar("T")

# Ticks for which a settle that has reached its limit is watched to see who runs.
_WATCHED_TICKS = 100
# Ticks that all tasks have to end in when they are cancelled after that.
_LAST_TICKS = 1_000
# Virtual seconds that the cleanup of a run that nobody holds any more may take.
_CLEANUP = 60.0
_INTERRUPTED = "it was interrupted by Ctrl-C"
_never_ended: list[HandPump] = []  # see `HandPump.put_away`


class SpinningError(HostingError):
    """A task went on and on without time passing; its world is unusable from here on."""


class HandPump:
    """One trio run, stepped by hand under a virtual clock.

    Args:
        body: The run's main function; the run ends when it returns.
        seed: Decides the order in which ready tasks run.
        max_ticks: Scheduler steps that one moment of virtual time may take.
        is_busy: Asked while every task is blocked: whether real sockets still bring something.

    Raises:
        HostingError: Called from inside a trio task, or trio is of an unknown version.
    """

    def __init__(
        self,
        body: Callable[[], Awaitable[object]],
        *,
        seed: int,
        max_ticks: int,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._body = body
        self._max_ticks = max_ticks
        # Empty only while a task is in `wait_all_tasks_blocked` for some real time, and trio in its
        # thread.
        self._host: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._outcome: outcome.Outcome[None] | None = None
        self._broken: str | None = None
        self._context = copy_context()
        self._seat = Seat(seed)
        self._clock = StepClock(self._seat, is_busy)
        with self._seat:
            self._start()

    def _start(self) -> None:
        """Begin the run without letting trio keep the SIGINT handler it installs.

        While the run stands still nobody would look at what that handler noted, and Ctrl-C in
        the test's own code would be lost.
        """
        in_main_thread = threading.current_thread() is threading.main_thread()
        handler = signal.getsignal(signal.SIGINT)
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._host.put,
            done_callback=self._set_outcome,
            host_uses_signal_set_wakeup_fd=True,
            clock=self._clock,
            instruments=[self._clock],
        )
        if in_main_thread and signal.getsignal(signal.SIGINT) is not handler:
            signal.signal(signal.SIGINT, handler)

    def _set_outcome(self, run_outcome: outcome.Outcome[None]) -> None:
        self._outcome = run_outcome

    async def _main(self) -> None:
        self._context = trio.lowlevel.current_task().context
        with trio.CancelScope() as scope:
            self._cancel_all = scope.cancel
            await self._body()

    @property
    def broken(self) -> str | None:
        """Why this run can go no further; None while it can."""
        return self._broken

    @property
    def has_ended(self) -> bool:
        """Whether the body has returned or failed, and the run with it."""
        return self._outcome is not None

    @property
    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._clock.now

    @property
    def next_deadline(self) -> float:
        """When the next thing is due, in virtual seconds since the run began, or infinity."""
        return self._clock.next_deadline

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a plain function as if from inside the run, without moving it."""
        with self._seat:
            return self._context.copy().run(function, *args)

    def settle(self) -> None:
        """Run until every task is blocked and no deadline is due, or the run has ended.

        Work in threads and real I/O count as blocked.

        Raises:
            Exception: As `do`.
        """
        self.do(_nothing)

    def do(self, action: Callable[..., T], *args: object) -> T:
        """Call a plain function inside the run, then settle.

        Returns:
            What `action` gave.

        Raises:
            SpinningError: Some task never blocks; names it.
            KeyboardInterrupt: Ctrl-C; this run can then go no further.
            HostingError: The run can go no further, because of one of these.
            ConnectionClosed: The run has ended.
            Exception: What `action` raised, or the body failed with.
        """
        return self._do_until(self.time, action, *args)

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, from deadline to deadline, settling at each.

        Args:
            seconds: How long, at least 0.

        Raises:
            Exception: As `check_seconds` and `settle`.
        """
        check_seconds(seconds)
        self._do_until(self.time + seconds, _nothing)

    def _do_until(self, target: float, action: Callable[..., T], *args: object) -> T:
        self._refuse_to_go_on()
        self._clock.aim(target)
        try:
            with self._seat:
                # As if the body called it: what it starts inherits the body's context variables.
                value = self._context.copy().run(action, *args)
                if not self._turn(self._max_ticks):
                    self._raise_spinning()
        except KeyboardInterrupt:
            self._broken = _INTERRUPTED
            raise
        self._raise_failure()
        return value

    def abandon(self, stop: Callable[[], object]) -> None:
        """End the run without a word: for a run that nobody holds any more.

        Args:
            stop: Called in the run to make the body return.
        """
        with suppress(BaseException), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.do(stop)
            self.advance(_CLEANUP)
        self.put_away()

    def put_away(self) -> None:
        """Let go of the run; one that would not end is kept, at rest, for ever.

        Collecting it would throw GeneratorExit into its tasks, outside of trio: their `finally`
        blocks would fail at random moments of other tests, and trio complain at length.
        """
        if self._outcome is None:
            _never_ended.append(self)

    def _refuse_to_go_on(self) -> None:
        if self._broken is not None:
            raise HostingError(
                f"this test client's world is broken: {self._broken}; make a new client"
            )
        if self._outcome is not None:
            raise ConnectionClosed(1001, "the test client has closed; open another client")

    def _turn(self, ticks: int) -> bool:
        """Run until the run is idle or over; tell whether no moment took more ticks than that."""
        clock, next_tick = self._clock, self._host.get
        while self._outcome is None and not clock.is_idle:
            if clock.passes >= ticks:
                return False
            next_tick()()
        return True

    def _raise_spinning(self) -> None:
        steps = _StepCounter()
        trio.lowlevel.add_instrument(steps)
        self._clock.aim(self.time)
        self._turn(_WATCHED_TICKS)
        trio.lowlevel.remove_instrument(steps)
        self._broken = f"a task in it never came to rest: {steps.busiest()}"
        self._cancel_all()
        self._clock.aim(self.time)
        outlives_it = not self._turn(min(self._max_ticks, _LAST_TICKS))
        still = f"{steps.busiest()} is still running after {self._max_ticks} scheduler steps"
        if outlives_it and steps.is_cancelled():
            raise SpinningError(
                f"{still}, though it is cancelled: it catches trio.Cancelled and goes on; let that "
                "pass (`except Exception`, not `except BaseException`)"
            )
        raise SpinningError(
            f"{still} without time passing; let it wait for something (an event, trio.sleep of "
            "more than 0), or give TestClient a larger max_ticks"
        )

    def _raise_failure(self) -> None:
        if self._outcome is None:
            return
        try:
            self._outcome.unwrap()
        except BaseException as wrapped:  # noqa: BLE001 -- raised below, as the app has raised it
            error = _only_error(wrapped)
        else:
            return
        interrupt = _find_interrupt(error)
        self._broken = f"it ended with {error!r}" if interrupt is None else _INTERRUPTED
        try:
            raise interrupt or error
        finally:
            # The error's traceback holds this frame: a cycle would keep the run alive.
            del error, interrupt


class _StepCounter(trio.abc.Instrument):
    """Counts which tasks run, and whether they are cancelled."""

    def __init__(self) -> None:
        self._steps: Counter[trio.lowlevel.Task] = Counter()
        self._where: dict[trio.lowlevel.Task, str] = {}
        self._cancelled: set[trio.lowlevel.Task] = set()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps[task] += 1
        self._where[task] = describe_task(task)
        if trio.current_effective_deadline() == -math.inf:  # it is this task that is current
            self._cancelled.add(task)

    def busiest(self) -> str:
        return self._where[self._busiest()]

    def is_cancelled(self) -> bool:
        """Tell whether the busiest task is in a cancelled scope, if only in one of its own."""
        return self._busiest() in self._cancelled

    def _busiest(self) -> trio.lowlevel.Task:
        task, _ = self._steps.most_common(1)[0]
        return task


def _nothing() -> None:
    """Settle without doing anything first."""


def _only_error(error: BaseException) -> BaseException:
    """Take what was raised out of the groups of one that trio's nurseries have put around it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (error,) = error.exceptions
    return error


def _find_interrupt(error: BaseException) -> KeyboardInterrupt | None:
    """Look for Ctrl-C in an error, its group and its causes."""
    if isinstance(error, KeyboardInterrupt):
        return error
    parts: list[BaseException] = []
    if isinstance(error, BaseExceptionGroup):
        parts.extend(error.exceptions)
    if isinstance(error, trio.TrioInternalError) and error.__cause__ is not None:
        parts.append(error.__cause__)
    return next((found for part in parts if (found := _find_interrupt(part))), None)


def _spare_never_ended() -> None:
    """Keep the interpreter's last collection away from runs that would not end."""
    if _never_ended:
        gc.freeze()


# At exit the newest finalizer comes first: this one after those that end the open worlds.
weakref.finalize(HandPump, _spare_never_ended)
