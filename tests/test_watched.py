"""Clients whose session another process is asked for: what they say, and whether they wait."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import Live, Page, live
from trio.testing import wait_all_tasks_blocked

from cacao import App, Limits, Registry, Session, Signal
from cacao.errors import ConnectionClosed
from cacao.handover import open_handover
from cacao.parking import ParkedSession
from cacao.tokens import digest_of
from cacao.watched import WatchedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cacao.survival import Survival

SHOWN = "what takes the session up"
EARLY = 8  # messages that are read of who waits


class Till:
    """An app as one process has it."""

    def __init__(self, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=Limits(**limits), storage="memory:")
            self.numbers: Signal[list[int]] = Signal([], name="numbers")
        self.app.on("add")(self.add)

    def add(self, session: Session, number: int) -> None:
        self.numbers.update(session, lambda before: [*before, number])


def adding(number: int) -> dict[str, Any]:
    return {"type": "event", "name": "add", "id": number, "data": {"number": number}}


def survival_of(running: Live) -> Survival:
    survival = running.runtime._survival
    assert survival is not None
    return survival


async def park(running: Live) -> None:
    """Let a session wait in the storage, as if another process had parked it."""
    survival = survival_of(running)
    parked = ParkedSession(
        id="parked",
        values={},
        last_event=0,
        rev=1,
        outcomes=[],
        tokens=[digest_of(SHOWN).hex()],
        owner=None,
        written_at=0,
    )
    survival.park(parked)
    await survival.flush()


async def drop(page: Page) -> None:
    page.connection.hang_up(1006)
    await wait_all_tasks_blocked()


def slow_take(
    running: Live, monkeypatch: pytest.MonkeyPatch, *, before: float = 0, after: float = 0
) -> None:
    """Let taking a session last, in seconds: before it is out of the storage, and after that."""
    survival = survival_of(running)
    take = survival.take

    async def take_slowly(token: str, owner: str | None) -> ParkedSession | None:
        await trio.sleep(before)
        parked = await take(token, owner)
        with trio.CancelScope(shield=True):
            await trio.sleep(after)
        return parked

    monkeypatch.setattr(survival, "take", take_slowly)


async def come_back(running: Live) -> tuple[str, str]:
    """Tell which session another connection of the client gets."""
    page = await running.open_v1(resume=SHOWN)
    await trio.sleep(10)
    (init,) = page.of_type("init")
    return init["sessionId"], init["outcome"]


async def test_who_goes_while_another_process_is_asked_claims_nothing(
    autojump_clock: object,
) -> None:
    """A slow process serves a dead connection; its client is back where the session is."""
    hearers: list[Callable[[bytes], object]] = []

    class Wire:
        async def say(self, text: bytes) -> int:
            await trio.sleep(1)
            for hear in hearers:
                hear(text)
            return len(hearers)

        async def keep_hearing(self, hear: Callable[[bytes], object]) -> None:
            hearers.append(hear)
            await trio.sleep_forever()

    @asynccontextmanager
    async def process() -> AsyncIterator[Live]:
        async with trio.open_nursery() as pages, Till().app.runtime() as runtime:
            running = Live(runtime, pages, [])
            survival = survival_of(running)
            async with open_handover(Wire(), survival, answer_timeout=5, patience=12) as handover:
                survival.handover = handover
                yield running

    async with process() as one, process() as two:
        page = await one.open_v1()
        await drop(page)
        dead = await two.open_v1(resume=page.token, rev=page.rev)
        await drop(dead)
        again = await one.come_back(page)
        await trio.sleep(10)
        assert again.close_code is None
        assert again.of_type("init")[0]["outcome"] == "resumed"
        assert not two.runtime.sessions


async def test_who_goes_while_its_session_is_looked_for_does_not_take_it(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(Till().app) as running:
        await park(running)
        slow_take(running, monkeypatch, before=5)
        page = await running.open_v1(resume=SHOWN)
        await drop(page)
        await trio.sleep(10)
        assert not running.runtime.sessions
        assert await come_back(running) == ("parked", "rebuilt")


async def test_what_was_taken_for_who_has_gone_is_parked_anew(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(Till().app) as running:
        await park(running)
        slow_take(running, monkeypatch, after=5)
        page = await running.open_v1(resume=SHOWN)
        await drop(page)
        await trio.sleep(10)
        assert not running.runtime.sessions
        assert await come_back(running) == ("parked", "rebuilt")


async def test_who_goes_while_there_is_nothing_to_take_begins_no_session(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(Till().app) as running:
        slow_take(running, monkeypatch, after=5)
        page = await running.open_v1(resume=SHOWN)
        await drop(page)
        await trio.sleep(10)
        assert not running.runtime.sessions


@pytest.mark.parametrize("is_parked", [True, False])
@pytest.mark.parametrize("count", [1, EARLY, 3 * EARLY])
async def test_what_a_client_says_while_it_waits_is_read_afterwards_in_order(
    *, count: int, is_parked: bool, autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = Till()
    async with live(till.app) as running:
        if is_parked:
            await park(running)
        slow_take(running, monkeypatch, before=5)
        page = await running.open_v1(resume=SHOWN)
        numbers = list(range(1, count + 1))
        await page.send(*map(adding, numbers))
        assert len(page.connection._inbox) == max(0, count - EARLY)  # nobody reads it all ahead
        await trio.sleep(10)
        await page.send(adding(count + 1))
        assert till.numbers.get(running.session) == [*numbers, count + 1]
        assert [result["id"] for result in page.of_type("result")] == [*numbers, count + 1]
        assert running.session.is_attached
        await drop(page)
        assert not running.session.is_attached


async def test_who_goes_after_it_has_its_session_is_waited_for(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words count, and the close is not missed, whoever of the tasks has read it."""
    till = Till()
    async with live(till.app) as running:
        await park(running)
        page: list[Page] = []
        survival = survival_of(running)
        take = survival.take

        async def take_and_lose(token: str, owner: str | None) -> ParkedSession | None:
            parked = await take(token, owner)
            page[0].connection.put('{"type":"beat"}')
            page[0].connection.hang_up(1006)
            return parked

        monkeypatch.setattr(survival, "take", take_and_lose)
        page.append(await running.open("cacao.v1"))
        await page[0].send({"type": "hello", "resume": SHOWN})
        assert running.session.id == "parked"
        assert not running.session.is_attached
        await trio.sleep(130)
        assert not running.runtime.sessions


