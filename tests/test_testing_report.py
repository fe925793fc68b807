"""What a failed test tells of its app: in words, and as pytest shows it."""

from __future__ import annotations

import re
import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest
import trio

from cacao import App, Computed, Session, Signal
from cacao.testing import SpinningError, TestClient
from cacao.testing.inspection.difference import differences
from cacao.testing.inspection.report import describe_world
from cacao.testing.inspection.tracebacks import shortened
from cacao.testing.open_worlds import find_world

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True, scope="module")
def _wide() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "120")
        yield


def report(app: App) -> str:
    """Describe an app, without the numbers of this file's lines."""
    world = find_world(app)
    assert world is not None
    return re.sub(r"\S*test_testing_report\.py:\d+", "here", describe_world(world))


def lines_of(text: str, name: str) -> list[str]:
    """Give the lines on one client, the heading included."""
    (part,) = (part for part in text.split("\n\n") if part.startswith(name))
    return part.splitlines()


class Shop:
    """An app in which much goes on."""

    def __init__(self) -> None:
        self.app = app = App()
        self.count = Signal(0, name="count")
        for handler in (self.increment, self.save, self.queue):
            app.on(handler.__name__)(handler)
        app.on("search", concurrency="latest", deadline=30)(self.search)

    async def increment(self, session: Session) -> None:
        self.count.set(session, self.count.get(session) + 1)

    async def search(self, text: str) -> None:
        try:
            await trio.sleep(5)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)

    async def save(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.write)

    async def write(self) -> None:
        await trio.sleep_forever()

    async def queue(self) -> None:
        await trio.sleep(60)


# --- The tasks ---------------------------------------------------------------------------------


def test_time_and_seed_come_first() -> None:
    app = App()
    client = TestClient(app, seed=7)
    client.advance(1.5)
    assert report(app).startswith("1.5 s of virtual time, seed 7\n\napp\n")


def test_a_handler_is_shown_with_its_line_policy_and_deadline() -> None:
    app = Shop().app
    client = TestClient(app).user("alice")
    client.send("search", text="trio")
    client.advance(2)
    assert dedent("""
        └─ alice
           └─ event search {"text":"trio"} (latest, must end in 28 s)
                 here in search (due in 3 s): await trio.sleep(5)
        """) in report(app)


def test_a_handler_that_was_superseded_and_goes_on_is_shown_as_such() -> None:
    app = Shop().app
    client = TestClient(app)
    client.send("search", text="tr")
    client.send("search", text="trio")
    text = report(app)
    assert 'event search {"text":"tr"} (latest, superseded, but still running' in text
    assert "event search (waits for its turn)" in text
    client.advance(1)


def test_what_a_handler_has_started_stands_below_it() -> None:
    app = Shop().app
    client = TestClient(app)
    client.send("save")
    assert dedent("""
        └─ client 1
           └─ event save {} (queue)
              │  here in save: async with trio.open_nursery() as nursery:
              └─ write
                    here in write: await trio.sleep_forever()
        """) in report(app)


def test_events_that_wait_for_their_turn_are_shown() -> None:
    app = Shop().app
    client = TestClient(app)
    for _ in range(3):
        client.send("queue")
    assert report(app).count("event queue (waits for its turn)") == 2


def test_timers_effects_and_tasks_of_the_app_are_shown_without_cacao_s_own() -> None:
    app = App()

    @app.task
    async def watch() -> None:
        await trio.sleep_forever()

    @app.every(60)
    async def tick() -> None:
        pass

    @app.effect
    async def greet() -> None:
        pass

    client = TestClient(app)
    client.advance(10)
    assert dedent("""
        app
        ├─ task 'watch'
        │     here in watch: await trio.sleep_forever()
        └─ client 1
           ├─ effect 'greet' (waits for a change)
           └─ timer 'tick' (every 60 s, due in 50 s)
        """) in report(app)


def test_an_event_in_the_middleware_is_shown() -> None:
    app = Shop().app

    @app.middleware
    async def slow(
        session: Session, event: Any, call_next: Callable[[Any], Awaitable[object]]
    ) -> object:
        await trio.sleep(3)
        return await call_next(event)

    TestClient(app).user("alice").send("increment")
    assert dedent("""
        └─ alice
           └─ event increment {} (queue, not through the middleware yet)
                 here in slow (due in 3 s): await trio.sleep(3)
        """) in report(app)


# --- The clients -------------------------------------------------------------------------------


