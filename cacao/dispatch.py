"""One session's events under way: each is answered in place, or by a task that waits its turn.

How it works. A binding or a plain function is answered in the task that reads, at once. What may
wait is checked, enters its lane (`lanes.py`), which says whether it starts, waits or is refused,
and gets a task when it starts. What stops it early is an error code and a cancelled scope: the
handler is cancelled at its next checkpoint, and its place is free when it has really ended.

Where there is middleware, each event has a task from the beginning, and they pass the middleware
one behind the other: an event goes in when the one before it has got through to its lane, or has
ended. So events start in the order they came, also when a middleware waits.
"""

from __future__ import annotations

from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import trio

from cacao.errors import MessageError
from cacao.lanes import Lane
from cacao.middleware import chain
from cacao.protocol import ErrorCode, shorten
from cacao.threads import ThreadSession, run_in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from cacao.events import Declared, Events, Handler
    from cacao.options import OnLeave, StartSoon
    from cacao.protocol import Event
    from cacao.store import Store

    Work = Callable[[], Awaitable[object]]

__all__ = ["Dispatch", "Witness"]


class Witness(Protocol):
    """Who is told of each event of every session, once as it is accepted and once as it ends."""

    def accepted(self, session: Store, event: Event, /) -> None:
        """Hear that an event is about to start, or to wait for its turn."""
        ...

    def settled(self, session: Store, event: Event, error: Exception | None, /) -> None:
        """Hear how it has ended; not told if the session ends first."""
        ...


class Dispatch:
    """The events of one session that run or wait.

    Args:
        session: What handlers get.
        starter: Gives what starts a task, by what becomes of it when the user leaves.
        events: What answers events.
        threads: The pool for handlers that run in threads; None for trio's own.
        settle: Told once of each event how it has ended: None, or what was raised.
        report: Told of what a thread raised after its event had ended.
        witness: Told of each event; None for nobody.

    Attributes:
        under_way: The events that need a task and run or wait, oldest first, by identity.
    """

    __slots__ = (
        "_before",
        "_events",
        "_lanes",
        "_report",
        "_session",
        "_settle",
        "_starter",
        "_threads",
        "_witness",
        "under_way",
    )

    def __init__(
        self,
        session: Store,
        starter: Callable[[OnLeave], StartSoon],
        events: Events,
        threads: trio.CapacityLimiter | None,
        settle: Callable[[Event, Exception | None], None],
        report: Callable[[Event, Exception], object],
        witness: Witness | None,
    ) -> None:
        self.under_way: dict[int, Event] = {}
        self._session = session
        self._starter = starter
        self._events = events
        self._threads = threads
        self._witness = witness
        self._settle = settle
        self._report = report
        self._lanes: dict[tuple[str, Hashable], Lane[_Run]] = {}
        self._before: trio.Event | None = None  # set when the last event has passed the middleware

    def accept(self, event: Event) -> None:
        """Let an event start, or wait for its turn; does not wait.

        Raises:
            MessageError: `unknown_event`.
        """
        declared = self._events.get(event.name)
        if declared is None:
            raise MessageError(
                ErrorCode.UNKNOWN_EVENT,
                f"no handler for event {shorten(event.name)}",
                event_id=event.id,
            )
        if self._witness is not None:
            self._witness.accepted(self._session, event)
        if self._events.middleware:
            self._send_through_middleware(declared, event)
        elif declared.may_wait:
            self._line_up(cast("Handler", declared), event)
        else:
            self._answer_in_place(declared, event)

    def cancel(self, name: str) -> None:
        """Cancel the events of this name that run, and those that wait for them; as `cancelled`."""
        for (lane_of, _), lane in tuple(self._lanes.items()):
            if lane_of == name:
                lane.stop(ErrorCode.CANCELLED)

    def _answer_in_place(self, declared: Declared, event: Event) -> None:
        try:
            declared.call(self._session, event.data)
        except Exception as error:  # noqa: BLE001 - the author's code: settled, never swallowed
            self._settle(event, error)
        else:
            self._settle(event, None)

    # --- In a task -----------------------------------------------------------------------------

    def _line_up(self, handler: Handler, event: Event) -> None:
        begin = partial(self._start_task, handler.on_leave, event, copy_context())
        try:
            self._enter(handler, event, begin)
        except Exception as error:  # noqa: BLE001 - the author's code: settled, never swallowed
            self._settle(event, error)
        else:
            self.under_way[id(event)] = event

    def _start_task(self, on_leave: OnLeave, event: Event, context: Context, run: _Run) -> None:
        # In the reader's context: what another handler has set in its own is not for this one.
        start_soon = self._starter(on_leave)
        context.run(partial(start_soon, self._take_turn, event, run, name=f"event {event.name}"))

    async def _take_turn(self, event: Event, run: _Run) -> None:
        await self._answer(event, run.complete)
        self._leave(run)  # not when the session ends: what waits must not start then

    async def _answer(self, event: Event, work: Work) -> None:
        error = None
        try:
            await work()
        except Exception as raised:  # noqa: BLE001 - the author's code: settled, never swallowed
            error = raised
        del self.under_way[id(event)]
        self._settle(event, error)

    # --- Lanes ---------------------------------------------------------------------------------

    def _enter(self, handler: Handler, event: Event, begin: Callable[[_Run], object]) -> _Run:
        """Check the event and put it into its lane.

        Raises:
            MessageError: `invalid_data`.
            Exception: What a validator or the key function of the author's raised.
        """
        work, payload = self._prepare(handler, event)
        key = handler.options.key
        lane_of = event.name, None if key is None else key(payload)
        lane = self._lanes.get(lane_of)
        if lane is None:
            lane = Lane(handler.options.concurrency, handler.options.limit)
            self._lanes[lane_of] = lane
        run = _Run(lane_of, event.name, work, handler.options.deadline, begin)
        lane.arrive(run)
        return run

    def _leave(self, run: _Run) -> None:
        lane = self._lanes.get(run.lane_of)
        if lane is not None:
            lane.leave(run)
            if not lane:
                del self._lanes[run.lane_of]

    def _prepare(self, handler: Handler, event: Event) -> tuple[Work, object]:
        """Lay out the call of a handler; gives what makes it, and the payload."""
        if not handler.options.thread:
            payload, args, kwargs = handler.bind(self._session, event.data)
            return cast("Work", partial(handler.function, *args, **kwargs)), payload
        session = ThreadSession(self._session, handler.label)
        payload, args, kwargs = handler.bind(session, event.data)
        function = partial(handler.function, *args, **kwargs)
        late = partial(self._report, event)
        return partial(run_in_thread, function, session, self._threads, late), payload

    # --- Middleware ----------------------------------------------------------------------------

    def _send_through_middleware(self, declared: Declared, event: Event) -> None:
        self.under_way[id(event)] = event
        before, passed = self._before, trio.Event()
        self._before = passed
        self._starter(declared.on_leave)(
            self._pass, declared, event, before, passed, name=f"event {event.name}"
        )

    async def _pass(
        self, declared: Declared, event: Event, before: trio.Event | None, passed: trio.Event
    ) -> None:
        """Take an event through the middleware when `before` is set; set `passed` behind it."""
        last = partial(self._call_last, declared, passed)
        call = chain(self._events.middleware, self._session, last)
        try:
            if before is not None:
                await before.wait()
            await self._answer(event, partial(call, event))
        finally:
            passed.set()

    async def _call_last(self, declared: Declared, passed: trio.Event, event: Event) -> object:
        turn = trio.Event()
        try:
            if not declared.may_wait:
                return declared.call(self._session, event.data)
            run = self._enter(cast("Handler", declared), event, lambda _: turn.set())
        finally:
            passed.set()
        try:
            await turn.wait()
            return await run.complete()
        finally:
            self._leave(run)  # whatever the middleware has cancelled


