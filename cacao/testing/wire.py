"""One connection as its client sees it: the seam between a test's client and a transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cacao.errors import ConnectionClosed
    from cacao.peer import Peer

__all__ = ["Dial", "Listener", "Wire"]


class Listener(Protocol):
    """Who has opened a wire. What a wire tells, it tells inside the run, and without waiting."""

    def arrived(self, wire: Wire, text: str) -> None:
        """Take a text of the server's."""
        ...

    def closed(self, wire: Wire, why: ConnectionClosed) -> None:
        """Hear that the wire is closed, other than by `hang_up`; told once."""
        ...


class Wire(Protocol):
    """One connection from its client's side. All methods are called inside the run that carries it.

    A text that the client sends keeps its place; none is refused, and none waits.
    """

    @property
    def in_flight(self) -> int:
        """How many texts are on their way, in either direction: 0 where nothing is between."""
        ...

    def send(self, text: str) -> None:
        """Send a text to the server."""
        ...

    def hold(self) -> None:
        """Take nothing from the server until `release`."""
        ...

    def release(self) -> None:
        """Take what the server sends, and has sent meanwhile."""
        ...

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close as the client; 1006 is a connection that breaks."""
        ...

    def forget(self) -> None:
        """Let the client be gone without the server noticing: what it sends gets lost."""
        ...


class Dial(Protocol):
    """Opens a wire; texts may be sent on it at once."""

    def __call__(self, listener: Listener, subprotocol: str | None, peer: Peer) -> Wire:
        """Open a wire.

        Args:
            listener: Told what comes.
            subprotocol: `"cacao.v1"`, or None for the plain protocol.
            peer: Who the client says it is.
        """
        ...
