# ruff: noqa: ASYNC240, S311 -- a small file on this disk; and chance that is no secret

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
from pydantic import BaseModel, Field, SecretBytes, SecretStr
from recordings import HEADER, recording, replayed

from cacao import App, Computed, Limits, ListSignal, Registry, Session, Signal, clock
from cacao.errors import HostingError
from cacao.peer import Peer
from cacao.recording.door import Door
from cacao.recording.recorder import record
from cacao.recording.replay import play
from cacao.recording.sealed import SealedRun
from cacao.recording.tape import Entry, Tape, TapeError, read_tape

if TYPE_CHECKING:
    from pathlib import Path

    from live import Page


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.jsonl"


def lively_app() -> App:
    """An app in which much goes on by itself: timers, races, chance, several users."""
    with Registry() as registry:
        app = App(registry=registry, limits=Limits(heartbeat=2.0, resume_window=3.0))
        count = Signal(0, name="count")
        total = Signal(0, name="total", scope="app")
        who = Signal[dict[str, str]]({}, name="who", scope="app")
        log = ListSignal[str](name="log")
        clocks = Signal("", name="clock")
        _doubled = Computed(lambda s: count.get(s) * 2, name="doubled")

    @app.on("add", concurrency="parallel")
    async def add(session: Session, by: int, after: float = 0.0) -> None:
        await trio.sleep(after)
        count.update(session, lambda n: n + by)
        total.value += by
        log.append(session, f"{by} {random.random():.3f}")

    @app.on("latest", concurrency="latest")
    async def latest(session: Session, text: str) -> None:
        await trio.sleep(0.3)
        log.append(session, text)

    @app.on("fail")
    async def fail(session: Session) -> None:
        raise ZeroDivisionError(session.id)

    @app.every(0.25)
    def tick(session: Session) -> None:
        clocks.set(session, clock.now(tz=HEADER.start.tzinfo).isoformat())

    @app.every(0.4, "app")
    def grow() -> None:
        total.value += 1

    @app.on_session_start
    def come(session: Session) -> None:
        who.value = {**who.value, session.id: "here"}

    @app.on_session_end
    def go(session: Session) -> None:
        who.value = {key: value for key, value in who.value.items() if key != session.id}

    return app


async def play_about(page: Page, chance: random.Random) -> None:
    """Send whatever comes to mind, at any time."""
    for number in range(1, 12):
        await trio.sleep(chance.choice([0, 0.001, 0.01, chance.random() / 2]))
        match chance.randrange(6):
            case 0 | 1:
                data: dict[str, Any] = {"by": chance.randrange(5), "after": chance.random() / 2}
                await page.event("add", data, id=number)
            case 2:
                await page.event("latest", {"text": str(number)}, id=number)
            case 3:
                await page.event("fail", id=number)
            case 4:
                await page.event("add", {"by": "much"}, id=number)
            case _:
                await page.send_text('{"type": "event", "na')


@pytest.mark.parametrize("seed", range(10))
async def test_a_replay_gives_the_same_frames(
    seed: int, path: Path, autojump_clock: object
) -> None:
    chance = random.Random(seed)
    async with recording(lively_app(), path) as server:
        pages = [await server.open_v1(), await server.open_v1(patches=True), await server.open()]
        async with trio.open_nursery() as nursery:
            for page in pages:
                nursery.start_soon(play_about, page, random.Random(chance.random()))
        pages[0].connection.hang_up(1006)
        await trio.sleep(chance.random())
        back = await server.come_back(pages[0])
        await back.event("add", {"by": 1}, id=100)
        await pages[1].leave()
        stranger = await server.open_v1(resume="x" * 32)
        await trio.sleep(chance.random() * 5)
        assert stranger.messages[0]["outcome"] == "fresh"
    played = replayed(lively_app(), path)
    assert played.difference is None
    assert played.is_whole
    assert (played.events >= 20, played.frames >= 60) == (True, True)


async def test_time_begins_with_the_first_client(path: Path, autojump_clock: object) -> None:
    async with recording(lively_app(), path) as server:
        await trio.sleep(1000)
        page = await server.open_v1()
        await trio.sleep(0.9)
        shown = [message["changes"].get("clock") for message in page.of_type("update")]
        assert "2026-11-24T12:00:00.750000+00:00" in shown
    assert replayed(lively_app(), path).difference is None


# --- Threads -------------------------------------------------------------------------------------


