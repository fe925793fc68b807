"""The scripted network: what a client and the app go through on it, at exact virtual instants."""

from __future__ import annotations

import gc
import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from both_clients import Opens, in_both
from hypothesis import given, settings
from hypothesis import strategies as st

from cacao import App, ConnectionClosed, Limits, ListSignal, Registry, Session, Signal, TextSignal
from cacao.testing import AsyncTestClient, TestClient
from cacao.testing.open_worlds import keep_worlds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

LIMITS = Limits()
WINDOW = LIMITS.resume_window
TENDED = LIMITS.heartbeat / 4  # how often the server looks after each session


class Desk:
    """An app with a handler of each kind that a network can come between."""

    def __init__(self) -> None:
        with Registry() as registry:
            self.app = App(registry=registry)
            self.count = Signal(0, name="count")
            self.board = Signal("", name="board", scope="app")
            self.lines: ListSignal[int] = ListSignal(name="lines")
            self.text = TextSignal("", name="text")
        for handler in (self.add, self.climb, self.post, self.tick, self.write, self.end):
            self.app.on(handler.__name__)(handler)
        self.app.on("say_it_all_again")(Session.resend)

    def add(self, session: Session, by: int = 1) -> None:
        self.count.update(session, lambda before: before + by)

    async def climb(self, session: Session) -> None:
        """Change something once a second, three times."""
        for _ in range(3):
            self.add(session)
            await trio.sleep(1)

    def post(self, session: Session, text: str) -> None:
        self.board.set(session, text)

    def tick(self, session: Session) -> None:
        session.start_soon(self._tick, session)

    async def _tick(self, session: Session) -> None:
        while True:
            await trio.sleep(1)
            self.add(session)

    async def write(self, session: Session) -> None:
        for number in range(3):
            await self.lines.append(session, number)
            await self.text.append(session, f"line {number}; ")
            await trio.sleep(0.5)

    def end(self, session: Session) -> None:
        session.close(1000, "that is all")


@asynccontextmanager
async def alone(opens: Opens, **options: Any) -> AsyncIterator[AsyncTestClient]:
    async with opens(Desk().app, **options) as client:
        yield client


def received(client: AsyncTestClient, kind: str) -> list[float]:
    """Tell when messages of a type have come."""
    return [
        frame.time
        for frame in client.frames
        if frame.direction == "received" and frame.message["type"] == kind
    ]


# --- Drop and restore --------------------------------------------------------------------------


@in_both
async def test_what_is_sent_without_a_connection_waits_for_the_next_one(opens: Opens) -> None:
    async with alone(opens) as t:
        frames = t.frames
        t.network.drop()
        assert not t.network.is_up
        assert await t.send("add") is None
        assert await t.send("add") is None
        assert (t.state["count"], t.server_state["count"]) == (0, 0)
        assert t.frames == frames
        assert t.outcome is None
        t.network.restore()
        await t.settle()
        assert t.network.is_up
        assert t.resumed
        assert t.state == t.server_state
        assert t.state["count"] == 2
        for number in (1, 2):
            result = t.result(number)
            assert result is not None
            assert (result.id, result.ok) == (number, True)
        assert t.delivered_once("add")


# The frames are three updates a second apart, and the result.
@pytest.mark.parametrize("silently", [False, True])
@pytest.mark.parametrize("frames", range(6))
def test_wherever_an_answer_is_cut_off_all_of_it_comes_in_the_end(
    frames: int, silently: bool
) -> None:
    with TestClient(Desk().app) as t:
        before = len(t.messages)
        t.network.drop(frames, silently=silently)
        t.send("climb")
        t.advance(10)
        assert len(t.messages) == before + min(frames, 4)
        t.network.restore()
        t.advance(0 if frames else 3)
        assert t.state == t.server_state
        assert t.state["count"] == 3
        result = t.result(1)
        assert result is not None
        assert result.ok
        assert t.delivered_once("climb")
        assert t.runs("climb") == [({}, "done")]
        assert t.resumed == (t.outcome == "resumed")
        # What the server has written in vain has to be told anew.
        lost_updates = silently and 0 < frames < 3
        assert t.outcome == (None if frames > 4 else "rebuilt" if lost_updates else "resumed")


