"""A small ASGI application written for trio, for the server tests to run in real servers."""

from __future__ import annotations

import asyncio

import aiosqlite
import trio

from cacao.hosting import Receive, Scope, Send, from_asyncio, host


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a call; what it says of its life goes to stdout."""
    await _ROUTES[scope["type"], scope.get("path", "")](receive, send)


def _tell(what: str) -> None:
    print(what, flush=True)  # noqa: T201 - the test reads it


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    _tell("startup")
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await trio.lowlevel.checkpoint()
    _tell("shutdown")
    await send({"type": "lifespan.shutdown.complete"})


async def _echo(receive: Receive, send: Send) -> None:
    """Stream the request's body back, a part for each part."""
    await _start(send, 200)
    more = True
    while more:
        message = await receive()
        more = message.get("more_body", False)
        await _body(send, message.get("body", b""), more=more)


async def _slow(receive: Receive, send: Send) -> None:
    """Answer only after a trio sleep, which must not hold up others."""
    await trio.sleep(0.05)
    await _start(send, 200)
    await _body(send, b"slept")


async def _boom(receive: Receive, send: Send) -> None:
    raise ValueError("boom")


async def _crash(receive: Receive, send: Send) -> None:
    """Break trio's own rules, which ends its run at once and abandons every task."""
    with trio.move_on_after(0):
        await trio.lowlevel.wait_task_rescheduled(lambda _: None)  # type: ignore[arg-type, return-value]


async def _sqlite(receive: Receive, send: Send) -> None:
    await _start(send, 200)
    await _body(send, await from_asyncio(_select()))


async def _select() -> bytes:
    async with asyncio.timeout(5), aiosqlite.connect(":memory:") as db:
        ((text,),) = await db.execute_fetchall("select 'from asyncio'")
    return str(text).encode()


async def _websocket_echo(receive: Receive, send: Send) -> None:
    await _accept(receive, send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
    finally:
        with trio.CancelScope(shield=True):
            await trio.lowlevel.checkpoint()
            _tell("websocket ended")


async def _websocket_boom(receive: Receive, send: Send) -> None:
    await _accept(receive, send)
    raise ValueError("boom")


async def _accept(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})


async def _start(send: Send, status: int) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})


async def _body(send: Send, body: bytes, *, more: bool = False) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


_ROUTES = {
    ("lifespan", ""): _lifespan,
    ("http", "/echo"): _echo,
    ("http", "/slow"): _slow,
    ("http", "/boom"): _boom,
    ("http", "/crash"): _crash,
    ("http", "/sqlite"): _sqlite,
    ("websocket", "/echo"): _websocket_echo,
    ("websocket", "/boom"): _websocket_boom,
}

asgi = host(app)
