"""The search in a real Chromium: what becomes of its queries, as the database counts them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest
from browsers import opened
from playwright.sync_api import Browser, Page, expect
from processes import HYPERCORN, served

if TYPE_CHECKING:
    from collections.abc import Iterator

SEARCH = Path(__file__).parent.parent / "examples" / "search"
SECONDS_OF_A_QUERY = 2


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(HYPERCORN, cwd=SEARCH) as server:
        yield server.url


def running(url: str) -> int:
    """Ask the server how many queries run now."""
    with urlopen(f"{url}/running") as answer:  # noqa: S310 - our own server
        return int(json.load(answer)["running"])


def type_text(page: Page, text: str) -> None:
    page.get_by_label("Find a bar").press_sequentially(text, delay=50)


def test_of_quick_keystrokes_only_the_last_is_answered(page: Page) -> None:
    type_text(page, "milk g")
    expect(page.locator(".superseded")).to_have_count(5)
    expect(page.locator(".running")).to_have_text("milk grunning")
    expect(page.locator("#running")).to_have_text("1")
    expect(page.locator("#summary")).to_have_text("The best for “milk g”", timeout=15_000)
    expect(page.locator(".done")).to_have_text("milk gdone")
    expect(page.locator("#running")).to_have_text("0")
    names = page.locator(".name").all_inner_texts()
    assert len(names) == 12
    assert all(name.startswith("Milk G") for name in names)


def test_stop_ends_the_query_at_once(page: Page, url: str) -> None:
    stop = page.get_by_role("button", name="Stop")
    expect(stop).to_be_disabled()
    type_text(page, "d")
    expect(page.locator("#running")).to_have_text("1")
    pressed = time.monotonic()
    stop.click()
    expect(page.locator(".cancelled")).to_have_text("dstopped")
    assert running(url) == 0
    assert time.monotonic() - pressed < SECONDS_OF_A_QUERY / 2  # it did not just run to its end
    expect(stop).to_be_disabled()
    expect(page.get_by_label("Find a bar")).to_be_focused()


def test_closing_the_tab_ends_its_query(browser: Browser, url: str) -> None:
    page = opened(browser, url, [])
    type_text(page, "d")
    expect(page.locator("#running")).to_have_text("1")
    closed = time.monotonic()
    page.close()
    while running(url) > 0:
        assert time.monotonic() - closed < SECONDS_OF_A_QUERY / 2
        time.sleep(0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_and_has_the_schemes_colours(
    browser: Browser, url: str, scheme: str, width: int
) -> None:
    context = browser.new_context(
        color_scheme=scheme,  # type: ignore[arg-type] # a literal, from the parameters above
        viewport={"width": width, "height": 720},
    )
    page = context.new_page()
    page.goto(url)
    page.get_by_label("Find a bar").fill(
        "dark ghana with a name that no bar has and no chip can hold"
    )
    expect(page.locator(".running")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    red = page.evaluate(
        "+getComputedStyle(document.documentElement).backgroundColor.match(/[0-9.]+/)[0]"
    )
    assert (red > 128) is (scheme == "light")
    context.close()
