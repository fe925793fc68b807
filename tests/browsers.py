"""A real Chromium for tests, and pages in it that may not complain."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

if TYPE_CHECKING:
    from collections.abc import Iterator

FLAGS = [
    "--no-sandbox",  # the suite may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextlib.contextmanager
def launched() -> Iterator[Browser]:
    """Run the machine's Chromium; without one the tests fail, they are never skipped."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chrome")
    if chromium is None:
        pytest.fail("no Chromium is found: run `make test`, or name one in CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
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
