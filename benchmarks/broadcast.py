"""One value to all pages: app-wide, and set in each session instead.

A table of a hundred rows (5 KB) is set while so many pages are open and at rest; the time ends
when the last one has it. In memory: sessions alone, without a network. Under hypercorn: real
sockets, the server on one processor and all pages on another, where there are two. Rounds of the
two ways take turns.

Run: `python benchmarks/broadcast.py`
"""

from __future__ import annotations

import json
import selectors
import statistics
import time
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import broadcast_app
import trio
from raw_websocket import RawWebSocket
from server import SERVERS, pin, serving

from cacao.peer import Peer
from cacao.testing.memory import MemoryConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 7
PAGES = (1000, 5000)
WAYS = ("app-wide", "per session")


@dataclass(frozen=True)
class Row:
    """One crowd of pages.

    Attributes:
        where: "in memory", or the server.
        pages: How many.
        seconds: By the way of setting, the median of the rounds.
    """

    where: str
    pages: int
    seconds: dict[str, float]


def rows(pages: Sequence[int] = PAGES, rounds: int = ROUNDS) -> list[Row]:
    """Measure, in about half a minute."""
    in_memory = [
        Row("in memory", count, trio.run(memory_seconds, count, rounds)) for count in pages
    ]
    return in_memory + [
        Row("hypercorn", count, server_seconds("hypercorn", count, rounds)) for count in pages
    ]


def event(way: str, number: int) -> bytes:
    return json.dumps({"type": "event", "name": way, "data": {"number": number}}).encode()


async def memory_seconds(count: int, rounds: int) -> dict[str, float]:
    """Time it with sessions in memory."""
    crowd = _Crowd()
    async with broadcast_app.app.runtime() as runtime, trio.open_nursery() as nursery:
        connections = [
            MemoryConnection(crowd.hear, subprotocol=None, peer=Peer()) for _ in range(count)
        ]
        for connection in connections:
            nursery.start_soon(runtime.serve, connection)
        await crowd.wait_for(count)
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS:
                await trio.sleep(0.1)
                start = time.perf_counter()
                connections[0].put(event(way, number).decode())
                await crowd.wait_for(count)
                taken[way].append(time.perf_counter() - start)
        for connection in connections:
            connection.hang_up()
    return {way: statistics.median(each) for way, each in taken.items()}


class _Crowd:
    """Counts the messages that its pages get."""

    def __init__(self) -> None:
        self._heard = 0
        self._awaited = 0
        self._all_have_heard = trio.Event()

    def hear(self, _: str) -> None:
        self._heard += 1
        if self._heard == self._awaited:
            self._all_have_heard.set()

    async def wait_for(self, count: int) -> None:
        """Wait until so many more have come."""
        self._awaited += count
        if self._heard < self._awaited:
            await self._all_have_heard.wait()
        self._all_have_heard = trio.Event()


def server_seconds(server: str, count: int, rounds: int) -> dict[str, float]:
    """Time it with real connections."""
    with (
        serving(SERVERS[server], "broadcast_app") as (port, _),
        closing(_Pages(port, count)) as pages,
    ):
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for way in WAYS:
                taken[way].append(pages.tell(way, number))
    return {way: statistics.median(each) for way, each in taken.items()}


class _Pages:
    """Real connections; each has got its `init`."""

    def __init__(self, port: int, count: int) -> None:
        self._pages = [RawWebSocket(port) for _ in range(count)]
        self._selector = selectors.DefaultSelector()
        for page in self._pages:
            page.receive()
            self._selector.register(page.socket, selectors.EVENT_READ, page)

    def tell(self, way: str, number: int) -> float:
        """Send the event by one page; gives the seconds until all have the value."""
        time.sleep(0.1)
        start = time.perf_counter()
        self._pages[0].send(RawWebSocket.frame(event(way, number)))
        missing = set(self._pages)
        while missing:
            for key, _ in self._selector.select():
                key.data.receive()
                missing.discard(key.data)
        return time.perf_counter() - start

    def close(self) -> None:
        self._selector.close()
        for page in self._pages:
            page.close()


def main() -> None:
    """Print the table."""
    pin(1)
    print("| | pages | app-wide, ms | set in each session, ms | ratio |")
    print("|---|---:|---:|---:|---:|")
    for row in rows():
        at_once, each = (row.seconds[way] for way in WAYS)
        print(
            f"| {row.where} | {row.pages:,} | {at_once * 1000:.0f} | {each * 1000:.0f} "
            f"| {each / at_once:.1f} |"
        )


if __name__ == "__main__":
    main()
