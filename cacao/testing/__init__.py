"""Testing an app in memory: `TestClient`, its async twin, and what they raise.

The names are loaded when first used: the pytest plugin is a module of this package, and pytest
imports it in every project that has Cacao installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cacao.testing.async_client import AsyncTestClient
    from cacao.testing.browser.page import Page, PageError
    from cacao.testing.client import TestClient
    from cacao.testing.hand_pump import SpinningError
    from cacao.testing.inspection.leaks import LeakError
    from cacao.testing.inspection.rest import UnsettledError
    from cacao.testing.line import Frame
    from cacao.testing.network import Network
    from cacao.testing.runs import Delivery
    from cacao.testing.sockets.live_client import LiveClient
    from cacao.testing.unread import Caught

__all__ = [
    "AsyncTestClient",
    "Caught",
    "Delivery",
    "Frame",
    "LeakError",
    "LiveClient",
    "Network",
    "Page",
    "PageError",
    "SpinningError",
    "TestClient",
    "UnsettledError",
]

_HOMES = {
    "AsyncTestClient": "cacao.testing.async_client",
    "Caught": "cacao.testing.unread",
    "Delivery": "cacao.testing.runs",
    "Frame": "cacao.testing.line",
    "LeakError": "cacao.testing.inspection.leaks",
    "LiveClient": "cacao.testing.sockets.live_client",
    "Network": "cacao.testing.network",
    "Page": "cacao.testing.browser.page",
    "PageError": "cacao.testing.browser.page",
    "SpinningError": "cacao.testing.hand_pump",
    "TestClient": "cacao.testing.client",
    "UnsettledError": "cacao.testing.inspection.rest",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
