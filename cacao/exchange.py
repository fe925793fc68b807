"""One session's exchange with its client: over one connection at a time, or over none for a while.

How it works.

- A newer connection takes the exchange over: the older one is let go first, and nothing that it
  still brings counts.
- The reader runs in the task that brought the connection. It waits while too much is under way,
  too many replies wait for the client, or the client has used up its allowance.
- The flusher is the only task that writes. It sleeps while nothing is due; the end of an event and
  the first change after a quiet time leave at once, other changes gather for `flush_interval`;
  while a write is under way everything else gathers in the outbox.
- There is no timer while nothing is due. `tend`, called for all sessions from one place, owes a
  silent page a beat and cuts a dead or stalled one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cacao.allowance import Allowance
from cacao.errors import ConnectionClosed, MessageError
from cacao.outbox import Outbox
from cacao.pace import Pace
from cacao.protocol import (
    SUBPROTOCOL,
    Bye,
    CloseCode,
    Error,
    Event,
    Hello,
    Init,
    byte_length_exceeds,
    decode,
)
from cacao.tokens import Tokens
from cacao.wakeup import Wakeup

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cacao.connection import Connection
    from cacao.dispatch import Dispatch
    from cacao.limits import Limits
    from cacao.parking import ParkedSession
    from cacao.protocol import Outcome, Result
    from cacao.registry import Registry
    from cacao.shared import SharedStore
    from cacao.store import Store

__all__ = ["RESTART", "TAKEN_OVER", "Exchange"]

# How a connection is closed that neither side wanted to end.
RESTART = CloseCode.RESTART, "server is restarting"
TAKEN_OVER = CloseCode.TAKEN_OVER, "a newer connection has taken the session over"


class Exchange:
    """What is said between one session and its client.

    Args:
        session_id: What the client is told of the session.
        limits: See `Limits`.
        register: Which session the digest of each token stands for, by id.
        shared: Has the app-wide values; None if the session has them itself.

    Attributes:
        session_id: As given.
        tokens: What takes the session up again.
        outbox: What is on its way to the client.
        work: Wakes the flusher.
        room: Wakes who waits until less is under way.
        claimant: The newest connection, and so the one to have the exchange; None for none.
        reading: Cancelled to let the connection go that is read; None if there is none.
        closing: The code and the reason to close the connection with.
        is_leaving: Whether the client has said that it goes.
    """

    __slots__ = (
        "_allowance",
        "_connection",
        "_heard_at",
        "_inits",
        "_is_sending",
        "_is_urgent",
        "_let_go",
        "_limits",
        "_outcome",
        "_pace",
        "_sent_at",
        "_was_heard",
        "_writing",
        "claimant",
        "closing",
        "is_leaving",
        "outbox",
        "reading",
        "room",
        "session_id",
        "tokens",
        "work",
    )

    def __init__(
        self,
        session_id: str,
        limits: Limits,
        register: dict[bytes, str],
        shared: SharedStore | None,
    ) -> None:
        self.session_id = session_id
        self.tokens = Tokens(register, session_id)
        self.outbox = Outbox(shared)
        self.work = Wakeup()
        self.room = Wakeup()
        self.claimant: Connection | None = None
        self.reading: trio.CancelScope | None = None
        self.closing: tuple[int, str] = (CloseCode.NORMAL, "")
        self.is_leaving = False
        self._limits = limits
        self._connection: Connection | None = None  # the one that is greeted, read and written to
        self._writing = trio.CancelScope()
        self._let_go: trio.Event | None = None  # there is one while somebody waits for it
        self._allowance: Allowance | None = None
        self._pace: Pace | None = None
        self._outcome: Outcome | None = None  # if the connection is to be greeted
        self._inits = 0  # sent to it
        self._is_urgent = False
        self._is_sending = False
        self._was_heard = False
        self._sent_at = self._heard_at = 0.0  # when a write was begun, and a message noticed

    # --- Another process -----------------------------------------------------------------------

    def outcomes(self) -> list[tuple[int, Result | Error]]:
        """List how the last events ended, those that the client has not been told of included."""
        outbox = self.outbox
        waiting = [(outbox.rev, reply) for reply in outbox.replies if reply.id is not None]
        return outbox.outcomes + waiting

    def go_on_from(self, parked: ParkedSession) -> None:
        """Go on with an exchange that another process has begun."""
        self.session_id = parked.id
        self.tokens.session_id = parked.id
        self.tokens.accept(tuple(map(bytes.fromhex, parked.tokens)))
        self.outbox.last_event = parked.last_event
        self.outbox.rev = parked.rev + 1  # which no client has seen: each is told "rebuilt"
        self.outbox.outcomes = parked.outcomes

    # --- One connection ------------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether there is somebody to write to."""
        return self._connection is not None

    async def take_over(self, connection: Connection) -> None:
        """Let a connection have the exchange, when the older one has been let go.

        Raises:
            ConnectionClosed: A newer connection has come meanwhile.
        """
        self.claimant = connection
        self._disconnect()
        self.stop_reading(*TAKEN_OVER)
        try:
            while self.reading is not None and self.claimant is connection:
                await self.until_let_go()
        except trio.Cancelled:
            self._give_up_claim(connection)
            raise
        if self.claimant is not connection:
            raise ConnectionClosed(*TAKEN_OVER)
        self.closing = RESTART

    def open(self, connection: Connection, hello: Hello | None) -> None:
        """Begin to write to a connection.

        Args:
            connection: It has taken the exchange over.
            hello: What the client has said of itself; None for a plain one.
        """
        self.outbox.is_numbered = connection.subprotocol == SUBPROTOCOL
        self.outbox.can_patch = hello is not None and hello.patches
        if hello is not None and hello.resume is not None:
            self.tokens.present(hello.resume)
        self._inits = 0
        self._heard_at = trio.current_time()
        self.is_leaving = False
        self._connection = connection
        self.greet(self.outbox.reopen(hello.rev if hello is not None else None))

    def hang_up(self, connection: Connection | None = None) -> None:
        """Write no more to a connection, or to whichever there is, nor take what it brings."""
        if connection is None or self._connection is connection:
            self._disconnect()

    def let_go(self, connection: Connection) -> None:
        """Let the next connection have the exchange."""
        self._give_up_claim(connection)
        self.reading = None
        if self._let_go is not None:
            self._let_go.set()
            self._let_go = None

    async def until_let_go(self) -> None:
        """Wait until the connection that is being read has been let go."""
        if self._let_go is None:
            self._let_go = trio.Event()
        await self._let_go.wait()

    def stop_reading(self, code: int, reason: str) -> None:
        """Let the connection go that is read, if there is one."""
        self.closing = code, reason
        if self.reading is not None:
            self.reading.cancel()

    def _give_up_claim(self, connection: Connection) -> None:
        if self.claimant is connection:
            self.claimant = None

    def _disconnect(self) -> None:
        if self._connection is None:
            return
        self._connection = None
        self._writing.cancel()
        if self._pace is not None:
            self._pace.settle(self._pace.owed)
            self._pace = None  # a write under way settles what it has noted

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
                self.stop_reading(CloseCode.POLICY, "the client takes nothing")
        elif self.outbox.is_numbered:
            if now - self._heard_at > 2 * limits.heartbeat:
                self.stop_reading(CloseCode.HEARTBEAT_TIMEOUT, "no sign of life")
            elif now - min(self._sent_at, self._heard_at) >= limits.heartbeat:
                self.outbox.is_beat_due = True
                self.hurry()

    # --- Reading -------------------------------------------------------------------------------

    async def read(self, connection: Connection, dispatch: Dispatch) -> None:
        """Read a connection until it is let go, or has sent a message that is too big.

        A message that is refused is answered with a coded error.

        Raises:
            ConnectionClosed: The client has gone.
        """
        limits = self._limits
        allowance = self._allowance
        if allowance is None:
            allowance = Allowance(limits.max_messages_per_second, limits.message_burst)
            self._allowance = allowance
        while True:
            if allowance.left < 0:
                await allowance.earn()
            text = await connection.receive()
            if self._connection is not connection:
                return  # it has been let go: this came too late
            self._was_heard = True
            allowance.left -= 1
            if byte_length_exceeds(text, limits.max_message_bytes):
                reason = f"a message has at most {limits.max_message_bytes} bytes"
                self.closing = CloseCode.TOO_BIG, reason
                return
            self._take(text, dispatch)
            while (
                len(dispatch.under_way) >= limits.max_waiting_events
                or len(self.outbox.replies) >= limits.max_waiting_replies
            ):
                await self.room.wait()

    def _take(self, text: str, dispatch: Dispatch) -> None:
        try:
            match decode(text, self._limits):
                case Event() as event:
                    self._note_that_init_came()
                    self._accept(event, dispatch)
                case Hello() as hello:
                    if hello.resume is not None:
                        self.tokens.present(hello.resume)
                    self.outbox.can_patch = hello.patches
                    self.greet("rebuilt")
                case Bye():
                    self.is_leaving = True
                case _:  # a beat
                    self._note_that_init_came()
        except MessageError as error:
            if error.event_id is not None:
                self.outbox.last_event = max(self.outbox.last_event, error.event_id)
            self.reply(Error(error.code, str(error), error.event_id, error.details))

    def _accept(self, event: Event, dispatch: Dispatch) -> None:
        if event.id is not None:
            if event.id <= self.outbox.last_event:
                self.outbox.acknowledge_again()
                self.hurry()
                return
            self.outbox.last_event = event.id
        dispatch.accept(event)

    def _note_that_init_came(self) -> None:
        """Take the client's word for it: before an `init` it says `hello` and `bye` alone.

        Where there were several, a message does not tell which of them it follows.
        """
        if self._inits == 1:
            self.tokens.confirm()

    # --- Writing -------------------------------------------------------------------------------

    def reply(self, message: Result | Error) -> None:
        """Send a result or an error."""
        self.outbox.replies.append(message)
        self.hurry()

    def greet(self, outcome: Outcome) -> None:
        """Send the whole state next; what the client is told of its session with it."""
        self._outcome = outcome
        self.hurry()

    def _greeting(self) -> Init | None:
        outcome, self._outcome = self._outcome, None
        if outcome is None:
            return None
        if not self.outbox.is_numbered:
            return Init({}, self.session_id)
        self._inits += 1
        token = self.tokens.issue()
        return Init({}, self.session_id, None, token, outcome, None, self._limits.heartbeat)

    def hurry(self) -> None:
        """Let the flusher write now: somebody waits for it."""
        self._is_urgent = True
        self.work.set()

    async def flush(
        self, store: Store, registry: Registry | None, failed: Callable[[Exception, Any], None]
    ) -> None:
        """Write what is due, until cancelled; without a connection only run the effects.

        Args:
            store: Has the values, and what changed.
            registry: Whose declarations the client sees; None for none.
            failed: Told of each value that could not be computed or written.
        """
        while True:
            with trio.CancelScope() as self._writing:  # until the connection is let go
                while True:
                    await self.work.wait()
                    while not self._is_urgent and (wait := self._gathering_time()) > 0:
                        with trio.move_on_after(wait):
                            await self.work.wait()
                    if self._writing.cancel_called:
                        break  # let go in this moment: what is due is for the next connection
                    self._is_urgent = False
                    if self._connection is None:
                        store.run_effects()
                    else:
                        texts = self.outbox.take(store, registry, failed, self._greeting())
                        await self._write(self._connection, texts)
                    self.room.set()
            self.work.set()  # what it was woken for may still be due

    def _gathering_time(self) -> float:
        """Tell how long changes that nobody waits for are still gathered, in seconds."""
        return self._sent_at + self._limits.flush_interval - trio.current_time()

    async def _write(self, connection: Connection, texts: list[str]) -> None:
        if not texts:
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

    async def until_flushed(self, is_busy: Callable[[], bool]) -> None:
        """Wait until nothing is under way and nothing is due, or the connection is gone.

        Args:
            is_busy: Whether there may be more to write.
        """
        while self._connection is not None and (is_busy() or self._is_urgent or self._is_sending):
            await self.room.wait()

    def pace(self) -> Pace | None:
        """Give what keeps the pace of the client; None where there is nobody to wait for."""
        if self._connection is None:
            return None
        if self._pace is None:
            self._pace = Pace(self._limits.max_unsent_items, self._limits.max_unsent_bytes)
        return self._pace
