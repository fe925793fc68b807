"""One WebSocket, or what stands for it: all that a session knows of transports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cacao.peer import Peer

__all__ = ["Connection"]


class Connection(Protocol):
    """One WebSocket whose handshake is done."""

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