@in_both
async def test_a_silent_drop_is_noticed_by_the_heartbeat(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.drop(silently=True)
        await t.advance(2 * LIMITS.heartbeat + TENDED - 0.25)
        assert t.session.is_attached
        await t.advance(0.25)
        assert not t.session.is_attached
        t.network.restore()
        await t.settle()
        assert t.session.is_attached
        assert t.outcome == "resumed"


@in_both
async def test_a_drop_is_noticed_at_once(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.drop()
        await t.settle()
        assert not t.session.is_attached


@in_both
async def test_who_comes_back_before_the_server_has_noticed_takes_over(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.drop(silently=True)
        await t.send("add")
        t.network.restore()
        await t.settle()
        assert t.state["count"] == 1
        await t.advance(3 * LIMITS.heartbeat)  # the older connection costs nothing
        await t.send("add")
        assert t.state["count"] == 2
        assert len(received(t, "init")) == 2


@in_both
async def test_the_session_waits_for_its_window_and_goes_on_meanwhile(opens: Opens) -> None:
    async with alone(opens) as t:
        await t.send("tick")
        first = t.session_id
        t.network.drop()
        await t.advance(WINDOW - 0.5)
        assert t.state["count"] == 0
        assert t.server_state["count"] == WINDOW - 1
        t.network.restore()
        await t.settle()
        assert t.outcome == "resumed"
        assert t.session_id == first
        assert t.state["count"] == WINDOW - 1


@in_both
async def test_after_the_window_it_is_gone_and_what_was_meant_for_it_is_cancelled(
    opens: Opens,
) -> None:
    async with alone(opens) as t:
        first = t.session_id
        await t.send("climb")
        await t.advance(0.5)
        t.network.drop()
        await t.send("add")
        await t.advance(WINDOW)
        with pytest.raises(ConnectionClosed, match="has ended"):
            _ = t.session
        with pytest.raises(ConnectionClosed, match="has ended"):
            _ = t.server_state
        assert t.state["count"] == 1  # as it was seen last
        t.network.restore()
        await t.settle()
        assert (t.outcome, t.resumed) == ("fresh", False)
        assert t.session_id != first
        assert t.state == t.server_state
        assert t.state["count"] == 0
        lost = t.result(2)
        assert lost is not None
        assert (lost.id, lost.code) == (2, "cancelled")
        delivery = t.delivered_once("add")
        assert not delivery
        assert (delivery.sent, delivery.accepted, delivery.missing) == (1, 0, 1)
        result = await t.send("add")
        assert result is not None
        assert (result.id, result.ok) == (3, True)  # its number goes on
        assert t.runs("climb") == [({}, "done")]  # it ended, with nobody there to hear of it
        assert t.runs("add") == [({}, "done")]


@in_both
async def test_what_still_ran_when_the_session_ended_was_cancelled(opens: Opens) -> None:
    desk = Desk()

    @desk.app.on("sleep")
    async def sleep() -> None:
        await trio.sleep_forever()

    async with opens(desk.app) as t:
        await t.send("sleep")
        assert t.runs("sleep") == [({}, "running")]
        t.network.drop()
        await t.advance(WINDOW)
        assert t.runs("sleep") == [({}, "cancelled")]
        assert t.result(1) is None  # the client has not heard
        t.network.restore()
        await t.settle()
        result = t.result(1)
        assert result is not None
        assert result.code == "cancelled"
        assert t.delivered_once("sleep")


@in_both
async def test_the_outcome_is_that_of_the_last_return(opens: Opens) -> None:
    async with alone(opens) as t:
        outcomes = []
        for seconds in (1, WINDOW, 1):
            t.network.drop()
            await t.advance(seconds)
            t.network.restore()
            await t.settle()
            outcomes.append(t.outcome)
        assert outcomes == ["resumed", "fresh", "resumed"]
        await t.send("say_it_all_again")  # over the same connection
        assert len(received(t, "init")) == 5
        assert t.resumed


@in_both
async def test_a_connection_may_break_right_behind_an_event(opens: Opens) -> None:
    for silently, outcome in ((False, "resumed"), (True, "rebuilt")):
        async with alone(opens) as t:
            async with t.together():
                await t.send("add")
                t.network.drop(silently=silently)
                await t.send("add")
            assert t.runs("add") == [({}, "done")]
            assert t.state["count"] == 0
            t.network.restore()
            await t.settle()
            assert t.state["count"] == 2
            assert t.outcome == outcome
            assert t.delivered_once("add")


@in_both
async def test_only_the_connection_of_one_client_breaks(opens: Opens) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice", tabs=2)
        alice.network.drop()
        await t.send("post", text="news")
        assert alice.state["board"] == ""
        assert alice.tabs[1].state["board"] == "news"
        alice.network.restore()
        await t.settle()
        assert alice.state["board"] == "news"


@in_both
async def test_a_text_that_is_sent_without_a_connection_is_lost(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.drop()
        await t.send_text("{")
        t.network.restore()
        await t.settle()
        assert t.never_saw("invalid_json")
        await t.send_text("{")
        assert not t.never_saw("invalid_json")


@in_both
async def test_restoring_what_is_whole_is_nothing(opens: Opens) -> None:
    async with alone(opens) as t:
        frames = t.frames
        t.network.drop(after_frames=1)
        t.network.restore()
        await t.settle()
        assert t.frames == frames
        await t.send("add")
        assert t.network.is_up
        assert t.outcome is None


# --- Delay -------------------------------------------------------------------------------------


@in_both
async def test_a_frame_takes_its_time_in_either_direction(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(2)
        assert await t.send("add") is None
        await t.advance(1.75)
        assert t.runs("add") == []
        await t.advance(0.25)
        assert t.runs("add") == [({}, "done")]
        assert t.state["count"] == 0
        await t.advance(1.75)
        assert t.state["count"] == 0
        await t.advance(0.25)
        assert t.state["count"] == 1
        assert [(frame.time, frame.direction) for frame in t.frames[-3:]] == [
            (0, "sent"),
            (4, "received"),
            (4, "received"),
        ]


@in_both
async def test_nothing_overtakes_what_goes_the_same_way(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(5)
        await t.send("add", by=1)
        await t.advance(1)
        t.network.delay(1)
        await t.send("add", by=2)
        await t.advance(3.5)
        assert t.runs("add") == []
        await t.advance(0.5)
        assert t.runs("add") == [(1, "done"), (2, "done")]
        t.network.delay(0)
        await t.send("add", by=3)
        assert t.runs("add")[-1] == (3, "done")
        assert t.state["count"] == 0
        await t.advance(1)
        assert t.state["count"] == 6
        assert received(t, "result") == [6, 6, 6]


@in_both
async def test_the_two_directions_do_not_wait_for_each_other(opens: Opens) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice")
        alice.network.delay(5)
        await t.send("post", text="slow")
        alice.network.delay(1)
        await alice.send("add")
        await t.advance(1)
        assert alice.runs("add") == [({}, "done")]
        assert alice.state["board"] == ""
        await t.advance(4)
        assert (alice.state["board"], alice.state["count"]) == ("slow", 1)


@in_both
async def test_what_is_under_way_is_lost_with_its_connection(opens: Opens) -> None:
    for silently in (False, True):
        async with alone(opens) as t:
            t.network.delay(10)
            await t.send("add")
            t.network.drop(silently=silently)
            await t.advance(20)
            assert t.runs("add") == []
            t.network.restore()
            await t.settle()
            assert t.runs("add") == [({}, "done")]


@in_both
async def test_what_is_on_its_way_down_is_lost_as_well(opens: Opens) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice")
        alice.network.delay(10)
        await t.send("post", text="news")
        await t.advance(5)
        alice.network.drop()
        frames = alice.frames
        await t.advance(10)
        assert alice.frames == frames
        alice.network.restore()
        await t.settle()
        assert [frame.message["type"] for frame in alice.frames[len(frames) :]] == [
            "hello",
            "init",
            "beat",
        ]
        assert (alice.state["board"], alice.outcome) == ("news", "rebuilt")


@in_both
async def test_an_earlier_connection_s_delay_is_none_of_the_next_one_s(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(10)
        await t.send("add")
        t.network.drop()
        t.network.restore()
        await t.settle()
        t.network.delay(1)
        await t.send("add")
        await t.advance(2)
        assert t.state["count"] == 2


@in_both
async def test_a_mended_network_delivers_what_is_under_way(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(10)
        await t.send("add", by=1)
        await t.send("add", by=2)
        t.network.restore()
        await t.settle()
        assert t.runs("add") == [(1, "done"), (2, "done")]
        assert t.state["count"] == 3
        assert t.time == 0
        assert t.outcome is None


@in_both
async def test_frames_are_counted_as_they_arrive(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(1)
        t.network.drop(after_frames=1)
        await t.send("add")
        await t.advance(1.5)
        assert t.network.is_up
        await t.advance(0.5)
        assert not t.network.is_up
        assert t.state["count"] == 1
        assert t.result(1) is None


@in_both
async def test_a_goodbye_takes_its_time_too(opens: Opens) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice")
        session = alice.session
        alice.network.delay(3)
        await alice.close()
        await t.advance(2.5)
        assert session.is_attached
        await t.advance(LIMITS.bye_window)
        assert alice.session is session
        await t.advance(0.5)
        with pytest.raises(ConnectionClosed, match="has ended"):
            _ = alice.session


# --- Duplicate ---------------------------------------------------------------------------------


@in_both
async def test_what_comes_twice_counts_once_and_is_acknowledged_twice(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.duplicate()
        result = await t.send("add")
        assert result is not None
        assert result.ok
        assert t.state["count"] == 1
        assert t.runs("add") == [({}, "done")]
        delivery = t.delivered_once("add")
        assert delivery
        assert (delivery.sent, delivery.accepted, delivery.extra) == (1, 1, 0)
        assert len([frame for frame in t.frames if '"add"' in frame.text]) == 1
        t.network.restore()
        await t.send("add")
        assert t.state == t.server_state
        assert t.state["count"] == 2


@in_both
async def test_a_repetition_that_comes_later_is_acknowledged_again(opens: Opens) -> None:
    async with alone(opens) as t:
        await t.send("add")
        await t.send_text('{"type":"event","id":1,"name":"add","data":{}}')
        acks = [message["ack"] for message in t.messages if message["type"] == "update"]
        assert acks == [1, 1]
        assert t.runs("add") == [({}, "done")]
        assert t.delivered_once("add")


@in_both
async def test_in_the_plain_protocol_what_comes_twice_counts_twice(opens: Opens) -> None:
    async with alone(opens, subprotocol=None) as t:
        t.network.duplicate()
        await t.send("add")
        assert t.state["count"] == 2
        delivery = t.delivered_once("add")
        assert not delivery
        assert (delivery.sent, delivery.accepted, delivery.extra) == (1, 2, 1)


# --- Stall -------------------------------------------------------------------------------------


@in_both
async def test_who_takes_nothing_costs_the_others_nothing_and_gets_the_last_of_it(
    opens: Opens,
) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice")
        frames = len(alice.frames)
        alice.network.stall()
        for number in range(300):
            await t.send("post", text=str(number))
            await t.advance(0.02)
        assert t.state["board"] == "299"
        assert len(alice.frames) == frames
        alice.network.restore()
        await t.advance(0.02)
        assert alice.state["board"] == "299"
        assert alice.outcome is None
        assert len(alice.frames) - frames <= 3  # not a queue of 300


@in_both
async def test_what_a_stalled_client_sends_goes_on(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.stall()
        assert await t.send("add") is None
        assert t.runs("add") == [({}, "done")]
        assert t.state["count"] == 0
        t.network.restore()
        await t.settle()
        assert t.state["count"] == 1
        result = t.result(1)
        assert result is not None
        assert result.ok


@in_both
async def test_a_stalled_client_takes_nothing_of_what_is_under_way_either(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(1)
        await t.send("add")
        await t.advance(1.5)
        t.network.stall()
        await t.advance(5)
        assert t.state["count"] == 0
        t.network.restore()
        await t.settle()
        assert t.state["count"] == 1


@in_both
async def test_the_server_cuts_who_takes_nothing_when_its_patience_ends(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.stall()
        await t.send("add")  # its answer is on its way from now on
        await t.advance(LIMITS.send_timeout + TENDED - 0.25)
        assert t.session.is_attached
        await t.advance(0.25)
        assert not t.session.is_attached
        assert t.network.is_up  # as far as the client knows
        assert await t.send("add") is None
        await t.advance(60)
        t.network.restore()
        await t.settle()
        assert t.outcome == "rebuilt"
        assert t.state == t.server_state
        assert t.state["count"] == 2
        assert t.delivered_once("add")


@in_both
async def test_an_idle_client_that_takes_nothing_is_cut_after_a_heartbeat(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.stall()
        await t.advance(LIMITS.heartbeat + LIMITS.send_timeout + TENDED - 0.25)
        assert t.session.is_attached
        await t.advance(0.25)
        assert not t.session.is_attached
        t.network.restore()
        await t.settle()
        assert t.outcome == "resumed"  # a beat is no news


@in_both
async def test_a_connection_can_break_while_it_is_stalled(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.stall()
        await t.send("add")
        t.network.drop()
        await t.settle()
        assert not t.session.is_attached
        t.network.restore()
        await t.settle()
        assert t.state == t.server_state
        assert t.state["count"] == 1


@in_both
async def test_nothing_else_is_cut_by_the_heartbeat(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(3)
        await t.advance(1000)
        assert t.session.is_attached
        assert len(received(t, "init")) == 1


# --- The plain protocol ------------------------------------------------------------------------


@in_both
async def test_a_plain_client_begins_anew_and_has_lost_what_it_sent(opens: Opens) -> None:
    async with alone(opens, subprotocol=None) as t:
        await t.send("add")
        first = t.session_id
        t.network.drop()
        await t.send("add")
        with pytest.raises(ConnectionClosed, match="has ended"):
            _ = t.session
        t.network.restore()
        await t.settle()
        assert t.outcome == "fresh"
        assert t.session_id != first
        assert t.state == t.server_state
        assert t.state["count"] == 0
        assert t.delivered_once("add").missing == 1
        await t.send("add")
        assert t.runs("add") == [({}, "done"), ({}, "done")]


@in_both
async def test_a_plain_client_is_delayed_and_stalled_as_any(opens: Opens) -> None:
    async with alone(opens, subprotocol=None) as t:
        t.network.delay(1)
        await t.send("add")
        await t.advance(1.5)
        assert t.state["count"] == 0
        await t.advance(0.5)
        assert t.state["count"] == 1
        t.network.stall()
        t.network.delay(0)
        await t.send("add")
        assert t.state["count"] == 1
        t.network.restore()
        await t.settle()
        assert t.state["count"] == 2


# --- When the server closes --------------------------------------------------------------------


@in_both
async def test_a_session_that_the_author_has_closed_is_gone(opens: Opens) -> None:
    async with alone(opens) as t:
        assert await t.send("end") is None
        with pytest.raises(ConnectionClosed, match="that is all; open another client, or network"):
            await t.send("add")
        assert not t.network.is_up
        t.network.restore()
        await t.settle()
        assert t.outcome == "fresh"
        await t.send("add")
        assert t.state["count"] == 1


@in_both
async def test_the_server_s_close_takes_its_time_too(opens: Opens) -> None:
    async with alone(opens) as t:
        t.network.delay(1)
        await t.send("end")
        await t.advance(1.5)
        assert t.network.is_up
        await t.advance(0.5)
        assert not t.network.is_up
        with pytest.raises(ConnectionClosed, match="that is all"):
            await t.send("add")


# --- What cannot be ----------------------------------------------------------------------------


@in_both
async def test_a_number_that_makes_no_sense_is_refused(opens: Opens) -> None:
    async with alone(opens) as t:
        with pytest.raises(ValueError, match="after_frames is the number of frames to come, not -"):
            t.network.drop(after_frames=-1)
        for seconds in (-0.1, math.inf, math.nan):
            with pytest.raises(ValueError, match="0 or more seconds, not"):
                t.network.delay(seconds)
        await t.send("add")
        assert t.state["count"] == 1


@in_both
async def test_who_has_left_has_no_network(opens: Opens) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice")
        await alice.close()
        network = alice.network
        for change in (network.drop, network.restore, network.duplicate, network.stall):
            with pytest.raises(ConnectionClosed, match="has closed; its network is gone"):
                change()
        with pytest.raises(ConnectionClosed, match="has closed; its network is gone"):
            network.delay(1)


@in_both
async def test_who_was_cut_off_and_has_left_does_not_come_back(opens: Opens) -> None:
    async with opens(Desk().app) as t:
        alice = await t.user("alice")
        await alice.send("end")
        await alice.close()
        with pytest.raises(ConnectionClosed, match="network is gone"):
            alice.network.restore()
        assert set(t._stage.runtime.sessions) == {t.session_id}


def test_a_network_does_not_keep_its_client() -> None:
    with keep_worlds() as kept:
        network = TestClient(Desk().app).network
    kept.clear()
    gc.collect()
    with pytest.raises(ConnectionClosed, match="keep it, not its network alone"):
        network.drop()


@pytest.mark.parametrize("subprotocol", ["cacao.v1", None])
@pytest.mark.parametrize(
    "bad",
    [
        lambda network: network.drop(),
        lambda network: network.drop(silently=True),
        lambda network: network.delay(1000),
        lambda network: network.stall(),
        lambda network: network.duplicate(),
    ],
)
def test_however_bad_the_network_nothing_is_left_behind(subprotocol: str | None, bad: Any) -> None:
    with TestClient(Desk().app, subprotocol=subprotocol) as t:
        bad(t.user("alice", subprotocol=subprotocol).network)
        bad(t.network)
        t.send("tick")


# --- All of it, at random ----------------------------------------------------------------------

USERS = 3
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from(["add", "climb", "post", "write", "nothing"])),
    st.tuples(st.just("drop"), st.integers(0, 4), st.booleans()),
    st.tuples(st.just("delay"), st.sampled_from([0, 0.25, 1, 4])),
    st.tuples(st.sampled_from(["duplicate", "stall", "restore"])),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 1, 7, 50, 130])),
)
SCRIPTS = st.lists(st.tuples(st.integers(0, USERS - 1), STEPS), max_size=30)


def play(users: Sequence[TestClient], which: int, step: tuple[Any, ...]) -> None:
    user, (name, *values) = users[which], step
    match name:
        case "send":
            user.send(values[0], {"text": f"{user.name}{user.time}"} if "post" in values else {})
        case "advance":
            user.advance(*values)
        case "drop":
            user.network.drop(values[0], silently=values[1])
        case _:
            getattr(user.network, name)(*values)


@settings(max_examples=150, deadline=None)
@given(script=SCRIPTS, seed=st.integers(0, 3))
def test_whatever_the_network_has_done_all_is_well_in_the_end(
    script: Sequence[tuple[int, tuple[Any, ...]]], seed: int
) -> None:
    with TestClient(Desk().app, seed=seed) as t:
        users = [t.user(name) for name in "abc"]
        for which, step in script:
            play(users, which, step)
        for user in users:
            user.network.restore()
        t.settle()
        t.advance(12)  # the longest run of one handler behind others takes as long
        for user in users:
            assert user.state == user.server_state
            sent = user._line.half.events
            assert all(event.result is not None for event in sent)
            has_expired = len(user._line.half.session_ids) > 1
            for event in sent:
                result = user.result(event.number)
                assert result is not None
                expected = "unknown_event" if event.name == "nothing" else None
                assert result.code == expected or (has_expired and result.code == "cancelled")
            for name in {event.name for event in sent} - {"nothing"}:
                delivery = user.delivered_once(name)
                assert delivery.extra == 0
                assert delivery.missing == 0 or has_expired
