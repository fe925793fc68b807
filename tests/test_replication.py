"""App-wide values in a real Redis: several runs have one value, whatever happens to Redis."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio

from cacao import ListSignal, NotSerializableError, Registry, Signal
from cacao.replication import replicate
from cacao.shared import SharedStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis_server import RedisServer

_PATIENCE = 30


class Board:
    """What an app declares."""

    def __init__(self) -> None:
        with Registry() as self.registry:
            self.count = Signal(0, name="count", scope="app")
            self.title: Signal[Any] = Signal("", name="title", scope="app")
            self.lines: ListSignal[str] = ListSignal(name="lines", scope="app")
            self.hidden = Signal(0, name="hidden", client=False, scope="app")
            self.own = Signal(0, scope="app")
        self.errors: list[Exception] = []

    @asynccontextmanager
    async def process(self, url: str) -> AsyncIterator[SharedStore]:
        """Run the app once more, as another process would."""
        run = SharedStore()
        async with replicate(run, self.registry, url, lambda error, _: self.errors.append(error)):
            yield run


async def until(holds: Callable[[], object]) -> None:
    """Wait, in real time, until something holds."""
    with trio.fail_after(_PATIENCE):
        while not holds():  # noqa: ASYNC110 - the other side is another process
            await trio.sleep(0.005)


async def test_a_change_in_one_process_reaches_the_others(redis_server: RedisServer) -> None:
    board = Board()
    url = redis_server.url
    async with board.process(url) as ada, board.process(url) as bob:
        board.title.set(ada, {"text": "Hello"})
        board.hidden.set(bob, 3)
        board.lines.append(bob, "first")
        board.own.set(ada, 1)
        await until(lambda: board.title.get(bob) == {"text": "Hello"})
        await until(lambda: board.hidden.get(ada) == 3)
        await until(lambda: list(board.lines.get(ada)) == ["first"])
        assert board.own.get(bob) == 0  # without a name it stays where it is
        async with board.process(url) as late:
            assert board.title.get(late) == {"text": "Hello"}
            assert board.hidden.get(late) == 3


async def test_updates_of_all_processes_count(redis_server: RedisServer) -> None:
    board = Board()

    async def count_up(run: SharedStore) -> None:
        for _ in range(100):
            board.count.update(run, lambda n: n + 1)
            await trio.lowlevel.checkpoint()

    url = redis_server.url
    async with board.process(url) as a, board.process(url) as b, board.process(url) as c:
        async with trio.open_nursery() as nursery:
            for run in (a, b, c):
                nursery.start_soon(count_up, run)
        await until(lambda: all(board.count.get(run) == 300 for run in (a, b, c)))


async def test_all_see_sets_in_one_order(redis_server: RedisServer) -> None:
    board = Board()
    seen: dict[SharedStore, list[int]] = {}
    end = board.title.subscribe(lambda run, value: seen.setdefault(run, []).append(value))
    url = redis_server.url
    async with board.process(url) as writer, board.process(url) as a, board.process(url) as b:
        for number in range(100):
            board.title.set(writer, number)
            await trio.sleep(0.001)
        await until(lambda: board.title.get(a) == board.title.get(b) == 99)
        for run in (a, b):
            assert seen[run] == sorted(seen[run])
    end()


async def test_the_last_change_is_told_also_when_all_is_cancelled(
    redis_server: RedisServer,
) -> None:
    board = Board()
    async with board.process(redis_server.url) as ada:
        with trio.CancelScope() as scope:
            async with board.process(redis_server.url) as bob:
                board.count.update(bob, lambda n: n + 1)
                scope.cancel()
        await until(lambda: board.count.get(ada) == 1)
        board.count.update(bob, lambda n: n + 1)  # it is no part of it any more


async def test_a_signal_declared_later_is_shared_too(redis_server: RedisServer) -> None:
    board = Board()
    url = redis_server.url
    async with board.process(url) as ada, board.process(url) as bob:
        with board.registry:
            late = Signal(0, name="late", scope="app")
            Signal(0, name="of each session")
        late.set(ada, 1)
        await until(lambda: late.get(bob) == 1)


async def test_a_name_declared_anew_goes_on_with_the_value(redis_server: RedisServer) -> None:
    old, new = Board(), Board()
    async with old.process(redis_server.url) as ada, new.process(redis_server.url) as bob:
        old.count.set(ada, 5)
        await until(lambda: new.count.get(bob) == 5)
        again = Board()
        again.count.set(bob, 6)
        await until(lambda: old.count.get(ada) == 6)


async def test_what_json_cannot_carry_is_refused_from_the_start(redis_server: RedisServer) -> None:
    board = Board()
    with board.registry:
        lock: Signal[object] = Signal(object(), name="lock", client=False, scope="app")
    with pytest.raises(NotSerializableError, match="lock"):
        async with board.process(redis_server.url):
            pytest.fail("it has begun")
    assert lock.scope == "app"


# --- When Redis is away ------------------------------------------------------------------------


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.partition(",")[0] for record in caplog.records if record.name == "cacao"]


LOST = "app-wide values change in this process alone"
BACK = "app-wide values are in step with Redis again"


@pytest.mark.parametrize("is_durable", [True, False])
async def test_while_redis_is_gone_values_go_on_and_are_brought_together_afterwards(
    is_durable: bool, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    redis = request.getfixturevalue("durable_redis" if is_durable else "redis_server")
    board = Board()
    async with board.process(redis.url) as ada, board.process(redis.url) as bob:
        board.count.set(ada, 100)
        await until(lambda: board.count.get(bob) == 100)
        caplog.set_level(logging.WARNING)
        redis.stop()
        await until(lambda: lines(caplog).count(LOST) == 2)
        for _ in range(10):
            board.count.update(ada, lambda n: n + 1)
            board.count.update(bob, lambda n: n + 1)
        board.title.set(ada, "while it was gone")
        assert (board.count.get(ada), board.count.get(bob)) == (110, 110)
        redis.start()
        await until(lambda: board.count.get(ada) == board.count.get(bob) == 120)
        await until(lambda: board.title.get(bob) == "while it was gone")
        assert sorted(lines(caplog)) == sorted([LOST, LOST, BACK, BACK])
        board.count.update(bob, lambda n: n + 1)
        await until(lambda: board.count.get(ada) == 121)


async def test_nothing_counts_twice_when_redis_is_killed_again_and_again(
    durable_redis: RedisServer,
) -> None:
    board = Board()
    done = 0

    async def count_up(run: SharedStore) -> None:
        nonlocal done
        for _ in range(150):
            board.count.update(run, lambda n: n + 1)
            done += 1
            await trio.sleep(0.004)

    url = durable_redis.url
    async with board.process(url) as ada, board.process(url) as bob:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count_up, ada)
            nursery.start_soon(count_up, bob)
            for _ in range(3):
                await trio.sleep(0.1)
                await trio.to_thread.run_sync(durable_redis.restart)
        await until(lambda: board.count.get(ada) == board.count.get(bob) == done == 300)


async def test_an_app_begins_without_a_redis_and_is_in_step_when_it_comes(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cacao.replication._ANSWERING", 0.5)
    redis_server.stop()
    board = Board()
    async with board.process(redis_server.url) as ada:
        board.count.update(ada, lambda n: n + 1)
        assert lines(caplog) == [LOST]
        redis_server.start()
        async with board.process(redis_server.url) as bob:
            await until(lambda: board.count.get(bob) == 1)


async def test_a_redis_that_hangs_counts_as_lost(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("cacao.replication._ANSWERING", 0.5)
    board = Board()
    async with board.process(redis_server.url) as ada, board.process(redis_server.url) as bob:
        redis_server.freeze()
        board.count.update(ada, lambda n: n + 1)
        await until(lambda: LOST in lines(caplog))
        redis_server.thaw()
        await until(lambda: board.count.get(bob) == 1)
        board.count.update(ada, lambda n: n + 1)
        await until(lambda: board.count.get(bob) == 2)


async def test_leaving_does_not_wait_for_ever_for_a_redis_that_is_gone(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacao.replication._LEAVING", 0.1)
    board = Board()
    with trio.fail_after(_PATIENCE):
        async with board.process(redis_server.url) as ada:
            redis_server.stop()
            board.count.update(ada, lambda n: n + 1)
