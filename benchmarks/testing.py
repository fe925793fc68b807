"""How fast an app is tested: a client, an event, and a thousand small tests, in memory.

Run alone it prints a Markdown table: `python benchmarks/testing.py`. The targets are in
`docs/testing.md`; nothing here is asserted.
"""

from __future__ import annotations

import gc
import statistics
import time
from typing import TYPE_CHECKING, NamedTuple

import trio

from cacao import App, Registry, Session, Signal
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable


class Row(NamedTuple):
    """One figure.

    Attributes:
        name: What was measured.
        value: The median, or the total, in milliseconds.
        target: What is owed, in milliseconds; None for nothing.
    """

    name: str
    value: float
    target: float | None


def rows() -> list[Row]:
    """Measure, in about ten seconds."""
    return [
        Row("first client of an app, p50", first_client(), 2.0),
        Row("further client of an app, p50", further_client(), 2.0),
        Row("event on a counter, p50", event(), 0.2),
        Row("event, 100 clients open, p50", event(clients=100), 0.2),
        Row("an hour of a ticker of 1 s, per tick", ticks(), 0.2),
        Row("a day of `@app.every(1)`, 86,400 runs", a_day(), 2000.0),
        Row("the same, each sets what a client sees", a_day(is_seen=True), None),
        Row("1,000 tests: app, client, one event, close", thousand_tests(), 5000.0),
    ]


def counter() -> App:
    """Make the counter of the README."""
    with Registry():
        app = App()
        count = Signal(0, name="count")

    @app.on("increment")
    async def increment(session: Session) -> None:
        count.set(session, count.get(session) + 1)

    @app.on("tick")
    async def tick(session: Session) -> None:
        while True:
            await trio.sleep(1)
            count.set(session, count.get(session) + 1)

    return app


def median_ms(action: Callable[[], object], times: int) -> float:
    """Time an action again and again; gives the median in milliseconds."""
    samples = []
    for _ in range(times):
        began = time.perf_counter()
        action()
        samples.append(time.perf_counter() - began)
    return statistics.median(samples) * 1000


def first_client() -> float:
    apps = [counter() for _ in range(200)]
    opened: list[TestClient] = []
    gc.collect()
    figure = median_ms(lambda: opened.append(TestClient(apps.pop())), len(apps))
    for client in opened:
        client.close()
    return figure


def further_client() -> float:
    app = counter()
    opened = [TestClient(app)]
    return median_ms(lambda: opened.append(TestClient(app)), 200)


def event(*, clients: int = 1) -> float:
    app = counter()
    opened = [TestClient(app) for _ in range(clients)]
    return median_ms(lambda: opened[0].send("increment"), 2000)


def ticks(seconds: int = 3600) -> float:
    client = TestClient(counter())
    client.send("tick")
    began = time.perf_counter()
    client.advance(seconds)
    return (time.perf_counter() - began) / seconds * 1000


def a_day(*, is_seen: bool = False) -> float:
    runs = 0
    with Registry():
        app = App()
        count = Signal(0, name="count")

    @app.every(1)
    async def run(session: Session) -> None:
        nonlocal runs
        runs += 1
        if is_seen:
            count.set(session, runs)

    client = TestClient(app)
    began = time.perf_counter()
    client.advance(86_400)
    taken = time.perf_counter() - began
    assert runs == 86_400
    assert client.state["count"] == (runs if is_seen else 0)
    return taken * 1000


def thousand_tests() -> float:
    began = time.perf_counter()
    for _ in range(1000):
        client = TestClient(counter())
        client.send("increment")
        assert client.state["count"] == 1
        client.close()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Print the figures."""
    print("| in memory | ms | owed |")
    print("|---|---|---|")
    for row in rows():
        owed = "" if row.target is None else f"< {row.target:g}"
        print(f"| {row.name} | {row.value:.3f} | {owed} |")


if __name__ == "__main__":
    main()
