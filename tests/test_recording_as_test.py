from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from recordings import recording

import cacao.recording.as_test as module
from cacao.peer import Peer
from cacao.recording.as_test import write_test
from cacao.recording.tape import Entry, Header, TapeError, read_tape
from cacao.testing.open_worlds import forget_world, open_worlds

if TYPE_CHECKING:
    from collections.abc import Callable

    from recordings import Recording

    from cacao import App

SOURCE = """
import itertools
import os
import random
import time

import trio
from pydantic import SecretStr

from cacao import App, ListSignal, Signal, Session, clock

app = App()
count = Signal(0, name="count")
total = Signal(0, name="total", scope="app")
lines = ListSignal(name="lines")
seen = Signal({}, name="seen")
visits = itertools.count(1)


class Broken(Exception):
    pass


@app.on("add")
def add(session: Session, by: int = 1) -> None:
    count.update(session, lambda n: n + by)
    total.value += by


@app.on("later")
async def later(session: Session, seconds: float) -> None:
    await trio.sleep(seconds)
    count.set(session, -1)


@app.on("fail")
def fail(session: Session, how: str) -> None:
    raise {"zero": ZeroDivisionError, "broken": Broken, "local": Local}[how]("no")


@app.on("fail later")
async def fail_later(session: Session) -> None:
    session.start_soon(explode)
    session.start_soon(explode)


async def explode() -> None:
    await trio.sleep(0.25)
    raise Broken


@app.on("say")
def say(session: Session, event: dict) -> None:
    lines.append(session, event["class"])


@app.on("look")
def look(session: Session, size: int) -> None:
    seen.set(session, {"id": session.id})
    seen.set(session, {"numbers": list(range(size)), "nested": {"a": ["x" * 60, "y" * 60]}})


@app.on("whoami")
def whoami(session: Session) -> None:
    seen.set(session, {"id": session.id})


@app.on("roll")
def roll(session: Session) -> None:
    count.set(session, random.randrange(10**9))


@app.on("work")
async def work(session: Session, seconds: float) -> None:
    await trio.to_thread.run_sync(time.sleep, seconds)
    count.set(session, 7)


@app.on("measure")
async def measure(session: Session) -> None:
    began = time.monotonic()
    await trio.to_thread.run_sync(time.sleep, 0.001)
    seen.set(session, {"took": time.monotonic() - began})


@app.on("visit")
def visit(session: Session) -> None:
    count.set(session, next(visits))


@app.on("end")
def end(session: Session, code: int) -> None:
    os._exit(code)


@app.on("login")
def login(session: Session, password: SecretStr) -> None:
    count.set(session, len(password.get_secret_value()))


@app.on("date")
def date(session: Session) -> None:
    seen.set(session, {"year": clock.now().year})


def _local() -> type:
    class Local(Exception):
        pass

    return Local


Local = _local()
"""

HEADER = Header(
    app="recorded_app.py:app", seed=0, started="2026-11-24T12:00:00+00:00", version="0.0"
)


