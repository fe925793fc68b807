"""One user: their signals, their running handlers, and the connection to their page.

How it works. A session is a store of signal values with a life. `run` is its nursery: when that
ends, everything that ran for this user has ended. The flusher is its body, the handlers are its
children. The reader is not in it: `attach` reads one connection in the task that brought the
connection, and hands each event to the session's nursery.

- Events start in the order they came. A binding or a plain function is answered in the reader, in
  place. An async handler gets a lane: a task that answers the waiting events of one name in order
  and ends when none is left. So a slow handler holds up its own name only.
- The flusher is the only task that writes to a connection. It sleeps while nothing is due; the end
  of an event and the first change after a quiet time leave at once, other changes gather for
  `flush_interval`; while a write is under way everything else gathers in the outbox.
- A client that floods is no longer read from: the reader waits while too many of its events run
  or too many replies wait for it.
- No session has a timer while nothing is due. `tend`, called for all sessions from one place,
  owes a silent page a beat and cuts a dead or stalled one.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, cast

import trio

from cacao.errors import ConnectionClosed, MessageError, NotSerializableError
from cacao.limits import Limits
from cacao.outbox import Outbox
from cacao.protocol import (
    SUBPROTOCOL,
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
from cacao.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

    from cacao.events import Declared, Events
    from cacao.protocol import Outcome
    from cacao.registry import Declaration, Registry

__all__ = ["Connection", "ErrorReport", "Peer", "Session"]


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of who opened a connection.

    Attributes:
        address: The client's address as the server saw it; empty in memory.
        path: The path asked for.
        query: The query string, undecoded.
        headers: By lower-case name; of a repeated header the last value.
    """

    address: str = ""
    path: str = "/ws"
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


class Connection(Protocol):
    """One WebSocket, or what stands for it: all that a session knows of transports."""

    subprotocol: str | None
    peer: Peer

    async def receive(self) -> str:
        """Wait for the next text message.

        Raises:
            ConnectionClosed: There will be no more.
        """
        ...

    async def send(self, text: str) -> None:
        """Send a text message, waiting until the transport takes it.

        Raises:
            ConnectionClosed: The other side is gone.
        """
        ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye. Never raises for a peer that is gone; closing twice is nothing."""
        ...


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error in the author's code, as `App.on_error` gets it.

    Attributes:
        error: What was raised.
        where: The place in words: "handler of event 'save'", "computed 'total'".
        session_id: Whose session it was.
        event: Name of the event being answered, if one was.
        error_id: What the client was told, so that the two can be brought together.
    """

    error: Exception
    where: str
    session_id: str
    event: str | None
    error_id: str


