"""An app in a trio run that nothing but its inputs moves."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

import trio

from cacao.clock import follow
from cacao.recording.door import Door
from cacao.testing.hand_pump import HandPump
from cacao.testing.inspection.tasks import tasks_below
from cacao.testing.inspection.waits import needs_real_time
from cacao.testing.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from cacao.app import App
    from cacao.peer import Peer
    from cacao.reports import ErrorReport
    from cacao.runtime import Runtime

    # Which client (0: none), what has come ("out", "closed", "error"), and what was said.
    Deliver = Callable[[int, str, "str | tuple[int, str] | ErrorReport"], object]

__all__ = ["SealedRun"]

# More than any app needs that a server could run.
_MAX_TICKS = 1_000_000
# Where trio counts who waits for I/O (with epoll, and with kqueue); it waits for its own wakeup.
_WAITING = "tasks_waiting_read", "tasks_waiting_write", "tasks_waiting"
_TRIOS_OWN = 1
_NOBODY = 0
# Real seconds that threads may take to end after the run, and between two looks at them.
_PATIENCE = 2.0
_POLL = 0.001


class SealedRun:
    """One run of an app: its clients are in memory, its clock is its owner's, nothing is stored.

    Every method returns when all tasks are blocked. Must be used from one thread; also inside
    another trio run, which then stands still.

    Args:
        app: The app.
        seed: Decides the order in which ready tasks run, and what `random` gives.
        start: What `cacao.clock` gives in the app at the beginning, with a time zone.
        deliver: Called with all that the server sends, in order, during the methods.
        knock: Called, in whatever thread, when work in a thread waits to be let in.
        max_ticks: Scheduler steps that may pass before everything has come to rest.

    Attributes:
        door: Where such work waits.
    """

    def __init__(
        self,
        app: App,
        seed: int,
        start: datetime,
        deliver: Deliver,
        knock: Callable[[], object] = lambda: None,
        max_ticks: int = _MAX_TICKS,
    ) -> None:
        self.door = Door(knock)
        self._app = app
        self._start = start
        self._deliver = deliver
        self._connections: dict[int, _Connection] = {}
        self._is_over = trio.Event()
        random.seed(seed)
        self._pump = HandPump(self._run, seed=seed, max_ticks=max_ticks)
        self._pump.settle()

    async def _run(self) -> None:
        self._task = trio.lowlevel.current_task()
        self.door.install()
        with follow(lambda: self.time, self._start):
            async with (
                self._app.runtime(self._report, storage="memory:") as self.runtime,
                trio.open_nursery() as self._nursery,
            ):
                await self._is_over.wait()
                self._nursery.cancel_scope.cancel()

    def _report(self, report: ErrorReport) -> None:
        self._deliver(_NOBODY, "error", report)

    runtime: Runtime
    _nursery: trio.Nursery

    @property
    def sessions(self) -> list[str]:
        """The ids of the live sessions, the oldest first; none before the app has started."""
        return list(self.runtime.sessions) if hasattr(self, "runtime") else []

    # --- Time ----------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Virtual seconds since the run began."""
        return self._pump.time

    @property
    def next_deadline(self) -> float:
        """When the next thing is due, in virtual seconds since the run began, or infinity."""
        return self._pump.next_deadline

    @property
    def waits_for_outside(self) -> bool:
        """Whether something in it waits for a thread or for real I/O."""
        return self.waits_for_io or any(map(needs_real_time, tasks_below(self._task)))

    @property
    def waits_for_io(self) -> bool:
        """Whether something in it waits for real I/O, which no door holds back."""
        io = self._pump.call(trio.lowlevel.current_statistics).io_statistics
        return sum(getattr(io, name, 0) for name in _WAITING) > _TRIOS_OWN

    def pass_deadlines(self, until: float) -> None:
        """Let time pass up to the last deadline that is due by then, stopping at each."""
        while self.pass_one(until):
            pass

    def pass_one(self, until: float) -> bool:
        """Go on to the next deadline, if it is due by then; tells whether it was."""
        deadline = self.next_deadline
        if deadline > until or deadline == math.inf:
            return False
        self._pump.advance(max(deadline - self.time, 0.0))
        return True

    def advance_to(self, moment: float) -> None:
        """Let time pass up to a moment, stopping at each deadline."""
        self.pass_deadlines(moment)
        if moment > self.time:
            self._pump.advance(moment - self.time)

    # --- What comes in -------------------------------------------------------------------------

    def open(self, client: int, subprotocol: str | None, peer: Peer) -> None:
        """Connect a client, whom the app's `authenticate` has let in."""
        self._pump.do(self._open, client, subprotocol, peer)

    def _open(self, client: int, subprotocol: str | None, peer: Peer) -> None:
        connection = _Connection(client, self._deliver, subprotocol, peer)
        self._connections[client] = connection
        self._nursery.start_soon(self._serve, connection, name=f"client {client}")

    async def _serve(self, connection: _Connection) -> None:
        try:
            await self.runtime.serve(connection)
        finally:
            del self._connections[connection.client]

    def put(self, client: int, text: str) -> None:
        """Send a text as a client."""
        self._pump.do(self._with, client, lambda connection: connection.put(text))

    def hang_up(self, client: int, code: int, reason: str) -> None:
        """Close as a client."""
        self._pump.do(self._with, client, lambda connection: connection.hang_up(code, reason))

    def _with(self, client: int, action: Callable[[_Connection], object]) -> None:
        connection = self._connections.get(client)
        if connection is not None and connection.closed is None:
            action(connection)

    def let_in(self, numbers: Sequence[int]) -> None:
        """Let work in threads come back, by the numbers of the tasks that wait for it."""
        self._pump.do(self.door.let_in, numbers)

    def settle(self) -> None:
        """Let come in what real I/O has brought."""
        self._pump.settle()

    def drain(self) -> None:
        """Close every session with 1012, as a server that is about to end."""
        self._pump.do(self.runtime.drain)

    def close(self) -> None:
        """End the run, and all that is left in it; threads get two real seconds to notice."""
        give_up = time.monotonic() + _PATIENCE
        if self._pump.broken is None:
            self._pump.do(self._is_over.set)
        while self._pump.broken is None and not self._pump.has_ended and time.monotonic() < give_up:
            if self.waits_for_outside:
                time.sleep(_POLL)
                self.let_in(self.door.waiting)
            elif not self.pass_one(math.inf):
                break
        self.door.close()
        self._pump.put_away()


class _Connection(MemoryConnection):
    """The memory connection of a numbered client, which tells of its close as well."""

    def __init__(self, client: int, deliver: Deliver, subprotocol: str | None, peer: Peer) -> None:
        super().__init__(self._take, subprotocol=subprotocol, peer=peer)
        self.client = client
        self._deliver_to = deliver

    def _take(self, text: str) -> None:
        self._deliver_to(self.client, "out", text)

    def turn_away(self, code: int, reason: str) -> None:
        """Close from the server's side; the second time it is nothing."""
        if self.closed is None:
            self._deliver_to(self.client, "closed", (int(code), reason))
        super().turn_away(code, reason)
