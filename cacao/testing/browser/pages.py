"""Clients that are the app's own page, in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacao.errors import HostingError
from cacao.protocol import SUBPROTOCOL
from cacao.testing.browser.chromium import the_chromium
from cacao.testing.browser.page_line import PageLine

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.peer import Peer
    from cacao.testing.sockets.served import Served

__all__ = ["Pages"]


class Pages:
    """The pages of one app's clients.

    Args:
        served: The app that serves them.
        failed: Told of what goes wrong in them.

    Raises:
        HostingError: No Chromium is found.
    """

    def __init__(self, served: Served, failed: Callable[[BaseException], object]) -> None:
        self._served = served
        self._failed = failed
        self._chromium = the_chromium()

    def open_line(
        self,
        name: str,
        subprotocol: str | None,
        peer: Peer,
        clock: Callable[[], float],
        do: Callable[[Callable[[], object]], object],
    ) -> PageLine:
        """Open the app's page for one more client, in a browser context of its own.

        Raises:
            HostingError: The client is to speak the plain protocol, which the page does not.
        """
        if subprotocol != SUBPROTOCOL:
            raise HostingError(
                f"via='browser' speaks {SUBPROTOCOL!r}, as the page does, and not the plain "
                "protocol; test that via='memory' or via='socket'"
            )
        line = PageLine(name, self._chromium, self._served, clock, do, self._failed)
        line.open(peer)
        return line
