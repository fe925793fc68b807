"""A real Chromium for tests, and pages in it that may not complain."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from cacao.testing.browser.chromium import find_chromium, flags_of_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Run the machine's Chromium; without one the tests fail, they are never skipped."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=find_chromium(), args=flags_of_chromium()
        )
        yield browser
        browser.close()


def opened(browser: Browser, url: str, complaints: list[str]) -> Page:
    """Open a page and wait until it is connected; note what it complains of on its console."""
    page = browser.new_page()
    page.on("console", lambda message: _note_error(message, complaints))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    expect(page.get_by_role("status")).to_have_text("connected")
    return page


def _note_error(message: ConsoleMessage, complaints: list[str]) -> None:
    if message.type == "error":
        complaints.append(message.text)
