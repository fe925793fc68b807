"""The test client of a server that runs elsewhere."""

# ruff: noqa: SLF001 -- the clients that came through one are of this very class

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar, cast

from cacao.errors import ConnectionClosed, HostingError
from cacao.protocol import SUBPROTOCOL
from cacao.testing.client import TestClient
from cacao.testing.runs import shown
from cacao.testing.sockets.live_world import LiveWorld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacao.peer import Peer
    from cacao.testing.client_half import Sent

__all__ = ["LiveClient"]

E = TypeVar("E", bound=BaseException)


class LiveClient(TestClient):
    """One client of a running server, over a real socket, in real time.

    It speaks as `TestClient` does, word for word, but the server is not in the test's hands:

    - a call waits until the results of what it has sent have come, for `timeout` real seconds at
      most; `send` then gives None. Nothing is proved to be at rest;
    - `advance` lets real seconds pass;
    - `runs` tells what this side knows: the events in the order in which they were sent, and how
      they ended;
    - what only the server knows raises `HostingError`: `session`, `server_state`, `now`,
      `delivered_once` and `expect_error`. An error in a handler is a result with a code.

    Heartbeats are answered in a thread, whatever the test does meanwhile. `network` is this side's
    own end: while it is stalled, or delayed by more than `timeout`, each `send` takes that long.

    Args:
        url: Where the server answers, such as "http://127.0.0.1:8000"; with "https", over TLS.
        subprotocol: None speaks the plain protocol, which has no results.
        headers: Of the handshake, by name.
        cookies: The same, by name.
        timeout: Real seconds for which a call waits.

    Raises:
        ValueError: The URL is none.
        ConnectionClosed: There is no such server, or it has refused this client.
    """

    __test__ = False

    def __init__(
        self,
        url: str,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> None:
        # It has all that a client asks of its world and its stage, but what is refused below.
        self._world = self._stage = cast("Any", LiveWorld(url, timeout))
        self._tabs = []
        name, peer = self._stage.introduce(None, headers, cookies)
        self._open(name, subprotocol, peer, [])

    def _open(
        self: Self, name: str, subprotocol: str | None, peer: Peer, through: list[Self]
    ) -> None:
        super()._open(name, subprotocol, peer, through)
        closing = self._line.closing
        if closing is not None:
            self.close()
            url = cast("LiveWorld", self._world).url.geturl()
            why = f"no client of {url}: {closing.reason or 'no reason given'}"
            raise ConnectionClosed(closing.code, why)

    def runs(self, name: str) -> list[tuple[Any, str]]:
        """List what became of the events of one name, in the order in which they were sent."""
        return [
            (shown(event.data), _outcome(event))
            for client in self._family()
            for event in client._line.half.events
            if event.name == name
        ]

    @property
    def now(self) -> NoReturn:
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise _out_of_reach("now")

    @property
    def session(self) -> NoReturn:
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise _out_of_reach("session")

    @property
    def server_state(self) -> NoReturn:
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise _out_of_reach("server_state")

    def delivered_once(self, name: str) -> NoReturn:  # noqa: ARG002 -- as `TestClient`
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise _out_of_reach("delivered_once")

    def expect_error(
        self,
        kinds: type[E] | tuple[type[E], ...],  # noqa: ARG002 -- as `TestClient`
        match: str | None = None,  # noqa: ARG002
    ) -> NoReturn:
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise _out_of_reach("expect_error")


def _out_of_reach(word: str) -> HostingError:
    return HostingError(
        f"{word!r} needs the server's inside, and a LiveClient has none of it; look at what the "
        "client has (state, runs, result), or test the app by TestClient"
    )


def _outcome(event: Sent) -> str:
    if event.result is None:
        return "running"
    return "done" if event.result.ok else str(event.result.code)
