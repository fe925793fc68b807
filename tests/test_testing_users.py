"""Many users of one app: their names, their tabs, and who speaks for whom."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from both_clients import Opens, in_both

from cacao import App, ConnectionClosed, Limits, Session, Signal
from cacao.testing import AsyncTestClient, TestClient
from cacao.testing.open_worlds import find_world

if TYPE_CHECKING:
    from cacao import Peer


class Shop:
    """An app whose users count for themselves, and see one board together."""

    def __init__(self, **options: Any) -> None:
        self.app = App(**options)
        self.count = Signal(0, name="count")
        self.board = Signal("", name="board", scope="app")
        for handler in (self.add, self.post, self.fail, self.wait):
            self.app.on(handler.__name__)(handler)

    def add(self, session: Session) -> None:
        self.count.update(session, lambda before: before + 1)

    def post(self, session: Session, text: str) -> None:
        self.board.update(session, lambda before: before + text)

    def fail(self) -> None:
        raise ZeroDivisionError("by hand")

    async def wait(self, session: Session) -> None:
        await trio.sleep(1)
        self.add(session)


def by_header(peer: Peer) -> str | None:
    return peer.headers.get("x-user") or peer.cookies.get("user")


# --- Who they are ------------------------------------------------------------------------------


@in_both
async def test_users_live_in_one_run_each_in_a_session_of_its_own(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice, bob = await t.user("alice"), await t.user("bob")
        await alice.send("add")
        assert (t.state["count"], alice.state["count"], bob.state["count"]) == (0, 1, 0)
        await bob.send("post", text="sold")
        assert t.state["board"] == alice.state["board"] == "sold"
        assert len({t.session_id, alice.session_id, bob.session_id}) == 3


@in_both
async def test_clients_are_named_for_their_users(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice = await t.user("alice", tabs=2)
        nobody = await t.user()
        second = await alice.tab()
        assert [tab.name for tab in alice.tabs] == ["alice", "alice, tab 2", "alice, tab 3"]
        assert second.name == "alice, tab 3"
        assert (t.name, nobody.name) == ("client 1", "client 4")
        assert (await t.tab()).name == "client 1, tab 2"


@in_both
async def test_the_tabs_of_a_user_are_pages_with_a_session_each(opens: Opens) -> None:
    async with opens(Shop(authenticate=by_header).app, headers={"X-User": "root"}) as t:
        first = await t.user("alice", tabs=3)
        assert len(first.tabs) == 3
        assert first.tabs[0] == first
        assert all(tab.tabs == first.tabs for tab in first.tabs)
        assert {tab.session.user for tab in first.tabs} == {"alice"}
        assert len({tab.session_id for tab in first.tabs}) == 3
        await first.tabs[1].send("add")
        assert [tab.state["count"] for tab in first.tabs] == [0, 1, 0]


@in_both
async def test_a_user_without_a_tab_is_refused(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        with pytest.raises(ValueError, match="1 tab or more, not 0"):
            await t.user("alice", tabs=0)


@in_both
async def test_where_nobody_is_asked_who_they_are_nobody_is_anybody(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice = await t.user("alice")
        assert alice.session.user is None


@in_both
async def test_a_named_user_is_not_asked_for_a_proof(opens: Opens) -> None:
    class Account:
        id = 7

    account = Account()
    async with opens(Shop(authenticate=by_header).app, cookies={"user": "root"}) as t:
        assert t.session.user == "root"
        found = await t.user(account)
        assert found.session.user is account
        assert found.name == "7"


@in_both
async def test_a_user_with_headers_or_cookies_is_asked(opens: Opens) -> None:
    async with opens(Shop(authenticate=by_header).app, headers={"X-User": "root"}) as t:
        ada = await t.user("her name here", headers={"X-User": "ada"})
        bob = await t.user("his name here", cookies={"user": "bob"})
        assert (ada.session.user, bob.session.user) == ("ada", "bob")
        assert ada.name == "her name here"
        assert (await ada.tab()).session.user == "ada"


@in_both
async def test_who_is_refused_is_no_client_and_the_others_go_on(opens: Opens) -> None:
    async with opens(Shop(authenticate=by_header).app, headers={"X-User": "root"}) as t:
        with pytest.raises(ConnectionClosed) as refused:
            await t.user("mallory", headers={})
        assert refused.value.code == 4401
        await t.send("add")
        assert t.state["count"] == 1


@in_both
async def test_a_user_may_speak_the_plain_protocol(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        plain = await t.user("plain", subprotocol=None)
        assert await plain.send("add") is None
        assert plain.state["count"] == 1
        assert "rev" not in plain.messages[-1]
        assert (await plain.tab()).messages[0].keys() == {"type", "state", "sessionId"}


# --- Who speaks for whom -----------------------------------------------------------------------


@in_both
async def test_a_client_speaks_for_those_that_came_through_it(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice = await t.user("alice", tabs=2)
        bob = await t.user("bob")
        tab = alice.tabs[1]
        await alice.send("post", text="a")
        await tab.send("post", text="b")
        await bob.send("post", text="c")
        assert t.runs("post") == [("a", "done"), ("b", "done"), ("c", "done")]
        assert alice.runs("post") == [("a", "done"), ("b", "done")]
        assert tab.runs("post") == [("b", "done")]
        assert bob.runs("post") == [("c", "done")]
        assert [who.delivered_once("post").sent for who in (t, alice, tab, bob)] == [3, 2, 1, 1]


@in_both
async def test_what_one_has_seen_everybody_above_has_seen(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice, bob = await t.user("alice"), await t.user("bob")
        await alice.send("add")
        assert not alice.never_saw(count=1)
        assert not t.never_saw(count=1)
        assert bob.never_saw(count=1)


@in_both
async def test_an_error_is_expected_by_whom_it_concerns_and_those_above(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice, bob = await t.user("alice"), await t.user("bob")
        with t.expect_error(ZeroDivisionError, match="by hand") as caught:
            await alice.send("fail")
        assert str(caught.value) == "by hand"
        with bob.expect_error(ZeroDivisionError):
            with pytest.raises(ZeroDivisionError):
                await alice.send("fail")
            await bob.send("fail")


@in_both
async def test_who_closes_takes_along_those_that_came_through_it(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice, bob = await t.user("alice", tabs=2), await t.user("bob")
        await alice.close()
        for tab in alice.tabs:
            with pytest.raises(ConnectionClosed, match="has closed; open another client"):
                await tab.send("add")
        await bob.send("add")
        await t.send("add")
        assert bob.state["count"] == 1
        await t.advance(5)  # a page may only be reloaded
        assert set(t._stage.runtime.sessions) == {t.session_id, bob.session_id}


@in_both
async def test_what_was_sent_at_once_is_settled_at_the_end(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        alice, bob = await t.user("alice"), await t.user("bob")
        async with t.together():
            assert await alice.send("post", text="a") is None
            assert await bob.send("post", text="b") is None
            assert t.runs("post") == []
            assert t.state["board"] == ""
        assert sorted(t.runs("post")) == [("a", "done"), ("b", "done")]
        assert t.state["board"] in {"ab", "ba"}
        first = alice.result(1)
        assert first is not None
        assert first.ok


@in_both
async def test_together_does_not_nest(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        async with t.together():
            with pytest.raises(RuntimeError, match="does not nest"):
                async with t.together():
                    pass
            await t.send("add")
        assert t.state["count"] == 1


@in_both
async def test_within_together_the_app_does_not_run(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        async with t.together():
            await t.send("add")
            for word, *given in (("advance", 1), ("settle",), ("wait", lambda: True)):
                with pytest.raises(RuntimeError, match="within together"):
                    await getattr(t, str(word))(*given)
            assert t.state["count"] == 0
        assert t.state["count"] == 1


@in_both
async def test_a_failure_within_together_leaves_a_client_that_goes_on(opens: Opens) -> None:
    async with opens(Shop().app) as t:
        with suppress(KeyError):
            async with t.together():
                await t.send("add")
                raise KeyError
        await t.send("add")
        assert t.state["count"] == 2


def test_the_seed_decides_who_is_first() -> None:
    def boards(seed: int) -> str:
        with TestClient(Shop().app, seed=seed) as t:
            users = [t.user(name) for name in "abcd"]
            with t.together():
                for user in users:
                    user.send("post", text=user.name)
            return str(t.state["board"])

    assert [boards(seed) for seed in range(8)] == [boards(seed) for seed in range(8)]
    assert len({boards(seed) for seed in range(8)}) > 1


# --- Ends --------------------------------------------------------------------------------------


def test_a_block_closes_its_client_and_all_that_came_through_it() -> None:
    with TestClient(Shop().app) as t:
        alice = t.user("alice")
    for client in (t, alice):
        with pytest.raises(ConnectionClosed, match="has closed"):
            client.send("add")


def test_the_last_client_to_close_closes_the_run() -> None:
    app = Shop().app
    with TestClient(app) as t:
        other = TestClient(app)
    other.send("add")
    assert other.state["count"] == 1
    other.close()
    with pytest.raises(ConnectionClosed, match="has closed"):
        t.advance(1)


def test_a_client_that_was_cut_off_keeps_the_run_until_it_closes() -> None:
    app = Shop().app
    cut, other = TestClient(app), TestClient(app)
    cut._world.do(cut.session.close, 1012, "server is restarting")
    other.close()
    with pytest.raises(ConnectionClosed, match=r"server is restarting; .* or network\.restore"):
        cut.send("add")
    cut.network.restore()
    cut.send("add")
    assert cut.state["count"] == 1


@in_both
async def test_a_late_error_is_a_note_of_the_error_that_ends_the_block(opens: Opens) -> None:
    shop = Shop()

    @shop.app.on_session_end
    def fail_late() -> None:
        raise OSError("as the session ended")

    with pytest.raises(AssertionError, match="my own") as failed:
        async with opens(shop.app):
            raise AssertionError("my own")
    (note,) = failed.value.__notes__
    assert "OSError('as the session ended')" in note


@in_both
async def test_a_late_error_fails_a_block_that_ends_well(opens: Opens) -> None:
    shop = Shop()

    @shop.app.on_session_end
    def fail_late() -> None:
        raise OSError("as the session ended")

    with pytest.raises(OSError, match="as the session ended"):
        async with opens(shop.app):
            pass


async def test_a_cancelled_block_lets_all_its_users_go() -> None:
    with trio.CancelScope() as scope:
        async with AsyncTestClient(Shop().app) as t:
            alice = await t.user("alice")
            await alice.send("wait")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(ConnectionClosed):
        _ = alice.session


def test_a_user_whose_coming_has_failed_leaves_with_who_brought_them() -> None:
    app = App()
    client = TestClient(app)

    @app.on_session_start
    def fail() -> None:
        raise ValueError("no welcome")

    with pytest.raises(ValueError, match="no welcome"):
        client.user("alice")
    client.close()
    assert find_world(app) is None


@in_both
async def test_a_test_may_do_what_only_the_app_does(opens: Opens) -> None:
    app = App()
    count = Signal(0, name="count")

    def add(n: int) -> int:
        count.value += n
        return count.value

    async with opens(app) as t:
        alice = await t.user("alice")
        assert await alice.call(add, 3) == 3
        assert (t.state["count"], alice.state["count"]) == (0, 3)
        await alice.call(count.set, alice.session, 5)
        assert alice.state["count"] == 5
        await alice.call(alice.session.close, 4000, "enough")
        assert alice.closing is not None
        assert (alice.closing.code, alice.closing.reason) == (4000, "enough")
        assert t.closing is None


@in_both
async def test_the_first_client_may_be_a_known_user(opens: Opens) -> None:
    app = App(authenticate=lambda peer: None)
    async with opens(app, user="ada") as ada:
        assert (ada.session.user, ada.name) == ("ada", "ada")


@in_both
async def test_an_event_that_is_too_big_has_failed(opens: Opens) -> None:
    app = App(limits=Limits(max_message_bytes=1000))

    @app.on("say")
    async def say(session: Session, event: dict[str, Any]) -> None:
        await trio.sleep_forever()

    async with opens(app) as t:
        await t.send("say", text="short")
        result = await t.send("say", text="a" * 1000)
        assert result is not None
        assert (result.code, result.message) == (
            "too_big",
            "event 'say' is larger than the server takes",
        )
        t.network.restore()
        await t.settle()
        assert t.resumed
        assert t.runs("say") == [("short", "running")]


@in_both
async def test_who_is_refused_among_others_is_told_at_the_end_of_the_block(opens: Opens) -> None:
    app = App(authenticate=lambda peer: peer.headers.get("x-user"))
    async with opens(app, headers={"x-user": "ada"}) as t:

        async def come() -> None:
            async with t.together():
                await t.user(headers={"x-user": "bob"})
                await t.user(headers={})

        with pytest.raises(ConnectionClosed, match="4401"):
            await come()
        users = [session.user for session in t._stage.runtime.sessions.values()]
        assert users == ["ada", "bob"]
