"""What runs beside events: when it begins, what ends it, and who hears of its errors."""

from __future__ import annotations

import sqlite3
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import Page, live
from trio.testing import wait_all_tasks_blocked

from cacao import (
    App,
    DeclarationError,
    ErrorReport,
    Limits,
    ListSignal,
    Registry,
    Session,
    SessionEndedError,
    Signal,
)
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.options import OnLeave


class Diary:
    """An app that writes down what happens in it, and when."""

    def __init__(self, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=Limits(**limits))
            self.count = Signal(0, name="count")
        self.entries: list[Any] = []
        self.app.on("add")(self.add)

    def add(self, session: Session, event: dict[str, Any]) -> None:
        self.count.update(session, lambda n: n + event.get("by", 1))

    def note(self, what: str) -> None:
        self.entries.append((trio.current_time(), what))

    async def work(self, name: str, seconds: float, tidy: float = 0) -> None:
        self.entries.append(f"{name} begins")
        try:
            await trio.sleep(seconds)
            self.entries.append(f"{name} ends")
        except trio.Cancelled:
            self.entries.append(f"{name} is cancelled")
            if tidy:
                with trio.CancelScope(shield=True):
                    await trio.sleep(tidy)
                self.entries.append(f"{name} is tidy")
            raise


# --- Background tasks --------------------------------------------------------------------------


def test_a_background_task_outlives_its_handler_and_ends_with_its_user() -> None:
    diary = Diary()

    @diary.app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(diary.work, "job", 60)

    client, other = TestClient(diary.app), TestClient(diary.app)
    result = client.send("start")
    assert result is not None
    assert result.ok
    client.advance(50)
    assert diary.entries == ["job begins"]
    other.send("start")
    client.close()
    other.advance(4.9)
    assert diary.entries == ["job begins", "job begins"]
    other.advance(0.2)
    assert diary.entries == ["job begins", "job begins", "job is cancelled"]
    other.advance(60)
    assert diary.entries[-1] == "job ends"


def test_a_background_task_belongs_to_the_session_that_it_was_started_in() -> None:
    diary = Diary()
    others: list[Session] = []

    @diary.app.on("start")
    async def start() -> None:
        others[0].start_soon(increment)

    async def increment() -> None:
        diary.count.value += 1

    client, other = TestClient(diary.app), TestClient(diary.app)
    others.append(other.session)
    client.send("start")
    client.advance(0.02)
    assert (client.state["count"], other.state["count"]) == (0, 1)


def test_the_error_of_a_background_task_reaches_all_and_ends_nothing() -> None:
    diary = Diary()
    reports: list[ErrorReport] = []
    diary.app.on_error(reports.append)

    @diary.app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(diary.work, "other", 60)
        session.start_soon(fail, name="import")

    async def fail() -> None:
        raise ZeroDivisionError

    client = TestClient(diary.app)
    with client.expect_error(ZeroDivisionError):
        result = client.send("start")
    assert result is not None
    assert result.ok
    (report,) = reports
    assert (report.where, report.event) == ("background task 'import'", None)
    (error,) = (message for message in client.messages if message["type"] == "error")
    assert error == {
        "type": "error",
        "code": "handler_error",
        "message": "background task 'import' failed; the server's log has the details",
        "errorId": report.error_id,
    }
    client.advance(60)
    assert diary.entries == ["other begins", "other ends"]


@pytest.mark.parametrize("on_leave", ["cancel", "finish"])
def test_only_async_functions_run_in_the_background(on_leave: OnLeave) -> None:
    app = App()

    @app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(print, on_leave=on_leave)  # type: ignore[arg-type]

    @app.on("misspell")
    async def misspell(session: Session) -> None:
        session.start_soon(trio.sleep, 1, on_leave="detach")  # type: ignore[arg-type]

    client = TestClient(app)
    with pytest.raises(DeclarationError, match=r"'print' is .* give an async function"):
        client.send("start")
    with pytest.raises(DeclarationError, match="give 'cancel' or 'finish'"):
        client.send("misspell")


def test_a_session_that_is_not_live_runs_nothing() -> None:
    with pytest.raises(SessionEndedError, match="not live"):
        Session().start_soon(trio.sleep, 1)


# --- Leaving -----------------------------------------------------------------------------------


