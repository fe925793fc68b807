"""Virtual time: it stands still, and passes from deadline to deadline."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from cacao import App, Limits, Session, Signal, clock
from cacao.testing import SpinningError, TestClient
from cacao.testing.clock import StepClock, pass_time
from cacao.testing.hand_pump import HandPump

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator


class Clockwork:
    """An app with a ticker, and the virtual times at which it ticked."""

    def __init__(self, interval: float) -> None:
        self.app = App()
        self.interval = interval
        self.ticks: list[float] = []
        self.shown = Signal(0, name="ticks")
        self.app.on("start")(self.start)

    async def start(self, session: Session) -> None:
        while True:
            await trio.sleep(self.interval)
            self.ticks.append(trio.current_time())
            self.shown.update(session, lambda ticks: ticks + 1)


def test_time_stands_still_while_events_are_sent() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app)
    for _ in range(50):
        client.send("start")
    assert client.time == 0
    assert clockwork.ticks == []


def test_an_hour_passes_second_by_second() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app)
    client.send("start")
    client.advance(3600)
    assert clockwork.ticks == [float(second) for second in range(1, 3601)]
    assert client.state["ticks"] == 3600
    assert client.time == 3600


def test_an_hour_takes_no_hour() -> None:
    client = TestClient(Clockwork(1).app)
    client.send("start")
    began = time.monotonic()
    client.advance(3600)
    assert time.monotonic() - began < 60


def test_nothing_happens_before_its_time() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app)
    client.send("start")
    client.advance(0.999)
    assert clockwork.ticks == []
    client.advance(0.001)
    assert len(clockwork.ticks) == 1


@pytest.mark.parametrize("interval", [0.1, 1 / 3, 0.7, 1e-3])
def test_ticks_are_counted_right_whatever_the_rounding(interval: float) -> None:
    clockwork = Clockwork(interval)
    client = TestClient(clockwork.app)
    client.send("start")
    client.advance(100 * interval)
    assert len(clockwork.ticks) == 100


def test_a_page_that_stays_open_for_a_day_answers_the_heartbeats() -> None:
    client = TestClient(App())
    client.advance(86_400)
    client.send_text('{"type": "beat"}')
    assert client.session.id == client.session_id


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_time_goes_forward_by_a_finite_amount(seconds: float) -> None:
    client = TestClient(App())
    with pytest.raises(ValueError, match="0 or more seconds"):
        client.advance(seconds)


def test_what_is_no_number_of_seconds_is_refused_with_an_example() -> None:
    client = TestClient(App())
    with pytest.raises(TypeError, match=r"as in advance\(86_400\), not by datetime.timedelta"):
        client.advance(timedelta(days=1))  # type: ignore[arg-type]


# --- A day in seconds ------------------------------------------------------------------------


def test_a_day_has_86400_ticks_of_one_second() -> None:
    app, ticks = App(), 0

    @app.every(1)
    async def tick() -> None:
        nonlocal ticks
        ticks += 1

    client = TestClient(app)
    client.advance(86_400)
    assert ticks == 86_400
    assert client.time == 86_400


def test_the_steps_that_a_moment_may_take_are_counted_anew_in_each() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app, max_ticks=100)
    client.send("start")
    client.advance(1000)
    assert len(clockwork.ticks) == 1000


def test_who_spins_in_the_middle_of_a_long_advance_is_named() -> None:
    app = App()

    @app.on("spin_later")
    async def spin_later() -> None:
        await trio.sleep(1000)
        while True:
            await trio.lowlevel.checkpoint()

    client = TestClient(app, max_ticks=1000)
    client.send("spin_later")
    client.advance(999)
    with pytest.raises(SpinningError, match=r"event spin_later.* in .*spin_later"):
        client.advance(86_400)
    assert client.time == 1000


# --- Exact instants --------------------------------------------------------------------------

JUST = 1e-6


def just_before_and_at(client: TestClient, seconds: float, look: Callable[[], object]) -> object:
    """Let so many seconds pass; gives what was to be seen just before their end, and at it."""
    client.advance(seconds - JUST)
    before = look()
    client.advance(JUST)
    return before, look()


def test_what_is_cached_gets_old_at_its_instant() -> None:
    app = App()
    fetched_at: list[float] = []

    @app.on("read")
    async def read() -> None:
        if not fetched_at or clock.monotonic() - fetched_at[-1] >= 300:
            fetched_at.append(clock.monotonic())

    def fetches() -> int:
        client.send("read")
        return len(fetched_at)

    client = TestClient(app)
    client.advance(10)
    client.send("read")
    assert just_before_and_at(client, 300, fetches) == (1, 2)
    assert fetched_at == [10, 310]


def test_what_is_debounced_comes_when_it_has_been_quiet_for_long_enough() -> None:
    app = App()
    hits = Signal("", name="hits")

    @app.on("search", concurrency="latest")
    async def search(session: Session, query: str) -> None:
        await trio.sleep(0.3)
        hits.set(session, query)

    client = TestClient(app)
    for query in ("t", "tr", "tri"):
        client.send("search", query=query)
        client.advance(0.3 - JUST)
    client.send("search", query="trio")
    assert just_before_and_at(client, 0.3, lambda: client.state["hits"]) == ("", "trio")


def test_a_deadline_cuts_a_handler_at_its_instant() -> None:
    app = App()

    @app.on("think", deadline=5)
    async def think() -> None:
        await trio.sleep_forever()

    def code() -> str | None:
        result = client.result(1)
        return None if result is None else result.code

    client = TestClient(app)
    client.send("think")
    assert just_before_and_at(client, 5, code) == (None, "timeout")


def test_a_page_that_said_goodbye_has_its_grace_and_no_more() -> None:
    client, sessions = departed(App(limits=Limits(bye_window=7)), TestClient.close)
    assert just_before_and_at(client, 7, sessions) == (2, 1)


def test_a_lost_connection_is_waited_for_as_long_as_promised() -> None:
    app = App(limits=Limits(resume_window=90))
    client, sessions = departed(app, lambda bob: bob.network.drop())
    assert just_before_and_at(client, 90, sessions) == (2, 1)


def departed(
    app: App, depart: Callable[[TestClient], object]
) -> tuple[TestClient, Callable[[], int]]:
    """Let the second of two users depart; gives the first one, and how many sessions live."""
    alice = TestClient(app)
    depart(alice.user("bob"))
    return alice, lambda: len(alice._stage.runtime.sessions)


def test_a_silent_page_is_asked_and_then_let_go() -> None:
    app, let_go_at = App(limits=Limits(heartbeat=20)), []

    @app.on_disconnect
    async def note() -> None:
        let_go_at.append(clock.monotonic())

    client = TestClient(app)
    client.user("bob").network.drop(silently=True)

    def beats() -> int:
        return sum(message["type"] == "beat" for message in client.messages)

    assert just_before_and_at(client, 20, beats) == (0, 1)
    client.advance(60)
    assert let_go_at == [45]  # looked at every quarter: the first time after two heartbeats


# --- What else may be going on while time passes ---------------------------------------------


@contextmanager
def running(body: Callable[[], Awaitable[object]]) -> Iterator[HandPump]:
    pump = HandPump(body, seed=0, max_ticks=1000)
    pump.settle()
    try:
        yield pump
    finally:
        pump.abandon(pump._cancel_all)


def test_a_deadline_that_is_moved_from_outside_counts() -> None:
    ended_at: list[float] = []
    scope = trio.CancelScope(deadline=100)

    async def sleep() -> None:
        with scope:
            await trio.sleep_forever()
        ended_at.append(trio.current_time())
        await trio.sleep_forever()

    with running(sleep) as pump:
        pump.call(setattr, scope, "deadline", 5)
        pump.advance(10)
        assert ended_at == [5]
        assert pump.time == 10


def test_who_waits_for_all_to_be_blocked_goes_on_before_time_does() -> None:
    app = App()
    seen: list[float] = []

    @app.on("watch")
    async def watch() -> None:
        for cushion in (0.0, 0.001):
            await trio.testing.wait_all_tasks_blocked(cushion)
            seen.append(trio.current_time())

    @app.every(1)
    async def tick() -> None:
        pass

    client = TestClient(app)
    result = client.send("watch")
    assert result is not None
    assert seen == [0, 0]
    client.advance(10)


def test_sockets_are_read_before_a_run_counts_as_at_rest() -> None:
    got = bytearray()

    async def talk() -> None:
        left, right = trio.socket.socketpair()
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(echo, right)
                for letter in b"hello":
                    await left.send(bytes([letter]))
                    got.extend(await left.recv(1))
                left.shutdown(trio.socket.SHUT_WR)

    async def echo(socket: trio.socket.SocketType) -> None:
        while data := await socket.recv(1):
            await socket.send(data)

    with running(talk) as pump:
        assert pump.has_ended
    assert got == b"hello"


def test_what_is_called_back_into_a_run_is_done_before_it_counts_as_at_rest() -> None:
    called: list[str] = []

    async def call_back() -> None:
        token = trio.lowlevel.current_trio_token()
        token.run_sync_soon(token.run_sync_soon, called.append, "back")
        await trio.sleep_forever()

    with running(call_back):
        assert called == ["back"]


def test_what_is_called_in_a_run_has_the_context_variables_of_its_body() -> None:
    whose = ContextVar("whose", default="the test's")

    async def body() -> None:
        whose.set("the body's")
        await trio.sleep_forever()

    with running(body) as pump:
        assert pump.call(whose.get) == "the body's"
        assert pump.do(whose.get) == "the body's"
        pump.do(whose.set, "the call's")
        assert pump.call(whose.get) == "the body's"
    assert whose.get() == "the test's"


# --- The clock's own sleep -------------------------------------------------------------------


class Sleepers:
    """A run in which tasks sleep, by trio's deadlines and by the clock's own.

    Attributes:
        woken: When, and who.
        scopes: Around each of them.
    """

    def __init__(self) -> None:
        self.woken: list[tuple[float, str]] = []
        self.scopes: dict[str, trio.CancelScope] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as self.nursery:
            await trio.sleep_forever()

    def put_to_sleep(self, deadline: float, name: str, *, by_trio: bool = False) -> None:
        self.nursery.start_soon(self.sleep, deadline, name, by_trio)

    async def sleep(self, deadline: float, name: str, by_trio: bool) -> None:
        clock = trio.lowlevel.current_clock()
        assert isinstance(clock, StepClock)
        with trio.CancelScope() as self.scopes[name]:
            await (trio.sleep_until if by_trio else clock.sleep_until)(deadline)
            self.woken.append((trio.current_time(), name))


def test_both_kinds_of_sleep_end_at_their_instant() -> None:
    sleepers = Sleepers()
    with running(sleepers.run) as pump:
        for deadline in (30.0, 0.1, 7.0):
            pump.do(sleepers.put_to_sleep, deadline, "clock")
            pump.do(partial(sleepers.put_to_sleep, deadline + 1, "trio", by_trio=True))
        pump.advance(30)
        assert sleepers.woken == [
            (0.1, "clock"),
            (1.1, "trio"),
            (7, "clock"),
            (8, "trio"),
            (30, "clock"),
        ]
        pump.advance(1)
        assert sleepers.woken[-1] == (31, "trio")


def test_sleep_that_is_cancelled_wakes_nobody_later() -> None:
    sleepers = Sleepers()
    with running(sleepers.run) as pump:
        for name in ("first", "second", "third"):
            pump.do(sleepers.put_to_sleep, 5, name)
        pump.do(sleepers.scopes["second"].cancel)
        assert sleepers.scopes["second"].cancelled_caught
        pump.advance(5)
        assert sorted(sleepers.woken) == [(5, "first"), (5, "third")]


def test_sleep_until_a_time_that_has_passed_is_over_at_once() -> None:
    sleepers = Sleepers()
    with running(sleepers.run) as pump:
        pump.advance(2)
        pump.do(sleepers.put_to_sleep, 2, "late")
        pump.do(sleepers.put_to_sleep, -math.inf, "later")
        assert sleepers.woken == [(2, "late"), (2, "later")]


# --- In a trio test --------------------------------------------------------------------------


async def passed(seconds: float) -> None:
    await pass_time(seconds, trio.testing.wait_all_tasks_blocked, is_in_memory=True)


async def test_a_mock_clock_goes_from_deadline_to_deadline(
    mock_clock: trio.testing.MockClock,
) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            await trio.sleep(0.1)
            ticks.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await passed(0.3)
        assert len(ticks) == 3
        await passed(100)
        assert len(ticks) == 1003
        assert trio.current_time() == pytest.approx(100.3)
        nursery.cancel_scope.cancel()


async def test_afterwards_a_mock_clock_stands_still_again(
    mock_clock: trio.testing.MockClock,
) -> None:
    with trio.move_on_after(5) as scope:
        await passed(60)
    assert scope.cancelled_caught
    assert (trio.current_time(), mock_clock.autojump_threshold) == (5, math.inf)
    await passed(0)
    assert trio.current_time() == 5


async def test_any_other_clock_is_slept_on(autojump_clock: trio.testing.MockClock) -> None:
    await passed(60)
    assert (trio.current_time(), autojump_clock.autojump_threshold) == (60, 0)


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
async def test_no_clock_goes_back_or_for_ever(seconds: float) -> None:
    with pytest.raises(ValueError, match="0 or more seconds"):
        await passed(seconds)
