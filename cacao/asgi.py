"""The edge: an ASGI 3 application, written for trio, around a runtime.

How it works. A WebSocket at `/ws` goes straight to the runtime; everything else over HTTP (the
page, `/health`, the author's own routes) is quart-trio's. The lifespan opens the runtime, and the
runtime owns every session. A server that drives no lifespan gets a runtime for each connection:
sessions work, but none outlives its connection.

`cacao.hosting.host` makes this run under an asyncio server as well.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import trio

from cacao.errors import ConnectionClosed
from cacao.origins import is_allowed_origin
from cacao.protocol import SUBPROTOCOL, CloseCode
from cacao.session import Peer
from cacao.shutdown import hear_of_shutdown

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, MutableMapping
    from contextlib import AbstractAsyncContextManager

    from quart_trio import QuartTrio

    from cacao.runtime import Runtime

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Edge"]

WEBSOCKET_PATH = "/ws"

_log = logging.getLogger("cacao")


class Edge:
    """The ASGI application.

    Args:
        open_runtime: Opens a run of the app.
        quart: Answers all HTTP.
        report: Told of what the lifespan raises: where, and what.
        allowed_origins: Whose pages may connect besides those of this host.
    """

    def __init__(
        self,
        open_runtime: Callable[[], AbstractAsyncContextManager[Runtime]],
        quart: QuartTrio,
        report: Callable[[str, Exception], object],
        allowed_origins: Collection[str] = (),
    ) -> None:
        self._open_runtime = open_runtime
        self._quart = quart
        self._report = report
        self._allowed_origins = allowed_origins
        self._runtime: Runtime | None = None
        hear_of_shutdown(self)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one ASGI call."""
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._quart(scope, receive, send)  # type: ignore[arg-type] # ASGI's own words

    def drain(self) -> None:
        """Close every session with 1012: the server is about to end."""
        if self._runtime is not None:
            self._runtime.drain()

    async def _serve_websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        connection = WebSocketConnection(scope, receive, send)
        if scope["path"] != WEBSOCKET_PATH or not self._is_welcome(scope):
            await connection.refuse()
            return
        await connection.accept()
        if self._runtime is not None:
            await self._runtime.serve(connection)
        else:
            async with self._open_runtime() as runtime:
                await runtime.serve(connection)

    def _is_welcome(self, scope: Message) -> bool:
        headers = scope["headers"]
        is_secure = scope.get("scheme") == "wss"
        if is_allowed_origin(headers, is_secure=is_secure, allowed=self._allowed_origins):
            return True
        asked = {name: value for name, value in headers if name in {b"origin", b"host"}}
        _log.warning(
            "refused a page of origin %r at host %r; if it is yours: App(allowed_origins=[...])",
            asked.get(b"origin"),
            asked.get(b"host"),
        )
        return False

    async def _live(self, receive: Receive, send: Send) -> None:
        """Hold the runtime and quart's own lifespan open between startup and shutdown."""
        await receive()  # lifespan.startup
        phase = "startup"
        try:
            async with self._running():
                await send({"type": "lifespan.startup.complete"})
                await receive()  # lifespan.shutdown
                phase = "shutdown"
        except Exception as error:  # noqa: BLE001 - reported, and told to the server
            self._report(f"lifespan {phase}", error)
            await send({"type": f"lifespan.{phase}.failed", "message": _first_message(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        async with self._open_runtime() as self._runtime, trio.open_nursery() as nursery:
            self._quart.nursery = nursery
            await self._quart.startup()
            try:
                yield
            finally:
                self._runtime = None
                await self._quart.shutdown()
                nursery.cancel_scope.cancel()


class WebSocketConnection:
    """A server's WebSocket as a `Connection`.

    Attributes:
        subprotocol: `cacao.v1` if the client offered it, else None.
        peer: From the request's headers.
    """

    __slots__ = ("_is_open", "_receive", "_send", "peer", "subprotocol")

    def __init__(self, scope: Message, receive: Receive, send: Send) -> None:
        self.subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        self.peer = _peer(scope)
        self._receive = receive
        self._send = send
        self._is_open = False

    async def accept(self) -> None:
        """Complete the handshake."""
        await self._receive()  # websocket.connect
        await self._send({"type": "websocket.accept", "subprotocol": self.subprotocol})
        self._is_open = True

    async def refuse(self) -> None:
        """Answer the handshake with HTTP 403."""
        await self._receive()
        await self._send({"type": "websocket.close"})

    async def receive(self) -> str:
        """Wait for the next text message; a binary one closes the connection with 1003."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._is_open = False
            raise ConnectionClosed(message.get("code") or 1005, message.get("reason") or "")
        text: str | None = message.get("text")
        if text is None:
            await self.close(CloseCode.UNSUPPORTED_DATA, "messages are text")
            raise ConnectionClosed(CloseCode.UNSUPPORTED_DATA)
        return text

    async def send(self, text: str) -> None:
        """Send a text message, waiting until the server takes it."""
        if not self._is_open:
            raise ConnectionClosed
        try:
            await self._send({"type": "websocket.send", "text": text})
        except OSError as error:  # uvicorn's way to say that the client has gone
            self._is_open = False
            raise ConnectionClosed from error

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Say goodbye, if the connection is still open."""
        if not self._is_open:
            return
        self._is_open = False
        with suppress(OSError):  # gone before we could say so
            await self._send({"type": "websocket.close", "code": int(code), "reason": reason})


def _first_message(error: Exception) -> str:
    """Name what went wrong: a server prints this line, and a nursery's own says nothing."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"


def _peer(scope: Message) -> Peer:
    client = scope.get("client")
    return Peer(
        address=str(client[0]) if client else "",
        path=scope["path"],
        query=scope.get("query_string", b"").decode("latin-1"),
        raw_headers=scope["headers"],
    )