def app_with_threads(factor: float = 1) -> App:
    with Registry() as registry:
        app = App(registry=registry)
        found = Signal("", name="found")

    @app.on("find", concurrency="parallel")
    async def find(session: Session, text: str, seconds: float) -> None:
        await trio.to_thread.run_sync(time.sleep, seconds * factor)
        found.set(session, found.get(session) + text)

    @app.on("call", thread=True)
    def call(session: Any) -> None:
        session.call(lambda: found.set(session._session, "called"))

    return app


async def test_work_in_threads_comes_back_in_the_order_in_which_it_did(path: Path) -> None:
    async with recording(app_with_threads(), path) as server:
        page, other = await server.open_v1(), await server.open_v1()
        await page.event("find", {"text": "slow", "seconds": 0.06}, id=1)
        await trio.sleep(0.05)
        await other.event("find", {"text": "quick", "seconds": 0.005}, id=1)
        await page.event("find", {"text": "last", "seconds": 0.05}, id=2)
        await trio.sleep(0.2)
        await other.event("call", id=2)
        await trio.sleep(0.05)
    assert page.messages[-2]["changes"]["found"] == "slowlast"
    assert other.messages[-2]["changes"]["found"] == "called"
    app = app_with_threads()
    assert replayed(app, path).difference is None
    lines = path.read_text().splitlines()
    outside = [line for line in lines if '"outside"' in line]
    assert len(outside) >= 3
    # Whichever is there first: the file decides.
    at = [lines.index(line) for line in outside]
    assert at == sorted(at)


async def test_work_that_takes_longer_than_it_did_is_waited_for(path: Path) -> None:
    async with recording(app_with_threads(), path) as server:
        page = await server.open_v1()
        await page.event("find", {"text": "a", "seconds": 0.01}, id=1)
        await trio.sleep(0.05)
    assert replayed(app_with_threads(factor=10), path).difference is None


async def test_work_that_never_comes_back_is_a_difference(path: Path) -> None:
    async with recording(app_with_threads(), path) as server:
        page = await server.open_v1()
        await page.event("find", {"text": "a", "seconds": 0.01}, id=1)
        await trio.sleep(0.05)
    with Registry() as registry:
        app = App(registry=registry)
        _found = Signal("", name="found")
        app.on("find", concurrency="parallel")(trio.sleep_forever)
    difference = replayed(app, path).difference
    assert difference is not None
    assert "outside" in difference.describe()


def test_the_door_takes_bare_callbacks_and_what_they_raise_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    knocks: list[int] = []
    done: list[str] = []
    door = Door(lambda: knocks.append(1))
    door.run_sync_soon(done.append, "one")
    door.run_sync_soon(int, "no number")
    assert (door.waiting, len(knocks), done) == ([0, 0], 2, [])
    assert door.has([0, 0])
    assert not door.has([0, 0, 0])
    door.let_in([0, 0])
    assert (door.waiting, done) == ([], ["one"])
    assert "what a thread asked of the trio run has failed" in caplog.text
    door.close()
    with pytest.raises(trio.RunFinishedError):
        door.run_sync_soon(done.append, "late")


def test_a_door_is_for_a_trio_run() -> None:
    with pytest.raises(HostingError, match="keeps its token where"):
        Door(lambda: None).install()


async def test_a_thread_that_is_at_work_as_the_server_ends_is_waited_for(path: Path) -> None:
    async with recording(app_with_threads(), path) as server:
        page = await server.open_v1()
        await page.event("find", {"text": "a", "seconds": 0.1}, id=1)
    assert page.of_type("result") == []
    assert read_tape(path)[1][-1].kind == "end"


def test_an_unknown_trio_is_told_by_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trio.lowlevel, "current_trio_token", lambda: None)
    with pytest.raises(HostingError, match=r"keeps its token where cacao\.recording"):
        SealedRun(App(registry=Registry()), 0, HEADER.start, lambda *_: None)


# --- Names ---------------------------------------------------------------------------------------


async def test_an_error_that_is_told_in_a_value_has_the_name_that_it_has_in_messages(
    path: Path, autojump_clock: object
) -> None:
    def app_with_resource() -> App:
        with Registry() as registry:
            app = App(registry=registry)
            text = Signal("", name="text")
        app.bind("text:input", text)

        @app.resource
        async def found(session: Session) -> str:
            if text.get(session) == "boom":
                raise ValueError("boom")
            return "found"

        return app

    async with recording(app_with_resource(), path) as server:
        page = await server.open_v1()
        await page.event("text:input", {"value": "boom"}, id=1)
        await trio.sleep(1)
    error = page.messages[-2]["changes"]["found"]["error"]
    assert error["errorId"] == page.messages[-1]["errorId"]
    assert error["errorId"] not in path.read_text()
    assert path.read_text().count('"errorId":"<error-1>"') == 2
    assert replayed(app_with_resource(), path).difference is None


