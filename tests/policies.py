"""What the overlap policies promise, told as arithmetic on times: a model to check the code by."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from cacao.lanes import CONCURRENCIES, Concurrency

if TYPE_CHECKING:
    import random

POLICIES: list[tuple[Concurrency, int | None]] = [
    ("queue", None),
    ("queue", 2),
    ("parallel", None),
    ("parallel", 3),
    ("latest", None),
    ("drop", None),
    ("keep_latest", None),
]


class Job(NamedTuple):
    """An event: when it comes, how long it runs, and how long it tidies up if cancelled."""

    arrival: float
    duration: float
    cleanup: float


class Fate(NamedTuple):
    """When it ran, None if it never did, and how it ended."""

    start: float | None
    end: float | None
    code: str = "ok"


def random_jobs(rng: random.Random) -> list[Job]:
    """Make up to eight jobs of which no two things happen at the same moment.

    Each job's times have a binary digit of their own behind the point, so sums never meet.
    """
    times = sorted(rng.randrange(20) for _ in range(rng.randint(1, 8)))
    own = [2**n / 1024 for n in range(len(times))]
    return [
        Job(float(time), rng.randrange(6) + digit, rng.randrange(3) + digit)
        for time, digit in zip(times, own, strict=True)
    ]


def expected_fates(policy: Concurrency, limit: int | None, jobs: list[Job]) -> list[Fate]:
    """Tell what must become of jobs in one lane, in order of arrival."""
    if policy in {"queue", "parallel"}:
        return _first_come_first_served(CONCURRENCIES[policy] if limit is None else limit, jobs)
    if policy == "drop":
        return _dropping(jobs)
    return _newest_wins(jobs, cancels=policy == "latest")


def _first_come_first_served(places: float, jobs: list[Job]) -> list[Fate]:
    """A job starts when it comes, or as soon as so many of the earlier ones have ended."""
    ends: list[float] = []
    fates = []
    for job in jobs:
        free_at = -math.inf if len(ends) < places else sorted(ends)[-int(places)]
        start = max(job.arrival, free_at)
        ends.append(start + job.duration)
        fates.append(Fate(start, ends[-1]))
    return fates


def _dropping(jobs: list[Job]) -> list[Fate]:
    free_at = -math.inf
    fates = []
    for job in jobs:
        if job.arrival < free_at:
            fates.append(Fate(None, None, "dropped"))
        else:
            free_at = job.arrival + job.duration
            fates.append(Fate(job.arrival, free_at))
    return fates


def _newest_wins(jobs: list[Job], *, cancels: bool) -> list[Fate]:
    """Of those that come while one runs, the last starts at its end, and the rest never."""
    fates = [Fate(None, None, "superseded")] * len(jobs)
    current, free_at = 0, -math.inf
    while current < len(jobs):
        start = max(jobs[current].arrival, free_at)
        free_at = start + jobs[current].duration
        fates[current] = Fate(start, free_at)
        following = current + 1
        if cancels and following < len(jobs) and jobs[following].arrival < free_at:
            free_at = jobs[following].arrival + jobs[current].cleanup
            fates[current] = Fate(start, free_at, "superseded")
        while following + 1 < len(jobs) and jobs[following + 1].arrival < free_at:
            following += 1
        current = following
    return fates
