"""Writing behind: what is gathered, what is lost, and what happens while the storage fails."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from storages import FlakyStorage
from trio.testing import wait_all_tasks_blocked

from cacao.errors import StorageError
from cacao.storage import Entry
from cacao.storage.write_behind import WriteBehind, open_write_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class World:
    """A write-behind over a storage that can fail, and what it told of failures."""

    def __init__(self) -> None:
        self.storage = FlakyStorage()
        self.failures: list[tuple[float, str]] = []
        self.behind: WriteBehind

    def failed(self, error: StorageError) -> None:
        self.failures.append((trio.current_time(), str(error)))

    def later(self, **values: bytes | None) -> None:
        for key, value in values.items():
            self.behind.later(key, partial(Entry, value))

    @asynccontextmanager
    async def opened(self, interval: float = 0.5) -> AsyncIterator[None]:
        async with open_write_behind(self.storage, self.failed, interval=interval) as self.behind:
            yield


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_change_is_written_at_once(world: World, autojump_clock: object) -> None:
    async with world.opened():
        world.later(a=b"1")
        await wait_all_tasks_blocked()
        assert world.storage.puts == [{"a": b"1"}]


async def test_further_ones_are_written_together_once_an_interval_and_the_last_counts(
    world: World, autojump_clock: object
) -> None:
    async with world.opened(interval=0.5):
        for number in range(90):  # nearly a second
            world.later(a=b"%d" % number, b=b"x")
            await trio.sleep(0.01)
        assert len(world.storage.puts) == 2
        await trio.sleep(0.5)
        assert world.storage.puts[2:] == [{"a": b"89", "b": b"x"}]


async def test_nothing_is_written_while_nothing_changes(
    world: World, autojump_clock: object
) -> None:
    async with world.opened():
        world.later(a=b"1")
        await trio.sleep(60)
        assert len(world.storage.puts) == 1


async def test_an_entry_is_made_when_its_turn_has_come_and_not_before(
    world: World, autojump_clock: object
) -> None:
    made: list[str] = []

    def make(name: str) -> Callable[[], Entry | None]:
        def entry() -> Entry | None:
            made.append(name)
            return None if name == "nothing" else Entry(name.encode())

        return entry

    async with world.opened():
        world.behind.later("a", make("first"))
        world.behind.later("a", make("second"))
        world.behind.later("b", make("nothing"))
        assert made == []
        await wait_all_tasks_blocked()
        assert made == ["second", "nothing"]
        assert world.storage.puts == [{"a": b"second"}]
        world.behind.later("b", make("nothing"))
        await trio.sleep(1)
        assert len(world.storage.puts) == 1  # there was nothing to write


async def test_one_write_is_in_flight_and_flush_waits_for_it(
    world: World, autojump_clock: object
) -> None:
    world.storage.seconds = 3
    async with world.opened():
        world.later(a=b"1")
        await wait_all_tasks_blocked()
        world.later(a=b"2", b=b"1")
        await world.behind.flush()
        assert trio.current_time() == pytest.approx(6)
        assert world.storage.puts == [{"a": b"1"}, {"a": b"2", "b": b"1"}]


async def test_flush_with_nothing_to_write_writes_nothing(
    world: World, autojump_clock: object
) -> None:
    async with world.opened():
        await world.behind.flush()
        assert world.storage.puts == []


async def test_a_failed_flush_raises_and_what_was_given_is_written_later(
    world: World, autojump_clock: object
) -> None:
    async with world.opened():
        world.storage.is_broken = True
        world.later(a=b"1")
        with pytest.raises(StorageError, match="out of order"):
            await world.behind.flush()
        world.storage.is_broken = False
        await trio.sleep(30)
        assert world.storage.puts == [{"a": b"1"}]


async def test_what_failed_is_tried_again_and_what_is_newer_is_kept(
    world: World, autojump_clock: object
) -> None:
    async with world.opened():
        world.storage.is_broken = True
        world.later(a=b"old", b=b"old")
        await trio.sleep(0.1)
        world.later(a=b"new")
        await trio.sleep(5)
        world.storage.is_broken = False
        await trio.sleep(20)
        assert world.storage.puts == [{"a": b"new", "b": b"old"}]


async def test_a_long_failure_is_told_ever_more_rarely(
    world: World, autojump_clock: object
) -> None:
    async with world.opened():
        world.storage.is_broken = True
        world.later(a=b"1")
        await trio.sleep(600)
        times = [time for time, _ in world.failures]
        assert times[:5] == pytest.approx([0, 1, 3, 7, 15])
        assert len(times) < 70
        world.storage.is_broken = False
        await trio.sleep(10)
        world.later(a=b"2")
        await trio.sleep(1)
        assert world.storage.puts == [{"a": b"1"}, {"a": b"2"}]  # and as quick as before


async def test_leaving_the_block_writes_what_waits(world: World, autojump_clock: object) -> None:
    async with world.opened():
        world.later(a=b"1")
        await wait_all_tasks_blocked()
        world.later(a=b"2")
    assert world.storage.puts == [{"a": b"1"}, {"a": b"2"}]
    assert world.failures == []


async def test_a_cancelled_block_writes_what_waits_and_what_was_in_flight(
    world: World, autojump_clock: object
) -> None:
    world.storage.seconds = 1
    with trio.move_on_after(0.5) as scope:
        async with world.opened():
            world.later(a=b"1", b=b"1")
            await wait_all_tasks_blocked()
            world.later(a=b"2")
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert world.storage.puts == [{"a": b"2", "b": b"1"}]


async def test_an_error_in_the_block_writes_what_waits(
    world: World, autojump_clock: object
) -> None:
    async def fail() -> None:
        async with world.opened():
            world.later(a=b"1")
            raise ValueError

    with pytest.raises(ExceptionGroup):
        await fail()
    assert world.storage.puts == [{"a": b"1"}]


async def test_a_failure_at_the_end_is_tried_again_for_a_while(
    world: World, autojump_clock: object
) -> None:
    async def mend() -> None:
        await trio.sleep(2)
        world.storage.is_broken = False

    async with trio.open_nursery() as nursery, world.opened():
        world.storage.is_broken = True
        world.later(a=b"1")
        nursery.start_soon(mend)
    assert world.storage.puts == [{"a": b"1"}]


@pytest.mark.parametrize("seconds", [0.0, math.inf])
async def test_what_cannot_be_written_at_the_end_is_lost_in_time_and_told(
    world: World, seconds: float, autojump_clock: object
) -> None:
    async with world.opened():
        world.storage.is_broken = True
        world.storage.seconds = seconds
        world.later(a=b"1", b=b"2")
    assert trio.current_time() == pytest.approx(5)
    assert "2 changed values could not be written within 5.0 s" in world.failures[-1][1]


async def test_what_waits_is_read_as_if_it_were_written(
    world: World, autojump_clock: object
) -> None:
    await world.storage.put({"a": Entry(b"0"), "b": Entry(b"0"), "c": Entry(b"0")})
    async with world.opened():
        world.later(z=b"1")
        await wait_all_tasks_blocked()  # so the next ones wait
        world.later(a=b"1", b=None)
        world.behind.later("c", lambda: None)
        assert await world.behind.get(["a", "b", "c", "d"]) == {"a": b"1", "c": b"0"}


async def test_what_is_in_flight_is_read_as_if_it_were_written(
    world: World, autojump_clock: object
) -> None:
    await world.storage.put({"a": Entry(b"0")})
    world.storage.seconds = 1
    async with world.opened():
        world.later(a=b"1")
        await wait_all_tasks_blocked()
        assert await world.behind.get(["a"]) == {"a": b"1"}
