"""The counter in Cacao, and its `TestClient`."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Literal

from cacao import App, Registry, Session, Signal
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Page:
    """One page of the app."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    async def click(self, shown: int) -> None:
        """Click the button, and assert what the page then shows."""
        self._client.send("increment")
        assert self._client.state["count"] == shown


class Counter:
    """The app, and its open pages."""

    def __init__(self, via: Literal["memory", "socket"], stack: ExitStack) -> None:
        self._via = via
        self._stack = stack
        with Registry():
            self._app = App()
            count = Signal(0, name="count")

        @self._app.on("increment")
        async def increment(session: Session) -> None:
            count.set(session, count.get(session) + 1)

    async def open(self) -> Page:
        """Open a page, with a count of its own."""
        return Page(self._stack.enter_context(TestClient(self._app, via=self._via)))


@asynccontextmanager
async def counting(via: Literal["memory", "socket"] = "memory") -> AsyncIterator[Counter]:
    with ExitStack() as stack:
        yield Counter(via, stack)
