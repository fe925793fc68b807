"""What a user can do and see in a page."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from cacao.errors import CacaoError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from playwright.async_api import Locator
    from playwright.async_api import Page as BrowserPage

__all__ = ["Page", "PageError"]

T = TypeVar("T")

# Answers when the browser has drawn what the page has to show by now.
_DRAWN = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
# Real seconds that a page, with the app at rest, may take to draw what it has to show; and real
# milliseconds that what is to be seen may take to let itself be clicked or filled.
_DRAWING = 1.0
_ACTING_MS = 2_000
_FIELDS = "input, textarea, [contenteditable]"
_ANY = re.compile(".")
_NAME = re.compile(r'"(?:[^"\\]|\\.)*"')  # as JSON, in Playwright's snapshot of an element


class PageError(CacaoError):
    """A page has complained, or it does not show what a test asks for.

    It complains by an error on its console, or by one that nothing has caught.
    """


class Page:
    """A client's page in the browser. Each call returns when page and app have come to rest.

    Names, labels and texts are those that a user reads, without regard to case.

    Args:
        perform: Runs a coroutine made of Playwright's page, while the app goes on.
    """

    def __init__(
        self, perform: Callable[[Callable[[BrowserPage], Coroutine[Any, Any, Any]]], Any]
    ) -> None:
        self._perform = perform

    def click(self, name: str) -> None:
        """Click the button of this name.

        Raises:
            PageError: No such button is to be seen, or several; or it cannot be clicked.
        """

        async def click(page: BrowserPage) -> None:
            all_buttons = page.get_by_role("button").filter(visible=True)
            found = page.get_by_role("button", name=name).filter(visible=True)
            button = await _only(page, f"button {name!r}", found, all_buttons)
            await _act(f"button {name!r}", lambda: button.click(timeout=_ACTING_MS))

        self.do(click)

    def fill(self, label: str, text: str) -> None:
        """Write a text into the field of this label, in place of what is there.

        Raises:
            PageError: No such field is to be seen, or several; or it cannot be written into.
        """

        async def fill(page: BrowserPage) -> None:
            fields = page.locator(_FIELDS).filter(visible=True)
            found, all_labelled = (fields.and_(page.get_by_label(each)) for each in (label, _ANY))
            field = await _only(page, f"field {label!r}", found, all_labelled)
            await _act(f"field {label!r}", lambda: field.fill(text, timeout=_ACTING_MS))

        self.do(fill)

    def sees(self, text: str) -> bool:
        """Tell whether a text is to be seen now: somewhere, and perhaps in a longer one."""

        async def look(page: BrowserPage) -> bool:
            await page.evaluate(_DRAWN)
            return await page.get_by_text(text).filter(visible=True).count() > 0

        return self.do(look)

    def do(self, act: Callable[[BrowserPage], Coroutine[Any, Any, T]]) -> T:
        """Do whatever Playwright can: `page.do(lambda page: page.locator("#count").inner_text())`.

        Args:
            act: Takes the page of `playwright.async_api`, and gives something to await.

        Returns:
            What that gave.

        Raises:
            Exception: What it raised.
        """
        done: T = self._perform(act)
        return done


async def _only(page: BrowserPage, what: str, found: Locator, others: Locator) -> Locator:
    """Wait until one thing is found; gives it.

    Args:
        page: Where.
        what: It is called in an error.
        found: All that goes by its name.
        others: All of its kind.

    Raises:
        PageError: There is none, or there are several.
    """
    give_up = time.monotonic() + _DRAWING
    while (count := await found.count()) != 1:
        if time.monotonic() > give_up:
            if count == 0:
                raise PageError(
                    f"no {what} is to be seen; there are: {await _names(others)}; ask for one of "
                    "these, or let it appear first (advance, wait)"
                )
            raise PageError(
                f"{what} may be any of {count}: {await _names(found)}; give more of the name, or "
                "say which to Playwright: page.do(lambda page: ...)"
            )
        await page.evaluate(_DRAWN)
    return found


async def _names(found: Locator) -> str:
    """List what is found as a screen reader would name it."""
    snapshots = [await each.aria_snapshot() for each in await found.all()]
    names = [orjson.loads(name[0]) for each in snapshots if (name := _NAME.search(each))]
    return ", ".join(map(repr, names)) or "none"


async def _act(what: str, act: Callable[[], Awaitable[None]]) -> None:
    try:
        await act()
    except Exception as error:  # noqa: BLE001 -- Playwright's, which need not be installed
        raise PageError(f"{what} is to be seen, but does not let that be done: {error}") from None
