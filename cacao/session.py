"""One user: their signals, and all that runs for them.

How it works. A session is a store of signal values with a life. `run` is its nursery: when that
ends, everything that ran for this user has ended. The flusher is its body; handlers, timers and
effects are its children. The reader is not in it: `attach` reads one connection in the task that
brought the connection, and hands each event to the session's nursery. So a session outlives its
connection, and goes on while it waits for the next one. What is said over them is `exchange.py`.

Events start in the order they came; `dispatch.py` lets them. A binding or a plain function is
answered in the reader, in place, an async handler in a task. So a slow one holds up its own name
only.
"""

from __future__ import annotations

import math
import secrets
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from cacao.background import Background
from cacao.dispatch import Dispatch
from cacao.errors import (
    ConnectionClosed,
    MessageError,
    NotSerializableError,
    SessionEndedError,
)
from cacao.events import Events
from cacao.exchange import RESTART, Exchange
from cacao.finishing import Finishing
from cacao.lifetimes import Lifetimes
from cacao.limits import Limits
from cacao.parking import ParkedSession, restore_values, values_of
from cacao.peer import Peer
from cacao.protocol import CloseCode, Error, ErrorCode, Result, encode_value, shorten
from cacao.reactive import set_current_session
from cacao.reports import ErrorReport
from cacao.store import Store
from cacao.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from cacao.connection import Connection
    from cacao.dispatch import Witness
    from cacao.options import OnLeave, StartSoon
    from cacao.protocol import Event, Hello
    from cacao.registry import Declaration, Registry
    from cacao.shared import SharedStore

__all__ = ["Session"]

Arguments = TypeVarTuple("Arguments")


class Keeper(Protocol):
    """What a session's beginning and end mean for what outlives it."""

    async def prepare(self, session: Session) -> None:
        """Bring what is stored for a session; nothing of the author's has run in it."""

    def release(self, session: Session) -> None:
        """See a session whose last hook has run, with its values; must not wait."""


