"""A session goes where its client goes: several runs of one app on one real Redis."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import Live, Page
from trio.testing import wait_all_tasks_blocked

from cacao import App, Limits, Registry, Session, Signal
from cacao.parking import ParkedSession
from cacao.peer import Peer
from cacao.shared import SharedStore
from cacao.survival import open_survival
from cacao.tokens import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from redis_server import RedisServer

_PATIENCE = 30
HASTY = {"handover_timeout": 0.05}


class Till:
    """An app as one process has it."""

    def __init__(self, storage: str, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(
                registry=registry,
                limits=Limits(**{"handover_timeout": 5, **limits}),
                storage=storage,
                authenticate=lambda peer: peer.headers.get("user", "nobody"),
            )
            self.count = Signal(0, name="count")
        self.diary: list[str] = []
        self.may_end = trio.Event()
        self.may_end.set()
        self.app.on("add")(self.add)
        self.app.on("pay")(self.pay)
        self.app.on("leave")(self.leave)
        self.app.on_session_end(self.end)

    async def add(self, session: Session) -> None:
        self.count.update(session, lambda n: n + 1)

    async def pay(self, session: Session, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        finally:
            self.diary.append("paid")
        self.count.update(session, lambda n: n + 100)

    async def leave(self, session: Session) -> None:
        session.close()

    async def end(self, session: Session) -> None:
        await self.may_end.wait()
        self.diary.append("ended")


@asynccontextmanager
async def running(app: App) -> AsyncIterator[Live]:
    async with trio.open_nursery() as pages, app.runtime() as runtime:
        yield Live(runtime, pages, [])


async def until(holds: Callable[[], object]) -> None:
    """Wait, in real time, until something holds."""
    with trio.fail_after(_PATIENCE):
        while not holds():  # noqa: ASYNC110 - the other side is another process
            await trio.sleep(0.005)
    await wait_all_tasks_blocked()


async def until_greeted(page: Page) -> dict[str, Any]:
    await until(lambda: page.messages or page.close_code)
    return page.messages[0] if page.messages else {"outcome": page.close_code}


async def come_back(
    page: Page, to: Live, rev: int | None = None, peer: Peer | None = None
) -> tuple[Page, dict[str, Any]]:
    again = await to.open_v1(peer, resume=page.token, rev=rev or page.rev)
    return again, await until_greeted(again)


def lose(page: Page) -> None:
    page.connection.hang_up(1006)


def results(page: Page) -> list[tuple[int, str | None]]:
    return [(message["id"], message.get("code")) for message in page.of_type("result")]


async def test_a_session_that_waits_goes_where_its_client_goes(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        for number in range(1, 7):
            await page.event("add", id=number)
            here, there = (two, one) if number % 2 else (one, two)
            lose(page)
            session_id = there.session.id
            page, init = await come_back(page, here)
            assert init["outcome"] == "rebuilt"
            assert init["sessionId"] == session_id
            assert (init["lastEvent"], init["state"]["count"]) == (number, number)
            assert not there.runtime.sessions
        _, init = await come_back(page, one)
        assert init["outcome"] == "resumed"


async def test_a_connection_that_still_has_it_is_closed_with_4001(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        await page.event("add", id=1)
        _, init = await come_back(page, two)
        assert init["state"]["count"] == 1
        await until(lambda: page.close_code)
        assert page.close_code == 4001
        await page.event("add", id=2)  # it comes too late
        assert two.session.id == init["sessionId"]
        assert not one.runtime.sessions


@pytest.mark.parametrize("is_attached", [True, False])
async def test_handlers_get_a_moment_before_and_what_is_cut_off_is_told(
    is_attached: bool, redis_server: RedisServer
) -> None:
    old, new = (Till(redis_server.url, drain_timeout=0.5) for _ in range(2))
    async with running(old.app) as one, running(new.app) as two:
        page = await one.open_v1()
        seen = page.rev
        await page.event("pay", {"seconds": 0.05}, id=1)
        await page.event("pay", {"seconds": 60}, id=2)
        await page.event("pay", {"seconds": 60}, id=3)
        if not is_attached:
            lose(page)
        again, init = await come_back(page, two, rev=seen)
        assert old.diary == ["paid", "paid", "ended"]
        assert init["state"]["count"] == 100
        assert results(again) == [(1, None), (2, "cancelled"), (3, "cancelled")]


async def test_an_idle_session_does_not_wait(redis_server: RedisServer) -> None:
    limits: dict[str, Any] = {"drain_timeout": 10 * _PATIENCE}
    url = redis_server.url
    async with running(Till(url, **limits).app) as one, running(Till(url, **limits).app) as two:
        page = await one.open_v1()
        await page.event("pay", {"seconds": 0}, id=1)
        lose(page)
        _, init = await come_back(page, two)
        assert init["state"]["count"] == 100


async def test_only_its_user_has_it_handed_over(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url, **HASTY).app) as two:
        page = await one.open_v1(Peer(user="ada"))
        _, init = await come_back(page, two, peer=Peer(user="bob"))
        assert init["outcome"] == "fresh"
        assert page.close_code is None
        assert one.session.is_attached


async def test_of_several_that_come_at_once_none_begins_anew(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with (
        running(Till(url).app) as one,
        running(Till(url).app) as two,
        running(Till(url).app) as three,
    ):
        runs = [one, two, three]
        page = await one.open_v1()
        await page.event("add", id=1)
        pages = [await run.open("cacao.v1") for run in runs for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for each in pages:
                nursery.start_soon(
                    each.send, {"type": "hello", "resume": page.token, "rev": page.rev}
                )
        await until(lambda: all(each.messages or each.close_code for each in pages))
        outcomes = {each.messages[0]["outcome"] for each in pages if each.messages}
        assert "fresh" not in outcomes
        await until(lambda: sum(len(run.runtime.sessions) for run in runs) == 1)
        (session_id,) = [each for run in runs for each in run.runtime.sessions]
        assert session_id == page.messages[0]["sessionId"]


async def test_who_comes_back_to_where_it_is_leaving_finds_it_too(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url
    async with running(Till(url, drain_timeout=0.5).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        await page.event("pay", {"seconds": 60}, id=1)
        lose(page)
        elsewhere = await two.open_v1(resume=page.token, rev=page.rev)
        await until(lambda: one.runtime._leaving)
        _, init = await come_back(page, one)
        assert init["outcome"] == "rebuilt"
        await until_greeted(elsewhere)
        assert elsewhere.messages[0]["outcome"] == "rebuilt"


async def test_where_there_is_no_room_it_is_not_lost(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url, max_sessions=1).app) as full:
        await full.open_v1()
        page = await one.open_v1()
        await page.event("add", id=1)
        lose(page)
        _, init = await come_back(page, full)
        assert init["outcome"] == 1013
        assert len(full.runtime._roster.register) == 1
        async with running(Till(url).app) as three:
            _, init = await come_back(page, three)
            assert (init["outcome"], init["state"]["count"]) == ("rebuilt", 1)


async def test_a_session_that_waits_is_found_at_once_when_its_server_ends(
    redis_server: RedisServer,
) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        await page.event("add", id=1)
        lose(page)
        await wait_all_tasks_blocked()
        one.runtime.drain()
        _, init = await come_back(page, two)
        assert (init["outcome"], init["state"]["count"]) == ("rebuilt", 1)


async def test_a_session_that_ends_of_itself_is_nowhere(redis_server: RedisServer) -> None:
    old, new = Till(redis_server.url), Till(redis_server.url, **HASTY)
    old.may_end = trio.Event()
    async with running(old.app) as one, running(new.app) as two:
        page = await one.open_v1()
        await page.event("leave", id=1)
        await until(lambda: page.close_code)
        _, init = await come_back(page, two)
        assert init["outcome"] == "fresh"
        assert one.runtime.sessions
        old.may_end.set()
        await until(lambda: not one.runtime.sessions)
        _, init = await come_back(page, two)
        assert init["outcome"] == "fresh"


async def test_without_redis_a_client_begins_anew_and_one_line_tells_why(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        lose(page)
        survival = two.runtime._survival
        assert survival is not None
        monkeypatch.setattr(survival._storage, "_patience", 0.1)
        redis_server.stop()
        caplog.clear()
        caplog.set_level(logging.ERROR, "cacao")
        _, init = await come_back(page, two)
        assert init["outcome"] == "fresh"
        assert [record.message for record in caplog.records if record.exc_info] == [
            "a client begins anew, for its session cannot be looked up"
        ]
        redis_server.start()


async def test_a_server_that_ends_while_it_takes_a_session_leaves_it_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:{tmp_path}/file"
    async with running(Till(url).app) as one:
        page = await one.open_v1()
        await page.event("add", id=1)
    async with running(Till(url).app) as two:
        survival = two.runtime._survival
        assert survival is not None
        take = survival.take

        async def take_and_end(token: str, owner: str | None) -> ParkedSession | None:
            parked = await take(token, owner)
            two.runtime.drain()
            return parked

        monkeypatch.setattr(survival, "take", take_and_end)
        _, init = await come_back(page, two)
        assert init["outcome"] == 1012
    async with running(Till(url).app) as three:
        _, init = await come_back(page, three)
        assert (init["outcome"], init["state"]["count"]) == ("rebuilt", 1)


async def test_a_server_that_ends_takes_no_session_from_others(redis_server: RedisServer) -> None:
    url = redis_server.url
    async with running(Till(url).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        two.runtime.drain()
        _, init = await come_back(page, two)
        assert init["outcome"] == 1012
        assert one.session.is_attached


async def test_what_is_not_stored_yet_is_offered_and_stored_at_once() -> None:
    token, digest = "secret", digest_of("secret").hex()
    parked = ParkedSession(
        id="s",
        values={},
        last_event=0,
        rev=1,
        outcomes=[],
        tokens=[digest],
        owner=None,
        written_at=0,
    )
    with Registry() as registry, closing(SharedStore()) as run:
        async with open_survival("memory:", registry, run, fail, Limits()) as survival:
            assert survival is not None
            assert survival.offer(digest, None) is None
            assert not survival.has(digest)
            survival.park(parked)
            let_go = survival.offer(digest, None)
            assert let_go is not None
            await let_go()
            assert survival.offer(digest, None) is None
            assert await survival.take(token, None) == parked


def fail(error: Exception, _: object) -> None:
    raise error


async def test_a_file_hands_nothing_over(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/file"
    async with running(Till(url).app) as one, running(Till(url).app) as two:
        page = await one.open_v1()
        lose(page)
        _, init = await come_back(page, two)
        assert init["outcome"] == "fresh"
