"""What time it is: the real one in a server, the virtual one in an app under test."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
import trio

import cacao
from cacao import (
    App,
    Computed,
    Peer,
    Session,
    Signal,
    SignedCookie,
    ThreadSession,
    clock,
    from_asyncio,
)
from cacao.testing import AsyncTestClient, TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from cacao.middleware import CallNext, Event

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NEW_YEAR + timedelta(seconds=seconds)


# --- By itself -------------------------------------------------------------------------------


def test_outside_of_a_test_of_an_app_it_is_the_real_time(monkeypatch: pytest.MonkeyPatch) -> None:
    before = datetime.now(UTC)
    assert before <= clock.now(UTC) <= before + timedelta(minutes=1)
    assert clock.now().tzinfo is None
    assert abs(clock.now() - datetime.now()) < timedelta(minutes=1)
    assert clock.today() in {date.today(), clock.now().date()}
    monkeypatch.setattr(time, "time", lambda: 12.5)
    monkeypatch.setattr(time, "monotonic", lambda: 7.5)
    assert (clock.time(), clock.monotonic()) == (12.5, 7.5)


def test_it_is_an_attribute_of_the_package() -> None:
    assert cacao.clock is clock


def test_within_a_block_it_follows_another_time() -> None:
    passed = 0.0
    with clock.follow(lambda: passed, NEW_YEAR):
        assert (clock.now(UTC), clock.time(), clock.monotonic()) == (
            NEW_YEAR,
            NEW_YEAR.timestamp(),
            0.0,
        )
        passed = 90.000_001
        assert clock.now(UTC) == after(90.000_001)
        assert clock.time() == NEW_YEAR.timestamp() + 90.000_001
        assert clock.monotonic() == 90.000_001
    assert clock.now(UTC) > after(90)


def test_blocks_nest() -> None:
    with clock.follow(lambda: 1, NEW_YEAR):
        with clock.follow(lambda: 2, NEW_YEAR):
            assert clock.monotonic() == 2
        assert clock.monotonic() == 1


def test_an_answer_is_in_the_zone_asked_for() -> None:
    zone = timezone(timedelta(hours=5, minutes=45))
    with clock.follow(lambda: 0, datetime(2026, 1, 1, 5, 45, tzinfo=zone)):
        assert clock.now(UTC) == NEW_YEAR
        assert clock.now(UTC).tzinfo is UTC
        assert clock.now(zone).isoformat() == "2026-01-01T05:45:00+05:45"


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "XYZ-14")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_without_a_zone_it_is_the_local_time(far_east: None) -> None:
    with clock.follow(lambda: 10 * 3600, NEW_YEAR):
        assert clock.now() == datetime(2026, 1, 2)
        assert clock.today() == date(2026, 1, 2)


def test_a_start_without_a_zone_is_refused() -> None:
    start = datetime(2026, 1, 1)
    with pytest.raises(ValueError, match="has no time zone; give one"), clock.follow(float, start):
        pass


async def test_tasks_and_threads_follow_the_block_they_began_in(mock_clock: MockClock) -> None:
    seen: dict[str, float] = {}
    began = time.monotonic()

    async def look(where: str) -> None:
        seen[where] = clock.monotonic()
        seen[f"thread of {where}"] = await trio.to_thread.run_sync(clock.monotonic)

    mock_clock.jump(5)
    async with trio.open_nursery() as nursery:
        with clock.follow(lambda: mock_clock.current_time() * 10, NEW_YEAR):
            nursery.start_soon(look, "inside")
        nursery.start_soon(look, "outside")
    assert (seen["inside"], seen["thread of inside"]) == (50, 50)
    assert began <= seen["outside"] <= seen["thread of outside"]


# --- In an app under test ------------------------------------------------------------------


class Diary:
    """An app in which everything that can be declared writes down what time it is."""

    def __init__(self) -> None:
        self.app = App()
        self.entries: dict[str, datetime] = {}
        self.count = Signal(0, name="count")
        self.seconds = Computed(self.compute, name="seconds")
        self.shared = Signal("", scope="app", name="shared")
        self.app.on("look")(self.look)
        self.app.on("handle")(self.handle)
        self.app.on("block", thread=True)(self.block)
        self.app.middleware(self.pass_by)
        self.app.every(10)(self.tick)
        self.app.every(10, scope="app")(self.tick_for_all)
        self.app.task(self.work)
        self.app.effect(self.react)
        self.app.effect(self.react_later)
        self.app.resource(self.fetch)
        self.app.on_session_start(self.start)
        self.app.on_disconnect(self.disconnect)

    def note(self, where: str) -> None:
        self.entries[where] = clock.now(UTC)

    def compute(self, session: Session) -> float:
        self.count.get(session)
        self.note("computed")
        return clock.monotonic()

    async def look(self) -> None:
        self.note("look")

    async def handle(self, session: Session) -> None:
        self.note("handler")
        self.count.update(session, lambda count: count + 1)
        await trio.to_thread.run_sync(self.note, "its thread")
        await from_asyncio(self.note_in_asyncio())
        session.start_soon(self.in_background)

    async def note_in_asyncio(self) -> None:
        self.note("asyncio")

    async def in_background(self) -> None:
        self.note("background task")

    def block(self, session: ThreadSession) -> None:
        self.note("thread handler")

    async def pass_by(self, session: Session, event: Event, call_next: CallNext) -> Any:
        self.note("middleware")
        return await call_next(event)

    async def tick(self, session: Session) -> None:
        self.note("timer")

    async def tick_for_all(self) -> None:
        self.note("timer of the app")

    async def work(self) -> None:
        while True:
            await trio.sleep(10)
            self.note("task of the app")

    def react(self, session: Session) -> None:
        self.count.get(session)
        self.note("effect")

    async def react_later(self, session: Session) -> None:
        self.count.get(session)
        await trio.lowlevel.checkpoint()
        self.note("async effect")

    async def fetch(self, session: Session) -> int:
        count = self.count.get(session)
        await trio.lowlevel.checkpoint()
        self.note("resource")
        return count

    async def start(self, session: Session) -> None:
        self.note("hook")

    async def disconnect(self, session: Session) -> None:
        self.note("last hook")


EVENTS = {
    "handler",
    "its thread",
    "asyncio",
    "background task",
    "thread handler",
    "middleware",
    "computed",
    "effect",
    "async effect",
    "resource",
}
TIMERS = {"timer", "timer of the app", "task of the app"}


def test_everywhere_in_an_app_it_is_the_time_of_its_world() -> None:
    diary = Diary()
    client = TestClient(diary.app)
    assert diary.entries["hook"] == NEW_YEAR
    client.advance(25)
    assert {diary.entries[where] for where in TIMERS} == {after(20)}
    client.send("handle")
    client.send("block")
    client.wait(lambda: diary.entries.keys() >= EVENTS)
    assert {where: diary.entries[where] for where in EVENTS} == dict.fromkeys(EVENTS, after(25))
    assert client.state["seconds"] == 25
    client.advance(2.5)
    client.close()
    assert diary.entries["last hook"] == after(27.5)


async def test_in_an_async_test_it_is_the_time_since_the_app_began(mock_clock: MockClock) -> None:
    mock_clock.jump(1000)
    diary = Diary()
    async with AsyncTestClient(diary.app) as client:
        assert diary.entries["hook"] == NEW_YEAR
        await client.advance(25)
        await client.send("handle")
        await client.send("block")
        await client.wait(lambda: diary.entries.keys() >= EVENTS)
    assert {where: diary.entries[where] for where in EVENTS} == dict.fromkeys(EVENTS, after(25))
    assert {diary.entries[where] for where in TIMERS} == {after(20)}


def test_a_further_user_has_the_same_time() -> None:
    diary = Diary()
    alice = TestClient(diary.app)
    alice.advance(7)
    bob = alice.user("bob")
    assert diary.entries["hook"] == after(7)
    bob.send("look")
    assert diary.entries["look"] == after(7)


def test_the_start_can_be_chosen() -> None:
    diary = Diary()
    leap = datetime(2028, 2, 29, 23, 59, tzinfo=UTC)
    client = TestClient(diary.app, now=leap)
    client.advance(60)
    client.send("look")
    assert diary.entries["look"].isoformat() == "2028-03-01T00:00:00+00:00"


def test_two_worlds_have_a_time_each() -> None:
    here, there = Diary(), Diary()
    first, second = TestClient(here.app), TestClient(there.app)
    second.advance(3600)
    first.send("look")
    second.send("look")
    first.advance(1)
    first.send("look")
    assert (here.entries["look"], there.entries["look"]) == (after(1), after(3600))
    assert clock.now(UTC) > after(86_400)


# --- Cookies ---------------------------------------------------------------------------------


SECRET = "correct horse battery staple"  # noqa: S105


def test_a_cookie_expires_at_an_exact_virtual_instant() -> None:
    app = App()
    login = SignedCookie("login", secret=SECRET, max_age=3600)
    signed: list[str] = []
    read: list[object] = []

    @app.on("sign")
    async def sign() -> None:
        signed.append(login.sign("ada"))

    @app.on("read")
    async def read_it() -> None:
        read.append(login.read(Peer.of({}, {"login": signed[0]})))

    client = TestClient(app)
    client.advance(10)
    client.send("sign")
    client.advance(3599.999)
    client.send("read")
    client.advance(0.001)
    client.send("read")
    assert read == ["ada", None]


def test_a_cookie_signed_before_the_world_began_is_good_in_it() -> None:
    login = SignedCookie("login", secret=SECRET)

    async def authenticate(peer: Peer) -> object:
        return login.read(peer)

    app = App(authenticate=authenticate)
    seen: list[object] = []

    @app.on("who")
    async def who(session: Session) -> None:
        seen.append(session.user)

    TestClient(app, cookies={"login": login.sign("ada")}).send("who")
    assert seen == ["ada"]
