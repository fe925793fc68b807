"""One client and its network: it sends events, answers heartbeats, and keeps every frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from cacao.errors import ConnectionClosed
from cacao.protocol import SUBPROTOCOL, CloseCode
from cacao.testing.client_half import ClientHalf, check_text, event_data
from cacao.testing.network import Network

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cacao.peer import Peer
    from cacao.testing.wire import Dial, Wire

__all__ = ["Frame", "Line"]

_REFUSALS = {CloseCode.UNAUTHORIZED, CloseCode.INTERNAL}
_HAS_LEFT = ConnectionClosed(1001, "the test client has closed")


class Frame(NamedTuple):
    """One message as it was on the wire.

    Attributes:
        time: Seconds since the app was started, when the client sent it or it arrived there.
        direction: "sent" by the client, or "received".
        text: As it stood.
    """

    time: float
    direction: Literal["sent", "received"]
    text: str

    @property
    def message(self) -> Any:
        """The text decoded; a new object each time.

        Raises:
            ValueError: It is no JSON: a test has sent it so.
        """
        return orjson.loads(self.text)


class Line:
    """One client in a run of an app.

    Its methods that send must be called inside the trio run that serves it.

    Args:
        name: What reports call the client.
        dial: Opens its connections.
        subprotocol: `"cacao.v1"`, or None for the plain protocol.
        peer: Who it says it is.
        clock: Gives the seconds since the app was started.
        start_soon: Runs what carries late frames.
        do: Does something in the run, and lets the app come to rest where that is due.

    Attributes:
        name: As given.
        half: What the client knows.
        network: Its network.
        frames: All that it has sent and received, in order.
        closing: How the server has closed, or the client; None while there may be a connection.
        has_left: Whether the client has closed, and cannot come back.
    """

    def __init__(
        self,
        name: str,
        dial: Dial,
        subprotocol: str | None,
        peer: Peer,
        *,
        clock: Callable[[], float],
        start_soon: Callable[..., object],
        do: Callable[..., object],
    ) -> None:
        self.name = name
        self.half = ClientHalf(is_numbered=subprotocol == SUBPROTOCOL)
        self.frames: list[Frame] = []
        self.closing: ConnectionClosed | None = None
        self.has_left = False
        self._dial = dial
        self._subprotocol = subprotocol
        self._peer = peer
        self._clock = clock
        self.network = Network(self, self._open_wire, start_soon, do)

    def _open_wire(self, network: Network) -> Wire:
        return self._dial(network, self._subprotocol, self._peer)

    @property
    def refusal(self) -> ConnectionClosed | None:
        """How the app's `authenticate` has turned the client away; None if it has not."""
        closing = self.closing
        return closing if closing is not None and closing.code in _REFUSALS else None

    def send_event(self, name: str, data: dict[str, Any] | None, fields: Mapping[str, Any]) -> int:
        """Send an event, now or when there is a connection; gives its number: 1, 2, 3 ...

        Raises:
            ConnectionClosed: Either side has closed.
            TypeError: A page could not send such data.
        """
        self._refuse_to_send_when_closed()
        event, texts = self.half.send(name, event_data(name, data, fields))
        self._send(texts)
        return event.number

    def send_text(self, text: str) -> None:
        """Send a text as it is; without a connection it gets lost.

        Raises:
            ConnectionClosed: Either side has closed.
            TypeError: It is no text.
        """
        self._refuse_to_send_when_closed()
        check_text(text)
        self._send([text])

    def leave(self) -> None:
        """Say goodbye and hang up, as a page does that is closed; the second time nothing."""
        if self.has_left:
            return
        self.has_left = True
        if self.closing is None:
            self.closing = _HAS_LEFT
            if self._subprotocol == SUBPROTOCOL:
                self._send(['{"type":"bye"}'])
        self.network.hang_up(_HAS_LEFT.code, _HAS_LEFT.reason)

    # --- For the network -----------------------------------------------------------------------

    def connected(self) -> None:
        """Greet the server."""
        self.closing = None
        self._send(self.half.greeting())

    def arrived(self, text: str) -> None:
        """Take a text of the server's, and answer it."""
        self.frames.append(Frame(self._clock(), "received", text))
        self._send(self.half.receive(orjson.loads(text)))

    def closed(self, why: ConnectionClosed) -> None:
        """Note how the server has closed."""
        self.half.lost(why.code)
        self.closing = why

    def lost(self) -> None:
        """Note that there is no connection."""
        self.half.lost()

    # --- Inside --------------------------------------------------------------------------------

    def _send(self, texts: list[str]) -> None:
        for text in texts if self.network.is_up else ():
            self.frames.append(Frame(self._clock(), "sent", text))
            self.network.send(text)

    def _refuse_to_send_when_closed(self) -> None:
        if self.closing is not None:
            advice = "open another client" + ("" if self.has_left else ", or network.restore()")
            why = f"{self.closing.reason or 'no reason given'}; {advice}"
            raise ConnectionClosed(self.closing.code, why)
