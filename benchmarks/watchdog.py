"""What the watchdog costs those it watches: the counter's events with and without it, in memory.

Run: `python benchmarks/watchdog.py`
"""

from __future__ import annotations

import statistics
import time

import trio
from counter_app import app

from cacao.errors import ConnectionClosed
from cacao.peer import Peer
from cacao.watchdog import watch_for_blocking

EVENTS = 20_000
ROUNDS = 9
THRESHOLD = 0.1
EVENT = '{"type":"event","name":"increment","data":{}}'


class Clicks:
    """A page that sends its next event when the last one was answered; a `Connection`."""

    def __init__(self, events: int) -> None:
        self.subprotocol: str | None = None
        self.peer = Peer()
        self._left = events
        self._answered = trio.Event()

    async def receive(self) -> str:
        """Give the next event once the last one, or the greeting, was answered."""
        await self._answered.wait()
        self._answered = trio.Event()
        if not self._left:
            raise ConnectionClosed
        self._left -= 1
        return EVENT

    async def send(self, text: str) -> None:
        """Take an answer."""
        await trio.lowlevel.checkpoint()
        self._answered.set()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Do nothing."""


async def ratios() -> list[float]:
    """Measure processor time with the watchdog to that without, round by round."""
    found = []
    async with app.runtime() as runtime:

        async def seconds() -> float:
            start = time.process_time()
            await runtime.serve(Clicks(EVENTS))
            return time.process_time() - start

        async def watched_seconds() -> float:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_for_blocking, THRESHOLD)
                result = await seconds()
                nursery.cancel_scope.cancel()
            return result

        await seconds()
        for _ in range(ROUNDS):  # each order once, against drift
            found.append(await watched_seconds() / await seconds())
            found.append(1 / (await seconds() / await watched_seconds()))
    return found


def main() -> None:
    """Print the ratio."""
    low, middle, high = statistics.quantiles(trio.run(ratios), n=4)
    print(f"watched to not watched: {middle:.3f}x ({low:.3f} - {high:.3f})")


if __name__ == "__main__":
    main()
