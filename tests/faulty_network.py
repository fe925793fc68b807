"""A network in memory between clients and one run of an app: late, and not always there.

Time goes in ticks, so that thousands of clients share each jump of a test's clock. One task carries
everything: what is to arrive is a list, ordered by when. Within a wire nothing overtakes anything,
as in TCP; but a message of an older wire may come long after those of a newer one.
"""

from __future__ import annotations

import math
from functools import partial
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Protocol

import trio

from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL
from cacao.testing.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.runtime import Runtime

TICK = 1 / 64
"""Seconds; a sum of ticks has no rounding."""


class Listener(Protocol):
    """Who has dialled."""

    def arrived(self, wire: Wire, text: str) -> None:
        """Take a text of the server's."""
        ...

    def closed(self, wire: Wire, code: int) -> None:
        """Hear that the server has closed."""
        ...


class Network:
    """All wires of one test.

    Args:
        runtime: The server.
        nursery: Where its calls of connections run.
    """

    def __init__(self, runtime: Runtime, nursery: trio.Nursery) -> None:
        self._runtime = runtime
        self._nursery = nursery
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = count()
        self._earlier = trio.Event()

    async def run(self) -> None:
        """Carry everything, until cancelled."""
        while True:
            now = trio.current_time()
            while self._due and self._due[0][0] <= now:
                heappop(self._due)[2]()
            self._earlier = trio.Event()
            with trio.move_on_at(self._due[0][0] if self._due else math.inf):
                await self._earlier.wait()

    def after(self, ticks: int, action: Callable[[], object]) -> None:
        """Do something so many ticks later; at once for 0."""
        if ticks == 0:
            action()
            return
        at = (math.ceil(trio.current_time() / TICK) + ticks) * TICK
        if not self._due or at < self._due[0][0]:
            self._earlier.set()
        heappush(self._due, (at, next(self._numbers), action))

    def dial(self, listener: Listener, up: int, down: int) -> Wire:
        """Open a connection whose texts take `up` ticks to the server, and `down` from it."""
        wire = Wire(self, listener, up, down)
        self._nursery.start_soon(self._runtime.serve, wire.far_end)
        return wire


class Wire:
    """One connection, seen from its client.

    Attributes:
        far_end: What the server has of it.
    """

    def __init__(self, network: Network, listener: Listener, up: int, down: int) -> None:
        self.far_end = FarEnd(self)
        self._network = network
        self._listener = listener
        self._up, self._down = up, down
        self._up_left = self._down_left = math.inf
        self._is_losing = False

    def send(self, text: str) -> None:
        """Send a text, if the wire still carries it."""
        if self._up_left > 0:
            self._up_left -= 1
            self._network.after(self._up, partial(self.far_end.put, text))

    def cut(self, *, up: int, down: int, notice: int | None) -> None:
        """Break.

        Args:
            up: How many further texts reach the server.
            down: How many further texts come from it.
            notice: Ticks until the server notices; None for never.
        """
        self._up_left = min(self._up_left, up)
        self._down_left = min(self._down_left, down)
        if notice is not None:
            self._network.after(notice, partial(self.far_end.hang_up, 1006))

    def hang_up(self) -> None:
        """Close, as the client."""
        self._network.after(self._up, self.far_end.hang_up)
        self._up_left = 0

    def lose_update(self) -> None:
        """Let one update fail to arrive, as no network does: the client must see the gap."""
        self._is_losing = True

    def stall(self, ticks: int) -> None:
        """Take nothing from the server for a while."""
        self.far_end.hold()
        self._network.after(ticks, self.far_end.release)

    def deliver(self, text: str) -> None:
        """Carry a text of the server's."""
        self._network.after(self._down, partial(self._arrive, text))

    def close(self, code: int) -> None:
        """Carry the close of the server's, unless the wire is broken."""
        if self._down_left == math.inf:
            self._network.after(self._down, partial(self._listener.closed, self, code))

    def _arrive(self, text: str) -> None:
        if self._is_losing and text.startswith('{"type":"update"'):
            self._is_losing = False
        elif self._down_left > 0:
            self._down_left -= 1
            self._listener.arrived(self, text)


class FarEnd(MemoryConnection):
    """The server's end of a wire."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire.deliver, subprotocol=SUBPROTOCOL, peer=Peer())
        self._wire = wire

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close as the server."""
        self._wire.close(code)
        await super().close(code, reason)
