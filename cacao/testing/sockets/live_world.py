"""The clients of a server that runs elsewhere, in a thread that keeps their connections alive."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

import trio

from cacao.asgi import WEBSOCKET_PATH
from cacao.errors import ConnectionClosed, HostingError
from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL
from cacao.testing.clock import check_seconds
from cacao.testing.line import Line
from cacao.testing.open_worlds import enter_world, forget_world
from cacao.testing.sockets.socket_wire import SocketWire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from cacao.testing.client_half import Sent
    from cacao.testing.wire import Listener
    from cacao.testing.world import World

__all__ = ["LiveWorld"]

T = TypeVar("T")

_SCHEMES = {"http", "https", "ws", "wss"}
# Real seconds between two looks, and for which nothing has come when it counts as quiet.
_POLL = 0.001
_QUIET = 0.05


class LiveWorld:
    """What `World` and `Stage` are to a `TestClient`, with the server out of reach.

    Nothing is proved here: it waits until every event that was sent has its result, and until
    nothing has come for 50 ms where there is no result to wait for.

    Args:
        url: Where the server answers.
        timeout: Real seconds for which a call waits for results.

    Raises:
        ValueError: The URL is none, or of another scheme.
    """

    def __init__(self, url: str, timeout: float) -> None:
        self.url = _checked(url)
        self.timeout = timeout
        self.stage = self
        self.lines: list[Line] = []
        self._plain: set[Line] = set()  # those that are told no results
        self._given_up: set[Sent] = set()  # events that have been waited for in vain
        self._is_together = False
        self._start = time.monotonic()
        self._failure: BaseException | None = None
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(started,), name=f"clients of {url}", daemon=True
        )
        self._thread.start()
        started.wait()
        enter_world(self, cast("World", self))  # for the plugin to close

    def _run(self, started: threading.Event) -> None:
        try:
            trio.run(self._live, started)
        except BaseException as error:  # noqa: BLE001 -- raised by the next call
            self._failure = error

    async def _live(self, started: threading.Event) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._is_over = trio.Event()
        async with trio.open_nursery() as self._nursery:
            started.set()
            await self._is_over.wait()
            self._nursery.cancel_scope.cancel()

    # --- As `Stage` ----------------------------------------------------------------------------

    def introduce(
        self, who: object, headers: Mapping[str, str] | None, cookies: Mapping[str, str] | None
    ) -> tuple[str, Peer]:
        """Say who a client is: as the handshake says, whatever its name."""
        return Peer(user=who).user_key or "", Peer.of(headers or {}, cookies or {})

    def open_line(self, name: str, subprotocol: str | None, peer: Peer) -> Line:
        """Connect one more client."""
        line = Line(
            name or f"client {len(self.lines) + 1}",
            self._dial,
            subprotocol,
            peer,
            clock=lambda: self.time,
            start_soon=self._nursery.start_soon,
            do=self.do,
        )
        self.lines.append(line)
        if subprotocol != SUBPROTOCOL:
            self._plain.add(line)
        line.network.connect()
        return line

    def _dial(self, listener: Listener, subprotocol: str | None, peer: Peer) -> SocketWire:
        wire = SocketWire(listener, self.url, subprotocol, peer)
        self._nursery.start_soon(wire.run)
        return wire

    # --- As `World` ----------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Real seconds since the world began."""
        return time.monotonic() - self._start

    def do(self, action: Callable[..., T], *args: object) -> T:
        """Do something in the thread of the clients, and wait for the results of what it sends."""
        value = self._call(action, *args)
        if not self._is_together:
            self.settle()
        return value

    def advance(self, seconds: float) -> None:
        """Let real time pass."""
        check_seconds(seconds)
        self._refuse_together()
        time.sleep(seconds)
        self.settle()

    def settle(self) -> None:
        """Wait for all results that are due; for those of one event for one timeout at most."""
        self._refuse_together()
        if not self._until(self._has_come, self.timeout):
            self._given_up.update(event for _, event in self._awaited())
        elif self._plain:
            self._until(self._is_quiet, self.timeout)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let nothing be waited for within the block, and all of it at its end."""
        if self._is_together:
            raise RuntimeError("together() does not nest; put it all into one block")
        self._is_together = True
        try:
            yield
        finally:
            self._is_together = False
        self.settle()

    def wait(self, predicate: Callable[[], object], timeout: float) -> None:
        """Let real time pass until the predicate holds.

        Raises:
            TimeoutError: It did not hold within so many real seconds.
        """
        self._refuse_together()
        if not self._until(predicate, timeout):
            raise TimeoutError(f"{predicate!r} was not true within {timeout} s of real time")

    def leave(self, lines: Iterable[Line]) -> None:
        """Let clients go; the last ones end the thread."""
        if not self._is_over.is_set():
            self._call(_leave, lines)
        if all(line.has_left for line in self.lines):
            self.close()

    def close(self) -> None:
        """Let all clients go, and end the thread; the second time nothing."""
        forget_world(self, cast("World", self))
        if not self._is_over.is_set():
            self._call(_leave, self.lines)
            self._until(lambda: self._call(self._has_said_goodbye), self.timeout)
            self._call(self._is_over.set)
        self._thread.join()

    # --- Inside --------------------------------------------------------------------------------

    def _refuse_together(self) -> None:
        if self._is_together:
            raise RuntimeError(
                "within together() clients only send; advance, settle or wait after the block"
            )

    def _has_said_goodbye(self) -> bool:
        return not self._nursery.child_tasks

    def _call(self, action: Callable[..., T], *args: object) -> T:
        if trio.lowlevel.in_trio_task():
            raise HostingError(
                "LiveClient cannot be used inside a trio task, where it would stop all others"
            )
        if self._failure is not None:
            raise self._failure
        if self._is_over.is_set():
            raise ConnectionClosed(1001, "the client has closed; open another one")
        return trio.from_thread.run_sync(action, *args, trio_token=self._token)

    def _has_come(self) -> bool:
        return all(map(_is_greeted, self.lines)) and not any(
            line.network.is_up for line, _ in self._awaited()
        )

    def _awaited(self) -> Iterator[tuple[Line, Sent]]:
        for line in self.lines:
            for event in line.half.events if line not in self._plain else ():
                if event.result is None and event not in self._given_up:
                    yield line, event

    def _is_quiet(self) -> bool:
        now = self.time
        return all(now - line.frames[-1].time > _QUIET for line in self.lines if line.frames)

    def _until(self, predicate: Callable[[], Any], timeout: float) -> bool:
        give_up = time.monotonic() + timeout
        while not predicate():
            if self._failure is not None:
                raise self._failure
            if time.monotonic() > give_up:
                return False
            time.sleep(_POLL)
        return True


def _leave(lines: Iterable[Line]) -> None:
    for line in lines:
        line.leave()


def _is_greeted(line: Line) -> bool:
    """Whether the state has come on the connection that there is, if there is one."""
    return line.half.is_ready or line.closing is not None or not line.network.is_up


def _checked(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise ValueError(
            f"url {url!r} names no server; expected something like 'http://127.0.0.1:8000'"
        )
    return parts if parts.path.strip("/") else parts._replace(path=WEBSOCKET_PATH)