@pytest.fixture
def in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try and prove what is written here, and not by pytest: a process takes its time."""

    def try_here(path: Path) -> str | None:
        line = module._failing_line(path)
        for world in open_worlds():
            forget_world(world._app, world)
        return line

    def failure_of(path: Path) -> str:
        line = try_here(path)
        return "" if line is None else f"failed at: {line}"

    monkeypatch.setattr(module, "_try", try_here)
    monkeypatch.setattr(module, "_failure_of", failure_of)


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    (tmp_path / "recorded_app.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "recorded_app", raising=False)
    found: App = __import__("recorded_app").app
    return found


@pytest.fixture
def written(app: App, tmp_path: Path) -> Callable[..., str]:
    """Record what a function does under a virtual clock, and give the test that this becomes."""

    def write(play: Any, *, is_real: bool = False, **told: str) -> str:
        (tmp_path / "file").unlink(missing_ok=True)

        async def record() -> None:
            async with recording(app, tmp_path / "file", HEADER) as server:
                await play(server)

        clock = None if is_real else trio.testing.MockClock(autojump_threshold=0)
        trio.run(record, clock=clock)
        header, entries = read_tape(tmp_path / "file")
        secrets = {name.replace("__", "."): value for name, value in told.items()}
        path, _ = write_test("recorded_app.py:app", header, entries, tmp_path, secrets)
        assert path == tmp_path / "test_recorded.py"
        text = path.read_text()
        compile(text, str(path), "exec")
        return text.partition("def test_recorded() -> None:\n")[2]

    return write


JOIN = "    alice = TestClient(app, now=datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC))\n"


def test_a_recording_becomes_a_readable_test(written: Any, tmp_path: Path, in_place: None) -> None:
    async def play(server: Recording) -> None:
        alice = await server.open_v1()
        await trio.sleep(1.25)
        bob = await server.open_v1()
        await alice.event("add", {"by": 2}, id=1)
        await trio.sleep(1)
        await bob.event("add", id=1)
        await bob.event("add", {"by": "x"}, id=2)
        await bob.event("add", {"by": 0}, id=3)
        await trio.sleep(1)
        await bob.send({"type": "beat"})
        await bob.leave()
        await alice.event("ad", id=2)

    text = written(play)
    assert text == JOIN + (
        "    bob = TestClient(app)\n"
        '    alice.send("add", by=2)\n'
        '    assert alice.state["count"] == 2\n'
        '    assert alice.state["total"] == 2\n'
        '    assert bob.state["total"] == 2\n'
        '    bob.send("add")\n'
        '    assert bob.state["count"] == 1\n'
        '    assert bob.state["total"] == 3\n'
        '    assert alice.state["total"] == 3\n'
        '    assert bob.send("add", by="x").code == "invalid_data"\n'
        '    assert bob.send("add", by=0).ok\n'
        "    bob.close()\n"
        '    assert alice.send("ad").code == "unknown_event"\n'
    )
    top = (tmp_path / "test_recorded.py").read_text()
    assert top.startswith('"""What happened on 2026-11-24 at 12:00:00, recorded; now a test."""\n')
    command = [
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--check",
        "--line-length=100",
        "test_recorded.py",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_time_passes_as_exactly_as_the_test_needs(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        page = await server.open_v1()
        await trio.sleep(0.71234)
        await page.event("later", {"seconds": 2}, id=1)
        await trio.sleep(5)

    assert written(play) == JOIN + (
        "    alice.advance(0.7)\n"
        '    alice.send("later", seconds=2)\n'
        "    alice.advance(2.1)\n"
        '    assert alice.state["count"] == -1\n'
    )


def test_a_lost_connection_is_dropped_and_restored(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        first = await server.open_v1()
        await first.event("add", id=1)
        first.connection.hang_up(1006)
        await trio.sleep(2)
        second = await server.come_back(first)
        await second.event("add", id=1)  # it was not sure that it had arrived
        await second.event("add", id=2)
        third = await server.come_back(second)  # the server has not noticed
        await third.event("add", {"by": 3}, id=3)
        await third.leave()
        last = await server.open_v1()
        await last.event("add", id=1)

    text = written(play)
    assert text.count("alice.network.drop()") == 3
    assert text.count("alice.network.restore()\n    assert alice.resumed\n") == 2
    assert 'alice.send("add", by=3)\n    assert alice.state["count"] == 5\n' in text
    assert "bob = TestClient(app)" in text
    assert text.endswith('    assert bob.state["count"] == 1\n    assert bob.state["total"] == 6\n')


def test_errors_are_expected_where_they_come(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        page = await server.open_v1()
        for number, how in enumerate(("zero", "broken", "local"), 1):
            await page.event("fail", {"how": how}, id=number)
        await page.event("fail later", id=4)
        await trio.sleep(1)

    text = written(play)
    assert (
        "    with pytest.raises(ZeroDivisionError):\n"
        '        alice.send("fail", how="zero")\n'
        '    assert alice.result(1).code == "handler_error"\n'
        "    with pytest.raises(Broken):\n"
    ) in text
    assert "    with pytest.raises(Exception):\n" in text
    assert "    with pytest.raises(ExceptionGroup):\n        alice.advance(0." in text
    assert "    with pytest.raises(Exception):\n" in text


def test_an_error_that_is_no_events_is_asserted_whatever_follows(
    written: Any, in_place: None
) -> None:
    async def play(server: Recording) -> None:
        page = await server.open_v1()
        await page.event("fail later", id=1)
        await page.event("later", {"seconds": 0.5}, id=2)
        await trio.sleep(1)

    text = written(play)
    assert (
        "    with pytest.raises(ExceptionGroup):\n"
        "        alice.advance(0.6)\n"
        '    assert [m["code"] for m in alice.messages if m["type"] == "error"][-1] == '
        '"handler_error"\n'
    ) in text


def test_odd_messages_are_sent_as_they_are(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        page = await server.open_v1()
        await page.send_text("no JSON", '{"type":"event","name":"add","data":3}', "[]")
        plain = await server.open()
        await plain.event("add", {"by": 4})
        await plain.event("add", {"by": 1}, id=1)
        plain.connection.hang_up()
        await page.event("add", id=1)

    text = written(play)
    assert (
        '    alice.send_text("no JSON")\n    assert [m["code"] for m in alice.messages if ' in text
    )
    assert "    bob = TestClient(app, subprotocol=None)\n" in text
    assert '    bob.send("add", by=4)\n    assert bob.state["count"] == 4\n' in text


def test_long_values_are_laid_out_or_counted(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        page = await server.open_v1()
        await page.event("say", {"class": "one\n\u2028"}, id=1)
        await page.event("say", {"class": "x" * 90, "a key": None, "b": [True, 1.5]}, id=2)
        await page.event("look", {"size": 3}, id=3)
        await page.event("look", {"size": 900}, id=4)
        await page.event("whoami", id=5)
        await page.event("date", id=6)

    text = written(play)
    assert '    alice.send("say", {"class": "one\\n\\u2028"})\n' in text
    assert '    alice.send(\n        "say",\n        {' in text
    assert '    assert alice.state["seen"] == {\n        "numbers": [0, 1, 2],\n' in text
    assert '        "nested": {\n            "a": [\n' in text or '"nested": {"a": [' in text
    assert '    assert len(alice.state["seen"]) == 2\n' in text
    assert '    assert alice.state["seen"] == {"year": 2026}\n' in text
    assert text.count("whoami") == 1
    assert '"id"' not in text


def test_no_try_sees_what_an_earlier_one_has_left_in_the_process(written: Any) -> None:
    async def play(server: Recording) -> None:
        page = await server.open_v1()
        await page.event("visit", id=1)
        await page.event("later", {"seconds": 2}, id=2)
        await trio.sleep(5)

    assert written(play) == JOIN + (
        '    alice.send("visit")\n'
        '    assert alice.state["count"] == 1\n'
        '    alice.send("later", seconds=2)\n'
        "    alice.advance(2.1)\n"
        '    assert alice.state["count"] == -1\n'
    )


def test_chance_is_repeated_where_the_app_takes_it(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        await (await server.open_v1()).event("roll", id=1)

    assert written(play).startswith("    random.seed(0)\n")


def test_threads_are_waited_for(written: Any, tmp_path: Path, in_place: None) -> None:
    async def play(server: Recording) -> None:
        page, plain = await server.open_v1(), await server.open()
        await page.event("work", {"seconds": 0.01}, id=1)
        await trio.sleep(0.1)
        await plain.event("work", {"seconds": 0.01})
        await trio.sleep(0.1)
        await page.event("measure", id=2)
        await trio.sleep(0.1)

    text = written(play, is_real=True)
    assert "    alice.wait(lambda: alice.result(1))\n" in text
    assert '    bob.wait(lambda: bob.state["count"] == 7)\n' in text
    assert 'state["seen"]' not in text
    assert (
        "Not asserted, as it depends on real time: seen."
        in (tmp_path / "test_recorded.py").read_text()
    )


def test_a_secret_is_put_in_if_it_is_told(written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        await (await server.open_v1()).event("login", {"password": "swordfish"}, id=1)

    assert '    alice.send("login", password="swordfish")\n' in written(
        play,
        login__password="swordfish",  # noqa: S106
    )
    with pytest.raises(TapeError, match="is written but does not pass"):
        written(play)


def test_what_does_not_pass_is_told_in_the_words_of_pytest(
    written: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play(server: Recording) -> None:
        await (await server.open_v1()).event("end", {"code": 3}, id=1)

    monkeypatch.setattr("os._exit", lambda code: None)
    with pytest.raises(
        TapeError, match=r"does not pass: .*pytest says:\nnothing, and exits with 3"
    ):
        written(play)


def test_users_are_let_in_by_their_names(app: App, written: Any, in_place: None) -> None:
    async def play(server: Recording) -> None:
        for name in ("ada", "bob"):
            await (await server.open_v1(Peer(user=name))).event("whoami", id=1)

    app.__init__(registry=app.registry, authenticate=lambda peer: None)  # type: ignore[misc]
    text = written(play)
    assert '    alice = TestClient(app, user="ada", now=' in text
    assert '    bob = TestClient(app, user="bob")\n' in text


def test_masked_users_and_silence_cannot_be_told(written: Any) -> None:
    async def nobody(server: Recording) -> None:
        pass

    async def somebody(server: Recording) -> None:
        key = Peer.of({"authorization": "abcdefgh"}, {})
        await server.open_v1(Peer(raw_headers=key.raw_headers, user="abcdefgh"))

    with pytest.raises(TapeError, match="nobody came while this was recorded"):
        written(nobody)
    with pytest.raises(TapeError, match="is what lets them in, and masked in the recording"):
        written(somebody)


def test_pytest_is_needed(app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TapeError, match=r"pip install 'cacao\[test\]'"):
        write_test("recorded_app.py:app", HEADER, [], tmp_path)


def test_a_module_and_a_seed_are_named(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_failure_of", lambda path: "")
    entries = [
        Entry(0, "outside", [3]),
        Entry(0, "in", '{"type":"beat"}', 9),
        Entry(0, "in", '{"type":"bye"}', 9),
        Entry(0, "out", '{"type":"beat"}', 9),
        Entry(0, "open", {"subprotocol": None, "query": "", "user": None}, 1),
        Entry(0, "out", '{"type":"init","state":{},"sessionId":"<session-1>"}', 1),
        Entry(0, "out", '{"type":"beat"}', 1),
        Entry(1, "outside", [3]),
        Entry(1, "error", {"type": "builtins.ValueError", "where": "it", "session": ""}),
        Entry(2, "closed", [1000, ""], 1),
        Entry(3, "close", [1000, ""], 7),
    ]
    path, _ = write_test("package.app:app", replace(HEADER, seed=7), entries, Path())
    assert path == Path("test_recorded.py")
    text = path.read_text()
    assert "from package.app import app\n" in text
    assert ", tzinfo=UTC), seed=7)\n" in text
