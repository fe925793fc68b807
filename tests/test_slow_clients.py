"""Clients that stop reading, before a real server: they cost it nothing, and miss nothing."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from processes import HYPERCORN, Server, served
from resuming_client import ResumingClient
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from cacao.protocol import SUBPROTOCOL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# A text of 64 KiB changes a thousand times: what no buffer of the system's holds.
APP = """
import os

import trio

from cacao import App, Limits, Session, Signal

app = App(limits=Limits(send_timeout=float(os.environ["SEND_TIMEOUT"]), heartbeat=4))
count = Signal(0, name="count")
text = Signal("", name="text")
news = Signal((0, 0), name="news")
floods = lost = 0

@app.on("flood")
async def flood(session: Session, sets: int) -> None:
    global floods
    for n in range(1, sets + 1):
        count.set(session, n)
        if n % 1000 == 0:
            text.set(session, f"{n:8}" * 8192)
            await trio.sleep(0)
    floods += 1

@app.on("add")
async def add(session: Session) -> None:
    count.update(session, lambda n: n + 1)

@app.on("look")
async def look(session: Session) -> None:
    news.set(session, (floods, lost))

@app.on_disconnect
def note() -> None:
    global lost
    lost += 1

asgi = app.asgi
"""
SETS = 10**6
LAST_TEXT = f"{SETS:8}" * 8192
LAST = {"count": SETS, "text": LAST_TEXT}
HOST = "127.0.0.1"
MIB = 2**20


@pytest.fixture
def server(tmp_path: Path, send_timeout: float) -> Iterator[Server]:
    (tmp_path / "app.py").write_text(APP)
    with served(HYPERCORN, cwd=tmp_path, env={"SEND_TIMEOUT": str(send_timeout)}) as server:
        yield server


class Page:
    """A client that reads when it is told to.

    Attributes:
        client: Its half of the protocol.
        characters: How much it has read.
    """

    def __init__(self, socket: WebSocketConnection, client: ResumingClient) -> None:
        self.client = client
        self.characters = 0
        self._socket = socket

    async def greet(self) -> None:
        """Say who it is."""
        await self._send(*self.client.greeting())

    async def event(self, name: str, **data: object) -> None:
        """Send an event, and read nothing."""
        _, texts = self.client.send(name, data)
        await self._send(*texts)

    async def read(self) -> None:
        """Read until every event is answered."""
        with trio.fail_after(60):
            while not self.client.is_ready or not self.client.is_settled:
                text = str(await self._socket.get_message())
                self.characters += len(text)
                await self._send(*self.client.hear(text))

    async def read_to_the_end(self) -> None:
        """Read until the server has closed."""
        with trio.fail_after(60), suppress(ConnectionClosed):
            while True:
                await self._socket.get_message()

    async def ask(self, name: str, **data: object) -> Any:
        """Send an event and read until it is answered; gives the state."""
        await self.event(name, **data)
        await self.read()
        return self.client.state

    async def _send(self, *texts: str) -> None:
        for text in texts:
            await self._socket.send_message(text)


@asynccontextmanager
async def opened(server: Server, client: ResumingClient | None = None) -> AsyncIterator[Page]:
    """Open a page that has its state; its system keeps as little as it can of what it reads not."""
    client = client or ResumingClient()
    client.lost()
    tcp = trio.socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await tcp.connect((HOST, server.port))
    async with trio.SocketStream(tcp) as stream, trio.open_nursery() as nursery:
        connection = await wrap_client_stream(
            nursery, stream, HOST, "/ws", subprotocols=[SUBPROTOCOL], message_queue_size=1
        )
        page = Page(connection, client)
        await page.greet()
        await page.read()
        yield page
        nursery.cancel_scope.cancel()


def resident_bytes(server: Server) -> int:
    """Tell how much memory a server and its workers have now."""
    main = server.process.pid
    children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [main, *children]]
    return sum(pages) * 4096


async def news(page: Page) -> list[int]:
    """Tell how many floods have ended, and how many connections; asked for 20 times a second."""
    ended: list[int] = (await page.ask("look"))["news"]
    await trio.sleep(0.05)
    return ended


@pytest.mark.parametrize("send_timeout", [60])
async def test_who_stops_reading_costs_nothing_and_has_it_all_in_the_end(server: Server) -> None:
    async with opened(server) as slow, opened(server) as other:
        await slow.ask("flood", sets=SETS // 10)  # whatever the server needs, it has now
        before, read_before = resident_bytes(server), slow.characters
        await slow.event("flood", sets=SETS)
        clicks = 0
        with trio.fail_after(60):
            while (await news(other))[0] < 2:
                clicks += 1
                assert (await other.ask("add"))["count"] == clicks
        assert clicks > 1  # others went on meanwhile
        assert resident_bytes(server) - before < 5 * MIB
        await slow.read()
        assert {name: slow.client.state[name] for name in LAST} == LAST
        assert slow.characters - read_before < SETS / 1000 * len(LAST_TEXT) / 2
        assert slow.client.inits == ["fresh"]


@pytest.mark.parametrize("send_timeout", [1])
async def test_who_never_reads_is_cut_and_may_come_back(server: Server) -> None:
    async with opened(server) as never, opened(server) as other:
        await never.event("flood", sets=SETS)
        with trio.fail_after(60):
            while await news(other) != [1, 1]:
                pass
        async with opened(server, never.client) as again:
            await again.read()
            assert {name: again.client.state[name] for name in LAST} == LAST
            assert again.client.inits == ["fresh", "rebuilt"]
            assert (await again.ask("add"))["count"] == SETS + 1
        await never.read_to_the_end()
