"""Handlers in threads: what they may touch, and what becomes of one that nobody waits for.

Threads take real time; they wait for each other on `threading.Event`s, never for a time.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from cacao import App, Computed, Effect, Limits, MessageError, ReactiveError, Session, Signal
from cacao.testing import TestClient
from cacao.threads import ThreadSession, _Job

if TYPE_CHECKING:
    from collections.abc import Iterator


class Desk:
    """An app with a handler that stays in its thread until it is let go."""

    def __init__(self, **options: Any) -> None:
        limits = Limits(max_threads=options.pop("max_threads", 4))
        self.app = App(limits=limits)
        self.total = Signal(0, name="total")
        self.app.on("report", thread=True, **options)(self.report)
        self.app.on("stop")(lambda session: session.cancel("report"))
        self.started = threading.Semaphore(0)
        self.let_go = threading.Event()
        self.outcome: list[object] = []
        self.then: Any = lambda _: "done"

    def report(self, session: ThreadSession) -> None:
        self.started.release()
        self.let_go.wait(10)
        try:
            self.outcome.append(self.then(session))
        except BaseException as error:
            self.outcome.append(error)
            raise


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.let_go.set()


def send(desk: Desk, client: TestClient) -> None:
    """Send a report, and wait until it is in its thread."""
    client.send("report")
    assert desk.started.acquire(timeout=10)


def test_a_plain_function_may_take_its_time_in_a_thread(desk: Desk) -> None:
    client = TestClient(desk.app)
    send(desk, client)
    assert client.result(1) is None
    desk.let_go.set()
    client.wait(lambda: client.result(1))
    assert client.result(1).ok  # type: ignore[union-attr]


def test_a_thread_reaches_the_session_by_call(desk: Desk) -> None:
    client = TestClient(desk.app)
    threads = []

    def add(n: int) -> str:
        threads.append(threading.current_thread())
        desk.total.value += n
        return "added"

    desk.then = lambda session: (session.id, session.call(add, 5))
    send(desk, client)
    desk.let_go.set()
    client.wait(lambda: client.result(1))
    assert (client.state["total"], threads) == (5, [threading.current_thread()])
    assert desk.outcome == [(client.session_id, "added")]


def test_what_a_call_raises_is_raised_in_the_thread(desk: Desk) -> None:
    client = TestClient(desk.app)

    def refuse() -> None:
        raise MessageError("sold_out", "nothing is left")

    desk.then = lambda session: session.call(refuse)
    send(desk, client)
    desk.let_go.set()
    client.wait(lambda: client.result(1))
    assert client.result(1).code == "sold_out"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "touch",
    [
        lambda desk, session: desk.total.get(session),
        lambda desk, session: desk.total.set(session, 1),
        lambda desk, session: desk.total.peek(session),
        lambda desk, session: desk.total.value,
        lambda desk, session: setattr(desk.total, "value", 1),
        lambda desk, session: Computed(lambda: 1).get(session),
        lambda desk, session: Effect(lambda: None, session),
    ],
)
def test_touching_a_signal_from_a_thread_is_refused(desk: Desk, touch: Any) -> None:
    client = TestClient(desk.app)
    desk.then = lambda session: touch(desk, session)
    desk.let_go.set()
    with client.expect_error(ReactiveError) as caught:
        client.send("report")
        client.wait(lambda: client.result(1))
    assert "handler of event 'report' runs in a thread" in str(caught.value)
    assert "session.call(function)" in str(caught.value)


def test_a_thread_does_not_take_what_is_being_evaluated_for_its_own(desk: Desk) -> None:
    client = TestClient(desk.app)
    desk.then = lambda _: desk.total.value

    @Computed
    def held() -> int:
        desk.let_go.set()  # the thread goes on while this is evaluated
        ended.wait(10)
        return 1

    ended = threading.Event()
    then = desk.then
    desk.then = lambda session: try_and_tell(then, session, ended)
    desk.app.on("compute")(lambda session: held.get(session))
    send(desk, client)
    with client.expect_error(ReactiveError):
        client.send("compute")
        client.wait(lambda: client.result(1))
    assert isinstance(desk.outcome[0], ReactiveError)


def try_and_tell(function: Any, session: ThreadSession, ended: threading.Event) -> object:
    try:
        return function(session)
    finally:
        ended.set()


# --- Abandoned ---------------------------------------------------------------------------------


def abandon(desk: Desk, client: TestClient) -> None:
    send(desk, client)
    client.send("stop")
    assert client.result(1).code == "cancelled"  # type: ignore[union-attr]


def test_an_abandoned_thread_is_reported(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(desk.app)
    abandon(desk, client)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert record.getMessage() == (
        "handler of event 'report' was abandoned: its event has ended, its thread runs on "
        f"(session {client.session_id})"
    )


def test_a_thread_that_takes_too_long_is_abandoned(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(deadline=5)
    client = TestClient(desk.app)
    send(desk, client)
    client.advance(5)
    assert client.result(1).code == "timeout"  # type: ignore[union-attr]
    assert "abandoned" in caplog.text
    desk.let_go.set()


def test_an_abandoned_thread_reaches_the_session_no_more(desk: Desk) -> None:
    client = TestClient(desk.app)
    desk.then = lambda session: session.call(lambda: setattr(desk.total, "value", 99))
    abandon(desk, client)
    desk.let_go.set()
    client.wait(lambda: desk.outcome)
    assert isinstance(desk.outcome[0], trio.Cancelled)
    assert desk.total.get(client.session) == 0


def test_what_an_abandoned_thread_raises_is_reported(desk: Desk) -> None:
    client = TestClient(desk.app)
    desk.then = lambda _: 1 // 0
    abandon(desk, client)
    desk.let_go.set()
    with client.expect_error(ZeroDivisionError) as caught:
        client.wait(lambda: caught.values)


def test_what_an_abandoned_thread_refuses_nobody_needs_to_know(desk: Desk) -> None:
    client = TestClient(desk.app)

    def refuse(_: object) -> None:
        raise MessageError("sold_out", "nothing is left")

    desk.then = refuse
    abandon(desk, client)
    desk.let_go.set()
    client.wait(lambda: desk.outcome)
    client.advance(1)


def test_one_that_still_waits_for_a_place_is_never_started(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = Desk(max_threads=1, concurrency="parallel")
    client = TestClient(desk.app)
    send(desk, client)
    client.send("report")
    client.send("stop")
    assert caplog.text.count("abandoned") == 1
    desk.let_go.set()
    client.wait(lambda: desk.outcome)
    client.send("report")  # the place is free again when the thread has returned
    client.wait(lambda: client.result(4))
    assert desk.outcome == ["done", "done"]


@pytest.mark.parametrize("is_abandoned_first", [False, True])
async def test_exactly_one_of_both_threads_reports_an_error(is_abandoned_first: bool) -> None:
    errors: list[Exception] = []
    job = _Job(lambda: 1 // 0, ThreadSession(Session(), "handler"), errors.append)
    if is_abandoned_first:
        job.abandon()
    with pytest.raises(ZeroDivisionError):
        await trio.to_thread.run_sync(job.run)
    if not is_abandoned_first:
        job.abandon()
    await trio.testing.wait_all_tasks_blocked()
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_an_error_after_the_run_of_the_app_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[Exception] = []

    async def make() -> _Job[int]:
        return _Job(lambda: 1 // 0, ThreadSession(Session(), "handler"), errors.append)

    job = trio.run(make)
    job.abandon()
    with pytest.raises(ZeroDivisionError):
        contextvars.copy_context().run(job.run)  # as in a thread: it says whose session it is
    assert "handler failed, abandoned" in caplog.text
    assert "ZeroDivisionError" in caplog.text
