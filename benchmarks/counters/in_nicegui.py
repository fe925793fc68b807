"""The counter in NiceGUI, and its `User`, made as by its pytest fixtures."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

import httpx
from nicegui import core, ui
from nicegui.testing import User
from nicegui.testing.user_simulation import user_simulation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def page() -> None:
    count = 0

    def increment() -> None:
        nonlocal count
        count += 1
        label.text = str(count)

    label = ui.label("0")
    ui.button("increment", on_click=increment)


class Page:
    """One page of the app."""

    def __init__(self, user: User) -> None:
        self._user = user

    async def click(self, shown: int) -> None:
        """Click the button, and assert what the page then shows."""
        self._user.find("increment").click()
        await self._user.should_see(str(shown))


class Counter:
    """The app, and its users."""

    def __init__(self, first: User, stack: AsyncExitStack) -> None:
        self._first: User | None = first
        self._stack = stack

    async def open(self) -> Page:
        """Open a page, with a count of its own."""
        user = self._first or await self._further()
        self._first = None
        await user.open("/")
        return Page(user)

    async def _further(self) -> User:
        transport = httpx.ASGITransport(core.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        return User(await self._stack.enter_async_context(client))


@asynccontextmanager
async def counting() -> AsyncIterator[Counter]:
    async with user_simulation() as user, AsyncExitStack() as stack:
        ui.page("/")(page)
        yield Counter(user, stack)
