"""One user: their signals, their running handlers, and the connection to their page.

How it works. A session is a store of signal values with a life. `run` is its nursery: when that
ends, everything that ran for this user has ended. The flusher is its body; handlers, timers and
effects are its children. The reader is not in it: `attach` reads one connection in the task that
brought the connection, and hands each event to the session's nursery. So a session outlives its
connection, and goes on while it waits for the next one. One at a time has it: a newer one takes the
session over, and nothing that the older one still brings counts.

- Events start in the order they came; `dispatch.py` lets them. A binding or a plain function is
  answered in the reader, in place, an async handler in a task. So a slow one holds up its own name
  only.
- The flusher is the only task that writes to a connection. It sleeps while nothing is due; the end
  of an event and the first change after a quiet time leave at once, other changes gather for
  `flush_interval`; while a write is under way everything else gathers in the outbox.
- A client that floods is no longer read from: the reader waits while too many of its events run
  or too many replies wait for it.
- No session has a timer while nothing is due. `tend`, called for all sessions from one place,
  owes a silent page a beat and cuts a dead or stalled one.
"""

from __future__ import annotations

import math
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from cacao.allowance import Allowance
from cacao.background import Background
from cacao.dispatch import Dispatch
from cacao.errors import (
    ConnectionClosed,
    MessageError,
    NotSerializableError,
    SessionEndedError,
)
from cacao.events import Events
from cacao.finishing import Finishing
from cacao.lifetimes import Lifetimes
from cacao.limits import Limits
from cacao.outbox import Outbox
from cacao.pace import Pace
from cacao.parking import ParkedSession, restore_values, values_of
from cacao.peer import Peer
from cacao.protocol import (
    SUBPROTOCOL,
    Bye,
    CloseCode,
    Error,
    ErrorCode,
    Event,
    Hello,
    Init,
    Result,
    byte_length_exceeds,
    decode,
    encode_value,
    shorten,
)
from cacao.reactive import set_current_session
from cacao.reports import ErrorReport
from cacao.store import Store
from cacao.tokens import Tokens
from cacao.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from cacao.connection import Connection
    from cacao.options import OnLeave, StartSoon
    from cacao.protocol import Outcome
    from cacao.registry import Declaration, Registry
    from cacao.shared import SharedStore

__all__ = ["RESTART", "TAKEN_OVER", "Session"]

