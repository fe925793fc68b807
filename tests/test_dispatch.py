"""Events under way: who runs when, how each ends, and what the page hears."""

from __future__ import annotations

import random
from contextlib import nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import live
from policies import POLICIES, Fate, Job, expected_fates, random_jobs

from cacao import App, Limits, MessageError, Registry, Session, Signal
from cacao.protocol import Event
from cacao.testing import TestClient

if TYPE_CHECKING:
    from cacao.lanes import Concurrency

SUPERSEDED = Fate(None, None, "superseded")
DROPPED = Fate(None, None, "dropped")
CANCELLED = Fate(None, None, "cancelled")


class Works:
    """An app with one event, `work`, whose runs are written down, and one that stops it."""

    def __init__(self, limits: Limits | None = None, **options: Any) -> None:
        self.app = App(registry=Registry(), limits=limits)
        self.app.on("work", **options)(self.work)
        self.app.on("stop")(lambda session: session.cancel("work"))
        self.times: dict[int, tuple[float, float]] = {}

    async def work(self, event: dict[str, Any]) -> None:
        start = trio.current_time()
        try:
            await trio.sleep(event["seconds"])
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(event.get("cleanup", 0))
            raise
        finally:
            self.times[event["n"]] = (start, trio.current_time())
        if "fails" in event:
            raise ValueError(event["fails"])

    def play(self, jobs: list[Job], **first: Any) -> list[Fate]:
        """Send one event a job, let all end, and tell what became of each."""
        client = TestClient(self.app)
        for n, job in enumerate(jobs):
            client.advance(job.arrival - client.time)
            more = first if n == 0 else {}
            client.send("work", {"n": n, **job._asdict(), "seconds": job.duration, **more})
        expected = client.expect_error(ValueError) if "fails" in first else nullcontext()
        with expected:
            client.advance(100)
        return [self.fate(client, n) for n in range(len(jobs))]

    def fate(self, client: TestClient, n: int) -> Fate:
        result = client.result(n + 1)
        assert result is not None
        start, end = self.times.get(n, (None, None))
        return Fate(start, end, str(result.code or "ok"))


# --- The table: each policy, same key and other key, with a first run that ends well or fails ----

JOBS = [Job(float(n), 5.0, 0.0) for n in range(3)]
TABLE: dict[Concurrency, list[Fate]] = {
    "queue": [Fate(0, 5), Fate(5, 10), Fate(10, 15)],
    "parallel": [Fate(0, 5), Fate(1, 6), Fate(2, 7)],
    "latest": [Fate(0, 1, "superseded"), Fate(1, 2, "superseded"), Fate(2, 7)],
    "drop": [Fate(0, 5), DROPPED, DROPPED],
    "keep_latest": [Fate(0, 5), SUPERSEDED, Fate(5, 10)],
}
TOGETHER = TABLE["parallel"]


@pytest.mark.parametrize("policy", TABLE)
def test_events_of_one_name_go_by_the_policy(policy: Concurrency) -> None:
    assert Works(concurrency=policy).play(JOBS) == TABLE[policy]


@pytest.mark.parametrize("policy", TABLE)
def test_events_of_one_key_go_by_the_policy(policy: Concurrency) -> None:
    works = Works(concurrency=policy, key=lambda event: event["seconds"])
    assert works.play(JOBS) == TABLE[policy]


@pytest.mark.parametrize("policy", TABLE)
def test_events_of_other_keys_do_not_meet(policy: Concurrency) -> None:
    works = Works(concurrency=policy, key=lambda event: event["n"])
    assert works.play(JOBS) == TOGETHER


@pytest.mark.parametrize("policy", set(TABLE) - {"latest"})
def test_one_that_fails_gives_its_place_to_the_next(policy: Concurrency) -> None:
    first, *rest = TABLE[policy]
    failed = first._replace(code="handler_error")
    assert Works(concurrency=policy).play(JOBS, fails="on purpose") == [failed, *rest]


