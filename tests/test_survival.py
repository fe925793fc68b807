"""What outlives a run: sessions that another run takes up, and stored signals."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import Page, live
from trio.testing import wait_all_tasks_blocked

from cacao import App, DeclarationError, Limits, ListSignal, Registry, Session, Signal
from cacao.errors import StorageError
from cacao.peer import Peer
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class Shop:
    """An app whose sessions and stored signals are kept in a file."""

    def __init__(self, file: Path, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(
                registry=registry,
                limits=Limits(**limits),
                storage=f"sqlite:{file}",
                authenticate=lambda peer: peer.headers.get("user", "nobody"),
            )
            self.count = Signal(0, name="count")
            self.lines: ListSignal[str] = ListSignal(name="lines")
            self.private = Signal(0, name="private", client=False)
            self.nameless = Signal(0)
            self.theme = Signal("light", name="theme", persist="user")
            self.visits = Signal(0, name="visits", scope="app", persist="app")
        self.diary: list[str] = []
        self.app.on("add")(self.add)
        self.app.on("pay")(self.pay)
        self.app.bind("theme:input", self.theme)

    async def add(self, session: Session) -> None:
        for signal in (self.count, self.private, self.nameless, self.visits):
            signal.update(session, lambda n: n + 1)
        await self.lines.append(session, f"line {self.count.get(session)}")

    async def pay(self, session: Session, seconds: float) -> None:
        try:
            await trio.sleep(seconds)
        finally:
            self.diary.append("paid")
        self.count.update(session, lambda n: n + 100)


def outcome(page: Page) -> str:
    return str(page.of_type("init")[-1]["outcome"])


async def until(condition: Callable[[], object]) -> None:
    """Wait for real: files are read and written in threads."""
    while not condition():  # noqa: ASYNC110 - whatever it is that is waited for
        await trio.sleep(0.001)
    await wait_all_tasks_blocked()


async def until_closed(page: Page) -> None:
    await until(lambda: page.close_code)


async def until_greeted(page: Page) -> None:
    await until(lambda: page.messages)


def results(page: Page) -> list[tuple[int, str | None]]:
    return [(message["id"], message.get("code")) for message in page.of_type("result")]


# --- Sessions ------------------------------------------------------------------------------------


async def test_a_session_goes_on_in_the_next_run(tmp_path: Path) -> None:
    async with live(Shop(tmp_path / "file").app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await page.event("add", id=2)
        session_id = running.session.id
        running.runtime.drain()
        await until_closed(page)
        assert page.close_code == 1012
    after = Shop(tmp_path / "file")
    async with live(after.app) as running:
        again = await running.come_back(page)
        await until_greeted(again)
        init = again.messages[0]
        assert init["outcome"] == "rebuilt"
        assert init["sessionId"] == session_id
        assert init["lastEvent"] == 2
        assert init["state"]["count"] == 2
        assert init["state"]["lines"] == ["line 1", "line 2"]
        assert after.private.get(running.session) == 2
        assert after.nameless.get(running.session) == 0  # nothing that it could be found by
        await again.event("add", id=2)
        await again.event("add", id=3)
        assert after.count.get(running.session) == 3
        assert (await running.come_back(again)).of_type("init")[0]["outcome"] == "resumed"


async def test_a_parked_session_is_there_when_its_connection_is_closed(tmp_path: Path) -> None:
    old, new = Shop(tmp_path / "file"), Shop(tmp_path / "file")
    async with live(old.app) as before, live(new.app) as after:
        page = await before.open_v1()
        await page.event("add", id=1)
        before.runtime.drain()
        await until_closed(page)
        again = await after.come_back(page)
        await until_greeted(again)
        assert outcome(again) == "rebuilt"
        assert again.messages[0]["state"]["count"] == 1


async def test_handlers_get_a_moment_and_what_is_cut_off_is_told(tmp_path: Path) -> None:
    old, new = (Shop(tmp_path / "file", drain_timeout=0.3) for _ in range(2))
    async with live(old.app) as before, live(new.app) as after:
        page = await before.open_v1()
        seen = page.rev
        await page.event("pay", {"seconds": 0.1}, id=1)
        await page.event("pay", {"seconds": 60}, id=2)
        await page.event("pay", {"seconds": 60}, id=3)
        before.runtime.drain()
        await until_closed(page)
        assert old.diary == ["paid", "paid"]
        again = await after.open_v1(resume=page.token, rev=seen)
        await until_greeted(again)
        assert again.messages[0]["state"]["count"] == 100
        assert results(again) == [(1, None), (2, "cancelled"), (3, "cancelled")]


async def test_a_session_that_waits_is_parked_too_when_the_run_ends(tmp_path: Path) -> None:
    async with live(Shop(tmp_path / "file").app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        page.connection.hang_up(1006)
        await wait_all_tasks_blocked()
    async with live(Shop(tmp_path / "file").app) as running:
        again = await running.come_back(page)
        await until_greeted(again)
        assert outcome(again) == "rebuilt"


async def test_of_two_that_come_at_once_one_gets_a_parked_session_and_the_other_takes_it_over(
    tmp_path: Path,
) -> None:
    async with live(Shop(tmp_path / "file").app) as running:
        page = await running.open_v1()
    async with live(Shop(tmp_path / "file").app) as running:
        pages = [await running.open("cacao.v1") for _ in range(2)]
        async with trio.open_nursery() as nursery:
            for each in pages:
                nursery.start_soon(
                    each.send, {"type": "hello", "resume": page.token, "rev": page.rev}
                )
        await until(lambda: all(each.messages or each.close_code for each in pages))
        outcomes = [outcome(each) for each in pages if each.of_type("init")]
        assert "fresh" not in outcomes
        assert len(running.runtime.sessions) == 1


async def test_only_its_user_gets_a_parked_session(tmp_path: Path) -> None:
    async with live(Shop(tmp_path / "file").app) as running:
        page = await running.open_v1(Peer(user="ada"))
        await until_greeted(page)
    async with live(Shop(tmp_path / "file").app) as running:
        for user, expected in (("bob", "fresh"), ("ada", "rebuilt")):
            again = await running.open_v1(Peer(user=user), resume=page.token, rev=page.rev)
            await until_greeted(again)
            assert outcome(again) == expected


async def test_a_parked_session_expires(tmp_path: Path) -> None:
    async with live(Shop(tmp_path / "file", park_window=0.01).app) as running:
        page = await running.open_v1()
    await trio.sleep(0.02)
    async with live(Shop(tmp_path / "file").app) as running:
        again = await running.come_back(page)
        await until_greeted(again)
        assert outcome(again) == "fresh"


# --- Stored signals ------------------------------------------------------------------------------


async def test_stored_signals_are_there_in_the_next_run(tmp_path: Path) -> None:
    ada, bob = (Peer(user=name) for name in ("ada", "bob"))
    async with live(Shop(tmp_path / "file").app) as running:
        page = await running.open_v1(ada)
        await until_greeted(page)
        await page.event("theme:input", {"value": "dark"}, id=1)
        await page.event("add", id=2)
    async with live(Shop(tmp_path / "file").app) as running:
        for peer, theme in ((ada, "dark"), (bob, "light")):
            page = await running.open_v1(peer)
            await until_greeted(page)
            state = page.messages[0]["state"]
            assert (state["theme"], state["visits"], state["count"]) == (theme, 1, 0)


async def test_a_storage_that_fails_costs_no_session(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path / "file")
    async with live(shop.app) as running:
        survival = running.runtime._survival
        assert survival is not None

        async def fail(*_: object) -> None:
            raise StorageError("the disk is on fire")

        for name in ("get", "put", "take"):
            monkeypatch.setattr(survival._storage, name, fail)
        with caplog.at_level(logging.ERROR, "cacao"):
            page = await running.open_v1(Peer(user="ada"), resume="unknown")
            await until_greeted(page)
            assert outcome(page) == "fresh"
            await page.event("add", id=1)
            assert page.of_type("update")[-1]["changes"]["count"] == 1
            await survival.flush()
        monkeypatch.undo()
    assert "the disk is on fire" in caplog.text


def test_in_a_test_nothing_is_kept(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "file")
    for _ in range(2):
        client = TestClient(shop.app)
        client.send("add")
        assert client.state["visits"] == 1
        client.close()
    assert not list(tmp_path.iterdir())


def test_a_signal_for_each_user_needs_users() -> None:
    with Registry() as registry:
        app = App(registry=registry, storage="memory:")
        theme = Signal("light", name="theme", persist="user")
    with pytest.raises(DeclarationError, match=r"signal 'theme' at .*App\(authenticate="):
        app.runtime()
    assert theme.persist == "user"


def test_a_file_lies_beside_the_app_unless_it_is_told_where(tmp_path: Path) -> None:
    for storage, expected in [
        ("sqlite:data/file", "tests/data/file"),
        (f"sqlite:{tmp_path}/file", f"{tmp_path}/file"),
        ("redis://host/0", "redis://host/0"),
        ("memory:", "memory:"),
    ]:
        app = App(registry=Registry(), storage=storage)
        assert app._storage is not None
        assert app._storage.endswith(expected)
    assert App(registry=Registry())._default_storage.endswith("tests/.cacao/storage.sqlite3")


def test_a_session_without_names_parks_no_values() -> None:
    session, again = Session(), Session()
    again.unpark(session.park())
    assert again.id == session.id
