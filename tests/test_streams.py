"""Streams: a signal grows, the new part is sent, and who produces keeps the client's pace."""

from __future__ import annotations

import gc
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from live import live
from trio.testing import wait_all_tasks_blocked

from cacao import (
    App,
    Computed,
    Effect,
    Limits,
    ListSignal,
    NotSerializableError,
    Registry,
    Session,
    Signal,
    TextSignal,
    WriteInComputedError,
    batch,
)
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

HELLO = {"type": "hello", "patches": True}


class Chat:
    """An app that streams tokens from a model, which notes how many it was asked for."""

    def __init__(self, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=Limits(**limits))
            self.tokens: ListSignal[str] = ListSignal(name="tokens")
            self.answer = TextSignal(name="answer")
            self.plain = Signal("", name="plain")
        self.asked = 0
        self.is_closed = False
        self.app.on("ask")(self.ask)
        self.app.on("stop")(self.stop)
        self.app.on("say")(self.say)

    async def ask(self, session: Session) -> None:
        async with aclosing(self.model()) as tokens:
            async for token in tokens:
                await self.tokens.append(session, token)

    def stop(self, session: Session) -> None:
        session.cancel("ask")

    async def model(self) -> AsyncGenerator[str, None]:
        try:
            while True:
                self.asked += 1
                yield "token"
                await trio.sleep(0.001)
        finally:
            self.is_closed = True

    def say(self, session: Session, event: dict[str, Any]) -> None:
        for word in event["words"]:
            self.tokens.append(session, word)
            self.answer.append(session, word)
            self.plain.value += word


# --- Values ------------------------------------------------------------------------------------


def test_a_list_signal_grows_and_each_session_has_its_own() -> None:
    lines = ListSignal(["first"])
    one, other = Session(), Session()
    lines.append(one, "second")
    lines.extend(one, ["third", "fourth"])
    assert lines.get(one) == ["first", "second", "third", "fourth"]
    assert lines.get(other) == ["first"]
    lines.set(one, "ab")
    assert lines.get(one) == ["a", "b"]
    lines.clear(one)
    assert lines.get(one) == []


def test_what_was_read_stays_as_it_was() -> None:
    lines: ListSignal[int] = ListSignal()
    session = Session()
    lines.append(session, 1)
    before = lines.get(session)
    lines.append(session, 2)
    assert before == [1]


def test_computed_signals_and_effects_follow_a_stream() -> None:
    lines: ListSignal[int] = ListSignal()
    total = Computed(lambda s: sum(lines.get(s)))
    session = Session()
    seen: list[int] = []
    effect = Effect(lambda s: seen.append(len(lines.get(s))), session)
    lines.append(session, 1)
    lines.extend(session, [2, 3])
    lines.extend(session, [])
    assert total.get(session) == 6
    assert seen == [0, 1, 3]
    effect.dispose()


def test_a_batch_that_fails_takes_back_what_was_appended() -> None:
    lines, text = ListSignal([1]), TextSignal("a")
    session = Session()

    def append_and_fail() -> None:
        with batch():
            lines.append(session, 2)
            text.append(session, "b")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        append_and_fail()
    lines.append(session, 3)
    text.append(session, "c")
    assert (list(lines.get(session)), text.get(session)) == ([1, 3], "ac")


@pytest.mark.parametrize("stream", [ListSignal([0]), TextSignal("0")])
def test_a_computed_signal_must_not_feed_a_stream(stream: Any) -> None:
    feeder = Computed(lambda s: stream.append(s, "1"))
    with pytest.raises(WriteInComputedError):
        feeder.get(Session())


async def test_awaiting_without_a_client_does_not_wait(autojump_clock: object) -> None:
    lines, text = ListSignal[int](), TextSignal()
    session = Session()
    await lines.append(session, 1)
    await text.append(session, "")
    await text.append(session, "a")
    assert (list(lines.get(session)), text.get(session)) == ([1], "a")


def test_an_append_that_is_not_awaited_warns_of_nothing() -> None:
    ListSignal[int]().append(Session(), 1)
    gc.collect()  # an unawaited coroutine would complain now


def test_what_json_cannot_carry_is_refused_and_nothing_is_added() -> None:
    chat = Chat()
    client = TestClient(chat.app)
    with pytest.raises(NotSerializableError, match="tokens"):
        chat.tokens.append(client.session, object())  # type: ignore[arg-type]
    with pytest.raises(NotSerializableError, match="answer"):
        chat.answer.append(client.session, "\ud800")
    assert (list(chat.tokens.get(client.session)), chat.answer.get(client.session)) == ([], "")


