"""A file with a line for each start and each end of a query of examples/search.

It needs nothing but the standard library: apps under other Pythons write it, too.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FORMAT = "%(created)f %(message)s"


@dataclass(frozen=True)
class Counts:
    """What a log tells.

    Attributes:
        started: Queries that were started.
        finished: Queries that ran to their end.
        stopped: Queries that were stopped before it.
        seconds: How long they ran, taken together; those that still run are left out.
    """

    started: int
    finished: int
    stopped: int
    seconds: float

    @property
    def running(self) -> int:
        """Queries that still run."""
        return self.started - self.finished - self.stopped


def log_queries(path: str) -> None:
    """Write the database's log to a file; done twice, it counts once."""
    log = logging.getLogger("database")
    if not log.handlers:
        handler = logging.FileHandler(path)
        handler.setFormatter(logging.Formatter(_FORMAT))
        log.addHandler(handler)
        log.setLevel(logging.INFO)


def read_counts(path: Path) -> Counts:
    """Count what a log has so far."""
    number = dict.fromkeys(("started", "finished", "stopped"), 0)
    seconds = 0.0
    starts: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        time, what, text = line.split(" ", 2)
        number[what] += 1
        if what == "started":
            starts.setdefault(text, []).append(float(time))
        else:
            seconds += float(time) - starts[text].pop(0)
    return Counts(**number, seconds=seconds)
