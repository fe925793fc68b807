"""A running app for tests of the wire: raw messages in, all messages out, nothing left behind."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from trio.testing import wait_all_tasks_blocked

from cacao.errors import ConnectionClosed
from cacao.limits import Limits
from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL
from cacao.testing.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from cacao import App, ErrorReport, Session
    from cacao.connection import Connection
    from cacao.runtime import Runtime


class Page:
    """One client, speaking raw messages."""

    def __init__(self, subprotocol: str | None, peer: Peer | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.connection = MemoryConnection(
            lambda text: self.messages.append(json.loads(text)),
            subprotocol=subprotocol,
            peer=peer or Peer(),
        )

    async def send(self, *messages: dict[str, Any]) -> None:
        """Send messages at once and let the app come to rest."""
        await self.send_text(*map(json.dumps, messages))

    async def send_text(self, *texts: str) -> None:
        for text in texts:
            self.connection.put(text)
        await wait_all_tasks_blocked()

    async def event(self, name: str, data: object = None, **more: object) -> None:
        message: dict[str, Any] = {"type": "event", "name": name, **more}
        if data is not None:
            message["data"] = data
        await self.send(message)

    async def leave(self) -> None:
        """Say goodbye and hang up, and let the time pass in which a page may come back."""
        await self.send({"type": "bye"})
        self.connection.hang_up()
        await trio.sleep(Limits().bye_window)
        await wait_all_tasks_blocked()

    def stall(self) -> None:
        self.connection.hold()

    async def take(self) -> None:
        self.connection.release()
        await wait_all_tasks_blocked()

    @property
    def token(self) -> str:
        """What takes the session up again, as the page knows it."""
        return str(self.of_type("init")[-1]["token"])

    @property
    def rev(self) -> int:
        """The last revision that the page has."""
        return max(int(message["rev"]) for message in self.messages if "rev" in message)

    @property
    def close_code(self) -> int | None:
        closed = self.connection.closed
        return closed.code if isinstance(closed, ConnectionClosed) else None

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


class Served:
    """What serves pages in memory, and the pages in it."""

    def __init__(
        self, serve: Callable[[Connection], Awaitable[None]], nursery: trio.Nursery
    ) -> None:
        self._serve = serve
        self._nursery = nursery

    async def open(self, subprotocol: str | None = None, peer: Peer | None = None) -> Page:
        page = Page(subprotocol, peer)
        self._nursery.start_soon(self._serve, page.connection)
        await wait_all_tasks_blocked()
        return page

    async def open_v1(self, peer: Peer | None = None, **hello: object) -> Page:
        page = await self.open(SUBPROTOCOL, peer)
        await page.send({"type": "hello", **hello})
        return page

    async def come_back(self, page: Page) -> Page:
        """Open another connection for the session of a page, as its client would."""
        return await self.open_v1(resume=page.token, rev=page.rev)


class Live(Served):
    """A run of an app and the pages in it."""

    def __init__(self, runtime: Runtime, nursery: trio.Nursery, errors: list[ErrorReport]) -> None:
        super().__init__(runtime.serve, nursery)
        self.runtime = runtime
        self.errors = errors

    @property
    def session(self) -> Session:
        (session,) = self.runtime.sessions.values()
        return session


@asynccontextmanager
async def live(app: App) -> AsyncIterator[Live]:
    """Run an app; on leaving, every page is gone and no task is left behind."""
    before = _count_tasks()
    errors: list[ErrorReport] = []
    async with trio.open_nursery() as pages:
        async with app.runtime(on_error=errors.append) as runtime:
            yield Live(runtime, pages, errors)
        assert runtime.sessions == {}
    assert _count_tasks() == before


def _count_tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living