def test_a_computed_signal_may_show_a_stream() -> None:
    chat = Chat()
    with chat.app.registry:
        shown = Computed(lambda s: chat.tokens.get(s), name="shown")
    client = TestClient(chat.app)
    client.send("say", words=["a", "b"])
    assert client.state["shown"] == ["a", "b"] == shown.get(client.session)


def test_a_stream_may_be_bound_to_an_event() -> None:
    chat = Chat()
    chat.app.bind("tokens:input", chat.tokens)
    client = TestClient(chat.app)
    client.send("tokens:input", value=["a", "b"])
    assert client.state["tokens"] == ["a", "b"]
    result = client.send("tokens:input", value="ab")
    assert result is not None
    assert result.code == "invalid_data"
    client.send("tokens:input", value=None)
    assert client.state["tokens"] == []


# --- The wire ----------------------------------------------------------------------------------


async def test_only_the_new_part_is_sent_and_appends_are_gathered(autojump_clock: object) -> None:
    async with live(Chat().app) as running:
        page = await running.open("cacao.v1")
        await page.send(HELLO)
        await page.event("say", {"words": ["many ", "words ", "at once"]}, id=1)
        await page.event("say", {"words": ["; and", " more"]}, id=2)
        first, second = page.of_type("update")
        assert first["patches"] == {
            "tokens": [["splice", 0, 0, ["many ", "words ", "at once"]]],
        }
        assert first["changes"] == {"answer": "many words at once", "plain": "many words at once"}
        assert second == {
            "type": "update",
            "changes": {},
            "patches": {
                "tokens": [["splice", 3, 0, ["; and", " more"]]],
                "answer": [["append", "; and more"]],
                "plain": [["append", "; and more"]],
            },
            "rev": 3,
            "ack": 2,
        }


@pytest.mark.parametrize("hello", [{"type": "hello"}, {"type": "hello", "patches": False}])
async def test_a_client_that_did_not_ask_gets_whole_values(
    hello: dict[str, Any], autojump_clock: object
) -> None:
    async with live(Chat().app) as running:
        page, plain = await running.open("cacao.v1"), await running.open()
        await page.send(hello)
        for each in (page, plain):
            await each.event("say", {"words": ["many words"]})
            await each.event("say", {"words": ["; more"]})
            last = each.of_type("update")[-1]
            assert last["changes"]["tokens"] == ["many words", "; more"]
            assert "patches" not in last


async def test_after_hello_the_whole_state_comes_and_patches_go_on_from_it(
    autojump_clock: object,
) -> None:
    async with live(Chat().app) as running:
        page = await running.open("cacao.v1")
        await page.send(HELLO)
        await page.event("say", {"words": ["one", "two"]}, id=1)
        await page.send(HELLO)
        assert page.messages[-1]["state"]["tokens"] == ["one", "two"]
        await page.event("say", {"words": ["three"]}, id=2)
        assert page.of_type("update")[-1]["patches"] == {
            "tokens": [["splice", 2, 0, ["three"]]],
        }


TEXTS = st.sampled_from(["", "a", "a longer text", "a longer text yet", "another one"])
STEP = st.tuples(st.sampled_from(["append", "append", "set", "undo", "none"]), TEXTS)


class Scribe:
    """Does to a stream, a text and a plain signal what the steps of an event say."""

    def __init__(self) -> None:
        with Registry() as registry:
            self.app = App(registry=registry)
            self.items: ListSignal[str] = ListSignal(name="items")
            self.text = TextSignal(name="text")
            self.plain: Signal[str | None] = Signal("", name="plain")
            self.loud = Computed(lambda s: self.text.get(s) + self.text.get(s), name="loud")
        self.app.on("take")(self.take_all)

    def take_all(self, session: Session, event: dict[str, Any]) -> None:
        for kind, text in event["steps"]:
            self.take(session, kind, text)

    def take(self, session: Session, kind: str, text: str) -> None:
        match kind:
            case "append":
                self.items.append(session, text)
                self.text.append(session, text)
                self.plain.set(session, (self.plain.get(session) or "") + text)
            case "set":
                self.items.set(session, text.split())
                self.text.set(session, text)
                self.plain.set(session, text)
            case "undo":
                with suppress(KeyError), batch():
                    self.take(session, "append", text)
                    raise KeyError
            case "none":
                self.plain.set(session, None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(st.just("hello"), st.lists(STEP, max_size=4)), max_size=12))
def test_what_the_client_has_equals_what_the_server_has(
    events: list[str | list[tuple[str, str]]],
) -> None:
    scribe = Scribe()
    client = TestClient(scribe.app)
    for steps in events:
        if steps == "hello":
            client.send_text('{"type":"hello","patches":true}')
        else:
            client.send("take", steps=steps)
        check(scribe, client)
    client.close()


