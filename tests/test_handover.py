"""Claims: which process is asked for a session, who answers, and how long each waits."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from cacao import StorageError, handover
from cacao.handover import Handover, LetGo, open_handover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager

ANSWER_TIMEOUT, PATIENCE = 0.5, 12.0
DIGEST = "ab" * 16

Asking = Callable[[str | None], Awaitable[str | None]]


class World:
    """What all processes have: a wire to speak on, and a storage, which may hold the session."""

    def __init__(self) -> None:
        self.hearers: list[Callable[[bytes], object]] = []
        self.said: list[bytes] = []
        self.is_down = False
        self.is_stored = False

    async def say(self, text: bytes) -> int:
        await trio.lowlevel.checkpoint()
        if self.is_down:
            raise StorageError("the cable is cut")
        self.said.append(text)
        for hear in self.hearers:
            hear(text)
        return len(self.hearers)

    async def keep_hearing(self, hear: Callable[[bytes], object]) -> None:
        self.hearers.append(hear)
        try:
            await trio.sleep_forever()
        finally:
            self.hearers.remove(hear)

    @property
    def kinds(self) -> list[object]:
        messages = [json.loads(text) for text in self.said]
        return [message.get("is_over", message["type"]) for message in messages]


class Process:
    """A process that may have the session.

    Args:
        world: Where it is.
        seconds: That it takes to let go of its session; None while it has none.
        owner: Whose session that is.
        looking: Seconds that it takes to look into the storage.
    """

    def __init__(
        self,
        world: World,
        *,
        seconds: float | None = None,
        owner: str | None = None,
        looking: float = 0,
    ) -> None:
        self.world = world
        self.seconds = seconds
        self.owner = owner
        self.looking = looking
        self.is_leaving = False
        self.stays = 0  # that have ended
        self.diary: list[str] = []

    def has(self, digest: str) -> bool:
        return digest == DIGEST and self.seconds is not None and not self.is_leaving

    def offer(self, digest: str, owner: str | None) -> LetGo | None:
        if self.seconds is None or (digest, owner) != (DIGEST, self.owner):
            return None
        return self.let_go

    async def let_go(self) -> None:
        stays = self.stays
        self.is_leaving = True
        await trio.sleep(self.seconds or 0)
        self.diary.append("let go")
        if self.stays == stays:  # else others have asked as well
            self.stays += 1
            self.seconds, self.world.is_stored = None, True

    async def look(self) -> str | None:
        await trio.sleep(self.looking / 2)
        was_stored, self.world.is_stored = self.world.is_stored, False
        await trio.sleep(self.looking / 2)  # taken, and not here yet
        if was_stored:
            self.seconds, self.is_leaving = 0, False
        return "session" if was_stored else None

    async def flush(self) -> None:
        self.diary.append("flushed")

    def opened(self) -> AbstractAsyncContextManager[Handover]:
        return open_handover(self.world, self, answer_timeout=ANSWER_TIMEOUT, patience=PATIENCE)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Asking]:
        async with self.opened() as handover:
            await wait_all_tasks_blocked()
            yield partial(handover.take, DIGEST, look=self.look)


async def test_who_has_it_answers_at_once_and_again_when_it_is_let_go(
    autojump_clock: MockClock,
) -> None:
    world = World()
    there = Process(world, seconds=5)
    async with Process(world).running() as take, there.running(), Process(world).running():
        assert await take(None) == "session"
        assert there.diary == ["let go"]
    assert trio.current_time() == 5
    assert world.kinds == ["claim", False, True]


async def test_what_is_stored_is_taken_without_a_word(autojump_clock: MockClock) -> None:
    world = World()
    world.is_stored = True
    async with Process(world).running() as take, Process(world).running():
        assert await take(None) == "session"
    assert world.said == []


async def test_what_nobody_has_costs_one_message_and_half_a_second(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with Process(world).running() as take, Process(world).running():
        assert await take(None) is None
    assert trio.current_time() == ANSWER_TIMEOUT
    assert world.kinds == ["claim"]


async def test_who_is_alone_does_not_wait(autojump_clock: MockClock) -> None:
    async with Process(World()).running() as take:
        assert await take(None) is None
    assert trio.current_time() == 0


async def test_a_claim_names_whose_session_it_is_and_never_the_token(
    autojump_clock: MockClock,
) -> None:
    world = World()
    there = Process(world, seconds=0, owner="ada")
    async with Process(world).running() as take, there.running():
        assert await take("bob") is None
        assert await take(None) is None
        assert there.diary == []
        assert await take("ada") == "session"
    assert json.loads(world.said[0])["digest"] == DIGEST


async def test_who_takes_for_ever_to_let_go_is_not_waited_for(autojump_clock: MockClock) -> None:
    world = World()
    there = Process(world, seconds=100)
    async with Process(world).running() as take, there.running():
        assert await take(None) is None
        assert trio.current_time() == PATIENCE


async def test_what_is_on_its_way_from_here_is_waited_for_without_a_word(
    autojump_clock: MockClock,
) -> None:
    world = World()
    here = Process(world, seconds=2)
    here.is_leaving = True
    async with here.running() as take:
        assert await take(None) == "session"
    assert trio.current_time() == 2
    assert world.said == []


async def test_what_has_come_here_meanwhile_stays_here(autojump_clock: MockClock) -> None:
    world = World()
    here = Process(world, seconds=0)  # for an earlier connection of the same client
    async with here.running() as take:
        assert await take(None) is None
    assert here.diary == ["flushed"]


async def test_what_another_process_is_just_taking_is_let_go_of_when_it_is_there(
    autojump_clock: MockClock,
) -> None:
    world = World()
    world.is_stored = True
    slow = Process(world, looking=1)
    ends = []

    async def ask(take: Asking) -> None:
        ends.append((await take(None), trio.current_time()))

    async with (
        slow.running() as first,
        Process(world).running() as second,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, first)
        await trio.sleep(0.6)  # it is out of the storage, and not there yet
        nursery.start_soon(ask, second)
    assert ends == [("session", 1), ("session", 1)]
    assert slow.diary[0] == "let go"


@pytest.mark.parametrize("looking", [0, 0.01, 0.4])
async def test_a_session_is_never_nowhere(looking: float, autojump_clock: MockClock) -> None:
    """Whoever of two asks for it, when, and how often: they get it, or have it in their process."""
    world = World()
    processes = [Process(world, looking=looking) for _ in range(3)]
    processes[0].seconds = 0.1
    ends = []

    async def ask(process: Process, take: Asking, after: float) -> None:
        await trio.sleep(after)
        ends.append((await take(None) or process.has(DIGEST), trio.current_time()))

    for step in range(100):
        async with AsyncExitStack() as stack:
            takes = [await stack.enter_async_context(each.running()) for each in processes]
            nursery = await stack.enter_async_context(trio.open_nursery())
            for which in (step % 3, (step + 1) % 3):
                process, take = processes[which], takes[which]
                nursery.start_soon(ask, process, take, 0.005 * step)
                nursery.start_soon(ask, process, take, 0.2)
    assert all(found for found, _ in ends)
    assert sum(process.has(DIGEST) for process in processes) == 1


async def test_what_nobody_has_is_not_waited_for_by_many_for_each_other(
    autojump_clock: MockClock,
) -> None:
    world = World()

    async def ask(take: Asking, after: float) -> None:
        await trio.sleep(after)
        assert await take(None) is None

    async with AsyncExitStack() as stack:
        processes = [Process(world, looking=0.01) for _ in range(4)]
        takes = [await stack.enter_async_context(each.running()) for each in processes]
        async with trio.open_nursery() as nursery:
            for number, take in enumerate(takes * 3):
                nursery.start_soon(ask, take, 0.004 * number)
    assert False in world.kinds  # somebody may have had it
    assert trio.current_time() < 4 * ANSWER_TIMEOUT


async def test_claims_at_once_are_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handover, "_MAX_CLAIMS", 2)
    world = World()
    process = Process(world)
    async with Process(world).running(), process.opened() as here:
        async with trio.open_nursery() as nursery:
            for digest in ("aa", "bb", "cc"):
                nursery.start_soon(here.take, digest, None, process.look)
        assert world.kinds == ["claim", "claim"]
        assert "2 others wait" in caplog.text
        await here.take("cc", None, process.look)
        assert world.kinds == ["claim"] * 3


async def test_a_claim_that_is_given_up_leaves_the_session_in_the_storage(
    autojump_clock: MockClock,
) -> None:
    world = World()
    async with Process(world).running() as take, Process(world, seconds=1).running():
        with trio.move_on_after(0.1):
            await take(None)
        await trio.sleep(2)
        assert world.is_stored
        assert world.kinds == ["claim", False, True]


async def test_processes_that_cannot_be_reached_are_an_error(autojump_clock: MockClock) -> None:
    world = World()
    async with Process(world).running() as take:
        world.is_down = True
        with pytest.raises(StorageError, match="the cable is cut"):
            await take(None)


async def test_who_cannot_say_that_it_has_it_keeps_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    there = Process(world, seconds=0)
    async with Process(world).running() as take, there.running():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, None)
            while not world.said:
                await trio.lowlevel.checkpoint()
            world.is_down = True
        assert there.diary == []
        assert "the cable is cut" in caplog.text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b'{"type":"more"}',
        b'{"type":"claim"}',
        b'{"type":"claim","number":"1","digest":"x","owner":null,"by":"2"}',
        b'{"type":"answer","number":"1","digest":"abab","is_over":true}',
    ],
)
async def test_what_cannot_be_understood_harms_nobody(
    text: bytes, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    caplog.set_level(logging.DEBUG, "cacao")
    world = World()
    async with Process(world).running() as take, Process(world, seconds=0).running():
        await world.say(text)
        assert await take(None) == "session"
    assert ("another version of Cacao" in caplog.text) == (b"answer" not in text)


async def test_at_the_end_what_is_asked_for_is_stored_and_told(autojump_clock: MockClock) -> None:
    world = World()
    there = Process(world, seconds=3)
    answers = []

    async def ask(take: Asking) -> None:
        answers.append((await take(None), trio.current_time()))

    async with Process(world).running() as take, trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            async with there.running():
                nursery.start_soon(ask, take)
                await wait_all_tasks_blocked()
                scope.cancel()
        assert there.diary == ["flushed", "let go"]
    assert answers == [("session", 3)]


async def test_while_it_stores_the_last_it_still_answers(autojump_clock: MockClock) -> None:
    class Slow(Process):
        async def flush(self) -> None:
            await trio.sleep(1)
            self.seconds, self.world.is_stored = None, True

        async def let_go(self) -> None:
            await self.flush()

    world = World()
    async with Process(world).running() as take:
        async with trio.open_nursery() as nursery:
            async with Slow(world, seconds=0).running():
                nursery.start_soon(take, None)
            assert world.kinds == ["claim", False, True]
        assert not world.is_stored
