"""Coming back over real sockets: a real server, and a network between that breaks anywhere."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from browsers import opened
from faulty_proxy import faulty_proxy, proxy_in_a_thread
from playwright.sync_api import Browser, expect
from processes import HYPERCORN, Server, served
from resuming_client import ResumingClient, Sent, outcome_of
from trio_websocket import (
    ConnectionClosed,
    HandshakeError,
    WebSocketConnection,
    wrap_client_stream,
)

from cacao.protocol import SUBPROTOCOL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

COUNTER = Path(__file__).parent.parent / "examples" / "counter"
LOST = (ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError)
PATIENCE = 0.3  # seconds
HOST = "127.0.0.1"
TOTAL, AT_ONCE = 1000, 20


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served(HYPERCORN, cwd=COUNTER) as server:
        yield server


@asynccontextmanager
async def dialled(port: int, patience: float = 10) -> AsyncIterator[WebSocketConnection]:
    """Open a connection; on leaving it is dropped without a goodbye.

    Raises:
        TooSlowError: The handshake takes more than `patience` seconds; one that was cut, for ever.
    """
    async with await trio.open_tcp_stream(HOST, port) as stream, trio.open_nursery() as nursery:
        with trio.fail_after(patience):
            socket = await wrap_client_stream(
                nursery, stream, HOST, "/ws", subprotocols=[SUBPROTOCOL]
            )
        yield socket
        nursery.cancel_scope.cancel()


class Clicker:
    """A page that clicks a thousand times, however often it has to come back.

    Attributes:
        client: Its half of the protocol.
        clicks: What it has sent.
    """

    def __init__(self) -> None:
        self.client = ResumingClient()
        self.clicks: list[Sent] = []
        self._patience = PATIENCE

    async def click_through(self, port: int) -> None:
        """Dial until every click is answered."""
        while not self._is_done():
            try:
                async with dialled(port, self._patience) as socket:
                    await self._converse(socket)
            except* LOST:
                pass
            except* trio.TooSlowError:
                self._patience *= 1.5  # the machine may be slow, and not the network dead
            self.client.lost()

    async def _converse(self, socket: WebSocketConnection) -> None:
        for greeting in self.client.greeting():
            await socket.send_message(greeting)
        while not self._is_done():
            for answer in self.client.hear(await self._hear(socket)):
                await socket.send_message(answer)
            while self.client.is_ready and self._may_click():
                click, texts = self.client.send("increment", {})
                self.clicks.append(click)
                for text in texts:
                    await socket.send_message(text)

    async def _hear(self, socket: WebSocketConnection) -> str:
        with trio.fail_after(self._patience):
            text = str(await socket.get_message())
        self._patience = PATIENCE
        return text

    def _may_click(self) -> bool:
        return len(self.clicks) < TOTAL and self.client.under_way < AT_ONCE

    def _is_done(self) -> bool:
        return len(self.clicks) == TOTAL and self.client.is_settled


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_a_thousand_clicks_count_a_thousand(seed: int, server: Server) -> None:
    clicker = Clicker()
    with trio.fail_after(60):
        async with faulty_proxy(server.port, seed=seed) as proxy:
            await clicker.click_through(proxy.port)
    client = clicker.client
    assert set(map(outcome_of, clicker.clicks)) == {"ok"}
    assert client.state["count"] == TOTAL
    assert client.inits.count("fresh") == 1
    assert len(client.inits) > 10
    async with dialled(server.port) as socket:
        for greeting in client.greeting():
            await socket.send_message(greeting)
        init = json.loads(await socket.get_message())
    assert (init["state"]["count"], init["lastEvent"]) == (TOTAL, TOTAL)


def test_a_page_counts_on_through_cuts_and_a_reload(browser: Browser, server: Server) -> None:
    with proxy_in_a_thread(server.port, life=(10**9, 10**9)) as (port, cut):
        page = opened(browser, f"http://127.0.0.1:{port}", [])
        status, count = page.get_by_role("status"), page.locator("#count")
        page.evaluate(
            """() => {
              window.seen = [];
              const status = document.querySelector("[role=status]");
              new MutationObserver(() => window.seen.push(status.textContent)).observe(
                status, { childList: true, characterData: true, subtree: true });
            }"""
        )
        for clicks in range(1, 6):
            page.get_by_role("button", name="+").click()
            if clicks % 2:
                cut()  # its answer may not have come
            expect(count).to_have_text(str(clicks))
            expect(status).to_have_text("connected")
        assert set(page.evaluate("window.seen")) == {"reconnecting", "connected"}
        page.reload()
        expect(status).to_have_text("connected")
        expect(count).to_have_text("5")
        page.get_by_role("button", name="+").click()
        expect(count).to_have_text("6")
        page.close()