LATE: dict[Concurrency, list[Fate]] = {
    "queue": [Fate(0, 3, "timeout"), Fate(3, 4), Fate(4, 5)],
    "parallel": [Fate(0, 3, "timeout"), Fate(1, 2), Fate(2, 3)],
    "latest": [Fate(0, 1, "superseded"), Fate(1, 2), Fate(2, 3)],
    "drop": [Fate(0, 3, "timeout"), DROPPED, DROPPED],
    "keep_latest": [Fate(0, 3, "timeout"), SUPERSEDED, Fate(3, 4)],
}


@pytest.mark.parametrize("policy", LATE)
def test_one_that_takes_too_long_gives_its_place_to_the_next(policy: Concurrency) -> None:
    works = Works(concurrency=policy, deadline=3)
    assert works.play([Job(0, 5, 0), Job(1, 1, 0), Job(2, 1, 0)]) == LATE[policy]


AFTER_A_STOP: dict[Concurrency, list[Fate]] = {
    "queue": [Fate(0, 1.5, "cancelled"), CANCELLED, Fate(2, 7)],
    "parallel": [Fate(0, 1.5, "cancelled"), Fate(1, 1.5, "cancelled"), Fate(2, 7)],
    "latest": [Fate(0, 1, "superseded"), Fate(1, 1.5, "cancelled"), Fate(2, 7)],
    "drop": [Fate(0, 1.5, "cancelled"), DROPPED, Fate(2, 7)],
    "keep_latest": [Fate(0, 1.5, "cancelled"), CANCELLED, Fate(2, 7)],
}


@pytest.mark.parametrize("policy", AFTER_A_STOP)
def test_cancelling_a_name_ends_what_runs_and_what_waits(policy: Concurrency) -> None:
    works = Works(concurrency=policy)
    client = TestClient(works.app)
    client.send("work", n=0, seconds=5)
    client.advance(1)
    client.send("work", n=1, seconds=5)
    client.advance(0.5)
    assert client.send("stop").ok  # type: ignore[union-attr]
    client.advance(0.5)
    client.send("work", n=3, seconds=5)
    client.advance(20)
    assert [works.fate(client, n) for n in (0, 1, 3)] == AFTER_A_STOP[policy]


@pytest.mark.parametrize("seed", range(8))
def test_after_a_stop_all_begins_anew_in_whatever_order_they_ended(seed: int) -> None:
    app = App()
    app.on("stop")(lambda session: session.cancel("work"))
    app.on("work")(trio.sleep_forever)
    client = TestClient(app, seed=seed)
    for _ in range(3):
        client.send("work")
    client.send("stop")
    assert [client.result(n).code for n in (1, 2, 3)] == ["cancelled"] * 3  # type: ignore[union-attr]
    client.send("work")
    client.send("stop")
    assert client.result(5).code == "cancelled"  # type: ignore[union-attr]


def test_cancelling_reaches_every_key_and_no_other_name() -> None:
    works = Works(key=lambda event: event["n"])
    works.app.on("other")(works.work)
    client = TestClient(works.app)
    client.send("work", n=0, seconds=5)
    client.send("work", n=1, seconds=5)
    client.send("other", n=2, seconds=5)
    client.send("stop")
    client.advance(5)
    assert [works.fate(client, n).code for n in range(3)] == ["cancelled", "cancelled", "ok"]


@pytest.mark.parametrize(("policy", "limit"), POLICIES)
def test_random_traces_go_as_the_model_says(policy: Concurrency, limit: int | None) -> None:
    rng = random.Random(f"{policy} {limit}")  # noqa: S311 - repeatable
    for _ in range(30):
        jobs = random_jobs(rng)
        fates = Works(concurrency=policy, limit=limit).play(jobs)
        assert fates == expected_fates(policy, limit, jobs), jobs


