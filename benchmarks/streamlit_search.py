"""Leaving and overlapping: the search of examples/search in Cacao, and in Streamlit.

The same Chromium types ten letters into the same field, over the same database, which logs each
start and end of a query; one takes two seconds. The letters come quickly, or slowly, and the answer
is waited for; or the tab is closed half a second after the last one. What is to be seen is which
queries run that nobody waits for.

Run: `make run EXAMPLE=search` once, which builds the page; then, with the path of a Python that has
Streamlit: `python benchmarks/streamlit_search.py STREAMLIT_PYTHON`
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from query_log import Counts, read_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from playwright.sync_api import Browser, Page

HERE = Path(__file__).parent
TEXT = "dark ghana"
IS_SHOWN = "text => document.body.innerText.includes(text)"  # asked at each frame
QUICKLY, SLOWLY = 100, 400  # milliseconds from letter to letter
LEAVE_AFTER = 0.5  # seconds: also a field that waits for a pause has asked by then
LOOK_AFTER = 1.0  # seconds
ROUNDS = 3

CACAO = [sys.executable, "-m", "hypercorn", "cacao_search_app:asgi", "-b", "127.0.0.1:{port}"]
STREAMLIT = [
    "{python}",
    "-m",
    "streamlit",
    "run",
    "streamlit_search_app.py",
    "--server.port={port}",
    "--server.headless=true",
    "--server.fileWatcherType=none",
    "--browser.gatherUsageStats=false",
    "--",
    "{log}",
]
CONTESTANTS = {
    "Cacao": CACAO,
    "Streamlit": [*STREAMLIT, "every-keystroke"],
    "Streamlit, 250 ms pause, fragment": [*STREAMLIT, "fragment"],
    "Streamlit, `st.*` called from the query": [*STREAMLIT, "every-keystroke", "checkpoint"],
}


@dataclass(frozen=True)
class Answered:
    """Typed, and waited for the answer.

    Attributes:
        after: Seconds from the last letter to its answer.
        queries: All that ran for it.
    """

    after: float
    queries: Counts


@dataclass(frozen=True)
class Round:
    """What one contestant has done once; `left` is one second after the tab was closed."""

    quickly: Answered
    slowly: Answered
    left: Counts


def measure(browser: Browser, python: str, command: Sequence[str]) -> Round:
    """Play the three scenes, each with a server of its own."""
    return Round(
        answered(browser, python, command, QUICKLY),
        answered(browser, python, command, SLOWLY),
        left(browser, python, command),
    )


def answered(browser: Browser, python: str, command: Sequence[str], letter_ms: int) -> Answered:
    """Type, and wait for the answer to the last letter, and for the end of all queries."""
    with serving(python, command) as (url, log):
        page = opened(browser, url)
        type_text(page, letter_ms)
        start = time.perf_counter() - letter_ms / 1000  # typing waits after the last letter, too
        page.wait_for_function(IS_SHOWN, arg=f"The best for “{TEXT}”", timeout=120_000)
        after = time.perf_counter() - start
        wait_until(lambda: read_counts(log).running == 0)
        page.close()
        return Answered(after, read_counts(log))


def left(browser: Browser, python: str, command: Sequence[str]) -> Counts:
    """Type quickly, close the tab while the last search runs, and look a second later."""
    with serving(python, command) as (url, log):
        page = opened(browser, url)
        type_text(page, QUICKLY)
        time.sleep(LEAVE_AFTER)
        page.close()
        time.sleep(LOOK_AFTER)
        return read_counts(log)


def opened(browser: Browser, url: str) -> Page:
    """Open the app, and give it a second to settle."""
    page = browser.new_page()
    page.goto(url)
    page.get_by_label("Find a bar").click()
    time.sleep(1)
    return page


def type_text(page: Page, letter_ms: int) -> None:
    """Type the text, without Enter."""
    page.get_by_label("Find a bar").press_sequentially(TEXT, delay=letter_ms)


@contextmanager
def serving(python: str, command: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Run a server; gives its URL and the log of its queries."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "queries.log"
        log.touch()
        process = subprocess.Popen(
            [word.format(python=python, port=port, log=log) for word in command],
            cwd=HERE,
            env={**os.environ, "QUERY_LOG": str(log)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(lambda: listens(port))
            yield f"http://127.0.0.1:{port}", log
        finally:
            process.kill()
            process.wait()


def listens(port: int) -> bool:
    """Tell whether a server accepts connections."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; two minutes at most."""
    give_up = time.monotonic() + 120
    while not holds():
        if time.monotonic() > give_up:
            raise TimeoutError("a server does not start, or its queries do not end")
        time.sleep(0.02)


def version_of_streamlit(python: str) -> str:
    """Ask another Python for its Streamlit; without one, say how to get it."""
    ask = "import importlib.metadata as m; print(m.version('streamlit'))"
    answer = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(
            f"no streamlit is installed for {python}; make a venv of its own for it: "
            "python3 -m venv /tmp/streamlit && /tmp/streamlit/bin/pip install streamlit==1.67.0, "
            "and give /tmp/streamlit/bin/python"
        )
    return answer.stdout.strip()


Row = tuple[str, "Callable[[Round], float]"]


def rows_of(how: str, scene: Callable[[Round], Answered]) -> list[Row]:
    """Make the rows of a scene in which the answer was waited for."""
    return [
        (f"ten letters typed {how}: queries started", lambda each: scene(each).queries.started),
        ("… that ran to their end", lambda each: scene(each).queries.finished),
        ("… seconds they took, together", lambda each: scene(each).queries.seconds),
        ("… seconds from last letter to answer", lambda each: scene(each).after),
    ]


ROWS: list[Row] = [
    *rows_of("quickly", lambda each: each.quickly),
    *rows_of("slowly", lambda each: each.slowly),
    ("tab closed: queries running 1 s later", lambda each: each.left.running),
]


def shown(values: Sequence[float]) -> str:
    """Write a median, and the range if there is one."""
    low, middle, high = (
        f"{value:.1f}" if isinstance(value, float) else str(value)
        for value in (min(values), statistics.median(values), max(values))
    )
    return middle if low == high else f"{middle} ({low} - {high})"


def main() -> None:
    """Print the table."""
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/streamlit_search.py STREAMLIT_PYTHON")
    python = sys.argv[1]
    streamlit = version_of_streamlit(python)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    found: dict[str, list[Round]] = {name: [] for name in CONTESTANTS}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(ROUNDS):
            for name, command in CONTESTANTS.items():
                found[name].append(measure(browser, python, command))
        print(
            f"Python {sys.version.split()[0]}, trio {importlib.metadata.version('trio')}, "
            f"Streamlit {streamlit}, Chromium {browser.version}, {os.cpu_count()} cores, "
            f"{ROUNDS} rounds: median (lowest - highest)\n"
        )
        browser.close()
    print("| | " + " | ".join(found) + " |")
    print("|---|" + "---:|" * len(found))
    for label, figure in ROWS:
        cells = (shown([figure(each) for each in rounds]) for rounds in found.values())
        print(f"| {label} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
