"""Fixtures: a real Redis, and a real browser, whose module has a fixture `url`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from browsers import launched, opened
from redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """Run a Redis of the test's own, empty; `restart()` empties it."""
    with running_redis() as server:
        yield server


@pytest.fixture
def durable_redis() -> Iterator[RedisServer]:
    """Run a Redis of the test's own that keeps what it has acknowledged."""
    with running_redis(is_durable=True) as server:
        yield server


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
