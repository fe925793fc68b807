"""The leak check: what outlives the last user is named, and where it comes from."""

from __future__ import annotations

import gc
import inspect
import logging
import socket
import sqlite3
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from cacao import App, Effect, Session, Signal, from_asyncio
from cacao.testing import AsyncTestClient, LeakError, TestClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


async def straggle() -> None:
    await trio.sleep_forever()


async def oversleep() -> None:
    await trio.sleep(60)


def leaky_app() -> App:
    app = App()

    @app.on("leak")
    async def leak() -> None:
        trio.lowlevel.spawn_system_task(straggle, name="straggler")

    @app.on("hold_on")
    async def hold_on() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    @app.on("tidy_up")
    async def tidy_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(20, shield=True):
                await trio.sleep_forever()

    return app


def line_of(text: str) -> str:
    """Give file and line of the first line here that has this text, as a pattern."""
    source = Path(__file__).read_text().splitlines()
    number = next(number for number, line in enumerate(source, 1) if text in line)
    return rf"test_testing_leaks\.py:{number}, in"


def app_that(handler: Callable[..., Any]) -> App:
    """Make an app that does something at the event `go`."""
    app = App()
    app.on("go")(handler)
    return app


def leaks_of(app: App) -> tuple[str, ...]:
    """Send the event `go`, close, and give what was left behind."""
    client = TestClient(app)
    client.send("go")
    try:
        client.close()
    except LeakError as error:
        return error.leaks
    return ()


# --- Tasks ------------------------------------------------------------------------------------


def test_a_task_that_outlives_its_user_is_named_with_its_line() -> None:
    client = TestClient(leaky_app())
    client.send("leak")
    with pytest.raises(
        LeakError, match=r"'straggler' at .*test_testing_leaks\.py:\d+, in straggle"
    ):
        client.close()


def test_a_task_is_named_with_the_line_that_started_it() -> None:
    client = TestClient(leaky_app())
    client.send("leak")
    with pytest.raises(LeakError, match=f"started at .*{line_of('(straggle, name=')} leak"):
        client.close()


def test_a_handler_that_cannot_be_cancelled_is_named() -> None:
    client = TestClient(leaky_app())
    client.send("hold_on")
    with pytest.raises(LeakError, match=r"event hold_on.*in hold_on"):
        client.close()


def test_a_handler_is_named_with_its_declaration_and_nothing_around_it() -> None:
    client = TestClient(leaky_app())
    client.send("hold_on")
    with pytest.raises(LeakError) as caught:
        client.close()
    (leak,) = caught.value.leaks
    declared = line_of('@app.on("hold_on")').removesuffix(", in").replace("\\", "")
    assert leak.startswith("task 'event hold_on' at ")
    assert declared in leak
    assert "started for hold_on, declared at" in leak


def test_a_handler_that_takes_its_time_to_tidy_up_is_no_leak() -> None:
    client = TestClient(leaky_app())
    client.send("tidy_up")
    client.close()


def test_only_the_last_client_is_asked_for_leaks() -> None:
    app = leaky_app()
    alice, bob = TestClient(app), TestClient(app)
    alice.send("leak")
    alice.close()
    with pytest.raises(LeakError):
        bob.close()


def test_every_leak_is_told() -> None:
    client = TestClient(leaky_app())
    client.send("leak")
    client.send("leak")
    with pytest.raises(LeakError) as caught:
        client.close()
    assert len(caught.value.leaks) == 2


def test_a_task_of_a_task_is_named_with_its_own_start() -> None:
    async def go() -> None:
        async def two() -> None:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(straggle, name="below")

        trio.lowlevel.spawn_system_task(two, name="above")

    leaks = leaks_of(app_that(go))
    assert [leak.split("'")[1] for leak in leaks] == ["above", "below"]
    assert "in two)" in leaks[1]


class OneCall(trio.abc.Listener[trio.abc.Stream]):
    """Listens, and is called once."""

    was_called = False

    async def accept(self) -> trio.abc.Stream:
        if self.was_called:
            await trio.sleep_forever()
        self.was_called = True
        return trio.testing.memory_stream_pair()[0]

    async def aclose(self) -> None:
        pass