@pytest.mark.parametrize("policy", TABLE)
async def test_a_page_hears_of_each_end_with_its_code(
    policy: Concurrency, autojump_clock: object
) -> None:
    async with live(Works(concurrency=policy).app) as running:
        page = await running.open_v1()
        for n in range(3):
            await page.event("work", {"n": n, "seconds": 5}, id=n + 1)
            await trio.sleep(1)
        await trio.sleep(20)
        codes = {result["id"]: result.get("code", "ok") for result in page.of_type("result")}
        assert [codes[n] for n in (1, 2, 3)] == [fate.code for fate in TABLE[policy]]
        assert all(result.get("message") for result in page.of_type("result") if not result["ok"])


async def test_a_plain_page_hears_of_a_refusal_too(autojump_clock: object) -> None:
    async with live(Works(concurrency="drop").app) as running:
        page = await running.open()
        await page.event("work", {"n": 0, "seconds": 5})
        await page.event("work", {"n": 1, "seconds": 5})
        assert page.of_type("error") == [
            {
                "type": "error",
                "code": "dropped",
                "message": "event 'work': an earlier one was still running",
            }
        ]


# --- Cancellation ------------------------------------------------------------------------------


def test_the_newest_starts_when_the_older_one_has_really_ended() -> None:
    fates = Works(concurrency="latest").play([Job(0, 5, 2), Job(1, 5, 0)])
    assert fates == [Fate(0, 3, "superseded"), Fate(3, 8)]


async def test_one_that_is_superseded_in_the_moment_it_came_never_runs(
    autojump_clock: object,
) -> None:
    works = Works(concurrency="latest")
    async with live(works.app) as running:
        start = trio.current_time()
        page = await running.open_v1()
        dispatch = running.session._dispatch
        assert dispatch is not None
        for n in range(3):  # all before a task gets its turn
            dispatch.accept(Event("work", {"n": n, "seconds": 5}, n + 1))
        await trio.sleep(20)
        assert works.times == {2: (start, start + 5)}
        assert [m.get("code") for m in page.of_type("result")] == ["superseded", "superseded", None]


def test_what_a_handler_raises_while_it_is_cancelled_is_reported() -> None:
    app = App()

    @app.on("work", concurrency="latest")
    async def work() -> None:
        try:
            await trio.sleep(5)
        finally:
            raise ValueError("in the cleanup")

    client = TestClient(app)
    client.send("work")
    with client.expect_error(ValueError):
        client.send("work")
    assert client.result(1).code == "handler_error"  # type: ignore[union-attr]
    with client.expect_error(ValueError):
        client.advance(5)


def test_one_that_is_cancelled_and_ends_well_has_ended_well() -> None:
    app = App()
    saved = Signal("", name="saved")

    @app.on("save", concurrency="latest")
    async def save(session: Session, event: dict[str, str]) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(5)
        saved.set(session, event["text"])

    client = TestClient(app)
    client.send("save", text="a")
    client.advance(1)
    client.send("save", text="b")
    client.advance(4)
    assert (client.result(1).ok, client.state["saved"]) == (True, "a")  # type: ignore[union-attr]
    client.advance(5)
    assert (client.result(2).ok, client.state["saved"]) == (True, "b")  # type: ignore[union-attr]


def test_a_refusal_while_being_cancelled_is_the_result() -> None:
    app = App()

    @app.on("work", deadline=1)
    async def work() -> None:
        try:
            await trio.sleep(5)
        except trio.Cancelled:
            raise MessageError("too_slow", "the printer does not answer") from None

    client = TestClient(app)
    client.send("work")
    client.advance(1)
    assert client.result(1).code == "too_slow"  # type: ignore[union-attr]


def test_nothing_that_waits_starts_when_its_user_leaves() -> None:
    started = []
    app = App()

    @app.on("work")
    async def work(n: int) -> None:
        started.append(n)
        await trio.sleep(6)

    client = TestClient(app)
    client.send("work", n=0)
    client.send("work", n=1)
    client.close()
    assert started == [0]


