"""One client that is the app's page in a real browser; the rest of the harness sees a `Line`."""

from __future__ import annotations

import time
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from cacao.errors import ConnectionClosed, HostingError
from cacao.protocol import CloseCode
from cacao.testing.browser.page import Page, PageError
from cacao.testing.browser.page_half import PageHalf
from cacao.testing.browser.page_network import PageNetwork
from cacao.testing.client_half import check_text, event_data
from cacao.testing.line import Frame
from cacao.testing.sockets.far_end import NearEnd
from cacao.testing.sockets.served import MARK

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from concurrent.futures import Future

    from playwright.async_api import ConsoleMessage, Error
    from playwright.async_api import Page as BrowserPage

    from cacao.peer import Peer
    from cacao.testing.browser.chromium import Chromium
    from cacao.testing.sockets.served import Served

__all__ = ["PageLine"]

T = TypeVar("T")

_SCRIPT = Path(__file__).with_name("page.js")
_HAS_LEFT = ConnectionClosed(1001, "the test client has closed; open another client")
# Real milliseconds for what a page is asked to do.
_PATIENCE_MS = 10_000
# Real seconds for which a page that was at rest, and has heard of nothing, is taken to be so still.
_GLANCE = 0.02


class PageLine:
    """A page, opened at `/`.

    Args:
        name: What reports call the client.
        chromium: The browser.
        served: Serves the page, and knows the server's ends of its connections.
        clock: Gives the seconds since the app was started.
        do: Does something in the run, and lets the app come to rest.
        failed: Told of what goes wrong in the page.

    Attributes:
        name: As given.
        half: What the page's client knows.
        network: What the page takes for its network.
        page: What a user can do and see.
        frames: All that it has sent and received, in order.
        closing: How the server has closed, or the client; None while there may be a connection.
        has_left: Whether the page was closed.
    """

    def __init__(
        self,
        name: str,
        chromium: Chromium,
        served: Served,
        clock: Callable[[], float],
        do: Callable[[Callable[[], object]], object],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.name = name
        self.half = PageHalf(self._values)
        self.network = PageNetwork(self._ask, do)
        self.page = Page(self._perform)
        self.frames: list[Frame] = []
        self.closing: ConnectionClosed | None = None
        self.has_left = False
        self._chromium = chromium
        self._served = served
        self._clock = clock
        self._do = do
        self._failed = failed
        self._status: str | None = None
        self._under_way: Future[Any] | None = None
        self._in_browser: BrowserPage | None = None  # once it has come
        self._early: list[PageError] = []  # what it has complained of before
        self._mark = ""
        self._told = -1  # what the server had done when the page was at rest; -1 if it is not
        self._looked_at = 0.0

    def __str__(self) -> str:
        status = self._status or "no client of Cacao's has connected there"
        return f"what the page of {self.name} does ({status})"

    # --- As `Line` -----------------------------------------------------------------------------

    @property
    def refusal(self) -> ConnectionClosed | None:
        """How the app's `authenticate` has turned the client away; None if it has not."""
        closing = self.closing
        return closing if closing is not None and closing.code == CloseCode.UNAUTHORIZED else None

    def send_event(self, name: str, data: dict[str, Any] | None, fields: Mapping[str, Any]) -> int:
        """Let the page's client send an event; gives its number: 1, 2, 3 ...

        Raises:
            ConnectionClosed: Either side has closed.
            TypeError: A page could not send such data.
        """
        self._refuse_when_closed()
        event = self.half.add(name, event_data(name, data, fields))
        send = "([number, name, data]) => __cacaoTest__.send(number, name, data)"
        self._ask(send, [event.number, name, event.data])
        return event.number

    def send_text(self, text: str) -> None:
        """Send a text as it is, past the page's client.

        Raises:
            ConnectionClosed: Either side has closed.
            TypeError: It is no text.
        """
        self._refuse_when_closed()
        check_text(text)
        self._ask("text => __cacaoTest__.sendText(text)", text)

    def leave(self) -> None:
        """Let the page's client say goodbye, and then close the page; the second time nothing."""
        if self.has_left:
            return
        self.has_left = True
        self.closing = self.closing or _HAS_LEFT
        if self._in_browser is not None:
            self._ask("() => __cacaoTest__.leave()")

    # --- The page ------------------------------------------------------------------------------

    def open(self, peer: Peer) -> None:
        """Open the page; while it is loading it is in flight."""
        self._mark = self._served.new_mark(peer)
        self._served.watch(self)
        self._under_way = self._chromium.start(self._open(peer))

    async def _open(self, peer: Peer) -> None:
        url = self._served.url
        headers = {name: value for name, value in peer.headers.items() if name != "cookie"}
        context = await self._chromium.browser.new_context(extra_http_headers=headers)
        context.set_default_timeout(_PATIENCE_MS)
        cookies = [{"name": n, "value": v, "url": url} for n, v in peer.cookies.items()]
        await context.add_cookies(cookies)  # type: ignore[arg-type] # dicts of that shape
        arguments = orjson.dumps([self._mark, MARK]).decode()
        script = _SCRIPT.read_text().rstrip().removesuffix(";")
        await context.add_init_script(f"({script})(...{arguments})")
        page = await context.new_page()
        page.on("console", self._hear)
        page.on("pageerror", self._take_error)
        try:
            await self._go(page)
        except BaseException:
            await context.close()
            raise
        self._in_browser = page
        for complaint in self._early:
            self._failed(complaint)

    async def _go(self, page: BrowserPage) -> None:
        url = self._served.url
        response = await page.goto(f"{url}/")
        if response is None or response.status >= HTTPStatus.BAD_REQUEST:
            said = "nothing" if response is None else f"HTTP {response.status}"
            raise HostingError(
                f"via='browser' opens the app's page at '/', which answers {said}; name the folder "
                "of its built files, App(static_folder=...), and build it"
            )

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._complain(message.text)

    def _take_error(self, error: Error) -> None:
        self._complain(str(error))

    def _complain(self, what: str) -> None:
        complaint = PageError(f"{self.name}: {what}")
        if self._in_browser is None:
            self._early.append(complaint)  # of no interest if there is no page
        else:
            self._failed(complaint)

    def _perform(self, act: Callable[[BrowserPage], Coroutine[Any, Any, T]]) -> T:
        """Let something be done in the page, while the app goes on."""
        self._refuse_when_closed()
        self._under_way = under_way = self._chromium.start(act(self._there()))
        self._told = -1
        self._do(_nothing)
        if not under_way.done():
            raise HostingError(
                "a page cannot be waited for inside a trio task or together(): the app would stand "
                "still, too; use TestClient, outside of together(), for what a user does in it"
            )
        return under_way.result()

    def _ask(self, function: str, argument: object = None) -> Any:
        """Call a function in the page, which is done at once, without waiting for the app."""
        self._told = -1
        return self._chromium.run(self._there().evaluate(function, argument))

    def _values(self, names: list[str]) -> dict[str, Any]:
        return dict(self._ask("names => __cacaoTest__.values(names)", names))

    def _there(self) -> BrowserPage:
        if self._in_browser is None:
            raise HostingError(f"the page of {self.name} did not open; the first error says why")
        return self._in_browser

    def _refuse_when_closed(self) -> None:
        if self.closing is not None:
            raise ConnectionClosed(self.closing.code, self.closing.reason)

    # --- What it does by itself ----------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """How much of what the page does is not done yet, its messages included."""
        if self._under_way is not None and not self._under_way.done():
            return 1
        if self._in_browser is None:
            self._note_that_none_came()
            return 0
        told = self._served.told(self._mark)
        if told == self._told and time.monotonic() - self._looked_at < _GLANCE:
            return 0
        in_flight = self._look()
        self._looked_at = time.monotonic()
        self._told = -1 if in_flight else told
        return in_flight

    def _note_that_none_came(self) -> None:
        self._served.forget(self)
        error = self._under_way.exception() if self._under_way is not None else None
        if error is not None:
            self._failed(error)

    def _look(self) -> int:
        told = self._ask("() => __cacaoTest__.look()")
        for kind, *what in told["news"]:
            self._take(kind, what)
        self.half.outcome = told["outcome"]
        self._status = told["status"]
        if told["closing"] is not None and not self.has_left:
            self.closing = ConnectionClosed(told["closing"]["code"], told["closing"]["reason"])
        in_flight = sum(map(self._in_flight_on, told["sockets"])) + self._is_dialling
        if self.has_left and not in_flight:
            self._served.forget(self)
            self._chromium.run(self._there().context.close())
        return in_flight

    def _take(self, kind: str, what: list[Any]) -> None:
        if kind == "result":
            self.half.settle(*what)
            return
        (text,) = what
        self.frames.append(Frame(self._clock(), "sent" if kind == "sent" else "received", text))
        if kind == "sent":
            self.half.note_sent(text)
        else:
            self.half.note_received(orjson.loads(text))

    def _in_flight_on(self, socket: dict[str, Any]) -> int:
        near_end = NearEnd(socket["sent"], socket["came"], socket["isListening"], socket["isOver"])
        return near_end.in_flight(self._served.far_end(socket["mark"]))

    @property
    def _is_dialling(self) -> bool:
        """Whether the page's client seeks a connection that it can have."""
        is_seeking = self._status in {None, "connecting", "reconnecting"}
        return is_seeking and not self.network.is_down and not self.has_left


def _nothing() -> None:
    """Only let the app come to rest."""
