"""The counter over a real socket, side by side with a bare echo on the same server.

Round trips: one page sends `increment` and waits for the update, again and again. Throughput: 50
pages do so at once. The echo sends the same event back. Short rounds of the two take turns and are
compared pair by pair. At the end 1,000 pages are opened and left idle: how fast, and what each
costs in memory. The servers run on one processor, the client on another, where there are two. Read
the ratios.

Run: `python benchmarks/server.py`
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from raw_websocket import RawWebSocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent
ROUNDS = 15
ROUND_TRIPS = 500
PAGES = 50
EVENTS_PER_PAGE = 100
IDLE_PAGES = 1000
EVENT = RawWebSocket.frame(b'{"type":"event","name":"increment","data":{}}')

SERVERS = {
    "hypercorn": [str(BIN / "hypercorn"), "{app}:asgi", "-b", "127.0.0.1:{port}"],
    "hypercorn -k uvloop": [
        str(BIN / "hypercorn"),
        "-k",
        "uvloop",
        "{app}:asgi",
        "-b",
        "127.0.0.1:{port}",
    ],
    "uvicorn": [
        str(BIN / "uvicorn"),
        "{app}:asgi",
        "--port",
        "{port}",
        "--log-level",
        "warning",
        "--ws",
        "websockets-sansio",
        "--loop",
        "uvloop",
    ],
}
CONTESTANTS = {"echo": "echo_app", "counter": "counter_app"}


@dataclass
class Row:
    """What one server does with one app, round by round.

    Attributes:
        server: How it was started.
        app: "echo" or "counter".
        p50: Median round trips, in microseconds.
        p99: Slowest of a hundred, in microseconds.
        throughput: Events answered in a second, 50 pages at once.
        cpu: Processor time of the server for one of these, in microseconds.
        opened: Connections opened in a second, one after the other.
        idle_kib: Memory that the server takes for one of these, in KiB.
    """

    server: str
    app: str
    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    throughput: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    opened: float = 0
    idle_kib: float = 0


def rows(rounds: int = ROUNDS) -> list[Row]:
    """Measure all servers; about a minute."""
    found: list[Row] = []
    for server, command in SERVERS.items():
        with ExitStack() as stack:
            ports = {
                app: stack.enter_context(serving(command, module))
                for app, module in CONTESTANTS.items()
            }
            pair = {app: Row(server, app) for app in CONTESTANTS}
            for _ in range(rounds):
                for app, (port, pid) in ports.items():
                    measure(pair[app], port, pid)
            for app, (port, pid) in ports.items():
                pair[app].opened, pair[app].idle_kib = idle(port, pid)
            found += pair.values()
    return found


def measure(row: Row, port: int, pid: int) -> None:
    """Add a round of one contestant."""
    trips = round_trips(port)
    row.p50.append(statistics.median(trips) * 1e6)
    row.p99.append(statistics.quantiles(trips, n=100)[98] * 1e6)
    before = cpu_seconds(pid)
    events, seconds = crowd(port)
    row.throughput.append(events / seconds)
    row.cpu.append((cpu_seconds(pid) - before) / events * 1e6)


def round_trips(port: int) -> list[float]:
    """Time one page's events, one after the other, in seconds."""
    page = greeted(port)
    times = []
    for _ in range(ROUND_TRIPS):
        start = time.perf_counter()
        page.send(EVENT)
        page.receive()
        times.append(time.perf_counter() - start)
    page.close()
    return times[100:]


def crowd(port: int) -> tuple[int, float]:
    """Let 50 pages send their next event as soon as the last one was answered."""
    pages = [greeted(port) for _ in range(PAGES)]
    left = dict.fromkeys(pages, EVENTS_PER_PAGE)
    with selectors.DefaultSelector() as selector:
        for page in pages:
            selector.register(page.socket, selectors.EVENT_READ, page)
        start = time.perf_counter()
        for page in pages:
            page.send(EVENT)
        while left:
            for key, _ in selector.select():
                page = key.data
                page.receive()
                left[page] -= 1
                if left[page]:
                    page.send(EVENT)
                else:
                    del left[page]
        seconds = time.perf_counter() - start
    for page in pages:
        page.close()
    return PAGES * EVENTS_PER_PAGE, seconds


def idle(port: int, pid: int) -> tuple[float, float]:
    """Open pages and leave them; gives connections in a second, and KiB for each."""
    warm = [RawWebSocket(port) for _ in range(50)]
    before = memory_kib(pid)
    start = time.perf_counter()
    pages = [RawWebSocket(port) for _ in range(IDLE_PAGES)]
    seconds = time.perf_counter() - start
    time.sleep(0.5)  # the last ones are greeted meanwhile
    grown = memory_kib(pid) - before
    for page in pages + warm:
        page.close()
    return IDLE_PAGES / seconds, grown / IDLE_PAGES


def greeted(port: int) -> RawWebSocket:
    """Open a page; the counter greets with `init`, the echo is asked to."""
    page = RawWebSocket(port)
    page.send(EVENT)
    page.receive()
    page.socket.settimeout(0.05)
    with suppress(TimeoutError):
        page.receive()
    page.socket.settimeout(30)
    return page


@contextmanager
def serving(
    command: list[str], module: str, environment: Mapping[str, str] | None = None
) -> Iterator[tuple[int, int]]:
    """Run a server, with variables added to our environment; gives its port and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [word.format(app=module, port=port) for word in command],
        cwd=HERE,
        env={**os.environ, **(environment or {})},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: pin(0),
    )
    try:
        wait_until_listening(port)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def wait_until_listening(port: int) -> None:
    """Wait until a connection is accepted; ten seconds at most."""
    give_up = time.monotonic() + 10
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")


def pin(processor: int) -> None:
    """Keep this process on one processor, where there are several."""
    if (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {processor})


def cpu_seconds(pid: int) -> float:
    """Processor time that a process and its workers have used so far."""
    return sum(_own_cpu_seconds(each) for each in (pid, *_children(pid)))


def memory_kib(pid: int) -> float:
    """Memory that a process and its workers hold now."""
    pages = sum(
        int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (pid, *_children(pid))
    )
    return pages * os.sysconf("SC_PAGESIZE") / 1024


def _own_cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(fields[0]) / 1e9


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> None:
    """Print the table."""
    pin(1)
    print(
        "| server | app | round trip p50, us | p99, us | events/s, 50 pages | CPU/event, us ",
        end="",
    )
    print("| opened/s | KiB/idle page |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    found = rows()
    for row in found:
        figures = (row.p50, row.p99, row.throughput, row.cpu)
        shown = " | ".join(f"{statistics.median(each):.0f}" for each in figures)
        print(f"| {row.server} | {row.app} | {shown} | {row.opened:.0f} | {row.idle_kib:.1f} |")
    print()
    print("| server | round trip, to echo | throughput, to echo | KiB/idle page, over echo |")
    print("|---|---:|---:|---:|")
    for echo, counter in zip(found[::2], found[1::2], strict=True):
        trip, rate = ratio(counter.p50, echo.p50), ratio(counter.throughput, echo.throughput)
        grown = counter.idle_kib - echo.idle_kib
        print(f"| {echo.server} | {trip} | {rate} | {grown:.1f} |")


def ratio(ours: list[float], theirs: list[float]) -> str:
    """Compare round by round; the median, and the middle half of all rounds."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.2f}x ({low:.2f} - {high:.2f})"


if __name__ == "__main__":
    main()
