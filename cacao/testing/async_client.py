"""The test client for tests that are trio tasks themselves."""

from __future__ import annotations

import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import trio
import trio.testing

from cacao.errors import HostingError
from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL
from cacao.testing.clock import next_jump
from cacao.testing.stage import Stage
from cacao.testing.view import ClientView

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from types import TracebackType

    from cacao.app import App
    from cacao.protocol import Result

__all__ = ["AsyncTestClient"]

# Real seconds between two looks at work that threads or sockets do.
_POLL = 0.001


class AsyncTestClient(ClientView):
    """One user of an app, in memory, inside a running trio test.

    `TestClient` word for word, with `await`. Used as `async with AsyncTestClient(app) as client`;
    `await client.another()` gives further users of the same run of the app. Leaving the block
    closes them all, stops the app and checks for leaks. If the block is cancelled, so is the app.
    Like any nursery, the block waits for what cannot be cancelled, if need be for ever.

    Time is the test's: under trio's MockClock `advance` moves it, under an autojumping or a real
    clock `advance` sleeps.

    Args:
        app: The app under test.
        subprotocol: None speaks the plain protocol, which has no results.
        headers: Of the handshake, by name: what the app's `authenticate` looks at.
        cookies: The same, by name.

    Raises:
        TypeError: `app` is no App.
        ConnectionClosed: On entering: the app's `authenticate` has refused this client, with 4401.
    """

    def __init__(
        self,
        app: App,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> None:
        self._subprotocol = subprotocol
        self._peer = Peer.of(headers or {}, cookies or {})
        self._stage = Stage(app)

    async def __aenter__(self) -> Self:
        if not trio.lowlevel.in_trio_task():
            raise HostingError(
                "AsyncTestClient runs inside a trio test only; use TestClient here, without await"
            )
        self._block = self._running()
        await self._block.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(self._stage.run)
            try:
                await trio.testing.wait_all_tasks_blocked()
                self._stage.mark_start()
                await self._join(self._subprotocol, self._peer)
                yield
                await self._leave()
            except Exception as error:  # noqa: BLE001 -- raised below, where no group wraps it
                failure = error
            self._stage.end()
        if failure is not None:
            raise failure

    async def _join(self, subprotocol: str | None, peer: Peer) -> None:
        self._start = trio.current_time()
        self._line = self._stage.open_line(subprotocol, peer)
        await self._settle()
        if self._line.refusal is not None:
            raise self._line.refusal

    async def _leave(self) -> None:
        for seconds in self._stage.close():
            await self._pass_time(seconds)

    async def another(
        self,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> AsyncTestClient:
        """Connect one more user to the same run of the app; it closes with the block.

        Raises:
            ConnectionClosed: The app's `authenticate` has refused this client, with code 4401.
        """
        client = AsyncTestClient.__new__(AsyncTestClient)
        client._stage = self._stage  # noqa: SLF001 -- another object of this very class
        peer = Peer.of(headers or {}, cookies or {})
        await client._join(subprotocol, peer)  # noqa: SLF001 -- the same
        return client

    @property
    def time(self) -> float:
        """Seconds on the test's clock since this client came."""
        return trio.current_time() - self._start

    async def send(
        self, name: str, data: dict[str, Any] | None = None, /, **fields: Any
    ) -> Result | None:
        """Send an event and let everything come to rest; see `TestClient.send`."""
        event_id = self._line.send_event(name, data, fields)
        await self._settle()
        return None if event_id is None else self.result(event_id)

    async def send_text(self, text: str) -> None:
        """Send a text as it is, whatever it is, and let everything come to rest."""
        self._line.send_text(text)
        await self._settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass on the test's clock; see `TestClient.advance`."""
        await self._pass_time(seconds)
        self._stage.unread.raise_unread()

    async def wait(self, predicate: Callable[[], object], timeout: float = 5.0) -> None:  # noqa: ASYNC109 -- real seconds: trio's deadlines are on the virtual clock
        """Let real time pass until something holds; see `TestClient.wait`."""
        give_up = time.monotonic() + timeout
        await self._settle()
        while not predicate():
            if time.monotonic() > give_up:
                raise TimeoutError(f"{predicate!r} was not true within {timeout} s of real time")
            # The cushion is real time even under a virtual clock, and holds off the autojump.
            await trio.testing.wait_all_tasks_blocked(_POLL)
            self._stage.unread.raise_unread()

    async def close(self) -> None:
        """Leave, before the block ends."""
        self._stage.leave(self._line)
        await self._settle()

    async def _settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()
        if self._stage.spread_news():
            await trio.testing.wait_all_tasks_blocked()
        self._stage.unread.raise_unread()

    async def _pass_time(self, seconds: float) -> None:
        if not 0 <= seconds < math.inf:
            raise ValueError(f"time can be advanced by 0 or more seconds, not by {seconds!r}")
        await trio.testing.wait_all_tasks_blocked()
        clock = trio.lowlevel.current_clock()
        if isinstance(clock, trio.testing.MockClock) and _stands_still(clock):
            await _step(clock, seconds)
        else:
            await trio.sleep(seconds)
            await trio.testing.wait_all_tasks_blocked()


def _stands_still(clock: trio.testing.MockClock) -> bool:
    return clock.rate == 0 and clock.autojump_threshold == math.inf


async def _step(clock: trio.testing.MockClock, seconds: float) -> None:
    target = clock.current_time() + seconds
    while jump := next_jump(clock, target):
        clock.jump(jump)
        await trio.testing.wait_all_tasks_blocked()
