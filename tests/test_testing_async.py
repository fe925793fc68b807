"""The async client: the same words, inside a running trio test."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest
import trio

from cacao import App, ConnectionClosed, HostingError, Session, Signal
from cacao.testing import AsyncTestClient, LeakError

if TYPE_CHECKING:
    from trio.testing import MockClock


class Counter:
    """An app that counts at once, later, and not at all."""

    def __init__(self) -> None:
        self.app = App()
        self.count = Signal(0, name="count")
        for handler in (self.increment, self.tick, self.fail):
            self.app.on(handler.__name__)(handler)

    async def increment(self, session: Session, event: dict[str, Any]) -> None:
        self.count.set(session, self.count.get(session) + event.get("by", 1))

    async def tick(self, session: Session) -> None:
        while True:
            await trio.sleep(1)
            self.count.update(session, lambda count: count + 1)

    async def fail(self) -> None:
        raise ValueError("no luck")


async def test_an_event_has_been_answered_when_send_returns() -> None:
    async with AsyncTestClient(Counter().app) as client:
        result = await client.send("increment", by=2)
        assert result is not None
        assert result.ok
        assert client.state == {"count": 2}
        assert [message["type"] for message in client.messages] == ["init", "update", "result"]


async def test_the_session_is_the_live_one_on_the_server() -> None:
    counter = Counter()
    async with AsyncTestClient(counter.app) as client:
        await client.send("increment")
        assert counter.count.get(client.session) == 1


async def test_another_user_shares_the_run_of_the_app() -> None:
    async with AsyncTestClient(Counter().app) as alice:
        bob = await alice.user()
        await alice.send("increment")
        assert (alice.state["count"], bob.state["count"]) == (1, 0)
        await bob.close()
        await alice.send("increment")
        with pytest.raises(ConnectionClosed):
            await bob.send("increment")
        assert alice.state["count"] == 2


async def test_two_blocks_are_two_runs() -> None:
    app = Counter().app
    async with AsyncTestClient(app) as here, AsyncTestClient(app) as there:
        await here.send("increment")
        assert here._stage.runtime is not there._stage.runtime


async def test_a_mock_clock_is_stepped(mock_clock: MockClock) -> None:
    async with AsyncTestClient(Counter().app) as client:
        await client.send("tick")
        await client.advance(60)
        assert client.state["count"] == 60
        assert client.time == 60


async def test_an_autojumping_clock_jumps(autojump_clock: MockClock) -> None:
    async with AsyncTestClient(Counter().app) as client:
        await client.send("tick")
        await client.advance(60.5)
        assert client.state["count"] == 60
        assert client.time == 60.5


async def test_a_real_clock_is_slept_on() -> None:
    async with AsyncTestClient(Counter().app) as client:
        began = trio.current_time()
        await client.advance(0.001)
        assert trio.current_time() - began >= 0.001


async def test_an_error_surfaces_as_it_was_raised() -> None:
    async with AsyncTestClient(Counter().app) as client:
        with pytest.raises(ValueError, match="no luck"):
            await client.send("fail")
        with client.expect_error(ValueError) as caught:
            result = await client.send("fail")
        assert str(caught.value) == "no luck"
        assert result is not None
        assert result.code == "handler_error"


async def test_a_failing_test_fails_with_its_own_error() -> None:
    with pytest.raises(AssertionError, match="my own"):
        async with AsyncTestClient(Counter().app):
            raise AssertionError("my own")


async def test_a_cancelled_block_ends_the_app() -> None:
    with trio.CancelScope() as scope:
        async with AsyncTestClient(Counter().app) as client:
            await client.send("tick")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(ConnectionClosed):
        _ = client.session


async def test_work_in_a_thread_is_waited_for(autojump_clock: MockClock) -> None:
    counter, done = Counter(), threading.Event()

    @counter.app.on("work")
    async def work(session: Session) -> None:
        await trio.to_thread.run_sync(done.wait)
        counter.count.set(session, 9)

    async with AsyncTestClient(counter.app) as client:
        await client.send("work")
        done.set()
        await client.wait(lambda: client.state["count"] == 9)
        assert client.time == 0
        with pytest.raises(TimeoutError):
            await client.wait(lambda: False, timeout=0.01)


async def test_a_bad_text_is_answered() -> None:
    async with AsyncTestClient(Counter().app) as client:
        await client.send_text("{")
        assert client.messages[-1]["code"] == "invalid_json"


async def test_the_plain_protocol_is_spoken_on_request() -> None:
    async with AsyncTestClient(Counter().app, subprotocol=None) as client:
        assert await client.send("increment") is None
        assert client.messages[1] == {"type": "update", "changes": {"count": 1}}


async def test_a_task_that_outlives_its_user_fails_the_block() -> None:
    app, is_over = App(), trio.Event()

    @app.on("leak")
    async def leak() -> None:
        trio.lowlevel.spawn_system_task(is_over.wait, name="straggler")

    with pytest.raises(LeakError, match="task 'straggler'"):
        async with AsyncTestClient(app) as client:
            await client.send("leak")
    is_over.set()


def test_outside_trio_the_sync_client_is_named() -> None:
    async def cell() -> None:
        async with AsyncTestClient(App()):
            pass

    with pytest.raises(HostingError, match="use TestClient"):
        asyncio.run(cell())
