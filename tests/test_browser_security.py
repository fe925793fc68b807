"""What a real Chromium makes of our headers, and of a login."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import opened
from playwright.sync_api import expect
from processes import HYPERCORN, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

EXAMPLES = Path(__file__).parent.parent / "examples"

APP = """
from quart import Response

from cacao import App, Signal, SignedCookie

user = SignedCookie("user", secret="a secret for this test alone")
app = App(authenticate=user.read, static_folder={folder!r})
count = Signal(0, name="count")

@app.on("increment")
def increment(session):
    count.update(session, lambda n: n + 1)

@app.quart.get("/login")
async def login():
    response = Response("welcome")
    user.set(response, "ada")
    return response

asgi = app.asgi
"""

INJECT = """() => {
  const script = document.createElement("script");
  script.textContent = "window.injected = true";
  document.head.append(script);
  return window.injected === true;
}"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(HYPERCORN, cwd=EXAMPLES / "counter") as server:
        yield server.url


@pytest.mark.parametrize("example", ["counter", "search"])
def test_a_page_runs_under_its_policy_without_a_violation(browser: Browser, example: str) -> None:
    complaints: list[str] = []
    with served(HYPERCORN, cwd=EXAMPLES / example) as server:
        page = opened(browser, server.url, complaints)
        page.locator("input").press_sequentially("dark")
        expect(page.locator("input")).to_have_value("dark")
        page.close()
    assert complaints == []


def test_a_script_that_is_injected_does_not_run(browser: Browser, url: str) -> None:
    complaints: list[str] = []
    page = opened(browser, url, complaints)
    assert page.evaluate(INJECT) is False
    page.close()
    assert "Content Security Policy" in complaints[0]


def test_a_page_of_another_site_cannot_frame_ours(browser: Browser, url: str) -> None:
    page = browser.new_page()
    with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
        page.set_content(f'<iframe src="{url}"></iframe>')
    page.close()


def test_a_stranger_is_told_and_after_a_login_the_page_lives(
    browser: Browser, tmp_path: Path
) -> None:
    folder = str(EXAMPLES / "counter" / "page" / "dist")
    (tmp_path / "app.py").write_text(APP.format(folder=folder))
    with served(HYPERCORN, cwd=tmp_path) as server:
        context = browser.new_context()
        page: Page = context.new_page()
        page.goto(server.url)
        expect(page.get_by_role("status")).to_have_text("disconnected")
        page.goto(f"{server.url}/login")
        page.goto(server.url)
        expect(page.get_by_role("status")).to_have_text("connected")
        page.get_by_role("button", name="+").click()
        expect(page.locator("#count")).to_have_text("1")
        assert page.evaluate("document.cookie") == ""  # hidden from scripts
        context.close()
