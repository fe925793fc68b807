"""Fixtures for the tests in a real browser; the module that uses them has a fixture `url`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browsers import launched, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page


# Not of the whole session: playwright keeps an asyncio loop running in this thread meanwhile.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with launched() as browser:
        yield browser


@pytest.fixture
def complaints() -> list[str]:
    return []


@pytest.fixture
def page(browser: Browser, url: str, complaints: list[str]) -> Iterator[Page]:
    """Open the app; what the page complains of on its console fails the test."""
    page = opened(browser, url, complaints)
    yield page
    page.close()
    assert complaints == []