async def test_what_finishes_goes_on_after_the_user_has_left(autojump_clock: object) -> None:
    diary = Diary()

    @diary.app.on_session_end
    def end(session: Session) -> None:
        diary.entries.append(f"session ends with {diary.count.get(session)}")

    @diary.app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(save, session, on_leave="finish")
        session.start_soon(diary.work, "other", 20)

    async def save(session: Session) -> None:
        await diary.work("save", 10)
        diary.count.set(session, 7)
        with pytest.raises(SessionEndedError, match="has left"):
            session.start_soon(diary.work, "late", 1)
        session.start_soon(diary.work, "more", 1, on_leave="finish")

    async with live(diary.app) as running:
        page = await running.open_v1()
        await page.event("start", id=1)
        await page.leave()
        assert sorted(diary.entries) == ["other begins", "other is cancelled", "save begins"]
        assert list(running.runtime.sessions.values()) != []
        await trio.sleep(7)
        assert diary.entries[3:] == ["save ends", "more begins", "more ends", "session ends with 7"]
        assert not running.runtime.sessions
        assert running.errors == []


async def test_what_finishes_has_a_bounded_time(autojump_clock: object) -> None:
    diary = Diary(finish_timeout=5)

    @diary.app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(diary.work, "save", 60, on_leave="finish")

    async with live(diary.app) as running:
        page = await running.open_v1()
        await page.event("start", id=1)
        await page.leave()
        await trio.sleep(4.9)
        assert diary.entries == ["save begins"]
        await trio.sleep(0.2)
        assert diary.entries == ["save begins", "save is cancelled"]
        (report,) = running.errors
        assert isinstance(report.error, TimeoutError)
        assert report.where == "what was to finish after leaving"


@pytest.mark.parametrize("has_middleware", [False, True])
async def test_a_handler_that_finishes_does_so_with_the_events_that_wait_for_it(
    *, has_middleware: bool, autojump_clock: object
) -> None:
    diary = Diary()

    @diary.app.on("save", on_leave="finish")
    async def save(event: dict[str, Any]) -> None:
        await diary.work(event["label"], 10)

    @diary.app.on("look")
    async def look() -> None:
        await diary.work("look", 10)

    if has_middleware:

        @diary.app.middleware
        async def nothing(session: Session, event: Any, call_next: Any) -> Any:
            return await call_next(event)

    async with live(diary.app) as running:
        page = await running.open_v1()
        await page.event("look", id=1)
        await page.event("save", {"label": "one"}, id=2)
        await page.event("save", {"label": "two"}, id=3)
        await page.leave()
        await trio.sleep(30)
        assert diary.entries == [
            "look begins",
            "one begins",
            "look is cancelled",
            "one ends",
            "two begins",
            "two ends",
        ]
        assert not running.runtime.sessions
        assert running.errors == []


async def test_the_end_of_the_run_ends_what_finishes(autojump_clock: object) -> None:
    diary = Diary()

    @diary.app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(diary.work, "save", 60, on_leave="finish")

    async with live(diary.app) as running:
        page = await running.open_v1()
        await page.event("start", id=1)
        await page.leave()
        left_at = trio.current_time()
    assert diary.entries == ["save begins", "save is cancelled"]
    assert trio.current_time() == left_at


async def test_what_feeds_a_stream_and_finishes_does_not_wait_for_a_client_that_is_gone(
    autojump_clock: object,
) -> None:
    app = App(registry=Registry(), limits=Limits(max_unsent_items=3, send_timeout=1000))
    with app.registry:
        lines: ListSignal[int] = ListSignal(name="lines")
    seen: list[int] = []

    @app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(feed, session, on_leave="finish")

    async def feed(session: Session) -> None:
        for n in range(20):
            await lines.append(session, n)
            await trio.sleep(0.1)
        seen.extend(lines.get(session))

    async with live(app) as running:
        page = await running.open_v1()
        page.stall()
        await page.event("start", id=1)
        await trio.sleep(10)
        page.connection.hang_up()
        page.connection.release()
        await trio.sleep(10)
    assert seen == list(range(20))


@pytest.mark.parametrize("on_leave", ["cancel", "finish"])
async def test_what_fails_while_it_is_cancelled_is_reported_as_the_sessions(
    on_leave: OnLeave, autojump_clock: object
) -> None:
    diary = Diary(finish_timeout=5)

    @diary.app.on("start")
    async def start(session: Session) -> None:
        session.start_soon(fail_while_cancelled, on_leave=on_leave)
        session.start_soon(diary.work, "save", 1, on_leave="finish")

    async def fail_while_cancelled() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                raise ZeroDivisionError

    async with live(diary.app) as running:
        page = await running.open_v1()
        await page.event("start", id=1)
        await page.leave()
        await trio.sleep(10)
        (report,) = running.errors
        assert report.where == "session"
        assert diary.entries == ["save begins", "save ends"]
        assert not running.runtime.sessions