def test_each_frame_is_shown_with_what_it_changed() -> None:
    app = Shop().app
    client = TestClient(app).user("alice")
    client.advance(2)
    client.send("increment")
    client.send("nothing")
    client.send_text("no JSON")
    assert lines_of(report(app), "alice")[:-1] == [
        "alice",
        "  the last 8 of 10 frames:",
        "  2 s → event #1 increment {}",
        "  2 s ← update count: 0 -> 1",
        "  2 s ← result #1 ok",
        "  2 s → event #2 nothing {}",
        "  2 s ← update (no change)",
        "  2 s ← error #2 unknown_event: no handler for event 'nothing'",
        '  2 s → "no JSON"',
    ]


def test_heartbeats_do_not_crowd_out_what_happened() -> None:
    app = Shop().app
    client = TestClient(app).user("alice")
    client.send("increment")
    client.advance(600)
    told = lines_of(report(app), "alice")
    assert "  0 s → event #1 increment {}" in told
    assert not any("beat" in line for line in told)


def test_what_a_client_shows_and_the_server_has_not_is_told_with_the_reason() -> None:
    app = Shop().app
    alice = TestClient(app).user("alice")
    alice.network.delay(5)
    alice.send("increment")
    alice.advance(5)
    assert lines_of(report(app), "alice")[:2] == [
        "alice (each frame takes 5 s, frames on their way to the client: 2)",
        "  count: shows 0, the server has 1",
    ]
    alice.advance(5)
    assert "shows" not in report(app)


def test_a_dropped_connection_is_shown_at_both_ends() -> None:
    app = Shop().app
    alice = TestClient(app).user("alice")
    alice.network.drop()
    alice.send("increment")
    text = report(app)
    assert "└─ alice (without a connection, ends in 120 s)" in text
    assert lines_of(text, "alice")[0] == "alice (connection dropped, events that wait for it: 1)"
    alice.network.restore()
    alice.network.drop(silently=True)
    assert "alice (connection dropped, the server has not noticed)" in report(app)


def test_no_token_is_shown() -> None:
    app = Shop().app
    client = TestClient(app)
    client.network.drop()
    client.network.restore()
    text = report(app)
    assert "→ hello, to take its session up again\n" in text
    assert "← init (resumed)" in text
    tokens = [message["token"] for message in client.messages if "token" in message]
    assert len(tokens) == 2
    assert not any(token in text for token in tokens)


def test_a_value_that_cannot_be_had_is_told_and_raises_nothing() -> None:
    app = App()
    count = Signal(0, name="count")
    ratio = Computed(lambda session: 1 // (count.get(session) - 1), name="ratio")
    app.bind("set", count)
    client = TestClient(app)
    client.network.stall()
    with client.expect_error(ZeroDivisionError):
        client.send("set", value=1)
    assert 'ratio: shows -1, the server has "ZeroDivisionError(' in report(app)
    client.settle()
    assert ratio.label == "ratio"  # it is still there


def test_a_broken_world_can_be_described() -> None:
    app = App()

    @app.on("spin")
    async def spin() -> None:
        while True:
            await trio.lowlevel.checkpoint()

    client = TestClient(app, max_ticks=100)
    with pytest.raises(SpinningError):
        client.send("spin")
    text = report(app)
    assert text.startswith("0 s of virtual time, seed 0; it goes no further")
    assert "event #1 spin {}" in text


def test_a_description_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    app = App()
    long = Signal("x" * 1000, name="long")

    @app.on("spread")
    async def spread() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(trio.sleep_forever)

    client = TestClient(app)
    client.send("spread")
    for _ in range(14):
        client.user()
    lines = describe_world(client._world).splitlines()
    assert max(map(len, lines)) == 60
    assert f"{long.label}: " in lines[-3]
    assert len(lines) < 200
    assert any(re.fullmatch(r"and \d+ more lines", line) for line in lines)
    assert lines[-1] == "and 5 more clients"


def test_looking_changes_nothing() -> None:
    shop = Shop()
    client = TestClient(shop.app)
    client.send("save")
    before = client.frames
    assert report(shop.app) == report(shop.app)
    client.settle()
    assert client.frames == before


# --- Differences -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": 1, "b": 1}, {"a": 2, "b": 3}, [("a", "1", "2"), ("b", "1", "3")]),
        ({}, {"a": None}, [("a", "nothing", "null")]),
        ({"a": [{"b": 1}] * 9}, {"a": [{"b": 1}] * 8 + [{"b": 2}]}, [("a[8].b", "1", "2")]),
        ({"a": [1]}, {"a": [1, 2]}, [("a[1]", "nothing", "2")]),
        ({"a": {"b": 1}}, {"a": {}}, [("a.b", "1", "nothing")]),
        ({"a": {"b": 1}}, {"a": [1]}, [("a", '{"b":1}', "[1]")]),
        ({"a": "x" * 99}, {"a": "x" * 99 + "y"}, [("a", f'"…{"x" * 10}"', f'"…{"x" * 10}y"')]),
        ({"a": 0}, {"a": "é" * 99}, [("a", "0", f'"{"é" * 38}…')]),
    ],
)
def test_of_two_states_the_first_place_that_differs_in_each_value_is_told(
    before: dict[str, Any], after: dict[str, Any], told: list[tuple[str, str, str]]
) -> None:
    assert list(differences(before, after)) == told