# --- Differences ---------------------------------------------------------------------------------


def counter(step: int = 1, letter: str = "x") -> App:
    with Registry() as registry:
        app = App(registry=registry)
        count = Signal(0, name="count")
        long = Signal(letter * 3000, name="long")

    @app.on("increment")
    def increment(session: Session, event: dict[str, Any]) -> None:
        count.update(session, lambda n: n + step)

    @app.on("clear")
    def clear(session: Session) -> None:
        long.set(session, "")

    return app


@pytest.fixture
def counted(path: Path) -> Path:
    async def count() -> None:
        async with recording(counter(), path) as server:
            page = await server.open_v1()
            await page.event("increment", id=1)
            await trio.sleep(1)
            await page.event("increment", id=2)

    trio.run(count, clock=trio.testing.MockClock(autojump_threshold=0))
    return path


def test_the_first_frame_that_differs_is_shown(counted: Path) -> None:
    played = replayed(counter(step=2), counted)
    assert played.difference is not None
    assert (played.events, played.frames) == (1, 1)
    told = played.difference.describe().splitlines()
    assert told[0].startswith("at ")
    assert told[0].endswith(
        'to client 1, after {"at":0.0,"client":1,"in":{"type":"event","name":"increment","id":1}}:'
    )
    assert '- "changes":{"count":1},' in told
    assert '+ "changes":{"count":2},' in told


def test_a_frame_too_many_and_one_too_few_are_shown(counted: Path) -> None:
    lines = counted.read_text().splitlines(keepends=True)
    last = next(at for at in reversed(range(len(lines))) if '"out"' in lines[at])
    counted.write_text("".join([*lines[:last], *lines[last + 1 :]]))
    wordy = replayed(counter(), counted).difference
    assert wordy is not None
    assert wordy.describe().splitlines()[1:] == ["- nothing", "+ " + lines[last].strip()]
    counted.write_text("".join([*lines[: last + 1], *lines[last:]]))
    silent = replayed(counter(), counted).difference
    assert silent is not None
    assert silent.describe().splitlines()[1:] == ["- " + lines[last].strip(), "+ nothing"]


async def test_a_long_difference_is_cut(path: Path, autojump_clock: object) -> None:
    async with recording(counter(), path) as server:
        await server.open()
    difference = replayed(counter(letter="y"), path).difference
    assert difference is not None
    assert max(map(len, difference.describe().splitlines())) == 2000


# --- What must not get into a file ---------------------------------------------------------------


class Login(BaseModel):
    name: str
    password: SecretStr = Field(alias="pw", validation_alias="pw")
    model_config = {"populate_by_name": True}


@dataclass
class Keys:
    keys: list[SecretStr]
    spare: SecretBytes | None = None
    named: dict[str, SecretStr] | None = None
    pair: tuple[int, SecretStr] | None = None


class Tree(BaseModel):
    code: SecretStr | None = None
    below: list[Tree] = []


def secretive_app() -> App:
    with Registry() as registry:
        app = App(registry=registry)
        said = Signal("", name="said")
        shown = Signal[Any](None, name="shown")
        app.bind("pin", Signal(SecretStr("none"), name="pin", client=False))

    @app.on("login")
    def login(session: Session, event: Login) -> None:
        if event.password.get_secret_value() == "hunter2":
            said.set(session, f"welcome {event.name}, hunter2 is a bad password")
        shown.set(session, event)

    @app.on("keys")
    def keys(session: Session, event: Keys) -> None:
        said.set(session, event.keys[0].get_secret_value())

    @app.on("tree")
    def tree(session: Session, tree: Tree) -> None:
        pass

    @app.on("say")
    def say(session: Session, text: str, at: SecretStr | None = None) -> None:
        said.set(session, text)

    @app.on("show")
    def show(session: Session) -> None:
        shown.set(session, SecretStr("hunter2"))

    return app


