"""A client's wire over a real socket, spoken by trio-websocket."""

from __future__ import annotations

import math
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import trio
from trio_websocket import ConnectionClosed as SocketClosed
from trio_websocket import ConnectionRejected, HandshakeError, wrap_client_stream
from wsproto.utilities import LocalProtocolError

from cacao.errors import ConnectionClosed
from cacao.protocol import CloseCode
from cacao.testing.sockets.far_end import NearEnd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from urllib.parse import SplitResult

    from trio_websocket import WebSocketConnection

    from cacao.peer import Peer
    from cacao.testing.sockets.far_end import FarEnd
    from cacao.testing.wire import Listener

__all__ = ["SocketWire"]

_BROKEN = 1006
_UNAUTHORIZED = 401  # of HTTP
_MAX_REASON = 123  # bytes: what a close frame holds
_MAX_BYTES = 2**40  # of a message: the app's limits are for its clients
_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443}
_SECURE = {"https", "wss"}


class SocketWire:
    """One WebSocket of a client's. Implements `cacao.testing.wire.Wire`; `run` has to run for it.

    Args:
        listener: Told what comes.
        url: Where the server accepts WebSockets; "http" and "ws" mean the same.
        subprotocol: `"cacao.v1"`, or None for the plain protocol.
        peer: Whose headers are sent.
        far_end: Finds the server's end; None where nobody knows it.
    """

    def __init__(
        self,
        listener: Listener,
        url: SplitResult,
        subprotocol: str | None,
        peer: Peer,
        far_end: Callable[[], FarEnd | None] | None = None,
    ) -> None:
        self._listener: Listener | None = listener
        self._url = url
        self._subprotocols = [] if subprotocol is None else [subprotocol]
        self._headers = [pair for pair in peer.raw_headers if pair[0] != b"host"]
        self._host = peer.headers.get("host", url.netloc)
        self._far_end = far_end
        self._near_end = NearEnd()
        self._outbox, self._to_send = trio.open_memory_channel[str | ConnectionClosed](math.inf)
        self._conversation = trio.CancelScope()
        self._held: trio.Event | None = None
        self._is_forgotten = False
        self._let_go = trio.Event()

    def __str__(self) -> str:
        return f"messages of a client at {self._url.netloc}"

    @property
    def in_flight(self) -> int:
        """How many texts are on their way; 0 where nobody knows the server's end."""
        if self._far_end is None or self._is_forgotten:
            return 0
        return self._near_end.in_flight(self._far_end())

    def send(self, text: str) -> None:
        """Send a text to the server."""
        self._put(text)

    def hold(self) -> None:
        """Take nothing from the server until `release`.

        Where its end is known, that waits at once, as for a TCP window that is full; else when the
        sockets hold no more.
        """
        if self._held is None:
            self._held = trio.Event()
            self._near_end.is_listening = False
            far_end = self._far_end() if self._far_end is not None else None
            if far_end is not None:
                far_end.hold()

    def release(self) -> None:
        """Take what the server sends, and has sent meanwhile."""
        if self._held is not None:
            self._held.set()
            self._held = None
            self._near_end.is_listening = self._listener is not None
            far_end = self._far_end() if self._far_end is not None else None
            if far_end is not None:
                far_end.release()

    def hang_up(self, code: int, reason: str = "") -> None:
        """Close as the client, after what was sent; 1006 is a connection that breaks.

        One that is forgotten breaks at once.
        """
        if self._is_forgotten:
            self._let_go.set()
            return
        self._listener = None
        self._near_end.is_listening = False
        self.release()
        self._put(ConnectionClosed(code, reason))

    def forget(self) -> None:
        """Let the client be gone without the server noticing: the socket stays open, unread."""
        self._listener = None
        self._is_forgotten = True
        self._conversation.cancel()

    def _put(self, item: str | ConnectionClosed) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):  # it is over
            self._outbox.send_nowait(item)
            self._near_end.sent += 1

    # --- Inside --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open the wire and serve it until it is closed. Cancelling lets the socket go at once."""
        why = ConnectionClosed(_BROKEN, "the connection broke")
        try:
            async with self._stream() as stream:
                with self._conversation:
                    why = await self._converse(stream)
                if self._is_forgotten:
                    await self._let_go.wait()
        except* (HandshakeError, OSError) as errors:
            why = _reason(errors)
        finally:
            self._end(why)

    def _end(self, why: ConnectionClosed) -> None:
        self._outbox.close()
        self._to_send.close()
        self._near_end.is_over = True
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.closed(self, why)

    @asynccontextmanager
    async def _stream(self) -> AsyncIterator[trio.SocketStream | trio.SSLStream[trio.SocketStream]]:
        """Open a stream, and let it go: the library leaves it open when the server ends first."""
        host, port = self._url.hostname or "", self._url.port or _PORTS[self._url.scheme]
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
        stream = tcp = await trio.open_tcp_stream(host, port)
        if self._url.scheme in _SECURE:
            stream = trio.SSLStream(tcp, ssl.create_default_context(), server_hostname=host)
        try:
            yield stream
        finally:
            await trio.aclose_forcefully(stream)

    async def _converse(
        self, stream: trio.SocketStream | trio.SSLStream[trio.SocketStream]
    ) -> ConnectionClosed:
        """Shake hands, then read and write until either side closes; gives why it did."""
        target = self._url.path or "/"
        async with trio.open_nursery() as nursery:
            connection = await wrap_client_stream(
                nursery,
                stream,
                self._host,
                f"{target}?{self._url.query}" if self._url.query else target,
                subprotocols=self._subprotocols,
                extra_headers=self._headers,
                max_message_size=_MAX_BYTES,
            )
            self._near_end.came += 1
            nursery.start_soon(self._write, connection, stream)
            why = await self._read(connection)
            nursery.cancel_scope.cancel()
        return why

    async def _read(self, connection: WebSocketConnection) -> ConnectionClosed:
        while True:
            try:
                text = await connection.get_message()
            except SocketClosed as closed:
                reason = closed.reason
                if reason is None:
                    return ConnectionClosed(_BROKEN, "the connection broke")
                return ConnectionClosed(int(reason.code), reason.reason or "")
            while self._held is not None:
                await self._held.wait()
            self._near_end.came += 1
            if self._listener is not None:
                self._listener.arrived(self, str(text))

    async def _write(
        self,
        connection: WebSocketConnection,
        stream: trio.SocketStream | trio.SSLStream[trio.SocketStream],
    ) -> None:
        # The reader hears of a connection that has ended meanwhile.
        with suppress(SocketClosed, LocalProtocolError, trio.BrokenResourceError):
            async for item in self._to_send:
                if isinstance(item, str):
                    await connection.send_message(item)
                elif item.code != _BROKEN:
                    reason = item.reason.encode()[:_MAX_REASON].decode(errors="ignore")
                    await connection.aclose(item.code, reason)
                elif isinstance(stream, trio.SocketStream):
                    await stream.send_eof()  # what was sent before still comes
                else:
                    self._conversation.cancel()


def _reason(error: BaseException) -> ConnectionClosed:
    """Tell why there is no connection, as it is told to a client that may be let in to hear it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, ConnectionRejected):
        return ConnectionClosed(_BROKEN, str(error))
    said = (error.body or b"").decode(errors="replace").strip()
    if error.status_code == _UNAUTHORIZED:
        return ConnectionClosed(CloseCode.UNAUTHORIZED, said)
    return ConnectionClosed(_BROKEN, f"refused with HTTP {error.status_code}: {said}")
