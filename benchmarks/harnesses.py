"""Testing harnesses side by side: the same counter and the same test in Cacao and in its peers.

Each harness is used as its own documentation says (`counters/`), in a process and a Python of its
own: what else is installed slows some of them down. The peers are installed into `.venv-peers`
where they are not there yet.

Run: `python benchmarks/harnesses.py`; it takes about three minutes.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    Counting = Callable[[], AbstractAsyncContextManager["Counter"]]

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers"
ROUNDS = 3
PATIENCE = 2.0  # seconds for which one figure is measured at most, in each round
TESTS = 1000
SAMPLE = 10.0  # seconds after which the rest of the tests is extrapolated


class Harness(NamedTuple):
    """One contestant.

    Attributes:
        name: As the table says it.
        module: The counter in it, in `counters/`.
        package: Whose version is told.
        requirements: What is to be installed for it; nothing for Cacao itself.
    """

    name: str
    module: str
    package: str
    requirements: tuple[str, ...] = ()


HARNESSES = [
    Harness("Cacao `TestClient`", "in_cacao", "cacao"),
    Harness('the same, `via="socket"`', "in_cacao_socket", "cacao"),
    Harness(
        "Starlette `TestClient`",
        "in_starlette",
        "starlette",
        ("starlette==1.10.0", "httpx2==2.16.2"),
    ),
    Harness("Solara `render`", "in_solara", "solara", ("solara==1.64.1",)),
    Harness("NiceGUI `User`", "in_nicegui", "nicegui", ("nicegui==3.18.0",)),
    Harness("Streamlit `AppTest`", "in_streamlit", "streamlit", ("streamlit==1.67.0",)),
]


@dataclass(frozen=True)
class Figures:
    """What one harness takes in one process, in seconds.

    Attributes:
        imported: Importing it, and what else its counter needs.
        very_first: The app and its first page, when the process has just begun.
        first: The same, later; median.
        further: One more page of the same app; median.
        click: A click and its assertion; median.
        click_p95: The same; one click in twenty takes longer.
        tests: 1,000 tests of an app, a page, a click with its assertion, and the end of it all;
            extrapolated after `SAMPLE` seconds.
        version: Of the harness.
    """

    imported: float
    very_first: float
    first: float
    further: float
    click: float
    click_p95: float
    tests: float
    version: str


# --- In a process of its own -------------------------------------------------------------------


class Page(Protocol):
    """One page of a counter."""

    async def click(self, shown: int) -> None:
        """Click the button, and assert what the page then shows."""
        ...


class Counter(Protocol):
    """A counter that was not there before."""

    async def open(self) -> Page:
        """Open a page of it, with a count of its own."""
        ...


def measure(harness: Harness) -> Figures:
    """Take all figures of a harness, which nothing has imported yet."""
    began = time.perf_counter()
    counting = import_module(f"counters.{harness.module}").counting
    imported = time.perf_counter() - began
    return asyncio.run(measure_imported(counting, imported, version(harness.package)))


async def measure_imported(counting: Counting, imported: float, its_version: str) -> Figures:
    """Take the other figures; in an event loop, for those that need one."""
    very_first = await time_first(counting)
    first = await repeated(lambda: time_first(counting), 200)
    async with counting() as counter:
        await counter.open()
        further = await repeated(lambda: timed(counter.open()), 100)
    async with counting() as counter:
        page = await counter.open()
        shown = iter(range(1, 2001))
        click = await repeated(lambda: timed(page.click(next(shown))), 2000)
    tests = await repeated(lambda: timed(test_once(counting)), TESTS, SAMPLE)
    return Figures(
        imported=imported,
        very_first=very_first,
        first=statistics.median(first),
        further=statistics.median(further),
        click=statistics.median(click),
        click_p95=statistics.quantiles(click, n=20)[-1],
        tests=statistics.fmean(tests) * TESTS,
        version=its_version,
    )


async def repeated(
    action: Callable[[], Awaitable[float]], times: int, patience: float = PATIENCE
) -> list[float]:
    """Do something again and again, until there are so many samples or the patience has ended."""
    gc.collect()
    give_up = time.perf_counter() + patience
    samples = [await action()]
    while len(samples) < times and time.perf_counter() < give_up:
        samples.append(await action())
    return samples


async def timed(action: Awaitable[object]) -> float:
    """Tell how long something takes."""
    began = time.perf_counter()
    await action
    return time.perf_counter() - began


async def time_first(counting: Counting) -> float:
    """Tell how long an app and its first page take; closing them is not counted."""
    began = time.perf_counter()
    async with counting() as counter:
        await counter.open()
        return time.perf_counter() - began


async def test_once(counting: Counting) -> None:
    """Run one small test."""
    async with counting() as counter:
        page = await counter.open()
        await page.click(1)


# --- In the process that compares them ---------------------------------------------------------


def python_for(harness: Harness) -> Path:
    """Give the Python of a harness, installing the harness where it is not there yet."""
    if not harness.requirements:
        return Path(sys.executable)
    folder = PEERS / "-".join(harness.requirements)
    python = folder / "bin" / "python"
    is_done = folder / ".done"
    if not is_done.exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", *harness.requirements]
        subprocess.run(install, check=True)
        is_done.touch()
    return python


def measured(harness: Harness) -> Figures:
    """Take the figures of a harness in a process of its own."""
    command = [str(python_for(harness)), __file__, harness.module]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{harness.name} failed:\n{done.stderr}")
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


ROWS: list[tuple[str, Callable[[Figures], float]]] = [
    ("importing it, ms", lambda each: each.imported * 1000),
    ("app and first page, in a new process, ms", lambda each: each.very_first * 1000),
    ("app and first page, later, p50, ms", lambda each: each.first * 1000),
    ("further page, p50, ms", lambda each: each.further * 1000),
    ("event and its assertion, p50, ms", lambda each: each.click * 1000),
    ("… p95, ms", lambda each: each.click_p95 * 1000),
    ("1,000 tests, s; after ten extrapolated", lambda each: each.tests),
]


def shown(value: float) -> str:
    """Write a figure with three digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def main() -> None:
    """Print the table, or the figures of one harness, as JSON."""
    for harness in HARNESSES:
        if sys.argv[1:] == [harness.module]:
            print(json.dumps(vars(measure(harness))))
            return
    found: dict[Harness, list[Figures]] = {harness: [] for harness in HARNESSES}
    for _ in range(ROUNDS):
        for harness, rounds in found.items():
            rounds.append(measured(harness))
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores; {ROUNDS} interleaved rounds, "
        "each harness in a process of its own; the best of the rounds\n"
    )
    heads = [
        f"{harness.name} {rounds[0].version}" if harness.requirements else harness.name
        for harness, rounds in found.items()
    ]
    print("| | " + " | ".join(heads) + " |")
    print("|---|" + "---:|" * len(heads))
    for label, figure in ROWS:
        cells = [min(figure(each) for each in rounds) for rounds in found.values()]
        print(f"| {label} | " + " | ".join(map(shown, cells)) + " |")


if __name__ == "__main__":
    main()
