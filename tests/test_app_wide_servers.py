"""App-wide values as users have them: real servers with several processes, on one real Redis."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from processes import HYPERCORN, Server, served
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from redis_server import RedisServer

APP = """
import os
from cacao import App, Signal

app = App(storage=os.environ["STORAGE"])
count = Signal(0, name="count", scope="app")
title = Signal("", name="title", scope="app")
worker = Signal(0, name="worker")
app.bind("title", title)

@app.on_session_start
def begin(session):
    worker.set(session, os.getpid())

@app.on("add")
def add(session):
    count.update(session, lambda n: n + 1)

asgi = app.asgi
"""

_PATIENCE = 30


class Page:
    """A plain client, and what it has been told."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self.state: dict[str, Any] = {}
        self._socket = socket

    async def listen(self) -> None:
        try:
            while True:
                message = json.loads(await self._socket.get_message())
                self.state |= message["state"] if message["type"] == "init" else message["changes"]
        except ConnectionClosed:
            pass

    async def send(self, name: str, **data: object) -> None:
        await self._socket.send_message(json.dumps({"type": "event", "name": name, "data": data}))

    async def told(self, name: str, value: object) -> None:
        await until(lambda: self.state.get(name) == value)


async def until(holds: Callable[[], object]) -> None:
    """Wait, in real time, until something holds."""
    with trio.fail_after(_PATIENCE):
        while not holds():  # noqa: ASYNC110 - the other side is another process
            await trio.sleep(0.005)


@asynccontextmanager
async def opened(server: Server) -> AsyncIterator[Page]:
    with trio.fail_after(_PATIENCE):
        async with (
            open_websocket_url(f"{server.websocket_url}/ws") as socket,
            trio.open_nursery() as nursery,
        ):
            page = Page(socket)
            nursery.start_soon(page.listen)
            await until(lambda: page.state)
            yield page
            nursery.cancel_scope.cancel()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


async def test_two_servers_have_one_value(folder: Path, redis_server: RedisServer) -> None:
    env = {"STORAGE": redis_server.url}
    with (
        served(HYPERCORN, cwd=folder, env=env) as one,
        served(HYPERCORN, cwd=folder, env=env) as two,
    ):
        async with opened(one) as ada, opened(two) as bob:
            await ada.send("title", value="Hello")
            await bob.told("title", "Hello")
            await bob.send("add")
            await ada.told("count", 1)
            redis_server.restart()  # it has lost everything, and the servers tell it again
            await ada.send("add")
            await bob.send("add")
            for page in (ada, bob):
                await page.told("count", 3)
                await page.told("title", "Hello")


async def test_every_page_of_every_worker_comes_to_one_value(
    folder: Path, redis_server: RedisServer
) -> None:
    command = [*HYPERCORN, "-w", "4"]
    with served(command, cwd=folder, env={"STORAGE": redis_server.url}) as server:
        async with AsyncExitStack() as stack:
            pages: list[Page] = []
            while len(pages) < 20 or len({page.state["worker"] for page in pages}) < 2:
                pages.append(await stack.enter_async_context(opened(server)))
                assert len(pages) < 200, "all connections came to one worker"
            for number in range(200):
                await pages[7 * number % len(pages)].send("add")
            for page in pages:
                await page.told("count", 200)
            await pages[0].send("title", value="done")
            for page in pages:
                await page.told("title", "done")
