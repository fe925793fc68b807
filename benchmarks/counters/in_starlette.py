"""The counter as a WebSocket endpoint in Starlette, and its `TestClient`."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def count_events(websocket: Any) -> None:
    await websocket.accept()
    count = 0
    await websocket.send_json({"count": count})
    async for event in websocket.iter_json():
        assert event["name"] == "increment"
        count += 1
        await websocket.send_json({"count": count})


class Page:
    """One page of the app."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        assert self._connection.receive_json() == {"count": 0}

    async def click(self, shown: int) -> None:
        """Click the button, and assert what the page then shows."""
        self._connection.send_json({"name": "increment"})
        assert self._connection.receive_json() == {"count": shown}


class Counter:
    """The app, its portal and its open pages."""

    def __init__(self, stack: ExitStack) -> None:
        app = Starlette(routes=[WebSocketRoute("/ws", count_events)])
        self._client = stack.enter_context(TestClient(app))
        self._stack = stack

    async def open(self) -> Page:
        """Open a page, with a count of its own."""
        return Page(self._stack.enter_context(self._client.websocket_connect("/ws")))


@asynccontextmanager
async def counting() -> AsyncIterator[Counter]:
    with ExitStack() as stack:
        yield Counter(stack)
