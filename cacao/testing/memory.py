"""A connection without a network, both ends of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from cacao.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.peer import Peer
    from cacao.testing.wire import Listener

__all__ = ["MemoryConnection", "MemoryWire"]


class MemoryConnection:
    """One WebSocket in memory, the server's end. Implements `cacao.connection.Connection`.

    Texts of the client's keep their order and are not limited in number. What the server sends is
    delivered at once, unless the client takes nothing for a while.

    Args:
        deliver: Called with each text the server sends.
        subprotocol: What the two sides agreed on; None for the plain protocol.
        peer: What the server is told of the client.

    Attributes:
        closed: Code and reason of the close, from whichever side came first; None while open.
    """

    def __init__(
        self, deliver: Callable[[str], None], *, subprotocol: str | None, peer: Peer
    ) -> None:
        self.subprotocol = subprotocol
        self.peer = peer
        self.closed: ConnectionClosed | None = None
        self._deliver = deliver
        self._inbox: deque[str] = deque()
        self._readers = trio.lowlevel.ParkingLot()
        self._held: trio.Event | None = None

    async def receive(self) -> str:
        """Wait for the next text of the client's.

        Raises:
            ConnectionClosed: Either side has closed, and all that came before was read.
        """
        if self._inbox:
            await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self.closed is not None:
                raise ConnectionClosed(self.closed.code, self.closed.reason)
            await self._readers.park()
        return self._inbox.popleft()

    async def send(self, text: str) -> None:
        """Hand a text to the client, when it takes any.

        Raises:
            ConnectionClosed: Either side has closed.
        """
        # Like a transport with room, it does not wait: a step less for each message.
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._held is not None and self.closed is None:
            await self._held.wait()
        if self.closed is not None:
            raise ConnectionClosed(self.closed.code, self.closed.reason)
        self._deliver(text)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the server's side; does not wait, and is nothing the second time."""
        self.turn_away(code, reason)

    def turn_away(self, code: int, reason: str) -> None:
        """The same, where nothing is awaited."""
        self.hang_up(code, reason)

    def put(self, text: str) -> None:
        """Send a text as the client. Must be called inside the trio run that reads it."""
        self._inbox.append(text)
        self._readers.unpark()

    def hold(self) -> None:
        """Take nothing from the server until `release`."""
        if self._held is None:
            self._held = trio.Event()

    def release(self) -> None:
        """Take what the server sends."""
        if self._held is not None:
            self._held.set()
            self._held = None

    def hang_up(self, code: int = 1001, reason: str = "") -> None:
        """Close as the client. Must be called inside the trio run that reads."""
        if self.closed is None:
            self.closed = ConnectionClosed(code, reason)
        self._readers.unpark_all()
        self.release()


class MemoryWire:
    """The client's end of a memory connection. Implements `cacao.testing.wire.Wire`.

    Args:
        listener: The client.
        subprotocol: As for `MemoryConnection`.
        peer: The same.

    Attributes:
        connection: The server's end.
    """

    in_flight = 0

    def __init__(self, listener: Listener, subprotocol: str | None, peer: Peer) -> None:
        self.connection = _FarEnd(self, subprotocol, peer)
        self._listener: Listener | None = listener

    def send(self, text: str) -> None:
        """Send a text to the server."""
        self.connection.put(text)

    def hold(self) -> None:
        """Take nothing from the server until `release`."""
        self.connection.hold()

    def release(self) -> None:
        """Take what the server sends."""
        self.connection.release()

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close as the client."""
        self.forget()
        self.connection.hang_up(code, reason)

    def forget(self) -> None:
        """Let the client be gone without the server noticing: what it sends gets lost."""
        self._listener = None

    def arrive(self, text: str) -> None:
        """Take a text of the server's."""
        if self._listener is not None:
            self._listener.arrived(self, text)

    def close(self, code: int, reason: str) -> None:
        """Take the server's close; the second time it is nothing."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.closed(self, ConnectionClosed(code, reason))


class _FarEnd(MemoryConnection):
    """The server's end of a wire: its close reaches the client."""

    def __init__(self, wire: MemoryWire, subprotocol: str | None, peer: Peer) -> None:
        super().__init__(wire.arrive, subprotocol=subprotocol, peer=peer)
        self._wire = wire

    def turn_away(self, code: int, reason: str) -> None:
        super().turn_away(code, reason)
        self._wire.close(code, reason)
