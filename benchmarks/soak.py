"""Days of coming and going in some minutes: does anything grow?

A real `hypercorn app:asgi` holds thousands of idle sessions. Visitors come, do something, and drop
their connection, say goodbye, or lose it and come back. Now and then they pause until all windows
have passed; then nothing of them may be left: the server tells how many sessions, tasks, objects
and bytes it has, after a garbage collection. One session probes how long an event takes meanwhile.
At the beginning 2,000 pages connect, 64 at once.

The server runs on one processor, visitors and probe on another, where there are two.

Run: `python benchmarks/soak.py`; `--help` tells more.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import selectors
import statistics
import sys
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raw_websocket import RawWebSocket
from server import SERVERS, cpu_seconds, memory_kib, pin, serving

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.process import BaseProcess
    from multiprocessing.synchronize import Event

STORM, AT_ONCE = 2000, 64
VISITORS = 24
ROUND = 23.0  # seconds of visits, before
PAUSE = 7.0  # seconds in which the windows pass
PROBE_EVERY = 0.02
SUBPROTOCOL = "cacao.v1"
BEAT = RawWebSocket.frame(b'{"type":"beat"}')
BYE = RawWebSocket.frame(b'{"type":"bye"}')


@dataclass
class Sample:
    """How the server is, when all visitors have gone.

    Attributes:
        minutes: Since the beginning.
        vitals: What `/vitals` says.
        resident: Memory that the server has of the system, in KiB.
        visits: How many there were in the round before.
        trips: The probe's round trips in it, in seconds.
    """

    minutes: float
    vitals: dict[str, Any]
    resident: float
    visits: int
    trips: list[float]

    def row(self) -> str:
        """Write it as a line of the table."""
        p50, p99, slowest = "", "", ""
        if self.trips:
            p50 = f"{statistics.median(self.trips) * 1e3:.2f}"
            p99 = f"{statistics.quantiles(self.trips, n=100)[98] * 1e3:.0f}"
            slowest = f"{max(self.trips) * 1e3:.0f}"
        vitals = self.vitals
        cells = (
            f"{self.minutes:.1f}",
            self.visits,
            vitals["sessions"],
            vitals["tasks"],
            vitals["objects"],
            f"{vitals['heap'] / 2**20:.2f}" if vitals["heap"] else "",
            f"{self.resident / 1024:.1f}",
            p50,
            p99,
            slowest,
            f"{vitals['pause'] * 1e3:.0f}",
        )
        return f"| {' | '.join(map(str, cells))} |"


class Page:
    """A `cacao.v1` client that has its state.

    Args:
        port: Where the server listens.
        token: Of the session to be taken up again; None for a new one.

    Attributes:
        socket: The connection.
        token: What takes its session up again.
        outcome: "fresh", "resumed" or "rebuilt".
    """

    def __init__(self, port: int, token: str | None = None) -> None:
        self.socket = RawWebSocket(port, SUBPROTOCOL)
        hello = {"type": "hello", "patches": True} | ({"resume": token, "rev": 0} if token else {})
        self.socket.send(RawWebSocket.frame(json.dumps(hello).encode()))
        init = self.wait_for("init")
        self.token, self.outcome = init["token"], init["outcome"]
        self._last = init["lastEvent"]

    def event(self, name: str) -> int:
        """Send an event; gives its number."""
        self._last += 1
        message = {"type": "event", "id": self._last, "name": name}
        self.socket.send(RawWebSocket.frame(json.dumps(message).encode()))
        return int(self._last)

    def wait_for(self, kind: str) -> dict[str, Any]:
        """Read until a message of this type has come."""
        while True:
            message: dict[str, Any] = json.loads(self.socket.receive())
            if message["type"] == kind:
                return message
            if message["type"] == "beat":
                self.socket.send(BEAT)


# --- Who is there --------------------------------------------------------------------------------


def storm(port: int, pid: int) -> str:
    """Let many connect at once; tells how many got their state in a second."""
    start, before = time.perf_counter(), cpu_seconds(pid)
    with ThreadPoolExecutor(AT_ONCE) as threads:
        pages = list(threads.map(lambda _: Page(port), range(STORM)))
    rate = STORM / (time.perf_counter() - start)
    cost = (cpu_seconds(pid) - before) / STORM
    for page in pages:
        page.socket.send(BYE)
        page.socket.close()
    return (
        f"{STORM} connects, {AT_ONCE} at once: {rate:.0f} in a second, "
        f"{cost * 1e3:.2f} ms of the server's processor each."
    )


def hold(port: int, count: int, ready: Event, over: Event) -> None:
    """Hold idle sessions, with a beat for whatever the server says; a process of its own."""
    pin(1)
    pages = [Page(port) for _ in range(count)]
    with selectors.DefaultSelector() as selector:
        for page in pages:
            selector.register(page.socket.socket, selectors.EVENT_READ, page.socket)
        ready.set()
        while not over.is_set():
            for key, _ in selector.select(0.5):
                if not key.data.socket.recv(65536):
                    raise ConnectionError("the server has closed an idle session")
                key.data.send(BEAT)


def visit(port: int, rate: float, going: Event, over: Event, tallies: Any) -> None:
    """Come and go, `rate` times a second, while `going` is set; a process of its own."""
    pin(1)
    tally: Counter[str] = Counter()

    def visitor(seed: int) -> None:
        dice = random.Random(seed)  # noqa: S311 - a dice, no secret
        while not over.is_set():
            if not going.wait(0.2):
                continue
            began = time.perf_counter()
            tally[one_visit(port, dice)] += 1
            pause = VISITORS / rate - (time.perf_counter() - began)
            time.sleep(max(0, pause * dice.uniform(0.5, 1.5)))

    threads = [threading.Thread(target=visitor, args=(seed,)) for seed in range(VISITORS)]
    for thread in threads:
        thread.start()
    while not over.wait(0.5):
        tallies.put(Counter(tally))
    for thread in threads:
        thread.join()


def one_visit(port: int, dice: random.Random) -> str:
    """Connect, do something, and leave in some way; gives in which."""
    page = Page(port)
    for _ in range(dice.randrange(1, 6)):
        page.event("increment")
        page.wait_for("result")
    if dice.random() < 0.5:
        page.event("work")  # it may be under way when the visitor has gone
    end = dice.choice(["dropped", "said goodbye", "came back"])
    if end == "came back":
        page.socket.close()
        time.sleep(dice.uniform(0, 0.5))
        again = Page(port, page.token)
        if again.outcome == "fresh":
            end = "NOT RESUMED"
        again.event("increment")
        again.wait_for("result")
        page = again
    elif end == "said goodbye":
        page.socket.send(BYE)
    page.socket.close()
    return end


def probe(page: Page, seconds: float) -> list[float]:
    """Time an event now and then, in seconds."""
    trips = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        start = time.perf_counter()
        page.event("increment")
        page.wait_for("result")
        trips.append(time.perf_counter() - start)
        time.sleep(PROBE_EVERY)
    return trips


# --- The run -------------------------------------------------------------------------------------


def soak(port: int, pid: int, options: argparse.Namespace) -> list[Sample]:
    """Run all of it; prints a line for each sample."""
    context = multiprocessing.get_context("spawn")
    ready, going, over = context.Event(), context.Event(), context.Event()
    tallies: Any = context.Queue()
    processes = [
        context.Process(target=hold, args=(port, options.idle, ready, over)),
        context.Process(target=visit, args=(port, options.visits, going, over, tallies)),
    ]
    for process in processes:
        process.start()
    try:
        while not ready.wait(1):
            need(processes)
        page = Page(port)
        samples = [sample(0, port, pid, 0, [])]
        tally: Counter[str] = Counter()
        began = time.monotonic()
        while time.monotonic() < began + options.minutes * 60:
            going.set()
            trips = probe(page, ROUND)
            going.clear()
            probe(page, PAUSE)
            need(processes)
            before, tally = tally, newest(tallies, tally)
            minutes = (time.monotonic() - began) / 60
            samples.append(sample(minutes, port, pid, tally.total() - before.total(), trips))
    finally:
        over.set()
        for process in processes:
            process.join()
    print(f"\nVisitors: {', '.join(f'{many} {how}' for how, many in tally.most_common())}.")
    return samples


def need(processes: Sequence[BaseProcess]) -> None:
    """Go on only while they all run."""
    if not all(process.is_alive() for process in processes):
        sys.exit("a process of the idle sessions or the visitors has failed; its error is above")


def newest(tallies: Any, tally: Counter[str]) -> Counter[str]:
    """Give the last of the tallies that have come."""
    with suppress(Exception):  # queue.Empty, of whichever queue it is
        while True:
            tally = tallies.get_nowait()
    return tally


def sample(minutes: float, port: int, pid: int, visits: int, trips: list[float]) -> Sample:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/vitals", timeout=60) as answer:
        vitals = json.load(answer)
    found = Sample(minutes, vitals, memory_kib(pid), visits, trips)
    print(found.row(), flush=True)
    return found


def judge(samples: list[Sample]) -> None:
    """Print how the second and the last sample differ, and in what."""
    second, last = samples[1].vitals, samples[-1].vitals
    for what in ("sessions", "tasks", "objects", "heap"):
        if second[what]:
            percent = 100 * (last[what] / second[what] - 1)
            print(
                f"{what}: {last[what] - second[what]:+} ({percent:+.2f} %) since the second sample"
            )
    grown = Counter(last["types"])
    grown.subtract(second["types"])
    print("most grown:", ", ".join(f"{name} {more:+}" for name, more in grown.most_common(5)))


def need_files(count: int) -> None:
    """Let this process and its children have so many open files, or say what to do."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most != resource.RLIM_INFINITY and most < count:
        sys.exit(
            f"{count} open files are needed for this many sessions, and {most} are allowed; "
            f"run `ulimit -n {count}` as who may, or hold fewer with --idle"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, most))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="for how long (10)")
    parser.add_argument("--idle", type=int, default=5000, help="sessions that are held (5000)")
    parser.add_argument("--visits", type=float, default=100, help="visits in a second (100)")
    parser.add_argument("--traced", action="store_true", help="trace the heap; twice as slow")
    options = parser.parse_args()
    need_files(max(options.idle, STORM) + 1000)
    pin(1)
    environment = {"PYTHONTRACEMALLOC": "1"} if options.traced else {}
    with serving(SERVERS["hypercorn"], "soak_app", environment) as (port, pid):
        print(f"`python benchmarks/soak.py {' '.join(sys.argv[1:])}`\n")
        print(f"{storm(port, pid)}\n")
        print("| minutes | visits | sessions | tasks | objects | heap, MiB ", end="")
        print("| RSS, MiB | event p50, ms | p99, ms | slowest, ms | longest GC, ms |")
        print("|---:|" + "---:|" * 10)
        samples = soak(port, pid, options)
    judge(samples)


if __name__ == "__main__":
    main()
