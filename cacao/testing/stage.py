"""One run of an app with all its clients, inside whatever trio run surrounds it."""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import orjson
import trio
import trio.testing

from cacao.app import App
from cacao.clock import follow
from cacao.peer import Peer
from cacao.protocol import encode_value
from cacao.reactive import Computed, Signal, set_current_session
from cacao.testing.clock import StepClock
from cacao.testing.inspection.leaks import LeakError, Leaks
from cacao.testing.inspection.rest import wait_for_threads
from cacao.testing.inspection.tasks import tasks_below
from cacao.testing.inspection.waits import needs_real_time
from cacao.testing.line import Line
from cacao.testing.memory import MemoryConnection, MemoryWire
from cacao.testing.runs import Runs
from cacao.testing.unread import UnreadErrors
from cacao.testing.vias import make_pages, make_served, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from cacao.runtime import Runtime
    from cacao.session import Session
    from cacao.testing.browser.pages import Pages
    from cacao.testing.settings import Via
    from cacao.testing.sockets.served import Served
    from cacao.testing.wire import Listener, Wire

__all__ = ["ROUNDS", "Stage"]

T = TypeVar("T")

# How often changes that gather are sent before time must pass: some make the app change more.
ROUNDS = 16
_START = datetime(2026, 1, 1, tzinfo=UTC)
# Virtual seconds that the work of users who have left may take to end.
_PATIENCE = 150.0
# Real seconds that threads may take to notice that they are to end, and between two looks at them.
_REAL_PATIENCE = 5.0
_POLL = 0.001