class Session(Store):
    """One user of an app: a store of signal values, and all that runs for that user.

    `Session()` alone, without app or connection, is a place to try signals in. A live session is
    opened by `Runtime.serve`; every handler gets it.

    Args:
        registry: Whose signals the client sees; None for none.
        events: What answers the client's events; None for nothing.
        limits: See `Limits`.
        report: Told of each error in the author's code.

    Attributes:
        id: Public name of this session; no secret.
        peer: Who opened the latest connection.
    """

    __slots__ = (
        "_closing",
        "_connection",
        "_error_sink",
        "_events",
        "_heard_at",
        "_is_urgent",
        "_lanes",
        "_limits",
        "_next_flush",
        "_nursery",
        "_outbox",
        "_reading",
        "_registry",
        "_room",
        "_sending_since",
        "_sent_at",
        "_started",
        "_waiting_events",
        "_work",
        "id",
        "peer",
    )

    def __init__(
        self,
        registry: Registry | None = None,
        events: Events | None = None,
        limits: Limits | None = None,
        report: Callable[[ErrorReport], None] | None = None,
    ) -> None:
        super().__init__()
        self.id = secrets.token_urlsafe(12)
        self.peer = Peer()
        self.guard = _require_serializable
        self._registry = registry
        self._events = events
        self._limits = limits or Limits()
        self._error_sink = report
        self._outbox = Outbox()
        self._lanes: dict[str, deque[Event]] = {}
        self._waiting_events = 0
        self._connection: Connection | None = None
        self._nursery: trio.Nursery | None = None
        self._reading: trio.CancelScope | None = None
        self._closing: tuple[int, str] = (CloseCode.NORMAL, "")
        self._is_urgent = False
        self._next_flush = self._sent_at = self._heard_at = 0.0
        self._sending_since: float | None = None
        self._work = _Wakeup()
        self._room = _Wakeup()
        self._started = _Wakeup()

    def __repr__(self) -> str:
        return f"<Session {self.id}>"

    # --- Life ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Live until closed. Everything that runs for this user is a child of this call.

        Cancelling it cancels the user's handlers, waits for them, and releases the values.
        """
        self.wake = self._work.set
        self.on_error = self._value_failed
        try:
            async with trio.open_nursery() as self._nursery:
                self._started.set()
                await self._flush()
        finally:
            self._nursery = None
            self._stop_reading(*self._closing)
            super().close()

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """End this session: its handlers are cancelled, its connection is closed.

        Args:
            code: The WebSocket close code that the page gets.
            reason: A short text for it.
        """
        self._closing = code, reason
        if self._nursery is None:
            super().close()
        else:
            self._nursery.cancel_scope.cancel()

    async def attach(self, connection: Connection, outcome: Outcome = "fresh") -> None:
        """Greet one connection and read its events, until it or the session ends.

        A message that is refused is answered with a coded error; only one that is too big ends
        the connection. Cancelling closes the connection with 1012.

        Args:
            connection: Not read by anyone else; closed when this returns.
            outcome: What the client is told of its session.
        """
        set_current_session(self)  # handlers inherit it from the task that reads
        if self._nursery is None:
            await self._started.wait()
        self.peer = connection.peer
        self._connection = connection
        self._heard_at = trio.current_time()
        self._outbox.is_numbered = connection.subprotocol == SUBPROTOCOL
        self._greet(outcome)
        self._closing = CloseCode.RESTART, "server is restarting"
        try:
            with trio.CancelScope() as self._reading:
                await self._read(connection)
        except ConnectionClosed:
            pass
        finally:
            self._reading = self._connection = None
            with trio.move_on_after(1, shield=True):
                await connection.close(*self._closing)

    def tend(self, now: float) -> None:
        """Look after the connection: owe it a beat, or cut it when it is dead or stalled.

        Args:
            now: `trio.current_time()`; to be called several times in `Limits.heartbeat`.
        """
        limits = self._limits
        if self._sending_since is not None:
            if now - self._sending_since > limits.send_timeout:
                self._stop_reading(CloseCode.POLICY, "the client takes nothing")
        elif self._outbox.is_numbered:
            if now - self._heard_at > 2 * limits.heartbeat:
                self._stop_reading(CloseCode.HEARTBEAT_TIMEOUT, "no sign of life")
            elif now - min(self._sent_at, self._heard_at) >= limits.heartbeat:
                self._outbox.is_beat_due = True
                self._hurry()

    def resend(self) -> None:
        """Send the whole state again, as when a signal was declared after this session began."""
        self._greet("rebuilt")

    # --- Reading -------------------------------------------------------------------------------

    async def _read(self, connection: Connection) -> None:
        limits = self._limits
        while True:
            text = await connection.receive()
            self._heard_at = trio.current_time()
            if byte_length_exceeds(text, limits.max_message_bytes):
                reason = f"a message has at most {limits.max_message_bytes} bytes"
                self._closing = CloseCode.TOO_BIG, reason
                return
            self._take(text)
            while self._is_full():
                await self._room.wait()

    def _is_full(self) -> bool:
        return (
            self._waiting_events >= self._limits.max_waiting_events
            or len(self._outbox.replies) >= self._limits.max_waiting_replies
        )

    def _take(self, text: str) -> None:
        try:
            match decode(text, self._limits):
                case Event() as event:
                    self._accept(event)
                case Hello():
                    self._greet("rebuilt")
                case _:  # a beat or a bye: that it came is all it says
                    pass
        except MessageError as error:
            if error.event_id is not None:
                self._outbox.last_event = max(self._outbox.last_event, error.event_id)
            self._reply(Error(error.code, str(error), error.event_id, error.details))

    def _greet(self, outcome: Outcome) -> None:
        greeting = Init({}, self.id)
        if self._outbox.is_numbered:
            token = secrets.token_urlsafe(24)
            greeting = Init({}, self.id, None, token, outcome, None, self._limits.heartbeat)
        self._outbox.greet(greeting)
        self._hurry()

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
        declared = self._events.get(event.name) if self._events is not None else None
        if declared is None:
            name = shorten(event.name)
            raise MessageError(
                ErrorCode.UNKNOWN_EVENT, f"no handler for event {name}", event_id=event.id
            )
        if declared.may_wait:
            self._line_up(declared, event)
        else:
            self._answer_in_place(declared, event)

    def _answer_in_place(self, declared: Declared, event: Event) -> None:
        try:
            declared.call(self, event.data)
        except MessageError as error:
            self._fail(event, error.code, str(error), error.details)
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            self._handler_failed(error, event)
        else:
            self._succeed(event)

    def _line_up(self, declared: Declared, event: Event) -> None:
        self._waiting_events += 1
        lane = self._lanes.get(event.name)
        if lane is not None:
            lane.append(event)
            return
        self._lanes[event.name] = lane = deque((event,))
        assert self._nursery is not None  # noqa: S101 - attach waits for it
        self._nursery.start_soon(self._run_lane, declared, lane, name=f"event {event.name}")

    async def _run_lane(self, declared: Declared, lane: deque[Event]) -> None:
        """Answer the events of one name in order, until none waits."""
        while lane:
            await self._answer(declared, lane[0])
            lane.popleft()
            self._waiting_events -= 1
            self._room.set()
        del self._lanes[declared.name]

    async def _answer(self, declared: Declared, event: Event) -> None:
        try:
            await cast("Awaitable[object]", declared.call(self, event.data))
        except MessageError as error:
            self._fail(event, error.code, str(error), error.details)
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            self._handler_failed(error, event)
        else:
            self._succeed(event)

    def _succeed(self, event: Event) -> None:
        if event.id is not None:
            self._outbox.replies.append(Result(event.id, ok=True))
        self._hurry()

    def _handler_failed(self, error: Exception, event: Event) -> None:
        where = f"handler of event {event.name!r}"
        error_id = self._report_error(error, where, event.name)
        self._fail(event, *_told_to_client(error, where), error_id=error_id)

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
        where = f"{type(declaration).__name__.lower()} {declaration.label!r}"
        error_id = self._report_error(error, where, None)
        code, message = _told_to_client(error, where)
        self._reply(Error(code, message, error_id=error_id))

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
            await self._work.wait()
            while not self._is_urgent and (wait := self._next_flush - trio.current_time()) > 0:
                with trio.move_on_after(wait):
                    await self._work.wait()
            self._is_urgent = False
            if self._connection is not None:
                await self._write(self._connection)
            else:
                self.run_effects()

    async def _write(self, connection: Connection) -> None:
        texts = self._outbox.take(self, self._registry, self._value_failed)
        if not texts:
            return
        self._sending_since = trio.current_time()
        try:
            for text in texts:
                await connection.send(text)
        except ConnectionClosed:
            self._connection = None  # the reader will hear of it too
        finally:
            self._sending_since = None
        self._sent_at = trio.current_time()
        self._next_flush = self._sent_at + self._limits.flush_interval
        self._room.set()


class _Wakeup:
    """Lets one task sleep until there is something for it; a call that came before counts."""

    __slots__ = ("_is_set", "_sleeper")

    def __init__(self) -> None:
        self._is_set = False
        self._sleeper: trio.lowlevel.Task | None = None

    def set(self) -> None:
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None
        else:
            self._is_set = True

    async def wait(self) -> None:
        if self._is_set:
            await trio.lowlevel.checkpoint()
        else:
            self._sleeper = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        self._is_set = False

    def _abort(self, _: Callable[[], object]) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED


def _require_serializable(declaration: Declaration, value: object) -> None:
    encode_value(declaration.name or "", value)


def _told_to_client(error: Exception, where: str) -> tuple[ErrorCode, str]:
    """Give the code and a text that betrays nothing of the server."""
    if isinstance(error, NotSerializableError):
        return ErrorCode.NOT_SERIALIZABLE, str(error)
    return ErrorCode.HANDLER_ERROR, f"{where} failed; the server's log has the details"
