"""What processes say to each other over a real Redis."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from cacao import StorageError, channel
from cacao.channel import Channel

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redis_server import RedisServer

_PATIENCE = 30


async def until(holds: Callable[[], object]) -> None:
    """Wait, in real time, until something holds."""
    with trio.fail_after(_PATIENCE):
        while not holds():  # noqa: ASYNC110 - the other side is another process
            await trio.sleep(0.005)


@asynccontextmanager
async def opened(url: str, name: str = "news") -> AsyncIterator[tuple[Channel, list[bytes]]]:
    """Open a channel, with what is heard on it; it may not have found Redis yet."""
    heard: list[bytes] = []
    each = Channel(url, name)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(each.keep_hearing, heard.append)
        yield each, heard
        nursery.cancel_scope.cancel()


async def test_all_hear_what_one_says_in_order(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with opened(url) as (ada, by_ada), opened(url) as (bob, by_bob):
        await ada.say(b"are you there?")
        await bob.say(b"yes")
        assert await ada.say("schön \0".encode()) == 2
        said = [b"are you there?", b"yes", "schön \0".encode()]
        await until(lambda: by_ada[-1:] == by_bob[-1:] == said[-1:])
        assert by_ada == said
        assert by_bob == said[-len(by_bob) :]  # it may have come after the first


async def test_who_has_another_name_hears_nothing(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with opened(url) as (ada, by_ada), opened(url, "gossip") as (bob, by_bob):
        assert await bob.say(b"psst") == 1
        assert await ada.say(b"hello") == 1
        await until(lambda: by_ada and by_bob)
        assert (by_ada, by_bob) == ([b"hello"], [b"psst"])


async def test_a_redis_that_comes_back_is_found_again(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "_ANSWERING", 1.0)
    caplog.set_level(logging.WARNING, "cacao")
    async with opened(redis_server.url) as (ada, heard):
        await ada.say(b"before")
        redis_server.stop()
        with pytest.raises(StorageError, match=r"cannot be reached.* Redis at 127\.0\.0\.1"):
            await ada.say(b"lost")
        await until(lambda: "are not heard" in caplog.text)
        with pytest.raises(StorageError, match=r"Redis at 127\.0\.0\.1 is lost"):
            await ada.say(b"lost")
        monkeypatch.undo()
        redis_server.start()
        await until(lambda: "are heard again" in caplog.text)
        await ada.say(b"after")
        await until(lambda: heard == [b"before", b"after"])
    assert caplog.text.count("are not heard") == 1


async def test_a_redis_that_hangs_is_lost_until_it_goes_on(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in (("_ANSWERING", 1.0), ("_QUIET", 0.1)):
        monkeypatch.setattr(channel, name, seconds)
    async with opened(redis_server.url) as (ada, heard):
        await ada.say(b"before")
        redis_server.freeze()
        await until(lambda: "are not heard" in caplog.text)
        redis_server.thaw()
        await until(lambda: "are heard again" in caplog.text)
        monkeypatch.undo()
        await ada.say(b"after")
        await until(lambda: heard == [b"before", b"after"])


async def test_what_hears_may_fail_and_is_not_taken_for_a_lost_redis(
    redis_server: RedisServer,
) -> None:
    def fail(text: bytes) -> None:
        raise LookupError(text)

    with pytest.RaisesGroup(LookupError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            each = Channel(redis_server.url, "news")
            nursery.start_soon(each.keep_hearing, fail)
            await each.say(b"oh")
