"""One client on its wire: it sends events, answers heartbeats, and keeps what came."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cacao.errors import ConnectionClosed
from cacao.protocol import SUBPROTOCOL
from cacao.testing.memory import MemoryConnection
from cacao.testing.mirror import Mirror

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacao.peer import Peer

__all__ = ["Line"]


class Line:
    """A memory connection with a client of the protocol at its near end.

    Its methods that send must be called inside the trio run that serves the connection.

    Args:
        subprotocol: `"cacao.v1"`, or None for the plain protocol.
        peer: Who the client says it is.

    Attributes:
        connection: For `Runtime.serve`.
        mirror: What has come so far.
        refusal: How the app's `authenticate` has turned the client away; None if it has not.
    """

    def __init__(self, subprotocol: str | None, peer: Peer) -> None:
        self.mirror = Mirror()
        self.refusal: ConnectionClosed | None = None
        self.connection = MemoryConnection(self._deliver, subprotocol=subprotocol, peer=peer)
        self._last_id = 0
        if self._is_numbered:
            self._put({"type": "hello", "patches": True})

    @property
    def _is_numbered(self) -> bool:
        return self.connection.subprotocol == SUBPROTOCOL

    def send_event(
        self, name: str, data: dict[str, Any] | None, fields: Mapping[str, Any]
    ) -> int | None:
        """Send an event; gives its number, or None in the plain protocol.

        Raises:
            ConnectionClosed: Either side has closed.
        """
        event: dict[str, Any] = {"type": "event", "name": name, "data": {**(data or {}), **fields}}
        if self._is_numbered:
            self._last_id += 1
            event["id"] = self._last_id
        self._put(event)
        return event.get("id")

    def send_text(self, text: str) -> None:
        """Send a text as it is.

        Raises:
            ConnectionClosed: Either side has closed.
        """
        closed = self.connection.closed
        if closed is not None:
            why = f"{closed.reason or 'no reason given'}; open another client"
            raise ConnectionClosed(closed.code, why)
        self.connection.put(text)

    def leave(self) -> None:
        """Say goodbye and hang up, as a page does that is closed; the second time nothing."""
        if self.connection.closed is None:
            if self._is_numbered:
                self._put({"type": "bye"})
            self.connection.hang_up(1001, "the test client has closed")

    def refuse(self, code: int, reason: str) -> None:
        """Close as a server that turns the client away."""
        self.refusal = ConnectionClosed(code, reason)
        self.connection.hang_up(code, reason)

    def _put(self, message: dict[str, Any]) -> None:
        self.send_text(orjson.dumps(message).decode())

    def _deliver(self, text: str) -> None:
        message = self.mirror.take(text)
        if message["type"] == "beat" and self.connection.closed is None:
            self._put({"type": "beat"})
