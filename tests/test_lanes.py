"""Each overlap policy, alone: what starts, what is stopped, and 10,000 traces against the model."""

from __future__ import annotations

import heapq
import itertools
import random
from typing import TYPE_CHECKING

import pytest
from policies import POLICIES, Fate, Job, expected_fates, random_jobs

from cacao.lanes import Lane

if TYPE_CHECKING:
    from cacao.lanes import Concurrency

TRACES = 10_000


class Timeline:
    """A lane whose runs take the time that their jobs say, by a clock of its own."""

    def __init__(self, lane: Lane[Run]) -> None:
        self.lane = lane
        self.now = 0.0
        self._next: list[tuple[float, int, Run]] = []
        self._count = itertools.count()

    def at(self, time: float, run: Run) -> None:
        heapq.heappush(self._next, (time, next(self._count), run))

    def play(self, jobs: list[Job]) -> list[Fate]:
        runs = [Run(self, job) for job in jobs]
        for run in runs:
            self.at(run.job.arrival, run)
        while self._next:
            self.now, _, run = heapq.heappop(self._next)
            run.wake()
        return [run.fate for run in runs]


class Run:
    def __init__(self, timeline: Timeline, job: Job) -> None:
        self.timeline = timeline
        self.job = job
        self.fate = Fate(None, None)
        self.ends_at: float | None = None
        self.has_arrived = False

    def wake(self) -> None:
        if not self.has_arrived:
            self.has_arrived = True
            self.timeline.lane.arrive(self)
        elif self.timeline.now == self.ends_at:
            self.fate = self.fate._replace(end=self.ends_at)
            self.timeline.lane.leave(self)

    def start(self) -> None:
        assert self.fate.start is None, "started twice"
        self.fate = Fate(self.timeline.now, None)
        self._end_in(self.job.duration)

    def stop(self, code: str) -> None:
        if self.fate.code == "ok":
            self.fate = self.fate._replace(code=code)
            if self.ends_at is not None:
                self._end_in(self.job.cleanup)

    def _end_in(self, seconds: float) -> None:
        self.ends_at = self.timeline.now + seconds
        self.timeline.at(self.ends_at, self)


@pytest.mark.parametrize(("policy", "limit"), POLICIES)
def test_random_traces_go_as_the_model_says(policy: Concurrency, limit: int | None) -> None:
    rng = random.Random(f"{policy} {limit}")  # noqa: S311 - repeatable
    for _ in range(TRACES // len(POLICIES) + 1):
        jobs = random_jobs(rng)
        assert Timeline(Lane(policy, limit)).play(jobs) == expected_fates(policy, limit, jobs), jobs


def test_the_model_lets_the_newest_win() -> None:
    jobs = [Job(0, 5, 1), Job(1, 5, 1), Job(1.5, 5, 1)]
    never = Fate(None, None, "superseded")
    assert expected_fates("latest", None, jobs) == [Fate(0, 2, "superseded"), never, Fate(2, 7)]
    assert expected_fates("keep_latest", None, jobs) == [Fate(0, 5), never, Fate(5, 10)]


class Idle:
    """A run that takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def start(self) -> None:
        self.told.append("start")

    def stop(self, code: str) -> None:
        self.told.append(str(code))


def test_what_waits_no_longer_gives_way_to_the_next() -> None:
    lane: Lane[Idle] = Lane("queue")
    first, second, third = runs = [Idle(), Idle(), Idle()]
    for run in runs:
        lane.arrive(run)
    lane.leave(second)
    lane.leave(first)
    assert [run.told for run in runs] == [["start"], [], ["start"]]
    lane.leave(third)
    assert not lane


def test_leaving_a_lane_that_one_is_not_in_is_nothing() -> None:
    lane: Lane[Idle] = Lane("drop")
    first, refused = Idle(), Idle()
    lane.arrive(first)
    lane.arrive(refused)
    lane.leave(refused)
    assert (first.told, refused.told) == (["start"], ["dropped"])
    assert lane


def test_stopping_a_lane_stops_what_runs_and_what_waits() -> None:
    lane: Lane[Idle] = Lane("queue", 2)
    runs = [Idle() for _ in range(4)]
    for run in runs:
        lane.arrive(run)
    lane.stop("cancelled")
    assert [run.told for run in runs] == [["start", "cancelled"]] * 2 + [["cancelled"]] * 2
    for run in runs[:2]:
        lane.leave(run)
    assert not lane
