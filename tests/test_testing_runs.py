"""What became of events, and what clients have seen of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from both_clients import Opens, in_both

from cacao import App, Computed, NotSerializableError, Registry, Session, Signal, TextSignal

if TYPE_CHECKING:
    from cacao.testing import AsyncTestClient


class Library:
    """An app that searches, and fails in several ways."""

    def __init__(self) -> None:
        with Registry() as registry:
            self.app = App(registry=registry)
            self.found = Signal("", name="found")
            self.count = Signal(0, name="count")
            self.doubled = Computed(lambda s: 2 * self.count.get(s), name="doubled")
            self.story = TextSignal("", name="story")
            self.thing: Signal[Any] = Signal(None, name="thing")
        on = self.app.on
        on("search", concurrency="latest")(self.search)
        on("once", concurrency="drop")(self.search)
        on("late", deadline=0.5)(self.search)
        on("queue")(self.search)
        for handler in (self.add, self.up_to, self.tell, self.fail, self.confuse, self.stop):
            on(handler.__name__)(handler)

    async def search(self, session: Session, q: str) -> None:
        await trio.sleep(1)
        self.found.set(session, q)

    def add(self, session: Session, by: int = 1, to: str = "count") -> None:
        self.count.update(session, lambda before: before + by)

    async def up_to(self, session: Session, number: int) -> None:
        """Show every number for a moment."""
        for each in range(1, number + 1):
            self.count.set(session, each)
            await trio.sleep(0.1)

    async def tell(self, session: Session) -> None:
        for part in ("structured con", "currency, ", "is told"):
            await self.story.append(session, part)
            await trio.sleep(0.1)

    def fail(self) -> None:
        raise ZeroDivisionError

    def confuse(self, session: Session) -> None:
        self.thing.set(session, object())

    def stop(self, session: Session) -> None:
        session.cancel("queue")


def counts(client: AsyncTestClient, name: str) -> tuple[int, int, int, int]:
    _, sent, accepted, missing, extra = client.delivered_once(name)
    return sent, accepted, missing, extra


# --- Runs --------------------------------------------------------------------------------------


@in_both
async def test_a_newer_search_wins_and_that_can_be_seen(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.send("search", q="tr")
        assert t.runs("search") == [("tr", "running")]
        await t.send("search", q="trio")
        assert t.runs("search") == [("tr", "superseded"), ("trio", "running")]
        await t.advance(1)
        assert t.runs("search") == [("tr", "superseded"), ("trio", "done")]
        assert t.state["found"] == "trio"
        assert t.never_saw(found="tr")


@in_both
async def test_every_way_to_end_has_its_word(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.send("once", q="a")
        await t.send("once", q="b")
        await t.send("late", q="c")
        await t.send("queue", q="d")
        await t.send("queue", q="e")
        await t.send("stop")
        await t.advance(1)
        with t.expect_error(ZeroDivisionError):
            await t.send("fail")
        with t.expect_error(NotSerializableError):
            await t.send("confuse")
        await t.send("add", by="much")
        assert t.runs("once") == [("a", "done"), ("b", "dropped")]
        assert t.runs("late") == [("c", "timeout")]
        assert t.runs("queue") == [("d", "cancelled"), ("e", "cancelled")]
        assert t.runs("stop") == [({}, "done")]
        assert t.runs("fail") == [({}, "handler_error")]
        assert t.runs("confuse") == [({}, "not_serializable")]
        assert t.runs("add") == [("much", "invalid_data")]


@in_both
async def test_a_run_shows_what_its_event_carried(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.send("add")
        await t.send("add", by=2)
        await t.send("add", {"by": 3}, to="there")
        assert t.runs("add") == [({}, "done"), (2, "done"), ({"by": 3, "to": "there"}, "done")]
        with pytest.raises(ValueError, match=r"no event 'subtract'; it answers: \w+"):
            t.runs("subtract")


@in_both
async def test_runs_are_in_the_order_in_which_the_app_took_them(opens: Opens) -> None:
    async with opens(Library().app) as t:
        alice, bob = await t.user("alice"), await t.user("bob")
        alice.network.delay(2)
        await alice.send("add", by=1)
        await bob.send("add", by=2)
        await t.advance(2)
        assert t.runs("add") == [(2, "done"), (1, "done")]


@in_both
async def test_what_a_session_had_begun_is_cancelled_with_it(opens: Opens) -> None:
    async with opens(Library().app) as t:
        alice = await t.user("alice")
        for q in "abcdefgh":  # one after the other, each for a second
            await alice.send("queue", q=q)
        await alice.close()
        assert [outcome for _, outcome in t.runs("queue")] == 8 * ["running"]
        await t.advance(5.5)  # for 5 s the page might only have been reloaded
        assert t.runs("queue")[0] == ("a", "done")
        assert t.runs("queue")[-2:] == [("g", "cancelled"), ("h", "cancelled")]


# --- Delivered once ----------------------------------------------------------------------------


@in_both
async def test_what_was_never_sent_was_not_delivered(opens: Opens) -> None:
    async with opens(Library().app) as t:
        assert not t.delivered_once("add")
        assert counts(t, "add") == (0, 0, 0, 0)


@in_both
async def test_the_events_of_all_are_counted_each(opens: Opens) -> None:
    async with opens(Library().app) as t:
        alice, bob = await t.user("alice"), await t.user("bob", subprotocol=None)
        for client in (t, alice, bob, bob):
            await client.send("add")
        assert t.delivered_once("add")
        assert counts(t, "add") == (4, 4, 0, 0)
        assert counts(bob, "add") == (2, 2, 0, 0)


@in_both
async def test_what_waits_for_a_connection_is_not_delivered_yet(opens: Opens) -> None:
    async with opens(Library().app) as t:
        t.network.drop()
        await t.send("add")
        assert not t.delivered_once("add")
        assert counts(t, "add") == (1, 0, 1, 0)
        t.network.restore()
        await t.settle()
        assert counts(t, "add") == (1, 1, 0, 0)


@in_both
async def test_an_event_that_fails_was_delivered_and_one_of_no_name_was_not(opens: Opens) -> None:
    async with opens(Library().app) as t:
        with t.expect_error(ZeroDivisionError):
            await t.send("fail")
        await t.send("subtract")
        assert t.delivered_once("fail")
        assert counts(t, "subtract") == (1, 0, 1, 0)  # there is nothing to take it


@in_both
async def test_an_event_that_was_sent_as_a_text_is_one_too_many(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.send("add")
        await t.send_text('{"type":"event","name":"add","data":{}}')
        assert t.runs("add") == [({}, "done"), ({}, "done")]
        assert not t.delivered_once("add")
        assert counts(t, "add") == (1, 2, 0, 1)


# --- Never saw ---------------------------------------------------------------------------------


@in_both
async def test_what_was_there_for_a_moment_was_seen(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.send("up_to", number=5)
        await t.advance(1)
        assert t.state["count"] == 5
        assert not t.never_saw(count=3)
        assert t.never_saw(count=6)
        assert not t.never_saw(count=3, doubled=6)
        assert t.never_saw(count=3, doubled=8)
        with pytest.raises(ValueError, match=r"'nothing'.* there are: count, doubled"):
            t.never_saw(nothing=3)


@in_both
async def test_what_was_lost_on_the_way_was_not_seen(opens: Opens) -> None:
    async with opens(Library().app) as t:
        t.network.drop(after_frames=2)
        await t.send("up_to", number=5)
        await t.advance(1)
        t.network.restore()
        await t.settle()
        assert t.state["count"] == 5
        assert not t.never_saw(count=2)
        assert t.never_saw(count=3)


@in_both
async def test_a_text_is_seen_in_whatever_pieces_it_came(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.send("tell")
        await t.advance(1)
        assert any("patches" in message for message in t.messages)
        assert not t.never_saw("structured concurrency")
        assert t.never_saw("goto")


@in_both
async def test_a_text_is_looked_for_in_states_results_and_errors(opens: Opens) -> None:
    async with opens(Library().app) as t:
        assert t.never_saw("error")
        with t.expect_error(ZeroDivisionError):
            await t.send("fail")
        assert not t.never_saw("error")
        await t.send("search", q="trio")
        await t.advance(1)
        assert not t.never_saw("tri")
        assert t.never_saw("found")  # the name of a signal is no text
        await t.send("subtract")
        assert not t.never_saw("subtract")


@in_both
async def test_ids_and_tokens_are_no_text(opens: Opens) -> None:
    async with opens(Library().app) as t:
        assert t.never_saw(t.session_id)
        assert t.never_saw(t.messages[0]["token"])


@in_both
async def test_never_saw_has_to_be_asked_something(opens: Opens) -> None:
    async with opens(Library().app) as t:
        with pytest.raises(TypeError, match=r"needs a text, or values as in never_saw\(count=3\)"):
            t.never_saw()
        with pytest.raises(TypeError, match="not 3"):
            t.never_saw(3)  # type: ignore[arg-type]


# --- Frames and sessions -----------------------------------------------------------------------


@in_both
async def test_frames_are_all_that_went_over_the_wire(opens: Opens) -> None:
    async with opens(Library().app) as t:
        await t.advance(2)
        await t.send("add")
        await t.send_text("{")
        frames = t.frames
        told = [
            (frame.time, frame.direction, frame.message["type"])
            for frame in frames
            if frame.text != "{"
        ]
        assert told == [
            (0, "sent", "hello"),
            (0, "received", "init"),
            (2, "sent", "event"),
            (2, "received", "update"),
            (2, "received", "result"),
            (2, "received", "error"),
        ]
        with pytest.raises(ValueError, match="unexpected end"):
            _ = frames[-2].message
        frames.clear()
        assert len(t.frames) == 7


@in_both
async def test_the_server_s_side_can_be_looked_at(opens: Opens) -> None:
    library = Library()
    async with opens(library.app) as t:
        alice = await t.user("alice")
        await alice.send("add", by=4)
        assert library.count.get(alice.session) == 4
        assert alice.server_state == {
            "count": 4,
            "doubled": 8,
            "found": "",
            "story": "",
            "thing": None,
        }
        assert alice.state == alice.server_state
        assert t.server_state["count"] == 0


@in_both
async def test_an_error_of_a_handler_fails_the_test_unless_it_is_expected(opens: Opens) -> None:
    async with opens(Library().app) as t:
        with pytest.raises(ZeroDivisionError):
            await t.send("fail")
        with t.expect_error(ZeroDivisionError) as caught:
            result = await t.send("fail")
        assert isinstance(caught.value, ZeroDivisionError)
        assert result is not None
        assert result.code == "handler_error"
        assert t.runs("fail") == [({}, "handler_error"), ({}, "handler_error")]


@in_both
async def test_an_error_that_its_client_does_not_hear_of_surfaces_all_the_same(
    opens: Opens,
) -> None:
    async with opens(Library().app) as t:
        surfaced = pytest.raises(ZeroDivisionError)
        with surfaced:
            async with t.together():
                await t.send("fail")
                t.network.drop()
        assert t.result(1) is None
        t.network.restore()
        await t.settle()
        result = t.result(1)
        assert result is not None
        assert result.code == "handler_error"
