"""The machine's Chromium, driven by Playwright in a thread of its own, for the whole process.

How it works. Playwright's interface is asyncio's, and a test's thread is busy stepping the app that
the browser asks for its page. So the browser's side has a thread and a loop of its own; the test
hands it coroutines. One browser is started when the first test wants it, and closed at exit; each
client has a context of its own in it, with cookies and storage that nobody shares.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import threading
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from playwright.async_api import async_playwright

from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from concurrent.futures import Future

    from playwright.async_api import Browser, Playwright

__all__ = ["Chromium", "find_chromium", "flags_of_chromium", "the_chromium"]

T = TypeVar("T")

_NAMES = ("chromium", "chrome", "google-chrome")
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# Real seconds that the browser may take for what needs no server.
_PATIENCE = 30.0


@cache
def the_chromium() -> Chromium:
    """Give the browser of this process, started now if it is the first time.

    Raises:
        HostingError: No Chromium is found.
    """
    chromium = Chromium(find_chromium())
    atexit.register(chromium.close)
    return chromium


class Chromium:
    """A running browser.

    Args:
        path: Of its program.

    Attributes:
        browser: Playwright's; to be used in `run` and `start` alone.
    """

    def __init__(self, path: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chromium", daemon=True)
        self._thread.start()
        self._playwright, self.browser = self.run(_launch(path))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for a coroutine in the browser's thread; for what does not need the app.

        Raises:
            Exception: What it raised.
        """
        return self.start(coroutine).result(_PATIENCE)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Start a coroutine in the browser's thread, for what needs the app to go on meanwhile."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def close(self) -> None:
        """End the browser and its thread."""
        self.run(_quit(self._playwright, self.browser))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _launch(path: str) -> tuple[Playwright, Browser]:
    playwright = await async_playwright().start()
    browser = await playwright.chromium.launch(executable_path=path, args=flags_of_chromium())
    return playwright, browser


async def _quit(playwright: Playwright, browser: Browser) -> None:
    await browser.close()
    await playwright.stop()


def flags_of_chromium() -> list[str]:
    """Give what keeps it quiet and alone, and lets it run at all."""
    root = ["--no-sandbox"] if os.geteuid() == 0 else []  # root has no sandbox to give
    return [*_FLAGS, *root]


def find_chromium() -> str:
    """Find its program on this machine.

    Raises:
        HostingError: There is none.
    """
    named = os.environ.get("CHROMIUM")
    found = named or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise HostingError(
            f"via='browser' finds no {' or '.join(_NAMES)} on this machine; install Chromium, or "
            "name its program in the environment variable CHROMIUM"
        )
    return found
