"""The server's end of a connection over a socket, and what of it is on its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Message = MutableMapping[str, Any]

__all__ = ["FarEnd", "NearEnd"]

_GIVEN = {
    "websocket.accept",
    "websocket.send",
    "websocket.close",
    "websocket.http.response.body",
}


class FarEnd:
    """A connection as the server has it, with its texts counted.

    Args:
        receive: Of the ASGI call.
        send: The same.

    Attributes:
        has_ended: Whether the app is done with it.
        is_reading: Whether the app waits for a text.
        taken: How many texts the app has taken; the client's close counts as one.
        given: How many it has sent; answering the handshake and closing count as one each.
    """

    def __init__(
        self,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self.has_ended = self.is_reading = False
        self.taken = -1  # the first message, `websocket.connect`, is no text
        self.given = 0
        self._receive = receive
        self._send = send
        self._held: trio.Event | None = None

    async def receive(self) -> Message:
        """Receive, as the app."""
        self.is_reading = True
        try:
            message = await self._receive()
        finally:
            self.is_reading = False
        self.taken += 1
        return message

    def hold(self) -> None:
        """Let the app's next texts wait until `release`, as they do when a TCP window is full."""
        if self._held is None:
            self._held = trio.Event()

    def release(self) -> None:
        """Let them go."""
        if self._held is not None:
            self._held.set()
            self._held = None

    async def send(self, message: Message) -> None:
        """Send, as the app."""
        while self._held is not None and message["type"] == "websocket.send":
            await self._held.wait()
        self.given += message["type"] in _GIVEN
        await self._send(message)


@dataclass(slots=True)
class NearEnd:
    """The same as its client has it.

    Attributes:
        sent: How many texts it has sent; its close counts as one.
        came: How many have come; the answer to the handshake and the server's close count as one
            each.
        is_listening: Whether it would take a text now.
        is_over: Whether it has let go of it.
    """

    sent: int = 0
    came: int = 0
    is_listening: bool = True
    is_over: bool = False

    def in_flight(self, far_end: FarEnd | None) -> int:
        """Count the texts that are on their way, with all tasks of the server's run blocked.

        What one side does not want to take now is not on its way: it lies there until it is wanted.

        Args:
            far_end: The server's end; None before the server has seen the connection.
        """
        if far_end is None:
            return int(not self.is_over)
        if far_end.has_ended:
            return int(self.is_listening and not self.is_over)  # the end itself
        to_server = max(self.sent - far_end.taken, 0) if far_end.is_reading else 0
        to_client = max(far_end.given - self.came, 0) if self.is_listening else 0
        return to_server + to_client