def test_a_task_started_by_a_library_has_the_start_of_the_task_above() -> None:
    async def answer(_stream: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    def go() -> None:
        trio.lowlevel.spawn_system_task(trio.serve_listeners, answer, [OneCall()])

    answering, accepting = sorted(leaks_of(app_that(go)), key=lambda leak: "in accept" in leak)
    assert "in answer (started at" in answering
    assert "in accept (started at" in accepting
    assert answering.endswith("in go)")
    assert accepting.endswith("in go)")


def test_a_background_task_has_the_line_of_its_start_soon() -> None:
    async def stubborn() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    def go(session: Session) -> None:
        session.start_soon(stubborn)  # here

    (leak,) = leaks_of(app_that(go))
    assert "task \"background task 'stubborn'\" at" in leak
    assert line_of("(stubborn)  # here").removesuffix(", in").replace("\\", "") in leak


def test_a_task_that_only_sleeps_is_a_timer() -> None:
    async def go() -> None:
        trio.lowlevel.spawn_system_task(oversleep, name="nap")

    client = TestClient(app_that(go))
    client.send("go")
    client.advance(48)
    with pytest.raises(LeakError, match=r"task 'nap' .*timer due in 12 s \(virtual\)"):
        client.close()


def test_a_bare_sleep_is_a_timer_too() -> None:
    async def go() -> None:
        trio.lowlevel.spawn_system_task(trio.sleep, 60, name="nap")

    (leak,) = leaks_of(app_that(go))
    assert leak.startswith("task 'nap' inside trio (timer due in 60 s (virtual); started at ")


def test_a_task_of_the_app_itself_may_go_on_and_start_others_as_long_as_the_app() -> None:
    app = App()
    kicks: list[trio.Event] = []

    @app.task
    async def work() -> None:
        kicks.append(trio.Event())
        await kicks[0].wait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(straggle)

    @app.on("go")
    def go() -> None:
        kicks[0].set()

    assert leaks_of(app) == ()


def test_the_loop_that_awaits_for_asyncio_is_no_leak() -> None:
    async def nothing() -> None:
        pass

    async def go() -> None:
        await from_asyncio(nothing())

    client = TestClient(app_that(go))
    client.send("go")
    client.wait(lambda: client.result(1) is not None)
    client.close()


def test_an_effect_made_by_hand_ends_with_its_session() -> None:
    count = Signal(0, scope="app")
    runs: list[int] = []

    def go(session: Session) -> None:
        Effect(lambda: runs.append(count.get(session)), session)

    app = app_that(go)
    alice, bob = TestClient(app), TestClient(app)
    alice.send("go")
    alice.close()
    alice_is_gone = 10
    bob.advance(alice_is_gone)
    count.set(bob.session, 1)
    bob.advance(1)
    bob.close()
    assert runs == [0]


# --- Threads ----------------------------------------------------------------------------------


def test_a_thread_that_notices_that_its_user_has_left_is_no_leak() -> None:
    ended: list[bool] = []

    def work() -> None:
        try:
            while True:
                time.sleep(0.002)
                trio.from_thread.check_cancelled()
        finally:
            ended.append(True)

    async def go() -> None:
        await trio.to_thread.run_sync(work)

    assert leaks_of(app_that(go)) == ()
    assert ended == [True]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Give what holds threads up until the test ends, and let nobody wait long for them."""
    monkeypatch.setattr("cacao.testing.stage._REAL_PATIENCE", 0.02)
    gate = threading.Event()
    yield gate
    gate.set()


def test_a_task_that_waits_for_a_thread_tells_the_threads_function_and_line(
    gate: threading.Event,
) -> None:
    def crunch() -> None:
        gate.wait()  # crunching

    async def go() -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(crunch)

    client = TestClient(app_that(go))
    client.send("go")
    with pytest.raises(LeakError) as caught:
        client.close()
    (leak,) = caught.value.leaks
    assert "task 'event go' at" in leak
    assert "waits for thread 'test_a_task_that_waits" in leak
    assert "crunch', which is at" in leak
    assert line_of("# crunching").removesuffix(", in").replace("\\", "") in leak


def test_a_thread_that_outlives_the_app_is_named_with_where_it_was_started(
    gate: threading.Event,
) -> None:
    def linger() -> None:
        gate.wait()

    def go() -> None:
        threading.Thread(target=linger).start()  # lingering

    (leak,) = leaks_of(app_that(go))
    assert leak.startswith("thread ")
    assert "linger', which is at" in leak
    assert line_of("# lingering").removesuffix(", in").replace("\\", "") in leak


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_thread_of_a_builtin_is_named_by_that(gate: threading.Event, is_partial: bool) -> None:
    lock = threading.Lock()
    lock.acquire()
    pause = partial(time.sleep, 0.5) if is_partial else time.sleep

    def go() -> None:
        threading.Thread(target=pause, args=() if is_partial else (0.5,)).start()
        threading.Thread(target=lock.acquire, daemon=True).start()

    try:
        of_lock, of_sleep = leaks_of(app_that(go))
    finally:
        lock.release()
    assert of_lock.startswith("thread 'lock.acquire', started at ")
    assert of_sleep.startswith("thread 'time.sleep', started at ")


def test_a_threads_timer_is_a_thread() -> None:
    timers: list[threading.Timer] = []

    def go() -> None:
        timers.append(threading.Timer(60, print))
        timers[0].start()

    app = app_that(go)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("cacao.testing.stage._REAL_PATIENCE", 0.02)
            (leak,) = leaks_of(app)
    finally:
        timers[0].cancel()
    assert "in go" in leak


def test_a_thread_that_was_abandoned_is_named_while_it_runs(gate: threading.Event) -> None:
    app = App()

    @app.on("go", thread=True)
    def go() -> None:
        has_begun.set()
        gate.wait()

    has_begun = threading.Event()
    client = TestClient(app)
    client.send("go")
    client.wait(has_begun.is_set)
    with pytest.raises(
        LeakError, match=r"go', which is at .*abandoned by task 'event go'"
    ) as caught:
        client.close()
    assert len(caught.value.leaks) == 1


def test_threads_that_end_soon_are_waited_for() -> None:
    app = App()
    ended: list[str] = []

    def linger() -> None:
        time.sleep(0.02)
        ended.append("thread")

    @app.on("go", thread=True)
    def go() -> None:
        threading.Thread(target=linger).start()
        has_begun.set()
        time.sleep(0.02)
        ended.append("handler")

    has_begun = threading.Event()
    client = TestClient(app)
    client.send("go")
    client.wait(has_begun.is_set)
    client.close()
    assert sorted(ended) == ["handler", "thread"]


def test_a_thread_of_the_test_is_none_of_the_apps(gate: threading.Event) -> None:
    def linger() -> None:
        gate.wait()

    app = app_that(lambda: None)
    client = TestClient(app)
    threading.Thread(target=linger).start()
    client.send("go")
    client.close()


# --- Files and sockets ------------------------------------------------------------------------


@pytest.fixture
def kept() -> Iterator[list[Any]]:
    """Give a list that keeps what is put into it, and closes it after the test."""
    things: list[Any] = []
    yield things
    for thing in things:
        thing.close()


def test_an_open_file_is_named_with_where_it_was_opened(tmp_path: Path, kept: list[Any]) -> None:
    path = tmp_path / "report.txt"

    def go() -> None:
        kept.append(path.open("w"))

    (leak,) = leaks_of(app_that(go))
    assert leak.startswith(f"file {str(path)!r}, opened at ")
    assert leak.endswith(f"{inspect.getsourcelines(go)[1] + 1}, in go")


def test_what_is_closed_is_no_leak(tmp_path: Path, kept: list[Any]) -> None:
    path = tmp_path / "report.txt"

    def go() -> None:
        path.write_text("done")
        kept.extend((path.open(), socket.socket()))
        for thing in kept:
            thing.close()

    assert leaks_of(app_that(go)) == ()


def test_a_file_that_trio_opens_in_a_thread_is_named_with_the_line_that_waits(
    tmp_path: Path, kept: list[Any]
) -> None:
    async def go() -> None:
        kept.append((await trio.open_file(tmp_path / "report.txt", "w")).wrapped)  # waiting

    client = TestClient(app_that(go))
    client.send("go")
    client.wait(lambda: bool(kept))
    with pytest.raises(LeakError, match=rf"report\.txt.*{line_of('# waiting')} go"):
        client.close()


def test_files_of_thread_handlers_count(tmp_path: Path, kept: list[Any]) -> None:
    app = App()

    @app.on("go", thread=True)
    def go() -> None:
        kept.append((tmp_path / "report.txt").open("w"))

    client = TestClient(app)
    client.send("go")
    client.wait(lambda: bool(kept))
    with pytest.raises(LeakError, match=r"report\.txt.*in go"):
        client.close()


def test_a_temporary_file_is_a_file(kept: list[Any]) -> None:
    def go() -> None:
        kept.append(tempfile.TemporaryFile())  # noqa: SIM115 -- what is tested

    (leak,) = leaks_of(app_that(go))
    assert leak.endswith("in go")


def test_a_database_is_a_file(tmp_path: Path, kept: list[Any]) -> None:
    def go() -> None:
        kept.append(sqlite3.connect(tmp_path / "some.db"))

    (leak,) = leaks_of(app_that(go))
    assert "some.db" in leak


def test_a_socket_is_named_with_where_it_was_made(kept: list[Any]) -> None:
    def go() -> None:
        kept.append(socket.create_server(("127.0.0.1", 0)))  # listening

    (leak,) = leaks_of(app_that(go))
    assert leak.startswith("socket ('127.0.0.1', ")
    assert line_of("# listening").removesuffix(", in").replace("\\", "") in leak


def test_what_the_app_closes_at_its_own_end_is_no_leak(tmp_path: Path) -> None:
    app = App()

    @app.task
    async def keep_open() -> None:
        with (tmp_path / "log").open("w"), socket.socket():
            await trio.sleep_forever()

    @app.on("go")
    def go() -> None:
        pass

    assert leaks_of(app) == ()


def test_what_the_test_opens_is_none_of_the_apps(tmp_path: Path, kept: list[Any]) -> None:
    path = tmp_path / "report.txt"

    def go() -> None:
        path.write_text("done")

    client = TestClient(app_that(go))
    client.send("go")
    kept.append(path.open())  # gets the very descriptor that the handler had
    kept.append(socket.socket())
    client.close()


def test_what_is_only_not_collected_yet_is_no_leak(tmp_path: Path) -> None:
    class Ring:
        def __init__(self) -> None:
            self.self = self
            self.file = socket.socket()

    def go() -> None:
        Ring()

    gc.collect()
    gc.disable()
    try:
        with pytest.warns(ResourceWarning):
            assert leaks_of(app_that(go)) == ()
    finally:
        gc.enable()


def test_a_log_that_is_opened_late_is_no_leak(tmp_path: Path, kept: list[Any]) -> None:
    handler = logging.FileHandler(tmp_path / "log", delay=True)
    kept.append(handler)

    def go() -> None:
        handler.handle(logging.makeLogRecord({"msg": "hello"}))

    assert leaks_of(app_that(go)) == ()
    assert (tmp_path / "log").exists()


def test_what_a_library_keeps_for_itself_is_no_leak(tmp_path: Path, kept: list[Any]) -> None:
    library: dict[str, Any] = {}
    source = "def fetch(path, cache): cache.append(open(path, 'w'))"
    exec(compile(source, "/lib/site-packages/cached/__init__.py", "exec"), library)  # noqa: S102

    def go() -> None:
        library["fetch"](tmp_path / "cache", kept)

    assert leaks_of(app_that(go)) == ()
    assert kept


def test_devices_are_no_files(kept: list[Any]) -> None:
    def go() -> None:
        kept.append(Path("/dev/urandom").open("rb"))  # noqa: SIM115 -- what is tested

    assert leaks_of(app_that(go)) == ()


# --- Subscriptions ----------------------------------------------------------------------------


def listen(_session: object, _value: object) -> None:
    pass


@pytest.mark.parametrize("name", ["count", None])
def test_a_subscription_that_nobody_ends_is_named(name: str | None) -> None:
    count = Signal(0, name=name)

    def go() -> None:
        count.subscribe(listen)  # listening on

    (leak,) = leaks_of(app_that(go))
    assert leak.startswith(f"subscription of listen to signal {count.label!r}, made at ")
    assert line_of("# listening on").removesuffix(", in").replace("\\", "") in leak


def test_a_subscription_that_ends_is_no_leak() -> None:
    count = Signal(0)

    async def go() -> None:
        end = count.subscribe(listen)
        try:
            await trio.sleep_forever()
        finally:
            end()

    assert leaks_of(app_that(go)) == ()


def test_only_what_is_still_subscribed_is_told() -> None:
    count = Signal(0)

    def go() -> None:
        for _ in range(3):
            end = count.subscribe(listen)
            count.subscribe(print)
            end()

    assert [leak.split()[2] for leak in leaks_of(app_that(go))] == ["print"] * 3


def test_subscriptions_of_the_test_are_none_of_the_apps() -> None:
    count = Signal(0)
    count.subscribe(listen)
    client = TestClient(app_that(lambda: None))
    count.subscribe(listen)
    client.send("go")
    client.close()


def test_a_subscription_goes_with_its_signal() -> None:
    def go() -> None:
        Signal(0).subscribe(listen)

    assert leaks_of(app_that(go)) == ()


# --- Together ---------------------------------------------------------------------------------


def test_leaks_and_errors_are_told_together() -> None:
    async def go() -> None:
        trio.lowlevel.spawn_system_task(straggle, name="straggler")
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while leaving")

    client = TestClient(app_that(go))
    client.send("go")
    with pytest.raises(ExceptionGroup) as caught:
        client.close()
    kinds = [type(error) for error in caught.value.exceptions]
    assert sorted(kind.__name__ for kind in kinds) == ["LeakError", "ValueError"]


def test_an_error_that_is_expected_hides_no_leak() -> None:
    def go() -> None:
        count.subscribe(listen)
        raise ValueError("expected")

    count = Signal(0)
    client = TestClient(app_that(go))
    with client.expect_error(ValueError):
        client.send("go")
    with pytest.raises(LeakError):
        client.close()


# --- The async client -------------------------------------------------------------------------


async def use(app: App) -> None:
    """Send the event `go`, wait for its end, and close."""
    async with AsyncTestClient(app) as client:
        await client.send("go")
        await client.wait(lambda: client.result(1) is not None)


async def test_the_async_client_names_tasks_files_and_subscriptions(
    tmp_path: Path, kept: list[Any]
) -> None:
    count = Signal(0)

    async def go() -> None:
        trio.lowlevel.spawn_system_task(oversleep, name="nap")
        kept.append(await trio.open_file(tmp_path / "report.txt", "w"))
        count.subscribe(listen)

    with pytest.raises(LeakError) as caught:
        await use(app_that(go))
    kept[0] = kept[0].wrapped
    assert [leak.split()[0] for leak in caught.value.leaks] == ["file", "subscription", "task"]
    assert all(leak.rstrip(")").endswith("in go") for leak in caught.value.leaks)


async def test_the_async_client_leaves_alone_what_is_the_tests(
    tmp_path: Path, kept: list[Any], nursery: trio.Nursery
) -> None:
    count = Signal(0)
    async with AsyncTestClient(app_that(lambda: None)) as client:
        nursery.start_soon(oversleep)
        trio.lowlevel.spawn_system_task(oversleep)
        kept.append((tmp_path / "mine").open("w"))
        kept.append(socket.socket())
        count.subscribe(listen)
        await client.send("go")
    nursery.cancel_scope.cancel()


async def test_a_task_in_a_nursery_of_the_tests_is_a_leak(nursery: trio.Nursery) -> None:
    async def go() -> None:
        nursery.start_soon(straggle)

    with pytest.raises(LeakError, match=r"straggle.*started at .*in go"):
        await use(app_that(go))
    nursery.cancel_scope.cancel()
