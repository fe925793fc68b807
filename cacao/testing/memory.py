"""A connection without a network, both ends of it."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

from cacao.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.peer import Peer

__all__ = ["MemoryConnection"]


class MemoryConnection:
    """One WebSocket in memory. Implements `cacao.session.Connection`.

    Texts keep their order and are not limited in number: nothing here pushes back.

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
        """Hand a text to the client.

        Raises:
            ConnectionClosed: Either side has closed.
        """
        # Like a transport with room, it does not wait: a step less for each message.
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.closed is not None:
            raise ConnectionClosed(self.closed.code, self.closed.reason)
        self._deliver(text)

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close from the server's side; does not wait, and is nothing the second time."""
        self.hang_up(code, reason)

    def put(self, text: str) -> None:
        """Send a text as the client. Must be called inside the trio run that reads it."""
        self._inbox.append(text)
        self._readers.unpark()

    def hang_up(self, code: int = 1001, reason: str = "") -> None:
        """Close as the client. Must be called inside the trio run that reads."""
        if self.closed is None:
            self.closed = ConnectionClosed(code, reason)
        self._readers.unpark_all()