async def events(path: Path, app: App, *sent: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    async with recording(app, path) as server:
        page = await server.open_v1()
        for number, (name, data) in enumerate(sent, 1):
            await page.event(name, data, id=number)
            await trio.sleep(1)
    return page.messages


async def test_what_is_secret_by_its_type_is_masked(path: Path, autojump_clock: object) -> None:
    await events(
        path,
        secretive_app(),
        ("login", {"name": "ada", "pw": "swordfish"}),
        ("login", {"name": "ada", "password": "tr0ub4dor"}),
        ("login", {"name": "ada", "passwrod": "horsebattery"}),
        ("login", {"nmae": "ada", "pw": "correcthorse", "more": 1}),
        ("login", {"name": "ada", "pw": ["staple", None, True, 5, {"in": "deep"}]}),
        (
            "keys",
            {"keys": ["key-one", "key-two"], "spare": "key-three", "named": {"a": "key-four"}},
        ),
        ("keys", {"keys": ["key-five"], "pair": [1, "key-six"]}),
        ("tree", {"below": [{"below": [{"code": "key-seven"}]}]}),
        ("pin", {"value": "key-eight"}),
        ("keys", {"keys": [], "spare": None}),
    )
    text = path.read_text()
    for secret in ("swordfish", "tr0ub4dor", "horsebattery", "correcthorse", "staple", "deep"):
        assert secret not in text
    assert "key-" not in text
    assert '"ada"' in text
    assert '"secrets":["login.pw"]' in text
    assert '"secrets":["keys.keys.0","keys.keys.1","keys.spare","keys.named.a"]' in text
    assert '"secrets":["tree.below.0.below.0.code"]' in text
    assert replayed(secretive_app(), path).difference is None
    told = {"tree.below.0.below.0.code": "another", "no.such": "thing"}
    header, entries = read_tape(path)
    assert play(secretive_app(), header, entries, told).difference is None


async def test_a_secret_is_masked_wherever_it_comes_back_and_the_author_is_told(
    path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    messages = await events(
        path,
        secretive_app(),
        ("say", {"text": "on", "at": "on"}),
        ("keys", {"keys": ["hunter2"]}),
        ("say", {"text": "hunter2hunter2 is on"}),
        ("say", {"text": "none of it"}),
        ("say", {"text": "on"}),
    )
    assert "hunter2hunter2 is on" in json.dumps(messages)
    assert "hunter2" not in path.read_text()
    assert '"said":"<secret-1>"' in path.read_text()
    assert '"said":"<secret-2><secret-2> is on"' in path.read_text()
    assert caplog.text.count("the app sends its users a secret") == 1
    assert replayed(secretive_app(), path).difference is None
    assert replayed(secretive_app(), path, keys__keys__0="another").difference is None


async def test_an_app_that_needs_the_secret_replays_with_it(
    path: Path, autojump_clock: object
) -> None:
    await events(path, secretive_app(), ("login", {"name": "ada", "pw": "hunter2"}))
    assert "hunter2" not in path.read_text()
    difference = replayed(secretive_app(), path).difference
    assert difference is not None
    assert "welcome" in difference.describe()
    assert replayed(secretive_app(), path, login__pw="hunter2").difference is None
    assert replayed(secretive_app(), path, login__pw="hunter3").difference is not None


async def test_a_value_of_a_secret_type_is_never_sent(path: Path, autojump_clock: object) -> None:
    login: tuple[str, dict[str, Any]] = "login", {"name": "ada", "pw": "swordfish"}
    messages = await events(path, secretive_app(), login, ("show", {}))
    assert "hunter2" not in json.dumps(messages) + path.read_text()
    assert "swordfish" not in json.dumps(messages)
    assert any(message.get("code") == "not_serializable" for message in messages)


async def test_nothing_of_a_handshake_is_kept_but_its_query_and_the_user(
    path: Path, autojump_clock: object
) -> None:
    def authenticate(peer: Peer) -> str | None:
        return peer.cookies.get("sid") and "ada"

    app = App(registry=Registry(), authenticate=authenticate)

    @app.on("who")
    def who(session: Session) -> None:
        assert session.user == "ada"

    peer = Peer.of({"Authorization": "Bearer abcdefgh", "X-Key": "ijklmnop"}, {"sid": "qrstuvwx"})
    admitted = await app.admit(peer)
    assert isinstance(admitted, Peer)
    async with recording(app, path) as server:
        page = await server.open_v1(admitted)
        await page.event("who", id=1)
        token = page.token
        await (await server.come_back(page)).event("who", id=2)
    text = path.read_text()
    for secret in ("abcdefgh", "ijklmnop", "qrstuvwx", token, page.messages[0]["sessionId"]):
        assert secret not in text
    assert '"user":"ada"' in text
    assert replayed(app, path).difference is None


@pytest.mark.parametrize(
    ("headers", "cookies"),
    [
        ({"Authorization": "Bearer abcdefgh"}, {}),
        ({"Authorization": "abcdefgh"}, {}),
        ({}, {"k": "abcdefgh"}),
    ],
)
async def test_a_user_who_is_a_credential_is_masked(
    path: Path, autojump_clock: object, headers: dict[str, str], cookies: dict[str, str]
) -> None:
    app = App(registry=Registry())
    peer = Peer.of(headers, cookies)
    async with recording(app, path) as server:
        await server.open_v1(Peer(raw_headers=peer.raw_headers, user="abcdefgh"))
    assert "abcdefgh" not in path.read_text()
    assert '"user":"<secret-1>"' in path.read_text()


async def test_a_message_that_is_no_event_is_kept_as_it_is(
    path: Path, autojump_clock: object
) -> None:
    texts = [
        '{"type":"hello","resume":5}',
        "[1]",
        '{"type":"event","name":"a"',
        '["resume"]',
        '"resume"',
    ]
    texts += ['{"type":"event","name":"no"}', '{"type":"event","name":"no","data":5}']
    texts += ['{"type":"event","name":7,"data":{}}', '{"type":"event","name":"no","data":[1]}']
    async with recording(counter(), path) as server:
        page = await server.open_v1(resume="short")
        await page.send_text(*texts)
    kept = [entry.value for entry in read_tape(path)[1] if entry.kind == "in"]
    assert kept[1:] == texts
    assert replayed(counter(), path).difference is None


# --- The server ----------------------------------------------------------------------------------


async def test_a_server_that_ends_tells_its_clients_and_the_file(
    path: Path, autojump_clock: object
) -> None:
    async with recording(counter(), path) as server:
        page = await server.open_v1()
        server.recorder.drain()
        await trio.sleep(1)
        assert page.close_code == 1012
    kinds = [entry.kind for entry in read_tape(path)[1]]
    assert kinds[-3:] == ["drain", "closed", "end"]
    assert replayed(counter(), path).difference is None


async def test_who_comes_after_the_end_is_sent_away(path: Path, autojump_clock: object) -> None:
    async with recording(counter(), path) as server:
        await server.open_v1()
        server.recorder.close()
        page = await server.open_v1()
        assert page.close_code == 1012


async def test_a_run_that_is_broken_ends_without_a_word(path: Path, autojump_clock: object) -> None:
    app = counter()

    @app.on("spin")
    async def spin(session: Session) -> None:
        while True:
            await trio.lowlevel.checkpoint()

    run = SealedRun(app, 0, HEADER.start, lambda *_: None, max_ticks=1000)
    run.open(1, None, Peer())
    with pytest.raises(HostingError, match="spin"):
        run.put(1, '{"type":"event","name":"spin"}')
    run.close()


@pytest.mark.parametrize("seconds", [1, math.inf])
async def test_what_takes_a_while_to_end_gets_it(seconds: float, autojump_clock: object) -> None:
    app = counter()
    ended: list[str] = []

    @app.on("wait")
    async def wait(session: Session) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(seconds)
                ended.append(session.id)

    run = SealedRun(app, 0, HEADER.start, lambda *_: None)
    run.open(1, None, Peer())
    run.put(1, '{"type":"event","name":"wait"}')
    run.close()
    assert len(ended) == (seconds == 1)


async def test_what_a_client_says_after_its_end_is_nothing(autojump_clock: object) -> None:
    run = SealedRun(counter(), 0, HEADER.start, lambda *_: None)
    run.put(1, "never there")
    run.open(1, None, Peer())
    run.hang_up(1, 1001, "")
    run.put(1, "too late")
    run.close()


def test_a_recorded_app_is_served_as_any(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[tuple[str, int]] = []
    monkeypatch.setattr("cacao.server.run", lambda _, *, host, port: served.append((host, port)))
    with Tape(path, HEADER) as tape:
        record(counter(), tape, host="localhost", port=80)
    assert served == [("localhost", 80)]


async def test_a_client_that_takes_nothing_is_cut(path: Path, autojump_clock: object) -> None:
    async with recording(counter(), path) as server:
        page = await server.open_v1()
        page.stall()
        await page.event("increment", id=1)
        await trio.sleep(11)
        assert page.close_code == 1008
    assert '"close":[1008,"the client takes nothing"]' in path.read_text()
    assert replayed(counter(), path).difference is None


async def test_a_client_that_is_gone_as_it_is_written_to_is_noticed(
    path: Path, autojump_clock: object
) -> None:
    async with recording(counter(), path) as server:
        page = await server.open_v1()
        page.stall()
        await page.event("increment", id=1)
        page.connection.closed = None
        page.connection.hang_up(1001)
        await page.take()
    assert '"close":[1001,""]' in path.read_text()
    assert replayed(counter(), path).difference is None


async def test_real_io_is_waited_for_and_asked_anew(path: Path) -> None:
    def app_with_io() -> App:
        with Registry() as registry:
            app = App(registry=registry)
            heard = Signal("", name="heard")

        @app.on("listen")
        async def listen(session: Session) -> None:
            near, far = trio.socket.socketpair()
            with near, far:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(say, far)
                    heard.set(session, (await near.recv(9)).decode())

        async def say(far: trio.socket.SocketType) -> None:
            await trio.to_thread.run_sync(time.sleep, 0.02)
            await far.send(b"hello")

        return app

    async with recording(app_with_io(), path) as server:
        page = await server.open_v1()
        await page.event("listen", id=1)
        await trio.sleep(0.1)
        assert page.messages[-1]["ok"]
    assert replayed(app_with_io(), path).difference is None


# --- The file ------------------------------------------------------------------------------------


def test_a_server_that_was_killed_leaves_what_came_before(counted: Path) -> None:
    lines = counted.read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines)):
        counted.write_bytes(b"".join(lines[:kept]) + lines[kept][:20])
        played = replayed(counter(), counted)
        assert played.difference is None
        assert not played.is_whole
    assert replayed(counter(step=2), counted).difference is not None


async def test_a_file_that_is_full_ends_and_the_app_goes_on(
    path: Path, autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with recording(counter(), path, max_bytes=5000) as server:
        page = await server.open_v1()
        for number in range(1, 50):
            await page.event("increment", id=number)
    assert page.messages[-1]["ok"]
    assert len(path.read_bytes()) < 5100
    assert caplog.text.count("the recording is full, and ends here") == 1
    played = replayed(counter(), path)
    assert played.difference is None
    assert not played.is_whole


def test_only_its_owner_may_read_it_and_none_is_overwritten(path: Path) -> None:
    with Tape(path, HEADER):
        assert path.stat().st_mode & 0o077 == 0
    with pytest.raises(TapeError, match="exists; delete it"):
        Tape(path, HEADER)
    with pytest.raises(TapeError, match=r"cannot write .*: Not a directory"):
        Tape(path / "in" / "no" / "folder", HEADER)


GOOD = '{"app":"a:b","seed":0,"started":"2026-01-01T00:00:00+00:00","version":"1","recording":1}\n'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1 is no header"),
        ("{}\n", "line 1 is no header"),
        ("[]\n", "line 1 is no header"),
        ("what\n", "line 1 is no header"),
        (GOOD.replace("2026-01-01T00:00:00+00:00", "today"), "line 1 is no header"),
        (GOOD.replace(":1}", ":2}"), "has format 2, and this is Cacao's 1; replay it with Cacao 1"),
        (GOOD + '{"at":1,"end":null}\nwhat\n', "line 3: unexpected character"),
        (GOOD + "{}\n", "line 2: '' is nothing that a recording tells of"),
        (GOOD + "[]\n", "line 2: a line is a JSON object"),
        (GOOD + '{"at":1,"stop":1}\n', "line 2: 'stop' is nothing that a recording tells of"),
        (GOOD + '{"at":"1","end":1}\n', "line 2: 'at' is a number of seconds"),
        ("\x80", "it is no text"),
    ],
)
def test_what_is_no_recording_is_told_with_its_line(path: Path, text: str, told: str) -> None:
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TapeError, match=told):
        read_tape(path)


def test_a_file_that_is_not_there_is_told(path: Path) -> None:
    with pytest.raises(TapeError, match=r"cannot read .*: No such file"):
        read_tape(path)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(0.5, "in", '{"type":"hello"}', 1),
        Entry(0.5, "in", '{"type": "hello"}', 1),
        Entry(0.5, "in", '{"a":1,"a":2}', 1),
        Entry(0.5, "in", 'no "JSON"\n', 1, ("a.b", 'c"in":')),
        Entry(0.5, "out", '{"a":[1e16,-0.0,"\u2028"]}', 2),
        Entry(0.5, "closed", [1000, ""], 2),
        Entry(1e-06, "end"),
    ],
)
def test_an_entry_is_read_as_it_was_written(entry: Entry) -> None:
    line = entry.line()
    assert "\n" not in line
    assert Entry.of(line) == entry
