"""The Redis storage: killed, restarted and hanging in mid-use, and what others see of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import coredis
import pytest
import trio

from cacao.errors import StorageError
from cacao.storage import Entry
from cacao.storage.redis import open_redis

if TYPE_CHECKING:
    from redis_server import RedisServer

    from cacao.storage.redis import RedisStorage


async def start_later(server: RedisServer) -> None:
    await trio.to_thread.run_sync(server.start)


async def test_keys_have_a_prefix_and_expire_in_redis(redis_server: RedisServer) -> None:
    async with (
        open_redis(redis_server.url, prefix="shop:") as storage,
        coredis.Redis.from_url(redis_server.url) as raw,
    ):
        await storage.put({"a": Entry(b"1", 60), "b": Entry(b"2")})
        assert await raw.keys() == {b"shop:a", b"shop:b"}
        assert 0 < await raw.pttl("shop:a") <= 60_000
        assert await raw.pttl("shop:b") == -1


async def test_two_apps_with_a_prefix_each_do_not_meet(redis_server: RedisServer) -> None:
    async with (
        open_redis(redis_server.url, prefix="one:") as one,
        open_redis(redis_server.url, prefix="two:") as two,
    ):
        await one.put({"a": Entry(b"1")})
        assert await two.get(["a"]) == {}


async def test_of_two_processes_that_take_a_key_one_gets_it(redis_server: RedisServer) -> None:
    got: list[str] = []

    async def take_all(storage: RedisStorage) -> None:
        for key in map(str, range(30)):
            got.extend([key] if await storage.take(key) is not None else [])

    async with open_redis(redis_server.url) as first, open_redis(redis_server.url) as second:
        await first.put({str(number): Entry(b"x") for number in range(30)})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_all, first)
            nursery.start_soon(take_all, second)
    assert sorted(got, key=int) == [str(number) for number in range(30)]


async def test_a_redis_that_was_killed_and_started_again_is_used_again(
    durable_redis: RedisServer,
) -> None:
    async with open_redis(durable_redis.url, patience=30) as storage:
        for number in range(3):
            await storage.put({"a": Entry(b"%d" % number)})
            durable_redis.restart()
            assert await storage.get(["a"]) == {"a": b"%d" % number}
        durable_redis.restart()
        assert await storage.take("a") == b"2"
        assert await storage.take("a") is None


async def test_what_is_asked_while_redis_is_away_is_answered_when_it_is_back(
    durable_redis: RedisServer,
) -> None:
    answers: list[dict[str, bytes]] = []

    async def ask(storage: RedisStorage, key: str) -> None:
        await storage.put({key: Entry(b"1")})
        answers.append(await storage.get([key]))

    async with open_redis(durable_redis.url, patience=30) as storage:
        durable_redis.stop()
        async with trio.open_nursery() as nursery:
            for key in "abcde":
                nursery.start_soon(ask, storage, key)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert answers == []
            nursery.start_soon(start_later, durable_redis)
    assert sorted(map(list, answers)) == [["a"], ["b"], ["c"], ["d"], ["e"]]


async def test_a_redis_that_stays_away_is_an_error_after_a_while_and_no_end(
    redis_server: RedisServer,
) -> None:
    async with open_redis(redis_server.url) as storage:
        redis_server.stop()
        storage._patience = 0.2
        for use in (
            lambda: storage.put({"a": Entry(b"1")}),
            lambda: storage.get(["a"]),
            lambda: storage.take("a"),
        ):
            with pytest.raises(StorageError, match=r"cannot be used.*see that it runs"):
                await use()
        redis_server.start()
        storage._patience = 30
        await storage.put({"a": Entry(b"1")})
        assert await storage.get(["a"]) == {"a": b"1"}


async def test_a_redis_that_hangs_is_an_error_and_is_used_again_when_it_goes_on(
    redis_server: RedisServer,
) -> None:
    async with open_redis(redis_server.url, patience=2) as storage:
        redis_server.freeze()
        with pytest.raises(StorageError):
            await storage.put({"a": Entry(b"1")})
        redis_server.thaw()
        storage._patience = 30
        await storage.put({"a": Entry(b"2")})
        assert await storage.get(["a"]) == {"a": b"2"}


async def test_a_put_is_all_or_nothing_when_redis_is_killed(durable_redis: RedisServer) -> None:
    keys = [str(number) for number in range(20)]

    async def write(storage: RedisStorage) -> None:
        for version in range(1000):
            await storage.put(dict.fromkeys(keys, Entry(b"%d" % version)))

    async with open_redis(durable_redis.url, patience=30) as storage:
        for _ in range(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(write, storage)
                while not await storage.get(["0"]):
                    pass
                durable_redis.stop()
                nursery.cancel_scope.cancel()
            durable_redis.start()
            values = await storage.get(keys)
            assert len(values) == len(keys)
            assert len(set(values.values())) == 1


async def test_a_redis_that_refuses_is_an_error_at_once(redis_server: RedisServer) -> None:
    async with (
        open_redis(redis_server.url, patience=60) as storage,
        coredis.Redis.from_url(redis_server.url) as raw,
    ):
        await raw.config_set({"maxmemory": 1})
        with pytest.raises(StorageError, match=r"OOM.*see Redis's log and its configuration"):
            await storage.put({"a": Entry(b"1")})
        assert await storage.get(["a"]) == {}


async def test_a_wrong_password_is_an_error_that_does_not_show_it(
    redis_server: RedisServer,
) -> None:
    async with coredis.Redis.from_url(redis_server.url) as raw:
        await raw.config_set({"requirepass": "right/word"})
    wrong = redis_server.url.replace("//", "//:wr%2Fong@")
    with pytest.raises(StorageError, match=f"127.0.0.1:{redis_server.port}/0") as caught:
        async with open_redis(wrong, patience=0.2):
            pass
    assert "ong@" not in str(caught.value)
    right = redis_server.url.replace("//", "//:right%2Fword@")
    async with open_redis(right) as storage:
        await storage.put({"a": Entry(b"1")})


async def test_no_redis_at_all_shows_at_the_start(redis_server: RedisServer) -> None:
    redis_server.stop()
    with pytest.raises(StorageError, match=f"redis://127.0.0.1:{redis_server.port}/0 cannot"):
        async with open_redis(redis_server.url, patience=0.2):
            pass