# --- Tasks and timers --------------------------------------------------------------------------


def test_a_task_of_the_app_runs_once_and_until_the_last_session_has_ended() -> None:
    diary = Diary()

    @diary.app.task
    async def refresh() -> None:
        await diary.work("refresh", 1000)

    @diary.app.on_session_end
    def end() -> None:
        diary.entries.append("session ends")

    client, other = TestClient(diary.app), TestClient(diary.app)
    client.close()
    other.close()
    assert diary.entries == [
        "refresh begins",
        "session ends",
        "session ends",
        "refresh is cancelled",
    ]


async def test_sessions_end_before_the_tasks_that_they_may_lean_on(
    autojump_clock: object,
) -> None:
    diary = Diary()

    @diary.app.task
    async def refresh() -> None:
        await diary.work("refresh", 1000)

    @diary.app.on_session_end
    async def end() -> None:
        await trio.sleep(1)
        diary.entries.append("session ends")

    async with live(diary.app) as running:
        await running.open()
    assert diary.entries == ["refresh begins", "session ends", "refresh is cancelled"]


def test_a_task_of_the_app_may_have_children_of_its_own() -> None:
    app = App()

    @app.task
    async def poll() -> None:
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    client = TestClient(app)
    client.advance(2)
    client.close()


def test_the_error_of_a_task_of_the_app_is_reported_and_the_run_goes_on() -> None:
    diary = Diary()
    reports: list[ErrorReport] = []
    diary.app.on_error(reports.append)

    @diary.app.task
    async def refresh() -> None:
        await trio.sleep(10)
        raise ZeroDivisionError

    client = TestClient(diary.app)
    with pytest.raises(ZeroDivisionError):
        client.advance(10)
    (report,) = reports
    assert (report.where, report.session_id, report.event) == ("task 'refresh'", "", None)
    client.send("add")
    assert client.state["count"] == 1


def test_a_timer_of_the_session_runs_at_the_multiples_of_its_interval() -> None:
    diary = Diary()

    @diary.app.every(0.1)
    def tick(session: Session) -> None:
        diary.note("tick")
        diary.count.value += 1

    client = TestClient(diary.app)
    start = client.time
    client.advance(100)
    times = [time - diary.entries[0][0] + 0.1 for time, _ in diary.entries]
    assert times == pytest.approx([0.1 * n for n in range(1, 1001)], abs=1e-9)
    assert client.time - start == 100
    other = TestClient(diary.app)
    other.advance(0.25)
    assert (client.state["count"], other.state["count"]) == (1002, 2)
    other.close()
    client.advance(1)
    assert client.state["count"] == 1012


async def test_an_hour_of_a_timer_has_no_drift(autojump_clock: object) -> None:
    diary = Diary()

    @diary.app.every(1)
    async def tick() -> None:
        await trio.sleep(0.3)
        diary.note("tick")

    async with live(diary.app) as running:
        start = trio.current_time()
        await running.open()
        await trio.sleep(3600.5)
        assert [time - start for time, _ in diary.entries] == pytest.approx(
            [n + 0.3 for n in range(1, 3601)], abs=1e-6
        )


def test_a_slow_timer_delays_its_next_run_and_never_overlaps() -> None:
    diary = Diary()

    @diary.app.every(10)
    async def tick() -> None:
        diary.note("begins")
        await trio.sleep(25 if len(diary.entries) == 1 else 1)
        diary.note("ends")

    client = TestClient(diary.app)
    origin = client._stage.runtime.sessions  # the session began at time 0
    assert origin
    client.advance(61)
    start = diary.entries[0][0] - 10
    assert [(round(time - start, 6), what) for time, what in diary.entries] == [
        (10, "begins"),
        (35, "ends"),
        (35, "begins"),  # due at 20 and 30: once, late
        (36, "ends"),
        (40, "begins"),
        (41, "ends"),
        (50, "begins"),
        (51, "ends"),
        (60, "begins"),
        (61, "ends"),
    ]


def test_a_timer_of_the_app_runs_whoever_is_there() -> None:
    diary = Diary()

    @diary.app.every(1, scope="app")
    async def tick() -> None:
        diary.entries.append("tick")

    client, other = TestClient(diary.app), TestClient(diary.app)
    client.advance(3)
    other.close()
    client.advance(2)
    assert diary.entries == ["tick"] * 5