class Session(Store):
    """One user of an app: a store of signal values, and all that runs for that user.

    `Session()` alone, without app or connection, is a place to try signals in. A live session is
    opened by `Runtime.serve`; every handler gets it.

    Args:
        registry: Whose signals the client sees; None for none.
        events: What answers the client's events; None for nothing.
        limits: See `Limits`.
        report: Told of each error in the author's code.
        threads: The pool for handlers that run in threads; None for trio's own.
        lifetimes: What runs beside the events; None for nothing.
        register: Which session the digest of each token stands for, by id; this one adds its own.
            None for a register of its own.
        shared: Has the app-wide values; None for a session that is a run of its own.
        keeper: Brings what is stored for this session, and takes what is to be; None for neither.

    Attributes:
        id: Public name of this session; no secret.
        peer: Who opened the latest connection.
        is_attached: Whether a connection has it.
    """

    __slots__ = (
        "_background",
        "_dispatch",
        "_ended",
        "_error_sink",
        "_events",
        "_exchange",
        "_finishing",
        "_is_closed",
        "_is_draining",
        "_keeper",
        "_lifetimes",
        "_limits",
        "_nursery",
        "_registry",
        "_started",
        "_threads",
        "_under_way",
        "_witness",
        "id",
        "peer",
    )

    def __init__(
        self,
        registry: Registry | None = None,
        events: Events | None = None,
        limits: Limits | None = None,
        report: Callable[[ErrorReport], None] | None = None,
        threads: trio.CapacityLimiter | None = None,
        lifetimes: Lifetimes | None = None,
        register: dict[bytes, str] | None = None,
        shared: SharedStore | None = None,
        keeper: Keeper | None = None,
        witness: Witness | None = None,
    ) -> None:
        super().__init__(shared)
        self.id = secrets.token_urlsafe(12)
        self.peer = Peer()
        self.guard = _size_on_the_wire
        self._registry = registry
        self._events = events
        self._limits = limits or Limits()
        self._exchange = Exchange(
            self.id, self._limits, {} if register is None else register, shared
        )
        self._error_sink = report
        self._dispatch: Dispatch | None = None
        self._background: Background | None = None
        self._threads = threads
        self._lifetimes = lifetimes or Lifetimes()
        self._keeper = keeper
        self._witness = witness
        self._under_way: dict[int, Event] = {}  # the dispatch's; known after that is gone, too
        self._nursery: trio.Nursery | None = None  # None before the session, and once it is left
        self._finishing: Finishing | None = None
        self._is_closed = False
        self._is_draining = False
        self._started = Wakeup()
        self._ended: trio.Event | None = None  # there is one while somebody waits for it

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    # --- Life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until closed. Everything that runs for this user is a child of this call.

        Cancelling it cancels the user's handlers, waits for them, and releases the values.
        """
        if self._is_closed:  # before it had begun
            self._started.set()
            return
        set_current_session(self)
        self.wake = self._exchange.work.set
        self.on_error = self._value_failed
        background = self._background = Background(
            self, self._starter, self._lifetimes, self._limits.hook_timeout, self._failed
        )
        try:
            await self._live(background)
        finally:
            await self._end(background)

    async def _live(self, background: Background) -> None:
        """Run all there is to run: until the user leaves, and what finishes a while longer."""
        seconds = self._limits.finish_timeout
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    await self._begin(background)
                    await self._exchange.flush(self, self._registry, self._value_failed)
                except Exception:
                    self._exchange.closing = CloseCode.INTERNAL, "internal error"
                    raise
                finally:
                    self._leave(trio.current_time() + seconds)
        except Exception as error:  # noqa: BLE001 - the author's code, beside a cancellation
            self._failed("session", error)
        if self._finishing is not None and self._finishing.was_cut:
            background.was_cut("what was to finish after leaving", seconds)

    async def _begin(self, background: Background) -> None:
        """Start what lives as long as the session, and let the reader begin."""
        if self._keeper is not None:
            await self._keeper.prepare(self)
        await background.run_hooks("on_session_start")
        await trio.lowlevel.checkpoint_if_cancelled()  # one of them may have closed it
        self._dispatch = self._open_dispatch()
        self._under_way = self._dispatch.under_way
        background.start_declared()
        self._started.set()

    def _leave(self, finish_by: float) -> None:
        """Take no more events, let the connection go, and give what finishes its last seconds."""
        self._nursery = self._dispatch = None
        if self._finishing is not None:
            self._finishing.finish_by(finish_by)
        self._started.set()
        self._exchange.room.set()
        self._exchange.hang_up()
        self._exchange.stop_reading(*self._exchange.closing)

    async def _end(self, background: Background) -> None:
        """Wait until the connection is let go, run the last hooks, release the values."""
        with trio.CancelScope(shield=True):
            while self._exchange.reading is not None:
                await self._exchange.until_let_go()
        await background.run_last_hooks("on_session_end")
        if self._keeper is not None:
            self._keeper.release(self)
        self._background = self._finishing = None
        self._is_closed = True
        self._exchange.tokens.revoke()
        super().close()
        if self._ended is not None:
            self._ended.set()

    def _open_dispatch(self) -> Dispatch:
        events = self._events or Events()
        settle, report = self._settle, self._report_failure
        witness = self._witness
        return Dispatch(self, self._starter, events, self._threads, settle, report, witness)

    def _starter(self, on_leave: OnLeave) -> StartSoon:
        """Give what starts a task in this session, by what becomes of it when the user leaves."""
        if on_leave == "finish" and self._finishing is None and self._nursery is not None:
            self._finishing = Finishing(self._nursery)
        where = self._nursery if on_leave == "cancel" else self._finishing
        if where is None:
            raise SessionEndedError(
                f"nothing can start any more in session {self.id!r}, its user has left; "
                "start it before, and with on_leave='finish' if it is to go on"
            )
        return where.start_soon

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """End this session: its handlers are cancelled, its connection is closed.

        Args:
            code: The WebSocket close code that the page gets.
            reason: A short text for it.
        """
        self._exchange.closing = code, reason
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        elif self._background is None:
            self._is_closed = True
            self._exchange.tokens.revoke()
            super().close()

    def stop_finishing(self) -> None:
        """Cut off what goes on after the user has left: the run of the app ends."""
        if self._finishing is not None:
            self._finishing.stop()

    def start_soon(
        self,
        function: Callable[[*Arguments], Awaitable[object]],
        *args: *Arguments,
        on_leave: OnLeave = "cancel",
        name: str | None = None,
    ) -> None:
        """Run an async function in the background, for as long as the session lives at most.

        What it raises reaches the log, `on_error`, the client and the test, and ends nothing else.

        Args:
            function: Called at once with `args`; it runs when the caller next waits.
            args: Its arguments.
            on_leave: What becomes of it when the user leaves: "cancel" ends it at its next
                checkpoint, "finish" lets it go on, for `Limits.finish_timeout` seconds at most
                and not beyond the end of the app's run.
            name: What errors call it; by default the function's name.

        Raises:
            SessionEndedError: The session is not live, or its user has left already.
            DeclarationError: `function` is not async, or `on_leave` is something else.
        """
        if self._background is None:
            raise SessionEndedError(
                f"{function!r} cannot start in session {self.id!r}, which is not live; "
                "start it in a handler, a hook or an effect"
            )
        self._background.start_soon(function, args, on_leave, name)

    # --- One connection ------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a connection can take this session up: it lives, and is not about to end."""
        if self._nursery is None:
            return self._background is None and not self._is_closed  # it is about to begin
        return not self._nursery.cancel_scope.cancel_called

    @property
    def user(self) -> Any:
        """Whom the app's `authenticate` found behind the latest connection; None without one."""
        return self.peer.user

    @property
    def is_attached(self) -> bool:
        """Whether a connection has this session."""
        return self._exchange.claimant is not None

    async def attach(self, connection: Connection, hello: Hello | None = None) -> tuple[int, str]:
        """Greet one connection and read its events, until it or the session ends.

        If another connection has the session, that one is let go first. A message that is refused
        is answered with a coded error; only one that is too big ends the connection.

        Args:
            connection: Not read by anyone else.
            hello: What the client has said of itself; None for a plain one.

        Returns:
            The code and the reason to close the connection with.

        Raises:
            ConnectionClosed: A newer connection has come meanwhile; with the same.
        """
        set_current_session(self)  # handlers inherit it from the task that reads
        exchange = self._exchange
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = math.inf
        await exchange.take_over(connection)
        self.peer = connection.peer
        background = None
        try:
            with suppress(ConnectionClosed), trio.CancelScope() as exchange.reading:
                background = await self._until_begun()
                if background is not None and self._dispatch is not None:
                    await background.run_hooks("on_connect")
                    exchange.open(connection, hello)
                    await exchange.read(connection, self._dispatch)
            if self._is_draining:
                await self._answer_the_last()
        finally:
            await self._let_connection_go(connection, background)
        return exchange.closing

    async def _until_begun(self) -> Background | None:
        """Wait until events may start; gives None if the session was closed or drained before."""
        if self._dispatch is None:
            await self._started.wait()
        return self._background if self._dispatch is not None and not self._is_draining else None

    async def _let_connection_go(
        self, connection: Connection, background: Background | None
    ) -> None:
        self._exchange.hang_up(connection)
        if background is not None:
            await background.run_last_hooks("on_disconnect")
        self._exchange.let_go(connection)

    async def _answer_the_last(self) -> None:
        """Give the events under way a while to end, and send what they have to say."""
        with trio.move_on_after(self._limits.drain_timeout, shield=True):
            await self._exchange.until_flushed(self._is_busy)
            await self.until_idle()  # the connection may be lost, and they are not

    def _is_busy(self) -> bool:
        return self._is_pending or (self._dispatch is not None and bool(self._dispatch.under_way))

    def wait_for_client(self) -> None:
        """Wait for the next connection, for as long as the client may take; then end."""
        is_leaving = self._exchange.is_leaving
        window = self._limits.bye_window if is_leaving else self._limits.resume_window
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = trio.current_time() + window

    # --- Another process -----------------------------------------------------------------------

    def park(self) -> ParkedSession:
        """Write down what another process needs to take this session up, as it ends."""
        outbox, tokens = self._exchange.outbox, self._exchange.tokens
        cut_off = [_cut_off(event) for event in self._under_way.values() if event.id]
        return ParkedSession(
            id=self.id,
            values=values_of(self, self._registry) if self._registry is not None else {},
            last_event=outbox.last_event,
            rev=outbox.rev,
            outcomes=self._exchange.outcomes() + [(outbox.rev, outcome) for outcome in cut_off],
            tokens=[digest.hex() for digest in tokens.digests],
            owner=self.peer.user_key,
            written_at=time.time(),
        )

    def unpark(self, parked: ParkedSession) -> None:
        """Become a session that another process has written down, before this one runs."""
        self.id = parked.id
        if self._registry is not None:
            restore_values(self, self._registry, parked.values)
        self._exchange.go_on_from(parked)

    async def until_ended(self) -> None:
        """Wait until all of this session has ended."""
        if self._ended is None:
            self._ended = trio.Event()
        if not self._is_closed:
            await self._ended.wait()

    def tend(self, now: float) -> None:
        """Look after the connection; see `Exchange.tend`."""
        self._exchange.tend(now)

    # --- Draining ------------------------------------------------------------------------------

    def drain(self, code: int = RESTART[0], reason: str = RESTART[1]) -> None:
        """Take no more events, let those under way end, and let the connection go.

        Args:
            code: The WebSocket close code that the page gets.
            reason: A short text for it.
        """
        self._is_draining = True
        self._exchange.stop_reading(code, reason)

    async def until_idle(self) -> None:
        """Wait, without a connection, until no event is under way; for `drain_timeout` at most."""
        with trio.move_on_after(self._limits.drain_timeout):
            while self._dispatch is not None and self._dispatch.under_way:
                await self._exchange.room.wait()

    def resend(self) -> None:
        """Send the whole state again, as when a signal was declared after this session began."""
        if self._exchange.is_connected:
            self._exchange.greet("rebuilt")

    def hear(self) -> bool:
        """Send what is new of the app-wide values; tells whether there is anything to send."""
        has_news = self._exchange.is_connected and self._exchange.outbox.has_news
        if has_news:
            self._exchange.hurry()
        return has_news

    def send_gathered(self) -> bool:
        """Send the changes that gather now; tells whether there are any, and somebody to hear."""
        is_due = self._exchange.is_connected and self._is_pending
        if is_due:
            self._exchange.hurry()
        return is_due

    # --- Answering events ----------------------------------------------------------------------

    def cancel(self, event: str) -> None:
        """Cancel the events of this name that run, and those that wait for them: a Stop button.

        Each handler is cancelled at its next checkpoint, and the page hears `cancelled`. Nothing
        is done where there are none; one that is still in a middleware goes on.

        Args:
            event: The event's name.
        """
        if self._dispatch is not None:
            self._dispatch.cancel(event)

    def _settle(self, event: Event, error: Exception | None) -> None:
        """Tell the client how an event has ended; a failure of the author's code goes to all."""
        if self._witness is not None:
            self._witness.settled(self, event, error)
        if error is None:
            self._succeed(event)
        elif isinstance(error, MessageError):
            self._fail(event, error.code, str(error), error.details)
        else:
            self._handler_failed(error, event)
        self._exchange.room.set()

    def _succeed(self, event: Event) -> None:
        if event.id is not None:
            self._exchange.reply(Result(event.id, ok=True))
        else:
            self._exchange.hurry()

    def _handler_failed(self, error: Exception, event: Event) -> None:
        where, error_id = self._report_failure(event, error)
        self._fail(event, *_told_to_client(error, where), error_id=error_id)

    def _report_failure(self, event: Event, error: Exception) -> tuple[str, str]:
        where = f"handler of event {event.name!r}"
        return where, self._report_error(error, where, event.name)

    def _fail(
        self,
        event: Event,
        code: str,
        message: str,
        details: list[dict[str, object]] | None = None,
        error_id: str | None = None,
    ) -> None:
        if event.id is None:
            self._exchange.reply(Error(code, message, None, details, error_id))
        else:
            self._exchange.reply(
                Result(
                    event.id,
                    ok=False,
                    code=code,
                    message=message,
                    details=details,
                    error_id=error_id,
                )
            )

    def _value_failed(self, error: Exception, declaration: Declaration) -> None:
        self._failed(declaration.description, error)

    def _failed(self, where: str, error: Exception) -> str:
        """Tell all of a failure that no event is to blame for; gives the error's id."""
        error_id = self._report_error(error, where, None)
        if self.is_attached:  # who is away does not wait for it
            code, message = _told_to_client(error, where)
            self._exchange.reply(Error(code, message, error_id=error_id))
        return error_id

    def _report_error(self, error: Exception, where: str, event: str | None) -> str:
        report = ErrorReport(error, where, self.id, event, error_id=secrets.token_hex(6))
        if self._error_sink is None:
            raise error
        self._error_sink(report)
        return report.error_id

    # --- Pace ----------------------------------------------------------------------------------

    def owe(self, items: int, size: int) -> Awaitable[None]:
        """Note what was added to a stream; awaiting the result keeps the pace of the client.

        Without a connection there is nobody to wait for.
        """
        pace = self._exchange.pace()
        if pace is None:
            return super().owe(items, size)
        pace.owe(items, size)
        return pace


def _size_on_the_wire(declaration: Declaration, value: object) -> int:
    return len(encode_value(declaration.name or "", value))


def _cut_off(event: Event) -> Result:
    name = shorten(event.name)
    message = f"event {name} was cut off as the server restarted"
    return Result(event.id or 0, ok=False, code=ErrorCode.CANCELLED, message=message)


def _told_to_client(error: Exception, where: str) -> tuple[ErrorCode, str]:
    """Give the code and a text that betrays nothing of the server."""
    if isinstance(error, NotSerializableError):
        return ErrorCode.NOT_SERIALIZABLE, str(error)
    return ErrorCode.HANDLER_ERROR, f"{where} failed; the server's log has the details"