class Stage:
    """The app's runtime, its clients' lines and the errors that no test has seen.

    It never waits by itself: whoever owns it settles the run after each call.

    Args:
        app: The app under test.
        now: What `cacao.clock` gives in the app at its beginning, with a time zone, where the
            clock of the run is a test's; by default the first moment of 2026.
        via: How its clients reach it.

    Attributes:
        start: As given by `now`.
        via: As given.
        unread: Where the app's errors gather.
        runs: What became of the events.
        lines: The clients, in the order in which they came.
        is_together: Whether clients send without letting the app run in between.
        do: Does something in the run and lets the app come to rest, where the owner need not be
            waited for; else it only does it.

    Raises:
        TypeError: `app` is no App.
    """

    def __init__(self, app: App, now: datetime | None = None, via: Via = "memory") -> None:
        if not isinstance(app, App):
            raise TypeError(
                f"a test client needs a cacao.App, not {type(app).__name__} {app!r}; "
                "pass the object made by App() (if this is app.asgi, pass app)"
            )
        prepare(via)
        self.via = via
        self._app = app
        self._served: Served | None = None
        self._pages: Pages | None = None
        self.start = _START if now is None else now
        self.unread = UnreadErrors()
        self.runs = Runs()
        self._leaks = Leaks()
        self.lines: list[Line] = []
        self.is_together = False
        self.do: Callable[[Callable[[], object]], object] = lambda act: act()
        self._at_the_door = 0  # clients that `authenticate` looks at
        self._is_over = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the app until `end`; when this returns, nothing of it is left."""
        self._task = trio.lowlevel.current_task()
        self._is_running = True
        try:
            with self._leaks.watch(), self._clock_followed():
                async with (
                    self._app.runtime(
                        self.unread.report, storage="memory:", witness=self.runs
                    ) as self._runtime,
                    trio.open_nursery() as self._nursery,
                ):
                    self._started_at = trio.current_time()
                    await self._nursery.start(self._carry)
                    if self.via != "memory":
                        await self._serve_really()
                    task_status.started()
                    await self._is_over.wait()
                    self._nursery.cancel_scope.cancel()
        finally:
            self._is_running = False

    def _clock_followed(self) -> AbstractContextManager[None]:
        """Let `cacao.clock` follow the clock of the run, if that is a test's."""
        clock = trio.lowlevel.current_clock()
        if not isinstance(clock, StepClock | trio.testing.MockClock):
            return nullcontext()
        started_at = clock.current_time()
        return follow(lambda: clock.current_time() - started_at, self.start)

    @property
    def runtime(self) -> Runtime:
        """The run of the app, once it has started."""
        return self._runtime

    async def _serve_really(self) -> None:
        self._served = make_served(self._app, self._runtime, self.unread.report, self.unread.add)
        await self._nursery.start(self._served.run)
        if self.via == "browser":
            self._pages = make_pages(self._served, self.unread.add)

    def is_busy(self) -> bool:
        """Tell, while every task is blocked, whether real sockets still bring something."""
        return self._served is not None and self._served.is_busy()

    async def rest(self) -> None:
        """Wait, as a task of the run, until all others are blocked and no socket brings more."""
        await trio.testing.wait_all_tasks_blocked()
        while self.is_busy():
            await trio.testing.wait_all_tasks_blocked()

    def mark_start(self) -> None:
        """Take what runs now for the app's own; later tasks must end with their users."""
        self._leaks.mark_start()

    async def _carry(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Own what the networks of the clients need: below a task that is none of the app's."""
        async with trio.open_nursery() as self._networks:
            task_status.started()
            await trio.sleep_forever()

    @property
    def time(self) -> float:
        """Seconds since the app was started."""
        return trio.current_time() - self._started_at

    def introduce(
        self, who: object, headers: Mapping[str, str] | None, cookies: Mapping[str, str] | None
    ) -> tuple[str, Peer]:
        """Say who a client is: as the handshake says, or a user whom nobody asks for a proof.

        Returns:
            Their name, empty for nobody in particular, and the peer.
        """
        peer = Peer.of(headers or {}, cookies or {})
        name = Peer(user=who).user_key or ""
        if who is not None and headers is None and cookies is None and self._app.knows_users:
            return name, replace(peer, user=who)
        return name, peer

    def open_line(self, name: str, subprotocol: str | None, peer: Peer) -> Line:
        """Connect one more client."""
        name = name or f"client {len(self.lines) + 1}"
        open_it = self._open_line if self._pages is None else self._open_page
        line = open_it(name, subprotocol, peer)
        self.lines.append(line)
        return line

    def _open_line(self, name: str, subprotocol: str | None, peer: Peer) -> Line:
        line = Line(
            name,
            self._dial,
            subprotocol,
            peer,
            clock=lambda: self.time,
            start_soon=self._networks.start_soon,
            do=lambda act: self.do(act),
        )
        line.network.connect()
        return line

    def _open_page(self, name: str, subprotocol: str | None, peer: Peer) -> Line:
        pages = cast("Pages", self._pages)
        page = pages.open_line(name, subprotocol, peer, lambda: self.time, lambda act: self.do(act))
        return cast("Line", page)  # it has all that the harness asks of one

    def _dial(self, listener: Listener, subprotocol: str | None, peer: Peer) -> Wire:
        if self._served is not None:
            return self._served.dial(listener, subprotocol, peer)
        wire = MemoryWire(listener, subprotocol, peer)
        inside = self._task.context.copy()  # not the test's, where `cacao.clock` is the real one
        inside.run(partial(self._nursery.start_soon, self._serve, wire, name="connection"))
        return wire

    async def _serve(self, wire: MemoryWire) -> None:
        connection = wire.connection
        try:
            if await self._admit(connection):
                await self._runtime.serve(connection)
        except Exception as error:  # noqa: BLE001 -- the test is told, by the next raise_unread
            self.unread.add(error)
        finally:
            connection.turn_away(1006, "the server has let go of the connection")

    async def _admit(self, connection: MemoryConnection) -> bool:
        if connection.peer.user is not None:
            return True  # the test has said who it is
        self._at_the_door += 1
        try:
            admitted = await self._app.admit(connection.peer, self.unread.report)
        finally:
            self._at_the_door -= 1
        if isinstance(admitted, Peer):
            connection.peer = admitted
            return True
        connection.turn_away(admitted.code, admitted.reason)
        return False

    def leave(self, lines: Iterable[Line]) -> bool:
        """Close the lines of some clients; tells whether they were the last ones open."""
        for line in lines:
            line.leave()
        return all(line.has_left for line in self.lines)

    @property
    def event_names(self) -> list[str]:
        """The events that the app answers."""
        return [event.name for event in self._app.events()]

    def state_of(self, session: Session) -> dict[str, Any]:
        """Give the values of a session by name, as a client would have them.

        Raises:
            Exception: What a computed signal raised.
        """
        return self.call(session, self._state_of, session)

    def _state_of(self, session: Session) -> dict[str, Any]:
        return {
            shown.label: orjson.loads(encode_value(shown.label, shown.peek(session)))
            for shown in self._app.registry.synced
            if isinstance(shown, Signal | Computed)
        }

    def wait_for_threads(self) -> Iterator[float]:
        """Let real time pass until no task waits for a thread; to be driven as `close` is.

        Raises:
            UnsettledError: Some still wait; names them, and where the threads are.
        """
        return wait_for_threads(self._task)

    @contextmanager
    def together(self) -> Iterator[int]:
        """Let clients only send within the block; gives how many clients there were before.

        Raises:
            RuntimeError: This is within such a block.
        """
        if self.is_together:
            raise RuntimeError("together() does not nest; put it all into one block")
        self.is_together = True
        try:
            yield len(self.lines)
        finally:
            self.is_together = False

    def raise_refusals(self, count: int) -> None:
        """Tell how a client was turned away that came after the first so many.

        Raises:
            ConnectionClosed: One was.
        """
        for line in self.lines[count:]:
            if line.refusal is not None:
                raise line.refusal

    def refuse_together(self) -> None:
        """Refuse what would let the app run within `together`.

        Raises:
            RuntimeError: This is within it.
        """
        if self.is_together:
            raise RuntimeError(
                "within together() clients only send; advance, settle or wait after the block"
            )

    def send_gathered(self) -> bool:
        """Let changes go out that gather for a moment; tells whether there are any."""
        is_news = self._runtime.announce()
        sent = [session.send_gathered() for session in self._runtime.sessions.values()]
        return is_news or any(sent)

    def call(self, session: Session, function: Callable[..., T], *args: object) -> T:
        """Call a plain function as the app's code in a session would: `.value` is the session's."""
        inside = self._task.context.copy()
        inside.run(set_current_session, session)
        return inside.run(function, *args)

    def end(self) -> None:
        """Stop the app."""
        self._is_over.set()

    def close(self) -> Iterator[float]:
        """Close every line and stop the app, checking that nothing is left.

        Yields:
            Seconds that the owner must let pass, settling, before it goes on with the next.

        Raises:
            LeakError: Something outlived the last client; names it, and where it comes from.
            Exception: An error of the app's that no test has seen.
        """
        self.leave(self.lines)
        for line in self.lines:
            line.network.end()
        yield 0
        self._runtime.end_waiting()  # nobody can come back
        yield from self._wait_while(lambda: bool(self._runtime.sessions or self._at_the_door))
        leaks = self._leaks.tasks()
        self.end()
        yield from self._wait_while(lambda: self._is_running)
        if self._is_running:
            leaks = self._leaks.tasks() | leaks
        yield from self._leaks.wait_for_strays(_REAL_PATIENCE)
        if left := [*leaks.values(), *self._leaks.things()]:
            self.unread.add(LeakError(left))
        self.unread.raise_unread()

    def _wait_while(self, condition: Callable[[], bool]) -> Iterator[float]:
        """Let virtual time pass while something holds; real time as well, for threads to end."""
        yield 0
        waited, give_up = 0.0, time.monotonic() + _REAL_PATIENCE
        while condition() and waited < _PATIENCE:
            if time.monotonic() < give_up and any(map(needs_real_time, tasks_below(self._task))):
                time.sleep(_POLL)
                yield 0
            else:
                waited += 1.0
                yield 1.0