# --- As pytest shows it ------------------------------------------------------------------------

APP = """
import trio

from cacao import App, Signal

app = App()
count = Signal(0, name="count")


@app.on("divide")
async def divide(session, event):
    count.set(session, ratio(1, event["by"]))


def ratio(one, other):
    return one // other


@app.on("book")
async def book():
    await trio.sleep(600)
"""

TESTS = """
import pytest
import trio
from app import app
from cacao import App
from cacao.testing import AsyncTestClient, TestClient


def test_wrong():
    client = TestClient(app)
    client.send("divide", by=1)
    assert client.state["count"] == 2


def test_raises():
    client = TestClient(app)
    client.send("divide", by=0)


def test_raises_twice():
    alice = TestClient(app)
    bob = alice.user("bob")
    with alice.together():
        alice.send("divide", by=0)
        bob.send("divide", by=0)


def test_in_a_block():
    with TestClient(app) as client, TestClient(app):
        client.send("book")
        assert client.state["count"] == 2


def test_closed_before():
    with pytest.raises(AssertionError), TestClient(app):
        assert False
    assert 0


def test_refused():
    client = TestClient(app)
    client.advance(-1)


def test_inside():
    client = TestClient(app)
    client.result("one")


def test_two_apps():
    one, other = TestClient(app), TestClient(App())
    assert one == other


def test_without_a_client():
    assert 0


@pytest.fixture
def client():
    client = TestClient(app)
    client.send("divide", by=0)


def test_of_fixture(client):
    pass


def test_leaks():
    leaking = App()

    @leaking.on("leak")
    async def leak():
        trio.lowlevel.spawn_system_task(trio.sleep_forever, name="straggler")

    TestClient(leaking).send("leak")


async def test_async_wrong(mock_clock):
    async with AsyncTestClient(app) as client:
        await client.send("book")
        await client.advance(10)
        assert client.state["count"] == 2


async def test_async_raises(mock_clock):
    async with AsyncTestClient(app) as client:
        await client.send("divide", by=0)


async def test_async_hangs(autojump_clock):
    with trio.fail_after(60):
        async with AsyncTestClient(app) as client:
            for _ in range(9):
                await (await client.user()).send("book")
            await trio.sleep_forever()


async def fail():
    await trio.sleep(5)
    raise ValueError


async def test_async_beside(autojump_clock):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        async with AsyncTestClient(app) as client:
            await client.send("book")
            await trio.sleep_forever()


def test_passes():
    client = TestClient(app)
    with client.expect_error(ZeroDivisionError):
        client.send("divide", by=0)


@pytest.mark.xfail(raises=ZeroDivisionError)
def test_xfails():
    client = TestClient(app)
    client.send("divide", by=0)


def test_skips():
    TestClient(app)
    pytest.skip("for a reason")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the app and its tests."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "app.py").write_text(APP)
    (folder / "test_app.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\ntrio_mode = true\nfilterwarnings = error\n")
    return folder


def run(folder: Path, *arguments: str) -> str:
    """Run the tests; gives what pytest says."""
    # Without the log, which repeats the tracebacks.
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:logging"]
    done = subprocess.run(
        [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout


@pytest.fixture(scope="module")
def output(folder: Path) -> str:
    """Run all tests once."""
    return run(folder)


@pytest.fixture(scope="module")
def said(output: str) -> dict[str, tuple[str, str]]:
    """Give what pytest says of each test, by its name: the traceback, and the sections of Cacao."""
    output, _, _ = output.partition("\n====== short")
    _, *parts = re.split(r"\n_{3,} (?:ERROR at \w+ of )?(\w+) _{3,}\n", output)
    said = {}
    for name, text in zip(parts[::2], parts[1::2], strict=True):
        traceback, *_ = re.split(r"\n-+ (?:Captured|Cacao)", text)
        said[name] = traceback, text[text.find("- Cacao") :] if "- Cacao" in text else ""
    return said


def test_outcomes_are_as_without_it(output: str) -> None:
    assert "13 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors" in output


def test_a_failure_shows_what_the_app_looked_like(said: dict[str, tuple[str, str]]) -> None:
    traceback, section = said["test_wrong"]
    assert "E       assert 1 == 2" in traceback
    assert "0 s of virtual time, seed 0\n\napp\n└─ client 1\n" in section
    assert "0 s ← update count: 0 -> 1\n" in section


@pytest.mark.parametrize("test", ["test_raises", "test_of_fixture", "test_async_raises"])
def test_an_error_in_a_handler_shows_the_author_s_lines_and_no_other(
    said: dict[str, tuple[str, str]], test: str
) -> None:
    traceback, section = said[test]
    assert re.findall(r"^(\w+\.py):\d+:", traceback, re.MULTILINE) == [
        "test_app.py",
        "app.py",
        "app.py",
    ]
    assert "/cacao/" not in traceback
    assert "/trio/" not in traceback
    assert "result #1 handler_error" in section


def test_each_of_several_errors_shows_the_author_s_lines_and_no_other(
    said: dict[str, tuple[str, str]],
) -> None:
    traceback = said["test_raises_twice"][0]
    assert re.findall(r"line \d+, in (\w+)", traceback) == [
        "test_raises_twice",
        *["divide", "ratio"] * 2,
    ]


def test_an_app_whose_block_the_error_has_left_is_shown_as_it_was(
    said: dict[str, tuple[str, str]],
) -> None:
    _, section = said["test_in_a_block"]
    assert section.count("- Cacao") == 1
    assert re.search(r"event book {} \(queue\)\n.* app\.py:", section)
    assert said["test_closed_before"][1] == ""


def test_an_async_test_is_shown_like_any_other(said: dict[str, tuple[str, str]]) -> None:
    traceback, section = said["test_async_wrong"]
    assert ">           assert client.state" in traceback
    assert "Exception Group" not in traceback
    assert "10 s after the start\n" in section
    assert " (due in 590 s): await trio.sleep(600)" in section


def test_a_timeout_shows_where_the_test_and_the_app_were(said: dict[str, tuple[str, str]]) -> None:
    traceback, section = said["test_async_hangs"]
    assert ">               await trio.sleep_forever()" in traceback
    assert "E       trio.TooSlowError" in traceback
    assert len(traceback.splitlines()) < 30
    assert section.count(" (due in 540 s): await trio.sleep(600)") == 9


def test_what_cancels_a_test_leaves_a_picture_of_its_app(said: dict[str, tuple[str, str]]) -> None:
    assert " (due in 595 s): await trio.sleep(600)" in said["test_async_beside"][1]


def test_what_the_harness_refuses_ends_at_the_test_s_line(said: dict[str, tuple[str, str]]) -> None:
    traceback = said["test_refused"][0]
    assert ">       client.advance(-1)\nE       ValueError" in traceback
    assert "/cacao/" not in traceback


def test_what_goes_wrong_inside_cacao_is_shown_in_full(said: dict[str, tuple[str, str]]) -> None:
    assert re.search(r"cacao/testing/\w+\.py:\d+: TypeError", said["test_inside"][0])


def test_apps_are_counted(said: dict[str, tuple[str, str]]) -> None:
    assert re.findall(r"- (Cacao.*?) -", said["test_two_apps"][1]) == [
        "Cacao, app 1 of 2",
        "Cacao, app 2 of 2",
    ]


def test_a_test_without_a_client_is_as_ever(said: dict[str, tuple[str, str]]) -> None:
    assert said["test_without_a_client"][1] == ""


def test_a_leak_is_told_in_few_lines(said: dict[str, tuple[str, str]]) -> None:
    traceback, _ = said["test_leaks"]
    assert re.search(r"^E .*LeakError", traceback, re.MULTILINE)
    assert "straggler" in traceback
    assert len(traceback.splitlines()) < 10


def test_full_trace_hides_nothing(folder: Path) -> None:
    output = run(folder, "-k", "test_raises", "--full-trace")
    assert "/cacao/dispatch.py" in output
    assert " Cacao ---" in output


def test_on_a_terminal_with_colours_clients_and_differences_stand_out(folder: Path) -> None:
    (folder / "test_colour.py").write_text(
        dedent("""
        from app import app
        from cacao.testing import TestClient

        def test_differs():
            client = TestClient(app)
            client.network.stall()
            client.send("divide", by=1)
            assert 0
        """)
    )
    output = run(folder, "test_colour.py", "--color=yes")
    assert "\x1b[1mclient 1 (stalled: the client takes nothing)\x1b[0m" in output
    assert "\x1b[31m  count: shows 0, the server has 1\x1b[0m" in output


def test_an_error_is_as_it_was_after_its_report() -> None:
    client = TestClient(Shop().app)
    with pytest.raises(ValueError, match="0 or more seconds") as caught:
        client.advance(-1)
    before = caught.value.__traceback__
    with shortened(caught.value):
        assert caught.value.__traceback__ is not None
        assert caught.value.__traceback__.tb_next is None
    assert caught.value.__traceback__ is before
