"""Coming to rest: `settle` waits for threads, and names the task that never rests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from cacao import App, Session, Signal, from_asyncio
from cacao.testing import AsyncTestClient, SpinningError, TestClient, UnsettledError
from cacao.testing.inspection.frames import near
from cacao.testing.inspection.rest import wait_for_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


def place_of(text: str) -> str:
    """Give file and line of the first line here that has this text."""
    source = Path(__file__).read_text().splitlines()
    number = next(number for number, line in enumerate(source, 1) if text in line)
    return f"test_testing_rest.py:{number}, in"


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Give what holds threads up until the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


def reporting_app() -> tuple[App, Signal[str]]:
    app = App()
    report = Signal("", name="report")

    @app.on("report")
    async def make(session: Session) -> None:
        await trio.to_thread.run_sync(time.sleep, 0.02)
        await trio.to_thread.run_sync(time.sleep, 0.02)
        report.set(session, "ready")

    return app, report


# --- Through the clients ----------------------------------------------------------------------


def test_settle_waits_for_threads() -> None:
    client = TestClient(reporting_app()[0])
    client.send("report")
    assert client.state["report"] == ""
    client.settle()
    assert client.state["report"] == "ready"


async def test_settle_waits_for_threads_in_a_trio_test() -> None:
    async with AsyncTestClient(reporting_app()[0]) as client:
        await client.send("report")
        assert client.state["report"] == ""
        await client.settle()
        assert client.state["report"] == "ready"


def test_settle_waits_for_asyncio() -> None:
    app = App()
    ended: list[bool] = []

    @app.on("go")
    async def go() -> None:
        await from_asyncio(asyncio.sleep(0.02))
        ended.append(True)

    client = TestClient(app)
    client.send("go")
    client.settle()
    assert ended == [True]


def test_settle_lets_no_time_pass() -> None:
    app = App()

    @app.on("go")
    async def go() -> None:
        await trio.sleep(1)

    client = TestClient(app)
    client.send("go")
    client.settle()
    assert client.time == 0
    assert client.result(1) is None


# --- What never rests -------------------------------------------------------------------------


async def settle_below(root: trio.lowlevel.Task) -> None:
    """Drive the steps as an owner does, without patience."""
    for seconds in wait_for_threads(root, timeout=0.02):
        assert seconds == 0
        await trio.testing.wait_all_tasks_blocked()


async def unsettled(nursery: trio.Nursery) -> str:
    """Wait in vain for the threads of a nursery; gives the one line that says so."""
    with pytest.raises(UnsettledError) as caught:
        await settle_below(nursery.parent_task)
    (line,) = caught.value.tasks
    assert line in str(caught.value)
    return line


async def test_a_thread_that_does_not_end_is_named_with_its_task_and_both_lines(
    gate: threading.Event,
) -> None:
    def crunch() -> None:
        gate.wait()  # crunching

    async def job() -> None:
        await trio.to_thread.run_sync(crunch)  # waiting

    async with trio.open_nursery() as nursery:
        nursery.start_soon(job, name="the job")
        line = await unsettled(nursery)
        gate.set()
    assert line.startswith("task 'the job' at ")
    assert f"{place_of('# waiting')} job" in line
    assert f"crunch', which is at {near(__file__)}" in line
    assert f"{place_of('# crunching')} crunch" in line


async def test_a_thread_that_runs_a_builtin_is_named_by_that(nursery: trio.Nursery) -> None:
    lock = threading.Lock()
    lock.acquire()

    async def job() -> None:
        await trio.to_thread.run_sync(lock.acquire)

    nursery.start_soon(job)
    line = await unsettled(nursery)
    lock.release()
    assert "waits for thread 'lock.acquire'" in line
    assert "which is at" not in line


async def test_a_task_that_waits_for_its_turn_in_a_thread_is_named(gate: threading.Event) -> None:
    def crunch() -> None:
        gate.wait()

    limiter = trio.CapacityLimiter(1)
    async with trio.open_nursery() as nursery:
        for name in ("first", "second"):
            nursery.start_soon(lambda: trio.to_thread.run_sync(crunch, limiter=limiter), name=name)
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(UnsettledError) as caught:
            await settle_below(nursery.parent_task)
        gate.set()
    first, second = caught.value.tasks
    assert "waits for thread" in first
    assert "waits for a place or a thread to run" in second


async def test_asyncio_that_does_not_end_is_named_with_its_line() -> None:
    async def dawdle() -> None:
        await asyncio.sleep(60)  # dawdling

    async with trio.open_nursery() as nursery:
        nursery.start_soon(from_asyncio, dawdle(), name="errand")
        line = await unsettled(nursery)
        nursery.cancel_scope.cancel()
    assert f"{place_of('# dawdling')} dawdle" in line


async def test_a_task_that_its_thread_waits_for_in_turn_is_at_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    def crunch() -> None:
        trio.from_thread.run(trio.sleep, 60)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.to_thread.run_sync, crunch)
        while not trio.lowlevel.current_statistics().seconds_to_next_deadline < 61:
            await trio.testing.wait_all_tasks_blocked(0.001)
        await settle_below(nursery.parent_task)
    assert trio.current_time() >= 60


async def test_without_threads_there_is_nothing_to_wait_for() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        await settle_below(nursery.parent_task)
        nursery.cancel_scope.cancel()


def test_a_busy_loop_is_named_with_where_it_was_started() -> None:
    async def spin() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    app = App()

    @app.on("go")
    async def go(session: Session) -> None:
        session.start_soon(spin)  # spinning

    client = TestClient(app, max_ticks=1000)
    with pytest.raises(SpinningError) as caught:
        client.send("go")
    assert "in spin (started at " in str(caught.value)
    assert f"{place_of('# spinning')} go" in str(caught.value)


def test_a_task_that_catches_its_cancellation_is_told_to_let_it_pass() -> None:
    app = App()

    @app.on("go")
    async def go() -> None:
        while True:
            with contextlib.suppress(BaseException):
                await trio.sleep(1)

    client = TestClient(app, max_ticks=1000)
    client.send("go")
    with pytest.raises(
        SpinningError, match=r"task 'event go' .*it catches trio\.Cancelled .*`except Exception`"
    ):
        client.close()


async def poll_with_a_timeout() -> None:
    while True:
        with trio.move_on_after(0):
            await trio.sleep(1)


async def spin_whatever_comes() -> None:
    while True:
        with contextlib.suppress(trio.Cancelled):
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("spin", [poll_with_a_timeout, spin_whatever_comes])
def test_a_task_that_nobody_has_cancelled_is_told_to_wait(
    spin: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    app = App()
    app.on("go")(spin)
    client = TestClient(app, max_ticks=1000)
    with pytest.raises(SpinningError, match="let it wait for something"):
        client.send("go")
