"""The edge: an ASGI 3 application, written for trio, around a runtime.

How it works. What the gate lets in and `admit` knows goes on: a WebSocket at `/ws` straight to the
runtime; everything else over HTTP (the page, `/health`, the author's own routes) to quart-trio. The
lifespan opens the runtime, and the runtime owns every session. A server that drives no lifespan
gets a runtime for each connection: sessions work, but none outlives its connection.

`cacao.hosting.host` makes this run under an asyncio server as well.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import trio

from cacao.errors import ConnectionClosed
from cacao.gate import Gate, Refusal
from cacao.hardening import MAX_MESSAGE_BYTES, harden, hear_of_shutdown
from cacao.headers import SecurityHeaders
from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL, CloseCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
    from contextlib import AbstractAsyncContextManager

    from quart_trio import QuartTrio

    from cacao.runtime import Runtime

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Edge"]

WEBSOCKET_PATH = "/ws"

# What the WebSocket protocol lets a reason be long, in bytes.
_MAX_REASON = 123
_EXTENSION = "websocket.http.response"
_NOT_HERE = Refusal(HTTPStatus.NOT_FOUND, f"the WebSocket is at {WEBSOCKET_PATH}")


async def _admit(peer: Peer) -> Peer:
    return peer


class Edge:
    """The ASGI application.

    Args:
        open_runtime: Opens a run of the app.
        quart: Answers all HTTP.
        report: Told of what the lifespan raises: where, and what.
        admit: Finds out who opens a WebSocket; by default all are let in, with no user.
        gate: Turns requests away by their headers; by default as an App without options does.
        headers: Completes every HTTP answer.
        max_message_bytes: What hypercorn takes of one message, before the app sees any of it; by
            default its own limit.
    """

    def __init__(
        self,
        open_runtime: Callable[[], AbstractAsyncContextManager[Runtime]],
        quart: QuartTrio,
        report: Callable[[str, Exception], object],
        *,
        admit: Callable[[Peer], Awaitable[Peer | Refusal]] = _admit,
        gate: Gate | None = None,
        headers: SecurityHeaders | None = None,
        max_message_bytes: int | None = None,
    ) -> None:
        self._open_runtime = open_runtime
        self._quart = quart
        self._report = report
        self._admit = admit
        self._gate = gate or Gate()
        self._headers = headers or SecurityHeaders()
        self._runtime: Runtime | None = None
        self._max_message_bytes = max_message_bytes
        harden()
        hear_of_shutdown(self)

    def __call__(self, scope: Message, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one ASGI call."""
        if scope["type"] == "websocket":
            return self._serve_websocket(scope, receive, send)
        if scope["type"] == "lifespan":
            return self._live(receive, send)
        return self._serve_http(scope, receive, send)

    def drain(self) -> None:
        """Close every session with 1012: the server is about to end."""
        if self._runtime is not None:
            self._runtime.drain()

    async def _serve_websocket(self, scope: Message, receive: Receive, send: Send) -> None:
        connection = WebSocketConnection(scope, receive, send, self._max_message_bytes)
        if not await self._let_in(connection, scope):
            return
        await connection.accept()
        if self._runtime is not None:
            await self._runtime.serve(connection)
        else:
            async with self._open_runtime() as runtime:
                await runtime.serve(connection)

    async def _let_in(self, connection: WebSocketConnection, scope: Message) -> bool:
        """Find out who is at the door, and turn away who may not come in."""
        refusal = self._gate.judge(scope)
        if refusal is None and scope["path"] != WEBSOCKET_PATH:
            refusal = _NOT_HERE
        if refusal is not None:
            await connection.refuse(refusal)
            return False
        admitted = await self._admit(connection.peer)
        if isinstance(admitted, Refusal):
            await connection.turn_away(admitted)
            return False
        connection.peer = admitted
        return True

    async def _serve_http(self, scope: Message, receive: Receive, send: Send) -> None:
        async def send_completed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._headers.complete(message)
            await send(message)

        refusal = self._gate.judge(scope)
        if refusal is not None:
            await _answer(refusal, "http.response", send_completed)
        else:
            await self._quart(scope, receive, send_completed)  # type: ignore[arg-type] # ASGI's own

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

    __slots__ = (
        "_can_answer",
        "_is_open",
        "_max_message_bytes",
        "_receive",
        "_send",
        "peer",
        "subprotocol",
    )

    def __init__(
        self,
        scope: Message,
        receive: Receive,
        send: Send,
        max_message_bytes: int | None = None,
    ) -> None:
        self.subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        self.peer = _peer(scope)
        self._max_message_bytes = max_message_bytes
        self._can_answer = _EXTENSION in (scope.get("extensions") or ())
        self._receive = receive
        self._send = send
        self._is_open = False

    async def accept(self) -> None:
        """Complete the handshake."""
        await self._receive()  # websocket.connect
        accept: Message = {"type": "websocket.accept", "subprotocol": self.subprotocol}
        if self._max_message_bytes is not None:
            accept[MAX_MESSAGE_BYTES] = self._max_message_bytes  # other servers ignore it
        await self._send(accept)
        self._is_open = True

    async def refuse(self, refusal: Refusal) -> None:
        """Answer the handshake over HTTP, with 403 where the server knows no other status."""
        await self._receive()
        if self._can_answer:
            await _answer(refusal, _EXTENSION, self._send)
        else:
            await self._send({"type": "websocket.close"})

    async def turn_away(self, refusal: Refusal) -> None:
        """Refuse a client so that it can tell why.

        A browser's page sees no HTTP status, but a close code: for a `cacao.v1` client the
        handshake is completed, and the connection closed at once.
        """
        if self.subprotocol is None:
            await self.refuse(refusal)
        else:
            await self.accept()
            await self.close(refusal.code, refusal.reason)

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
        fitting = reason.encode(errors="replace")[:_MAX_REASON].decode(errors="ignore")
        with suppress(OSError):  # gone before we could say so
            await self._send({"type": "websocket.close", "code": int(code), "reason": fitting})


async def _answer(refusal: Refusal, kind: str, send: Send) -> None:
    """Write a refusal as the whole answer to a request."""
    body = f"{refusal.reason}\n".encode(errors="replace")
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"x-content-type-options", b"nosniff"),
    ]
    status = refusal.status.value
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": body})


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
