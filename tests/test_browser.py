"""The counter in a real Chromium, against a real `hypercorn app:asgi`."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import opened
from playwright.sync_api import Browser, Page, expect
from processes import HYPERCORN, served

if TYPE_CHECKING:
    from collections.abc import Iterator

COUNTER = Path(__file__).parent.parent / "examples" / "counter"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(HYPERCORN, cwd=COUNTER) as server:
        yield server.url


def test_the_buttons_count(page: Page) -> None:
    page.get_by_role("button", name="+").click(click_count=3, delay=1)
    expect(page.locator("#count")).to_have_text("3")
    expect(page.locator("#doubled")).to_have_text("6")
    page.get_by_role("button", name="−").click()  # noqa: RUF001 - the sign on the button
    expect(page.locator("#count")).to_have_text("2")
    page.get_by_role("button", name="Reset").click()
    expect(page.locator("#count")).to_have_text("0")


def test_the_name_field_greets_as_one_types(page: Page) -> None:
    page.get_by_label("Your name").press_sequentially("Ada Lovelace")
    expect(page.locator("#greeting")).to_have_text("Hello, Ada Lovelace!")
    expect(page.get_by_label("Your name")).to_have_value("Ada Lovelace")


def test_typing_in_the_middle_keeps_the_caret(page: Page) -> None:
    field = page.get_by_label("Your name")
    field.press_sequentially("Aa")
    field.press("ArrowLeft")
    field.press_sequentially("dddd", delay=5)
    expect(field).to_have_value("Adddda")
    expect(page.locator("#greeting")).to_have_text("Hello, Adddda!")


def test_two_tabs_have_a_state_each(
    page: Page, browser: Browser, url: str, complaints: list[str]
) -> None:
    other = opened(browser, url, complaints)
    page.get_by_role("button", name="+").click()
    expect(page.locator("#count")).to_have_text("1")
    expect(other.locator("#count")).to_have_text("0")
    other.close()


def test_a_restarted_server_is_noticed_and_the_page_comes_back(browser: Browser) -> None:
    with served(HYPERCORN, cwd=COUNTER) as first:
        port = first.port
        page = opened(browser, first.url, [])
        page.get_by_role("button", name="+").click()
        expect(page.locator("#count")).to_have_text("1")
        first.stop(signal.SIGTERM, within=9)
    expect(page.get_by_role("status")).to_have_text("reconnecting")
    expect(page.locator("#count")).to_have_text("1")
    with served([word.format(port=port) for word in HYPERCORN], cwd=COUNTER, port=port):
        expect(page.get_by_role("status")).to_have_text("connected", timeout=15_000)
        page.get_by_role("button", name="+").click()
        expect(page.locator("#count")).to_have_text("1")
    page.close()


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
    expect(page.get_by_role("status")).to_have_text("connected")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    red = page.evaluate(
        "+getComputedStyle(document.documentElement).backgroundColor.match(/[0-9.]+/)[0]"
    )
    assert (red > 128) is (scheme == "light")
    context.close()