def check(scribe: Scribe, client: TestClient) -> None:
    session = client.session
    assert client.state == {
        "items": list(scribe.items.get(session)),
        "text": scribe.text.get(session),
        "plain": scribe.plain.get(session),
        "loud": scribe.loud.get(session),
    }


def test_a_list_set_back_to_what_was_sent_whole_before_is_sent_again() -> None:
    scribe = Scribe()
    client = TestClient(scribe.app)
    for step in (("set", "a"), ("append", "b"), ("set", "a")):
        client.send("take", steps=[step])
        check(scribe, client)


async def test_what_a_new_greeting_left_out_is_not_patched_later(autojump_clock: object) -> None:
    with Registry() as registry:
        app = App(registry=registry)
        text = TextSignal("a longer text", name="text")
        is_broken = Signal(default=False)
        shown = Computed(lambda s: text.get(s) if not is_broken.get(s) else 1 / 0, name="shown")
    async with live(app) as running:
        page = await running.open("cacao.v1")
        await page.send(HELLO)
        is_broken.set(running.session, value=True)
        await page.send(HELLO)
        assert "shown" not in page.of_type("init")[-1]["state"]
        is_broken.set(running.session, value=False)
        text.append(running.session, "!")
        await trio.sleep(1)
        last = page.messages[-1]
        assert (last["changes"], last["patches"]) == (
            {"shown": shown.get(running.session)},
            {"text": [["append", "!"]]},
        )


def test_the_test_client_keeps_earlier_states_as_they_were() -> None:
    chat = Chat()
    client = TestClient(chat.app)
    client.send("say", words=["one"])
    before = client.state
    client.send("say", words=["two"])
    assert before["tokens"] == ["one"]
    assert client.state["tokens"] == ["one", "two"]


# --- Pace --------------------------------------------------------------------------------------


async def test_a_client_that_takes_nothing_pauses_the_producer(autojump_clock: object) -> None:
    chat = Chat(max_unsent_items=50, send_timeout=1000)
    async with live(chat.app) as running:
        page = await running.open_v1()
        page.stall()
        await page.event("ask", id=1)
        await trio.sleep(100)
        assert chat.asked == 51  # 50 may be on their way, with one more it waits
        await page.take()
        await trio.sleep(1)
        assert chat.asked > 500
        running.session.cancel("ask")
        assert not chat.is_closed
        await wait_all_tasks_blocked()
        assert chat.is_closed
        assert chat.tokens.get(running.session) == ["token"] * chat.asked


async def test_bytes_bound_what_is_on_its_way_too(autojump_clock: object) -> None:
    chat = Chat(max_unsent_bytes=1000, send_timeout=1000)
    async with live(chat.app) as running:
        page = await running.open_v1()
        page.stall()
        await page.event("ask", id=1)
        await trio.sleep(100)
        assert chat.asked == 1000 // len('["token"]') + 1
        await page.take()


async def test_stop_ends_a_stream_at_once_also_one_that_waits(autojump_clock: object) -> None:
    chat = Chat(max_unsent_items=5, send_timeout=1000)
    async with live(chat.app) as running:
        page = await running.open_v1()
        page.stall()
        await page.event("ask", id=1)
        await trio.sleep(1)
        await page.event("stop", id=2)
        assert chat.is_closed
        await page.take()
        assert {message["id"]: message.get("code") for message in page.of_type("result")} == {
            1: "cancelled",
            2: None,
        }


@pytest.mark.parametrize("is_paused", [True, False])
async def test_leaving_ends_a_stream_at_once(*, is_paused: bool, autojump_clock: object) -> None:
    chat = Chat(max_unsent_items=5, send_timeout=1000)
    async with live(chat.app) as running:
        page = await running.open_v1()
        if is_paused:
            page.stall()
        await page.event("ask", id=1)
        await trio.sleep(1)
        page.connection.release()
        await page.leave()
        assert not running.runtime.sessions
        assert chat.is_closed
        asked = chat.asked
        await trio.sleep(1)
        assert chat.asked == asked


async def test_a_producer_lets_others_run(autojump_clock: object) -> None:
    chat = Chat()
    app = chat.app

    @app.on("rush")
    async def rush(session: Session) -> None:
        for _ in range(2500):
            await chat.tokens.append(session, "x")

    async with live(app) as running:
        page = await running.open_v1()
        await page.event("rush", id=1)
        await trio.sleep(1)
        assert page.of_type("result") == [{"type": "result", "id": 1, "ok": True}]
        assert chat.tokens.get(running.session) == ["x"] * 2500
