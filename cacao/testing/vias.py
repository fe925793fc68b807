"""The ways from a test's clients to the app that are loaded only where they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, cast, get_args

from cacao.errors import HostingError
from cacao.testing.settings import Via

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from cacao.app import App
    from cacao.reports import ErrorReport
    from cacao.runtime import Runtime
    from cacao.testing.browser.pages import Pages
    from cacao.testing.sockets.served import Served

__all__ = ["make_pages", "make_served", "prepare"]


def prepare(via: Via) -> None:
    """Load what a way needs, before anything is opened.

    Raises:
        ValueError: There is no such way.
        HostingError: Something is not installed.
    """
    if via not in get_args(Via):
        raise ValueError(f"via={via!r} is no way to an app; expected one of {get_args(Via)}")
    if via != "memory":
        _load("cacao.testing.sockets.served", via, "test")
    if via == "browser":
        _load("cacao.testing.browser.pages", via, "browser").the_chromium()


def make_served(
    app: App,
    runtime: Runtime,
    report: Callable[[ErrorReport], None],
    failed: Callable[[BaseException], object],
) -> Served:
    """Make the server of `via="socket"` and `via="browser"`; see `Served`."""
    module = import_module("cacao.testing.sockets.served")
    return cast("Served", module.Served(app, runtime, report, failed))


def make_pages(served: Served, failed: Callable[[BaseException], object]) -> Pages:
    """Make the pages of `via="browser"`; see `Pages`."""
    module = import_module("cacao.testing.browser.pages")
    return cast("Pages", module.Pages(served, failed))


def _load(name: str, via: Via, extra: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        raise HostingError(
            f"via={via!r} needs {error.name}, which is not installed; pip install 'cacao[{extra}]'"
        ) from error
