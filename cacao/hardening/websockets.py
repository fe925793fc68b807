"""A WebSocket whose every fault has a close code, and no message more room than is allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypercorn.protocol.events import Body, Data, Request, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, Handshake, WSStream
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import CloseConnection, Message, Ping
from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable
    from typing import Any

    from hypercorn.protocol.events import Event
    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

__all__ = ["MAX_MESSAGE_BYTES", "LegibleHandshake", "WebSocket"]

MAX_MESSAGE_BYTES = "max_message_bytes"
"""Key of `websocket.accept` by which an app bounds the messages of this connection, in bytes."""

_SILENT = 4408
_NO_BITS = RsvBits(False, False, False)  # noqa: FBT003 - a tuple of three flags
_FROM_CLIENT = (Body, Data)
_OPENINGS = (Opcode.TEXT, Opcode.BINARY)


class LegibleHandshake(Handshake):
    """A handshake that is refused with 400 where it cannot be read, and accepts no compression.

    A compressed megabyte may be a gigabyte, and each connection would need 100 KiB more.

    Attributes:
        max_message_bytes: Largest message that the connection will take.
    """

    max_message_bytes: int

    def __init__(self, headers: list[tuple[bytes, bytes]], http_version: str) -> None:
        self._is_legible = False
        try:
            super().__init__(headers, http_version)
        except UnicodeDecodeError:
            return
        self._is_legible = not _announces_body(headers)

    def is_valid(self) -> bool:
        """Tell whether the client may be let in."""
        return self._is_legible and super().is_valid()

    def accept(
        self, subprotocol: str | None, additional_headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[int, list[tuple[bytes, bytes]], Connection]:
        """Give status, headers and the connection that follows."""
        self.extensions = None
        status, headers, _ = super().accept(subprotocol, additional_headers)
        bound = _MessageBound(self.max_message_bytes)
        return status, headers, Connection(ConnectionType.SERVER, [bound])


def _announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body would follow, whose bytes could be taken for frames."""
    for name, value in headers:
        if name.lower() == b"transfer-encoding":
            return True
        if name.lower() == b"content-length" and value != b"0":
            return True
    return False


class _MessageBound(Extension):
    """Refuses the frame whose header says that its message will be too big.

    It is no extension to the other side, only a place from which wsproto lets us see each frame
    before its payload has come. A header may be shown several times, until all of it is there.
    """

    name = "message-bound"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._has_bytes = 0
        self._is_message = False

    def enabled(self) -> bool:
        return True

    def offer(self) -> bool:
        return False  # asked of a client's extensions alone

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002 - wsproto's signature
        opcode: Opcode,
        rsv: RsvBits,  # noqa: ARG002
        payload_length: int,
    ) -> CloseReason | RsvBits:
        self._is_message = not opcode.iscontrol()
        if opcode in _OPENINGS:
            self._has_bytes = 0
        if self._is_message and self._has_bytes + payload_length > self._max_bytes:
            return CloseReason.MESSAGE_TOO_BIG
        return _NO_BITS

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes:
        if self._is_message:
            self._has_bytes += len(data)
        return data


class WebSocket(WSStream):
    """One WebSocket, from its handshake to its close code."""

    handshake: LegibleHandshake

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._was_asked = False
        self._answer: Any = None  # waited for by what came before it

    async def handle(self, event: Event) -> None:
        """Take what came from the client.

        What comes before the app has answered the handshake waits for the answer, and the client
        with it: it may be frames in the same packet, as fast clients send.
        """
        if isinstance(event, _FROM_CLIENT):
            await self._receive(event.data)
            return
        await super().handle(event)
        if isinstance(event, Request) and self.closed:  # refused without asking the app
            await self.send(StreamClosed(stream_id=self.stream_id))
        elif isinstance(event, StreamClosed):
            await self._answered()

    async def _receive(self, data: bytes) -> None:
        self._was_asked = False
        if self.state is ASGIWebsocketState.HANDSHAKE and not self.closed:
            self._answer = self.context.event_class()
            await self._answer.wait()
        if self.state is ASGIWebsocketState.CONNECTED and not self.closed:
            self.connection.receive_data(data)
            await self._handle_events()

    async def _answered(self) -> None:
        if self._answer is not None:
            await self._answer.set()

    def app_send(self, message: Any) -> Coroutine[Any, Any, None]:
        """Take what the app sends; None when it has ended."""
        if message is None:
            # Nobody takes what is put any more: the last one would be waited on for ever.
            self.app_put = None
        return super().app_send(message)

    async def probe(self) -> bool:
        """Ask by a ping, once, and then close with 4408; tell whether to wait on."""
        if self.state is not ASGIWebsocketState.CONNECTED:
            return True  # it waits for us
        if self._was_asked:
            await self._close(_SILENT, "no sign of life")
            return False
        self._was_asked = True
        await self._send_wsproto_event(Ping())
        return True

    async def _accept(self, message: Any) -> None:
        default = self.config.websocket_max_message_size
        self.handshake.max_message_bytes = message.get(MAX_MESSAGE_BYTES, default)
        await super()._accept(message)
        await self._answered()

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                await self._gather(event)
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                await self._end(event)
                return

    async def _gather(self, part: Message[Any]) -> None:
        if self.app_put is None or self.state is not ASGIWebsocketState.CONNECTED:
            return
        self.buffer.extend(part)
        if part.message_finished:
            message = self.buffer.to_message()
            self.buffer.clear()
            await self.app_put(message)

    async def _end(self, event: CloseConnection) -> None:
        """End it: the client has closed, or has broken the rules, which `event` is then made of."""
        if self.connection.state is ConnectionState.OPEN:
            await self._close(event.code, event.reason)
            return
        await self._send_wsproto_event(event.response())
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _close(self, code: int, reason: str | None) -> None:
        await self._send_wsproto_event(CloseConnection(code=code, reason=reason))
        await self.send(StreamClosed(stream_id=self.stream_id))
