"""An app served for real inside a test's own trio run: its edge, under hypercorn, on a port.

How it works. Server and clients live in one run, which the test steps, so all that is said about
rest and time holds here too; but between them lie sockets, of which no scheduler knows. So each
connection names itself in its query, and what both of its ends have sent and taken is counted: the
run is at rest when every task is blocked and the counts agree. The app sees nothing of that.
"""

from __future__ import annotations

import logging
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import urlsplit

import trio
from hypercorn.config import Config
from hypercorn.trio import serve

from cacao.asgi import WEBSOCKET_PATH
from cacao.errors import HostingError
from cacao.hardening.shutdown import stop_hearing
from cacao.testing.sockets.far_end import FarEnd
from cacao.testing.sockets.socket_wire import SocketWire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from hypercorn.typing import ASGIFramework

    from cacao.app import App
    from cacao.gate import Refusal
    from cacao.peer import Peer
    from cacao.reports import ErrorReport
    from cacao.runtime import Runtime
    from cacao.testing.wire import Listener

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["MARK", "Served"]

MARK = "cacao-wire"
"""The parameter of a connection's query that names it."""

# Virtual time may leap while bytes are on their way. What hypercorn by itself asks a silent client
# for, and the time that it gives to connections at the end, must not depend on it.
_NEVER = 10**9
# Real seconds for which texts may be on their way, and between two looks at them.
_PATIENCE = 20.0
_POLL = 0.0005


class Flight(Protocol):
    """Something that has texts on their way, and can say which as `str`."""

    @property
    def in_flight(self) -> int:
        """How many there are now."""
        ...


class Served:
    """The edge of an app on a port of loopback, and the wires of its clients.

    Everything lives in the task that is in `run`, and ends with it.

    Args:
        app: The app under test.
        runtime: Its run.
        report: Told of the errors in the author's code.
        failed: Told of what went wrong besides.

    Attributes:
        url: Where the app answers, without a slash at the end, once `run` has started.
    """

    def __init__(
        self,
        app: App,
        runtime: Runtime,
        report: Callable[[ErrorReport], None],
        failed: Callable[[BaseException], object],
    ) -> None:
        self.url = ""
        self._failed = failed
        self._admit_by_app = partial(app.admit, on_error=report)
        self._edge = app.edge(lambda: nullcontext(runtime), report, self._admit)
        stop_hearing(self._edge)  # of the ends of other servers in this process
        self._last_mark = 0
        self._users: dict[str, object] = {}  # by mark: those whom nobody asks for a proof
        self._far_ends: dict[str, FarEnd] = {}  # the same
        self._flights: set[Flight] = set()
        self._busy_since: float | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        config = Config()
        config.bind = ["127.0.0.1:0"]
        config.errorlog = logging.getLogger("cacao.testing.sockets.served")
        config.read_timeout = config.graceful_timeout = _NEVER
        async with trio.open_nursery() as self._nursery:
            app = cast("ASGIFramework", self._asgi)
            (self.url,) = await self._nursery.start(partial(serve, app, config, mode="asgi"))
            task_status.started()

    def dial(self, listener: Listener, subprotocol: str | None, peer: Peer) -> SocketWire:
        """Open a wire. Implements `cacao.testing.wire.Dial`."""
        mark = self.new_mark(peer)
        url = urlsplit(f"{self.url}{WEBSOCKET_PATH}?{MARK}={mark}")
        wire = SocketWire(listener, url, subprotocol, peer, lambda: self.far_end(mark))
        self._nursery.start_soon(self._carry, wire, name="cacao.testing wire")
        self.watch(wire)
        return wire

    def new_mark(self, peer: Peer) -> str:
        """Give a name for connections of a client; the name of another may begin with it and a dot.

        Args:
            peer: Who it says it is. If that has a user, the app's `authenticate` is not asked.
        """
        self._last_mark += 1
        mark = str(self._last_mark)
        if peer.user is not None:
            self._users[mark] = peer.user
        return mark

    def far_end(self, mark: str) -> FarEnd | None:
        """Find the server's end of a connection; None before the server has seen it."""
        return self._far_ends.get(mark)

    def told(self, mark: str) -> int:
        """Count what the server has sent and taken so far on all connections of a name."""
        return sum(
            far_end.given + far_end.taken + far_end.has_ended
            for name, far_end in self._far_ends.items()
            if name.startswith(f"{mark}.")
        )

    def watch(self, flight: Flight) -> None:
        """Let the run not be at rest while something of this is on its way."""
        self._flights.add(flight)

    def forget(self, flight: Flight) -> None:
        """Take back `watch`."""
        self._flights.discard(flight)

    def is_busy(self) -> bool:
        """Tell whether texts are on their way, after a moment of real time if so.

        Only while every task is blocked this means something. Texts that never come are not waited
        for: then the test is told, as it is of all that goes wrong here, for a clock that asks
        cannot raise. Ctrl-C, too, comes from the test's next look.
        """
        try:
            return self._look()
        except BaseException as error:  # noqa: BLE001 -- told, see above
            self._flights.clear()
            self._failed(error)
            return False

    def _look(self) -> bool:
        in_flight = sum(flight.in_flight for flight in tuple(self._flights))
        if not in_flight:
            self._busy_since = None
            return False
        now = time.monotonic()
        if self._busy_since is None:
            self._busy_since = now
        if now - self._busy_since > _PATIENCE:
            self._give_up()
            return False
        time.sleep(_POLL)
        return True

    def _give_up(self) -> None:
        late = ", ".join(str(flight) for flight in self._flights if flight.in_flight)
        self._flights.clear()
        self._busy_since = None
        self._failed(
            HostingError(
                f"after {_PATIENCE:.0f} s of real time something is still on its way: {late}"
            )
        )

    async def _carry(self, wire: SocketWire) -> None:
        try:
            await wire.run()
        finally:
            self.forget(wire)

    async def _admit(self, peer: Peer) -> Peer | Refusal:
        query, mark = _split(peer.query)
        peer = replace(peer, query=query)
        user = self._users.get(mark.partition(".")[0])
        return await self._admit_by_app(peer) if user is None else replace(peer, user=user)

    async def _asgi(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await self._edge(scope, receive, send)
            return
        _, mark = _split(scope["query_string"].decode("latin-1"))
        far_end = self._far_ends[mark] = FarEnd(receive, send)
        try:
            await self._edge(scope, far_end.receive, far_end.send)
        except Exception as error:
            self._failed(error)
            raise
        finally:
            far_end.has_ended = True


def _split(query: str) -> tuple[str, str]:
    """Split a query into what the client has asked for, and the mark; that is empty for none."""
    rest, _, mark = query.rpartition(f"{MARK}=")
    return rest.rstrip("&"), mark