# How a connection is closed that neither side wanted to end.
RESTART = CloseCode.RESTART, "server is restarting"
TAKEN_OVER = CloseCode.TAKEN_OVER, "a newer connection has taken the session over"

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
        tokens: What takes this session up again; None for nothing.
        shared: Has the app-wide values; None for a session that is a run of its own.
        keeper: Brings what is stored for this session, and takes what is to be; None for neither.

    Attributes:
        id: Public name of this session; no secret.
        peer: Who opened the latest connection.
        is_attached: Whether a connection has it.
    """

    __slots__ = (
        "_allowance",
        "_background",
        "_claimant",
        "_closing",
        "_connection",
        "_dispatch",
        "_ended",
        "_error_sink",
        "_events",
        "_finishing",
        "_heard_at",
        "_inits",
        "_is_closed",
        "_is_draining",
        "_is_leaving",
        "_is_sending",
        "_is_urgent",
        "_keeper",
        "_let_go",
        "_lifetimes",
        "_limits",
        "_nursery",
        "_outbox",
        "_pace",
        "_reading",
        "_registry",
        "_room",
        "_sent_at",
        "_started",
        "_threads",
        "_tokens",
        "_under_way",
        "_was_heard",
        "_work",
        "_writing",
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
        tokens: Tokens[Session] | None = None,
        shared: SharedStore | None = None,
        keeper: Keeper | None = None,
    ) -> None:
        super().__init__(shared)
        self.id = secrets.token_urlsafe(12)
        self.peer = Peer()
        self.guard = _size_on_the_wire
        self._registry = registry
        self._events = events
        self._limits = limits or Limits()
        self._error_sink = report
        self._outbox = Outbox(shared)
        self._pace: Pace | None = None
        self._dispatch: Dispatch | None = None
        self._background: Background | None = None
        self._threads = threads
        self._lifetimes = lifetimes or Lifetimes()
        self._keeper = keeper
        self._under_way: dict[int, Event] = {}
        self._tokens = tokens or Tokens({})
        self._claimant: Connection | None = None  # the newest, and so the one to have the session
        self._connection: Connection | None = None  # the one that is greeted, read and written to
        self._nursery: trio.Nursery | None = None  # None before the session, and once it is left
        self._finishing: Finishing | None = None
        self._reading: trio.CancelScope | None = None
        self._writing = trio.CancelScope()
        self._closing: tuple[int, str] = (CloseCode.NORMAL, "")
        self._allowance: Allowance
        self._is_closed = False
        self._is_leaving = self._is_draining = False
        self._inits = 0  # sent to its connection
        self._is_urgent = False
        self._sent_at = self._heard_at = 0.0  # when a write was begun, and a message noticed
        self._is_sending = False
        self._was_heard = False
        self._work = Wakeup()
        self._room = Wakeup()
        self._started = Wakeup()
        # There are these events while somebody waits for them.
        self._let_go: trio.Event | None = None
        self._ended: trio.Event | None = None

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
        limits = self._limits
        self._allowance = Allowance(limits.max_messages_per_second, limits.message_burst)
        self.wake = self._work.set
        self.on_error = self._value_failed
        background = self._background = Background(
            self, self._starter, self._lifetimes, limits.hook_timeout, self._failed
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
                    await self._flush()
                except Exception:
                    self._closing = CloseCode.INTERNAL, "internal error"
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
        self._room.set()
        self._stop_reading(*self._closing)

    async def _end(self, background: Background) -> None:
        """Wait until the connection is let go, run the last hooks, release the values."""
        with trio.CancelScope(shield=True):
            while self._reading is not None:
                await self._until_let_go()
        await background.run_last_hooks("on_session_end")
        if self._keeper is not None:
            self._keeper.release(self)
        self._background = self._finishing = None
        self._is_closed = True
        self._tokens.revoke()
        super().close()
        if self._ended is not None:
            self._ended.set()

    def _open_dispatch(self) -> Dispatch:
        events = self._events or Events()
        settle, report = self._settle, self._report_failure
        return Dispatch(self, self._starter, events, self._threads, settle, report)

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
        self._closing = code, reason
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
        elif self._background is None:
            self._is_closed = True
            self._tokens.revoke()
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
        return self._claimant is not None

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
        await self._take_over(connection)
        background = None
        try:
            with trio.CancelScope() as self._reading:
                background = await self._until_begun()
                if background is not None:
                    await background.run_hooks("on_connect")
                    self._open(connection, hello)
                    await self._read(connection)
            if self._is_draining:
                await self._answer_the_last()
        except ConnectionClosed:
            pass
        finally:
            await self._let_connection_go(connection, background)
        return self._closing

    async def _take_over(self, connection: Connection) -> None:
        """Let a connection have the session; what the older one still brings does not count."""
        self._claimant = connection
        self._disconnect()
        self._stop_reading(*TAKEN_OVER)
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = math.inf
        try:
            while self._reading is not None and self._claimant is connection:
                await self._until_let_go()
        except trio.Cancelled:
            self._give_up_claim(connection)
            raise
        if self._claimant is not connection:
            raise ConnectionClosed(*TAKEN_OVER)
        self.peer = connection.peer
        self._closing = RESTART

    def _give_up_claim(self, connection: Connection) -> None:
        if self._claimant is connection:
            self._claimant = None

    async def _until_let_go(self) -> None:
        """Wait until the connection that is being read has been let go."""
        if self._let_go is None:
            self._let_go = trio.Event()
        await self._let_go.wait()

    async def _until_begun(self) -> Background | None:
        """Wait until events may start; gives None if the session was closed or drained before."""
        if self._dispatch is None:
            await self._started.wait()
        return self._background if self._dispatch is not None and not self._is_draining else None

    def _open(self, connection: Connection, hello: Hello | None) -> None:
        """Begin to write to a connection."""
        self._outbox.is_numbered = connection.subprotocol == SUBPROTOCOL
        self._outbox.can_patch = hello is not None and hello.patches
        if hello is not None and hello.resume is not None:
            self._tokens.present(hello.resume)
        self._inits = 0
        self._heard_at = trio.current_time()
        self._is_leaving = False
        self._connection = connection
        self._greet(self._outbox.reopen(hello.rev if hello is not None else None))

    async def _let_connection_go(
        self, connection: Connection, background: Background | None
    ) -> None:
        if self._connection is connection:
            self._disconnect()
        if background is not None:
            await background.run_last_hooks("on_disconnect")
        self._give_up_claim(connection)
        self._reading = None
        if self._let_go is not None:
            self._let_go.set()
            self._let_go = None

    async def _answer_the_last(self) -> None:
        """Give the events under way a while to end, and send what they have to say."""
        with trio.move_on_after(self._limits.drain_timeout, shield=True):
            while self._connection is not None and self._owes_an_answer():
                await self._room.wait()

    def _owes_an_answer(self) -> bool:
        if self._dispatch is not None and self._dispatch.under_way:
            return True
        return self._is_urgent or self._is_sending or self._is_pending

    def wait_for_client(self) -> None:
        """Wait for the next connection, for as long as the client may take; then end."""
        window = self._limits.bye_window if self._is_leaving else self._limits.resume_window
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = trio.current_time() + window

    # --- Another process -----------------------------------------------------------------------

    def park(self) -> ParkedSession:
        """Write down what another process needs to take this session up, as it ends."""
        outbox = self._outbox
        now = outbox.rev
        outcomes = [*outbox.outcomes]
        outcomes += [(now, reply) for reply in outbox.replies if reply.id is not None]
        outcomes += [(now, _cut_off(event)) for event in self._under_way.values() if event.id]
        return ParkedSession(
            id=self.id,
            values=values_of(self, self._registry) if self._registry is not None else {},
            last_event=outbox.last_event,
            rev=outbox.rev,
            outcomes=outcomes,
            tokens=[digest.hex() for digest in self._tokens.digests],
            owner=self.peer.user_key,
            written_at=time.time(),
        )

    def unpark(self, parked: ParkedSession) -> None:
        """Become a session that another process has written down, before this one runs."""
        self.id = parked.id
        if self._registry is not None:
            restore_values(self, self._registry, parked.values)
        self._tokens.accept(tuple(map(bytes.fromhex, parked.tokens)), self)
        self._outbox.last_event = parked.last_event
        self._outbox.rev = parked.rev + 1  # which no client has seen: each is told "rebuilt"
        self._outbox.outcomes = parked.outcomes

    async def until_ended(self) -> None:
        """Wait until all of this session has ended."""
        if self._ended is None:
            self._ended = trio.Event()
        if not self._is_closed:
            await self._ended.wait()

    # --- Draining ------------------------------------------------------------------------------

    def drain(self, code: int = RESTART[0], reason: str = RESTART[1]) -> None:
        """Take no more events, let those under way end, and let the connection go.

        Args:
            code: The WebSocket close code that the page gets.
            reason: A short text for it.
        """
        self._is_draining = True
        self._stop_reading(code, reason)

    async def until_idle(self) -> None:
        """Wait, without a connection, until no event is under way; for `drain_timeout` at most."""
        with trio.move_on_after(self._limits.drain_timeout):
            while self._dispatch is not None and self._dispatch.under_way:
                await self._room.wait()

    def tend(self, now: float) -> None:
        """Look after the connection: owe it a beat, or cut it when it is dead or stalled.

        Args:
            now: `trio.current_time()`; to be called several times in `Limits.heartbeat`.
        """
        limits = self._limits
        if self._connection is None:
            return
        if self._was_heard:
            self._was_heard, self._heard_at = False, now
        if self._is_sending:
            if now - self._sent_at > limits.send_timeout:
                self._stop_reading(CloseCode.POLICY, "the client takes nothing")
        elif self._outbox.is_numbered:
            if now - self._heard_at > 2 * limits.heartbeat:
                self._stop_reading(CloseCode.HEARTBEAT_TIMEOUT, "no sign of life")
            elif now - min(self._sent_at, self._heard_at) >= limits.heartbeat:
                self._outbox.is_beat_due = True
                self._hurry()

    def resend(self) -> None:
        """Send the whole state again, as when a signal was declared after this session began."""
        if self._connection is not None:
            self._greet("rebuilt")

    def hear(self) -> bool:
        """Send what is new of the app-wide values; tells whether there is anything to send."""
        has_news = self._connection is not None and self._outbox.has_news
        if has_news:
            self._hurry()
        return has_news

    # --- Reading -------------------------------------------------------------------------------

    async def _read(self, connection: Connection) -> None:
        limits = self._limits
        while True:
            if self._allowance.left < 0:
                await self._allowance.earn()
            text = await connection.receive()
            if self._connection is not connection:
                return  # it has been let go: this came too late
            self._was_heard = True
            self._allowance.left -= 1
            if byte_length_exceeds(text, limits.max_message_bytes):
                reason = f"a message has at most {limits.max_message_bytes} bytes"
                self._closing = CloseCode.TOO_BIG, reason
                return
            self._take(text)
            while self._is_full():
                await self._room.wait()

    def _is_full(self) -> bool:
        limits = self._limits
        return (
            self._dispatch is not None
            and len(self._dispatch.under_way) >= limits.max_waiting_events
        ) or len(self._outbox.replies) >= limits.max_waiting_replies

    def _take(self, text: str) -> None:
        try:
            match decode(text, self._limits):
                case Event() as event:
                    self._note_that_init_came()
                    self._accept(event)
                case Hello() as hello:
                    if hello.resume is not None:
                        self._tokens.present(hello.resume)
                    self._outbox.can_patch = hello.patches
                    self._greet("rebuilt")
                case Bye():
                    self._is_leaving = True
                case _:  # a beat
                    self._note_that_init_came()
        except MessageError as error:
            if error.event_id is not None:
                self._outbox.last_event = max(self._outbox.last_event, error.event_id)
            self._reply(Error(error.code, str(error), error.event_id, error.details))

    def _note_that_init_came(self) -> None:
        """Take the client's word for it: before an `init` it says `hello` and `bye` alone.

        Where there were several, a message does not tell which of them it follows.
        """
        if self._inits == 1:
            self._tokens.confirm()

    def _greet(self, outcome: Outcome) -> None:
        self._outbox.greet(partial(self._greeting, outcome))
        self._hurry()

    def _greeting(self, outcome: Outcome) -> Init:
        if not self._outbox.is_numbered:
            return Init({}, self.id)
        self._inits += 1
        token = self._tokens.issue(self)
        return Init({}, self.id, None, token, outcome, None, self._limits.heartbeat)

    def _stop_reading(self, code: int, reason: str) -> None:
        self._closing = code, reason
        if self._reading is not None:
            self._reading.cancel()

    # --- Answering events ----------------------------------------------------------------------

    def _accept(self, event: Event) -> None:
        if event.id is not None:
            if event.id <= self._outbox.last_event:
                self._outbox.acknowledge_again()
                self._hurry()
                return
            self._outbox.last_event = event.id
        if self._dispatch is not None:
            self._dispatch.accept(event)

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
        if error is None:
            self._succeed(event)
        elif isinstance(error, MessageError):
            self._fail(event, error.code, str(error), error.details)
        else:
            self._handler_failed(error, event)
        self._room.set()

    def _succeed(self, event: Event) -> None:
        if event.id is not None:
            self._outbox.replies.append(Result(event.id, ok=True))
        self._hurry()

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
            self._reply(Error(code, message, None, details, error_id))
        else:
            self._reply(
                Result(
                    event.id,
                    ok=False,
                    code=code,
                    message=message,
                    details=details,
                    error_id=error_id,
                )
            )

    def _value_failed(self, error: Exception, declaration: Any) -> None:
        self._failed(f"{type(declaration).__name__.lower()} {declaration.label!r}", error)

    def _failed(self, where: str, error: Exception) -> str:
        """Tell all of a failure that no event is to blame for; gives the error's id."""
        error_id = self._report_error(error, where, None)
        if self.is_attached:  # who is away does not wait for it
            code, message = _told_to_client(error, where)
            self._reply(Error(code, message, error_id=error_id))
        return error_id

    def _report_error(self, error: Exception, where: str, event: str | None) -> str:
        report = ErrorReport(error, where, self.id, event, error_id=secrets.token_hex(6))
        if self._error_sink is None:
            raise error
        self._error_sink(report)
        return report.error_id

    # --- Writing -------------------------------------------------------------------------------

    def _reply(self, message: Result | Error) -> None:
        self._outbox.replies.append(message)
        self._hurry()

    def _hurry(self) -> None:
        """Let the flusher write now: somebody waits for it."""
        self._is_urgent = True
        self._work.set()

    async def _flush(self) -> None:
        while True:
            with trio.CancelScope() as self._writing:  # until the connection is let go
                while True:
                    await self._work.wait()
                    while not self._is_urgent and (wait := self._gathering_time()) > 0:
                        with trio.move_on_after(wait):
                            await self._work.wait()
                    if self._writing.cancel_called:
                        break  # let go in this moment: what is due is for the next connection
                    self._is_urgent = False
                    if self._connection is not None:
                        await self._write(self._connection)
                    else:
                        self.run_effects()
            self._work.set()  # what it was woken for may still be due

    def _gathering_time(self) -> float:
        """Tell how long changes that nobody waits for are still gathered, in seconds."""
        return self._sent_at + self._limits.flush_interval - trio.current_time()

    async def _write(self, connection: Connection) -> None:
        texts = self._outbox.take(self, self._registry, self._value_failed)
        if not texts:
            self._room.set()
            return
        self._sent_at = trio.current_time()
        self._is_sending = True
        pace = self._pace
        owed = pace.owed if pace is not None else (0, 0)
        try:
            for text in texts:
                await connection.send(text)
        except ConnectionClosed:
            self._disconnect()  # the reader will hear of it too
        finally:
            self._is_sending = False
        if pace is not None:
            pace.settle(owed)
        self._room.set()

    # --- Pace ----------------------------------------------------------------------------------

    def owe(self, items: int, size: int) -> Awaitable[None]:
        """Note what was added to a stream; awaiting the result keeps the pace of the client.

        Without a connection there is nobody to wait for.
        """
        if self._connection is None:
            return super().owe(items, size)
        if self._pace is None:
            self._pace = Pace(self._limits.max_unsent_items, self._limits.max_unsent_bytes)
        self._pace.owe(items, size)
        return self._pace

    def _disconnect(self) -> None:
        if self._connection is None:
            return
        self._connection = None
        self._writing.cancel()
        if self._pace is not None:
            self._pace.settle(self._pace.owed)
            self._pace = None  # a write under way settles what it has noted


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