class _Run:
    """One event in its lane: a `Runnable`.

    Args:
        lane_of: The event's name and its key.
        name: The event's name.
        work: Calls the handler.
        deadline: Seconds that it may take; None for any time.
        begin: Called once, with the run, when it is to `complete`.
    """

    __slots__ = (
        "_begin",
        "_code",
        "_deadline",
        "_has_begun",
        "_name",
        "_scope",
        "_work",
        "lane_of",
    )

    def __init__(
        self,
        lane_of: tuple[str, Hashable],
        name: str,
        work: Work,
        deadline: float | None,
        begin: Callable[[_Run], object],
    ) -> None:
        self.lane_of = lane_of
        self._name = name
        self._work = work
        self._deadline = deadline
        self._begin = begin
        self._code: str | None = None
        self._scope = trio.CancelScope()
        self._has_begun = False

    def start(self) -> None:
        """Let it begin: its turn has come, or it is to hear that it will not."""
        self._has_begun = True
        self._begin(self)

    def stop(self, code: str) -> None:
        """Cancel it if it runs; otherwise it never will. Only the first code counts."""
        if self._code is None:
            self._code = code
            self._scope.cancel()
            if not self._has_begun:
                self.start()

    async def complete(self) -> object:
        """Run the handler to its end, to its deadline, or until it is stopped.

        A handler that is stopped but ends well all the same has ended well.

        Returns:
            What the handler returned.

        Raises:
            MessageError: It was stopped, or has taken too long.
            Exception: What the handler raised.
        """
        if self._code is None:
            with self._scope:
                if self._deadline is not None:
                    self._scope.deadline = trio.current_time() + self._deadline
                return await self._work()
        raise self._refusal()

    def _refusal(self) -> MessageError:
        name = shorten(self._name)
        if self._code is None:
            return MessageError(
                ErrorCode.TIMEOUT, f"event {name} took more than {self._deadline:g} s"
            )
        return MessageError(self._code, f"event {name}: {_REASONS[self._code]}")


_REASONS: dict[str, str] = {
    ErrorCode.SUPERSEDED: "a newer one has taken its place",
    ErrorCode.DROPPED: "an earlier one was still running",
    ErrorCode.CANCELLED: "the app has cancelled it",
}