def test_a_timer_that_fails_is_reported_and_goes_on() -> None:
    diary = Diary()

    @diary.app.every(1)
    def tick() -> None:
        diary.entries.append("tick")
        raise ZeroDivisionError

    client = TestClient(diary.app)
    with client.expect_error(ZeroDivisionError) as caught:
        client.advance(3)
    assert len(caught.values) == 3
    assert client.messages[-1]["message"].startswith("timer 'tick' failed")


# --- Hooks -------------------------------------------------------------------------------------


def with_hooks(diary: Diary, seconds: float = 0) -> None:
    def declare(moment: str) -> None:
        @getattr(diary.app, moment)  # type: ignore[untyped-decorator]
        async def hook(session: Session) -> None:
            diary.entries.append(moment)
            await trio.sleep(seconds)
            diary.entries.append(f"{moment} done, count is {diary.count.get(session)}")
            diary.count.set(session, diary.count.get(session) + 1)

    for moment in ("on_session_end", "on_disconnect", "on_connect", "on_session_start"):
        declare(moment)


@pytest.mark.parametrize("how", ["the user leaves", "the author closes", "the server ends"])
async def test_the_order_of_a_life_is_the_same_whatever_ends_it(
    how: str, autojump_clock: object
) -> None:
    diary = Diary()
    with_hooks(diary, seconds=1)

    @diary.app.on("work")
    async def work() -> None:
        await diary.work("handler", 60)

    async with live(diary.app) as running:
        page = await running.open("cacao.v1")
        await page.send({"type": "hello"})
        assert page.messages == []
        await trio.sleep(3)
        assert page.messages[0]["state"] == {"count": 2}  # what the hooks have set is in it
        await page.event("work", id=1)
        if how == "the user leaves":
            await page.leave()
            await trio.sleep(10)
        elif how == "the author closes":
            running.session.close(4000, "enough")
            await trio.sleep(10)
            assert page.close_code == 4000
    # Who ends it decides whether handlers are cancelled before the connection is let go.
    entries = [entry for entry in diary.entries if not entry.startswith("handler")]
    assert entries == [
        "on_session_start",
        "on_session_start done, count is 0",
        "on_connect",
        "on_connect done, count is 1",
        "on_disconnect",
        "on_disconnect done, count is 2",
        "on_session_end",
        "on_session_end done, count is 3",
    ]
    assert diary.entries.index("handler is cancelled") < diary.entries.index("on_session_end")


async def test_the_hooks_of_an_end_have_a_bounded_time(autojump_clock: object) -> None:
    diary = Diary(hook_timeout=5)

    @diary.app.on_session_end
    async def end() -> None:
        await diary.work("end", 60)

    async with live(diary.app) as running:
        page = await running.open_v1()
        await page.leave()
        await trio.sleep(4.9)
        assert diary.entries == ["end begins"]
        await trio.sleep(0.2)
        assert diary.entries == ["end begins", "end is cancelled"]
        (report,) = running.errors
        assert report.where == "on_session_end hooks"
        assert "took more than 5 s" in str(report.error)


async def test_a_session_may_be_closed_before_it_has_begun(autojump_clock: object) -> None:
    diary = Diary()
    with_hooks(diary)

    @diary.app.on_session_start
    async def refuse(session: Session) -> None:
        if session.peer.path == "/ws":
            session.close(1008, "not allowed")
            await diary.work("refusal", 60)

    async with live(diary.app) as running:
        page = await running.open_v1()
        assert page.close_code == 1008
        assert page.messages == []
        assert not running.runtime.sessions
    assert [entry for entry in diary.entries if "done" not in entry] == [
        "on_session_start",
        "refusal begins",
        "refusal is cancelled",
        "on_session_end",
    ]


async def test_a_session_that_is_closed_before_it_runs_never_does(autojump_clock: object) -> None:
    diary = Diary()
    with_hooks(diary)
    async with live(diary.app) as running:
        for _ in range(10):  # in whichever order the tasks come
            page = Page(None)
            with trio.CancelScope() as scope:
                scope.cancel()
                await running.runtime.serve(page.connection)
            await wait_all_tasks_blocked()
            assert page.close_code == 1012
            assert not running.runtime.sessions
    async with live(diary.app) as running, trio.open_nursery() as nursery:
        page = Page(None)
        nursery.start_soon(running.runtime.serve, page.connection)
        await trio.lowlevel.checkpoint()
        running.runtime.drain()
        await wait_all_tasks_blocked()
        assert page.close_code == 1012


