"""A TCP proxy that a network would be ashamed of: it cuts, stalls, and forgets to say so.

Each connection has its fate, drawn when it is opened: after so many bytes, in whatever direction,
it is cut, or one direction stops for a while, or only the client learns that it is over. A seed
makes the same fates again.
"""

from __future__ import annotations

import threading
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from queue import Queue
from random import Random
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

Ending = Literal["cut", "half-open", "stall up", "stall down", "none"]

ENDINGS: dict[Ending, int] = {"cut": 10, "half-open": 1, "stall up": 1, "stall down": 1}
"""What may become of a connection, and how often."""


class Faults(TypedDict, total=False):
    """How bad a proxy is; `FaultyProxy` tells what the fields mean."""

    seed: int
    life: tuple[int, int]
    endings: dict[Ending, int]
    stall: float


_HOST = "127.0.0.1"
_PIECE = 400  # bytes at most that are carried at once
_DELAY = 0.002  # seconds at most that they wait before


@dataclass
class Fate:
    """What becomes of one connection.

    Attributes:
        ending: How.
        bytes_left: When: after so many bytes, both directions counted together.
        stall: For how many seconds a direction stops.
    """

    ending: Ending
    bytes_left: int
    stall: float


class FaultyProxy:
    """A proxy before one port; made by `faulty_proxy`.

    Args:
        target: The port on 127.0.0.1 that it leads to.
        seed: Of the fates.
        life: The least and the most bytes that a connection carries before its fate.
        endings: What may become of it, and how often.
        stall: For how many seconds a stalled direction stops.

    Attributes:
        port: Where it listens on 127.0.0.1.
        endings: Of the connections that have met their fate, in order.
    """

    port: int

    def __init__(
        self,
        target: int,
        *,
        seed: int = 0,
        life: tuple[int, int] = (100, 8000),
        endings: dict[Ending, int] = ENDINGS,
        stall: float = 0.6,
    ) -> None:
        self.endings: list[Ending] = []
        self._target = target
        self._random = Random(seed)  # noqa: S311 - a dice, no secret
        self._life = life
        self._weights = endings
        self._stall = stall
        self._open: set[trio.CancelScope] = set()

    def cut_all(self) -> None:
        """Cut all connections that are open now."""
        for scope in self._open:
            scope.cancel()

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Accept connections, until cancelled."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, self._carry, 0, host=_HOST, handler_nursery=nursery)
            )
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()

    async def _carry(self, client: trio.SocketStream) -> None:
        (ending,) = self._random.choices(list(self._weights), list(self._weights.values()))
        fate = Fate(ending, self._random.randint(*self._life), self._stall)
        async with await trio.open_tcp_stream(_HOST, self._target) as server:
            async with client:
                with trio.CancelScope() as scope:
                    self._open.add(scope)
                    await self._carry_both_ways(client, server, fate, scope)
                self._open.discard(scope)
            if fate.ending == "half-open" and fate.bytes_left <= 0:
                await trio.sleep_forever()

    async def _carry_both_ways(
        self,
        client: trio.SocketStream,
        server: trio.SocketStream,
        fate: Fate,
        scope: trio.CancelScope,
    ) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, fate, "stall up", scope)
            nursery.start_soon(self._pump, server, client, fate, "stall down", scope)

    async def _pump(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        fate: Fate,
        stalled_by: Ending,
        scope: trio.CancelScope,
    ) -> None:
        """Carry one direction, until either side or the fate ends it; then end the other too."""
        try:
            while piece := await source.receive_some(self._random.randint(1, _PIECE)):
                await trio.sleep(self._random.uniform(0, _DELAY))
                if self._is_due(piece, fate) and fate.ending in {"cut", "half-open"}:
                    break
                if fate.bytes_left <= 0 and fate.ending == stalled_by:
                    fate.ending = "none"
                    await trio.sleep(fate.stall)
                await sink.send_all(piece)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one side has gone; so the other goes
        scope.cancel()

    def _is_due(self, piece: bytes, fate: Fate) -> bool:
        """Count a piece; tells whether a connection meets its fate now."""
        was_due, fate.bytes_left = fate.bytes_left <= 0, fate.bytes_left - len(piece)
        if was_due or fate.bytes_left > 0:
            return False
        self.endings.append(fate.ending)
        return True


@asynccontextmanager
async def faulty_proxy(target: int, **faults: Unpack[Faults]) -> AsyncIterator[FaultyProxy]:
    """Run a proxy before a port for as long as the block lasts; see `FaultyProxy`."""
    proxy = FaultyProxy(target, **faults)
    async with trio.open_nursery() as nursery:
        await nursery.start(proxy.serve)
        yield proxy
        nursery.cancel_scope.cancel()


@contextmanager
def proxy_in_a_thread(
    target: int, **faults: Unpack[Faults]
) -> Iterator[tuple[int, Callable[[], object]]]:
    """Run a proxy for a test that is not async; gives its port, and what cuts all connections."""
    ready: Queue[tuple[FaultyProxy, trio.lowlevel.TrioToken, trio.Event]] = Queue()

    async def run() -> None:
        async with faulty_proxy(target, **faults) as proxy:
            over = trio.Event()
            ready.put((proxy, trio.lowlevel.current_trio_token(), over))
            await over.wait()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    proxy, token, over = ready.get(timeout=10)
    try:
        yield proxy.port, partial(token.run_sync_soon, proxy.cut_all)
    finally:
        token.run_sync_soon(over.set)
        thread.join()
