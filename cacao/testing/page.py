"""What a user can do and see in a page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from cacao.errors import CacaoError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from playwright.async_api import Page as BrowserPage

__all__ = ["Page", "PageError"]

T = TypeVar("T")

# Answers when the browser has drawn what the page has to show by now.
_DRAWN = "() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))"


class PageError(CacaoError):
    """A page has complained: by an error on its console, or by one that nothing has caught."""


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
            TimeoutError: Playwright's: no such button could be clicked within 10 real seconds.
        """
        self.do(lambda page: page.get_by_role("button", name=name).click())

    def fill(self, label: str, text: str) -> None:
        """Write a text into the field of this label, in place of what is there.

        Raises:
            TimeoutError: Playwright's: there was no such field within 10 real seconds.
        """
        self.do(lambda page: page.get_by_label(label).fill(text))

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