async def test_a_plain_hook_may_close_the_session_too(autojump_clock: object) -> None:
    diary = Diary()

    @diary.app.on_session_start
    def refuse(session: Session) -> None:
        session.close(1008, "not allowed")

    @diary.app.on_connect
    def connect() -> None:
        diary.entries.append("connected")

    async with live(diary.app) as running:
        page = await running.open_v1()
        assert (page.close_code, page.messages) == (1008, [])
        assert not running.runtime.sessions
    assert diary.entries == []


@pytest.mark.parametrize(
    "moment", ["on_session_start", "on_connect", "on_disconnect", "on_session_end"]
)
def test_a_hook_that_fails_is_reported_and_the_others_run(moment: str) -> None:
    diary = Diary()

    def fail() -> None:
        raise ZeroDivisionError(moment)

    async def note() -> None:
        diary.entries.append(moment)

    getattr(diary.app, moment)(fail)
    getattr(diary.app, moment)(note)
    reports: list[ErrorReport] = []
    diary.app.on_error(reports.append)

    def live_once() -> None:
        client = TestClient(diary.app)
        client.send("add")
        assert client.state["count"] == 1
        client.close()

    if moment in {"on_disconnect", "on_session_end"}:
        with pytest.raises(ZeroDivisionError):
            live_once()
    else:
        with pytest.raises(ZeroDivisionError):
            TestClient(diary.app)
    assert diary.entries == [moment]
    assert [report.where for report in reports] == [f"{moment} hook 'fail'"]


# --- Declaring ---------------------------------------------------------------------------------


async def coroutine() -> None: ...


def plain() -> None: ...


def needy(session: Session) -> None: ...


async def needy_coroutine(session: Session) -> None: ...


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (lambda app: app.task(plain), "task 'plain' at .* is not async"),
        (lambda app: app.task(needy_coroutine), "belongs to the whole app"),
        (lambda app: app.every(0)(plain), "runs every 0 s; give a positive number"),
        (lambda app: app.every(float("inf"))(plain), "runs every inf s"),
        (lambda app: app.every(1, scope="user")(plain), "scope 'user'; give 'session' or 'app'"),
        (lambda app: app.every(1, scope="app")(needy), "belongs to the whole app"),
        (lambda app: app.on_connect(lambda a, b: None), "function of 2 parameters"),
        (lambda app: app.effect("watch"), "effect 'str' got 'watch'"),
        (lambda app: app.resource(plain), "resource 'plain' at .* is not async"),
        (lambda app: app.resource(name="")(coroutine), "not allowed"),
        (
            lambda app: app.on("save", on_leave="stay")(coroutine),
            "on_leave='stay'; give 'cancel' or 'finish'",
        ),
    ],
)
def test_what_cannot_be_declared_is_refused_where_it_is(
    declare: Callable[[App], object], message: str
) -> None:
    with pytest.raises(DeclarationError, match=message):
        declare(App())


# --- Real work ---------------------------------------------------------------------------------


async def run_query(database: sqlite3.Connection, sql: str, ended: threading.Event) -> object:
    """Query in a thread; a cancellation interrupts the query."""

    def fetch() -> object:
        try:
            return database.execute(sql).fetchone()[0]
        finally:
            ended.set()

    try:
        return await trio.to_thread.run_sync(fetch, abandon_on_cancel=True)
    except trio.Cancelled:
        database.interrupt()
        raise


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_leaving_stops_the_query_that_the_handler_waits_for() -> None:
    app = App()
    database = sqlite3.connect(":memory:", check_same_thread=False)
    ended = threading.Event()

    @app.on("count")
    async def count(event: dict[str, str]) -> None:
        await run_query(database, event["sql"], ended)

    client = TestClient(app)
    result = client.send("count", sql="SELECT 1")
    client.wait(lambda: client.result(1) is not None)
    assert client.result(1) is not None
    ended.clear()
    runs = threading.Event()  # an interruption before that is none
    database.set_progress_handler(runs.set, 1000)
    result = client.send("count", sql=ENDLESS)
    assert result is None
    assert runs.wait(30)
    assert not ended.wait(0.05)  # it runs, and would run for ever
    client.close()
    assert ended.wait(5)
    database.close()