def test_a_stopped_event_makes_room_for_others() -> None:
    works = Works(Limits(max_waiting_events=3), concurrency="keep_latest")
    client = TestClient(works.app)
    for n in range(5):
        client.send("work", n=n, seconds=5)
    assert [works.fate(client, n).code for n in (1, 2, 3)] == ["superseded"] * 3
    client.advance(10)
    assert works.times == {0: (0, 5), 4: (5, 10)}


async def test_an_event_that_ends_without_a_word_makes_room_too(autojump_clock: object) -> None:
    works = Works(Limits(max_waiting_events=2))
    async with live(works.app) as running:
        page = await running.open()  # a plain one: it gets no results
        event = {"type": "event", "name": "work"}
        await page.send(*({**event, "data": {"n": n, "seconds": 1}} for n in range(5)))
        await trio.sleep(10)
        assert sorted(works.times) == [0, 1, 2, 3, 4]


def test_what_has_ended_leaves_nothing_behind() -> None:
    works = Works(concurrency="latest", key=lambda event: event["n"] % 3)
    client = TestClient(works.app)
    for n in range(10):
        client.send("work", n=n, seconds=1)
    client.advance(2)
    dispatch = client.session._dispatch
    assert dispatch is not None
    assert (dispatch.under_way, dispatch._lanes) == ({}, {})


def test_only_the_first_reason_counts() -> None:
    works = Works(concurrency="latest")
    client = TestClient(works.app)
    client.send("work", n=0, seconds=5, cleanup=2)
    client.send("work", n=1, seconds=5)
    client.send("stop")
    client.advance(2)
    assert [works.fate(client, n) for n in (0, 1)] == [Fate(0, 2, "superseded"), CANCELLED]


def test_what_one_handler_puts_into_its_context_is_not_there_for_the_next() -> None:
    owner = ContextVar("owner", default="nobody")
    seen = []
    app = App()

    @app.on("work")
    async def work(n: int) -> None:
        seen.append(owner.get())
        owner.set(f"event {n}")
        await trio.sleep(1)

    client = TestClient(app)
    client.send("work", n=0)
    client.send("work", n=1)
    client.advance(2)
    assert seen == ["nobody", "nobody"]


def test_a_session_that_is_not_live_has_no_events_to_cancel() -> None:
    session = Session()
    session.cancel("work")
    assert session._exchange.outbox.replies == []


# --- Deadlines ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("outer", "inner", "ends_at"), [(3, 5, 3), (5, 3, 3), (2, None, 2)])
def test_the_tightest_of_nested_deadlines_wins(
    outer: float, inner: float | None, ends_at: float
) -> None:
    app = App()
    cancelled_at = []

    @app.on("work", deadline=outer)
    async def work() -> None:
        with trio.move_on_after(inner or 100):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(sleep_long)
        await trio.lowlevel.checkpoint()

    async def sleep_long() -> None:
        try:
            await trio.sleep(50)
        finally:
            cancelled_at.append(trio.current_time())

    client = TestClient(app)
    client.send("work")
    client.advance(ends_at - 0.01)
    assert cancelled_at == []
    client.advance(0.01)
    assert cancelled_at == [ends_at]
    result = client.result(1)
    assert result is not None
    assert (result.ok, result.code) == ((True, None) if ends_at < outer else (False, "timeout"))


def test_a_deadline_counts_from_the_start_and_not_from_the_arrival() -> None:
    works = Works(deadline=3)
    assert works.play([Job(0, 2, 0), Job(0, 2, 0), Job(0, 4, 0)]) == [
        Fate(0, 2),
        Fate(2, 4),
        Fate(4, 7, "timeout"),
    ]


# --- Keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [lambda event: event["row"], lambda event: [1]])
def test_a_key_that_fails_is_the_authors_error(key: Any) -> None:
    works = Works(key=key)
    client = TestClient(works.app)
    with client.expect_error((KeyError, TypeError)):
        result = client.send("work", n=0, seconds=1)
    assert result is not None
    assert result.code == "handler_error"
    client.close()