async def test_who_is_not_served_any_more_is_not_watched_either(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(Till().app) as running:
        slow_take(running, monkeypatch, before=5)
        page = Page("cacao.v1")
        page.connection.put(json.dumps({"type": "hello", "resume": SHOWN}))

        async def close(*_: object) -> None:
            """Tell `receive` nothing of it, as a server may."""

        monkeypatch.setattr(page.connection, "close", close)
        before = trio.lowlevel.current_statistics().tasks_living
        with trio.move_on_after(1):
            await running.runtime.serve(page.connection)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().tasks_living == before


async def test_who_receives_waits_until_the_watch_is_over(autojump_clock: object) -> None:
    page = Page("cacao.v1")
    connection = WatchedConnection(page.connection)
    async with trio.open_nursery() as nursery:
        with connection.watched(nursery):
            await wait_all_tasks_blocked()
            page.connection.put("1")  # the watch is woken, and is to end
            page.connection.put("2")
        assert [await connection.receive() for _ in range(2)] == ["1", "2"]


async def test_a_close_that_a_server_tells_once_is_not_lost(autojump_clock: object) -> None:
    page = Page("cacao.v1")
    connection = WatchedConnection(page.connection)
    async with trio.open_nursery() as nursery:
        with connection.watched(nursery):
            await wait_all_tasks_blocked()
            page.connection.put("1")
            page.connection.hang_up(1006)
        await wait_all_tasks_blocked()
        page.connection.closed = None
        with trio.fail_after(1):
            assert await connection.receive() == "1"
            with pytest.raises(ConnectionClosed, match="1006"):
                await connection.receive()


async def test_what_goes_wrong_while_a_client_waits_is_told_who_receives(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(Till().app) as running:
        await park(running)
        slow_take(running, monkeypatch, after=5)
        page = Page("cacao.v1")
        page.connection.put(json.dumps({"type": "hello", "resume": SHOWN}))
        receive = page.connection.receive

        async def fail_after_the_first() -> str:
            monkeypatch.setattr(page.connection, "receive", fail)
            return await receive()

        async def fail() -> str:
            await trio.sleep(1)
            raise OSError("the server's own trouble")

        monkeypatch.setattr(page.connection, "receive", fail_after_the_first)
        with pytest.raises(OSError, match="own trouble"):
            await running.runtime.serve(page.connection)
        assert await come_back(running) == ("parked", "rebuilt")
