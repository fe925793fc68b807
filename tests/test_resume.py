"""Sessions that outlive their connections: taken up again, taken over, expired, drained."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import Page, live
from trio.testing import wait_all_tasks_blocked

from cacao import App, Limits, Registry, Session, Signal
from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL

if TYPE_CHECKING:
    from collections.abc import Sequence


class Shop:
    """An app with a counter, a slow handler, one that fails, and a diary."""

    def __init__(self, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=Limits(**limits))
            self.count = Signal(0, name="count")
        self.diary: list[str] = []
        self.app.on("add")(self.add)
        self.app.on("pay")(self.pay)
        self.app.on("fail")(self.fail)

    async def add(self, session: Session) -> None:
        self.count.update(session, lambda n: n + 1)

    async def pay(self, session: Session, seconds: float = 10) -> None:
        self.diary.append("pay begins")
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.diary.append("pay is cancelled")
            raise
        self.count.update(session, lambda n: n + 100)
        self.diary.append("pay ends")

    async def fail(self) -> None:
        raise ZeroDivisionError


def results(page: Page) -> list[tuple[int, bool]]:
    return [(message["id"], message["ok"]) for message in page.of_type("result")]


def outcome(page: Page) -> str:
    return str(page.of_type("init")[-1]["outcome"])


async def drop(page: Page) -> None:
    """Lose the connection, and let the server notice."""
    page.connection.hang_up(1006)
    await wait_all_tasks_blocked()


# --- Coming back -------------------------------------------------------------------------------


async def test_a_client_that_missed_nothing_is_resumed(autojump_clock: object) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await drop(page)
        session = running.session
        await trio.sleep(100)
        again = await running.come_back(page)
        assert running.session is session
        init, repeated = again.messages
        assert repeated == {"type": "result", "id": 1, "ok": True}  # it may have been lost
        assert init["outcome"] == "resumed"
        assert init["state"] == {"count": 1}
        assert init["sessionId"] == session.id
        assert (init["rev"], init["lastEvent"]) == (page.rev + 1, 1)
        assert init["token"] != page.token
        await again.event("add", id=2)
        assert again.of_type("update") == [
            {"type": "update", "changes": {"count": 2}, "rev": init["rev"] + 1, "ack": 2}
        ]


async def test_handlers_run_on_while_there_is_no_connection_and_their_results_follow(
    autojump_clock: object,
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        await page.event("pay", id=1)
        await drop(page)
        await trio.sleep(60)
        assert shop.diary == ["pay begins", "pay ends"]
        again = await running.come_back(page)
        assert [message["type"] for message in again.messages] == ["init", "result"]
        assert again.messages[0]["state"] == {"count": 100}
        assert results(again) == [(1, True)]


async def test_what_was_on_its_way_when_the_connection_broke_is_sent_again(
    autojump_clock: object,
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        seen = page.rev
        page.stall()
        await page.send(
            {"type": "event", "name": "add", "id": 2},
            {"type": "event", "name": "fail", "id": 3},
            {"type": "event", "name": "nothing", "id": 4},
        )
        await drop(page)
        again = await running.open_v1(resume=page.token, rev=seen)
        assert outcome(again) == "rebuilt"
        assert again.messages[0]["state"] == {"count": 2}
        assert again.messages[0]["lastEvent"] == 4
        told = [(message["id"], message.get("code")) for message in again.messages[1:]]
        assert told == [(1, None), (2, None), (3, "handler_error"), (4, "unknown_event")]


async def test_results_that_the_client_is_known_to_have_are_not_repeated(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        for n in range(1, 5):
            await page.event("add", id=n)
        await drop(page)
        again = await running.come_back(page)
        assert results(again) == [(4, True)]  # it may have been lost behind the last update


async def test_of_many_results_at_least_the_last_256_are_kept(autojump_clock: object) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        for n in range(1, 1001):
            await page.event("fail", id=n)
        await drop(page)
        again = await running.open_v1(resume=page.token, rev=1)
        kept = [number for number, _ in results(again)]
        assert kept == list(range(kept[0], 1001))
        assert 256 <= len(kept) <= 512
        running.errors.clear()


async def test_an_event_sent_again_is_acknowledged_again_and_not_applied(
    autojump_clock: object,
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await drop(page)
        again = await running.come_back(page)
        await again.event("add", id=1)
        assert again.messages[-1]["ack"] == 1
        await again.event("add", id=2)
        assert shop.count.get(running.session) == 2


async def test_a_reloaded_page_has_seen_nothing_and_gets_all(autojump_clock: object) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await page.send({"type": "bye"})
        await drop(page)
        await trio.sleep(4.9)
        again = await running.open_v1(resume=page.token)
        (init,) = again.messages
        assert (init["outcome"], init["state"]) == ("rebuilt", {"count": 1})
        await drop(again)  # it came back, so it has all the time again
        await trio.sleep(119)
        assert outcome(await running.come_back(again)) == "resumed"


async def test_effects_follow_while_there_is_no_connection(autojump_clock: object) -> None:
    shop = Shop()
    seen: list[int] = []

    @shop.app.effect
    def watch(session: Session) -> None:
        seen.append(shop.count.get(session))

    @shop.app.on("tick")
    async def tick(session: Session) -> None:
        for _ in range(3):
            await trio.sleep(1)
            shop.count.update(session, lambda n: n + 1)

    async with live(shop.app) as running:
        page = await running.open_v1()
        await page.event("tick", id=1)
        await drop(page)
        await trio.sleep(10)
        assert seen == [0, 1, 2, 3]


async def test_effects_do_not_miss_the_moment_of_the_loss(autojump_clock: object) -> None:
    shop = Shop()
    seen: list[int] = []

    @shop.app.effect
    def watch(session: Session) -> None:
        seen.append(shop.count.get(session))

    async with live(shop.app) as running:
        page = await running.open_v1()
        shop.count.set(running.session, 1)  # to be sent when others have gathered
        await trio.sleep(0.005)
        await drop(page)
        await trio.sleep(1)
        assert seen == [0, 1]


async def test_errors_that_belong_to_no_event_are_not_kept_for_who_is_away(
    autojump_clock: object,
) -> None:
    shop = Shop()

    @shop.app.every(1)
    async def tick() -> None:
        raise ZeroDivisionError

    async with live(shop.app) as running:
        page = await running.open_v1()
        await drop(page)
        await trio.sleep(50.5)
        again = await running.come_back(page)
        assert again.of_type("error") == []
        assert len(running.errors) == 50
        running.errors.clear()


# --- Not coming back ---------------------------------------------------------------------------


@pytest.mark.parametrize(("says_bye", "seconds"), [(False, 120), (True, 5)])
async def test_a_client_that_does_not_come_back_in_time_loses_its_session(
    *, says_bye: bool, seconds: float, autojump_clock: object
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        await page.event("pay", {"seconds": 1000}, id=1)
        if says_bye:
            await page.send({"type": "bye"})
        await drop(page)
        await trio.sleep(seconds - 0.1)
        assert shop.diary == ["pay begins"]
        await trio.sleep(0.2)
        assert shop.diary == ["pay begins", "pay is cancelled"]
        assert not running.runtime.sessions
        again = await running.come_back(page)
        (init,) = again.messages
        assert (init["outcome"], init["state"], init["lastEvent"]) == ("fresh", {"count": 0}, 0)


async def test_the_session_of_a_plain_client_ends_with_its_connection(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open()
        await drop(page)
        assert not running.runtime.sessions


async def test_a_session_that_its_author_has_closed_is_not_taken_up(
    autojump_clock: object,
) -> None:
    shop = Shop()

    @shop.app.on_session_end
    async def tidy() -> None:
        await trio.sleep(3)

    async with live(shop.app) as running:
        page = await running.open_v1()
        running.session.close(1000, "enough")
        await wait_all_tasks_blocked()
        assert page.close_code == 1000
        again = await running.come_back(page)
        assert outcome(again) == "fresh"


# --- Tokens ------------------------------------------------------------------------------------


async def test_a_token_is_long_new_each_time_and_not_the_sessions_id(
    autojump_clock: object,
) -> None:
    tokens = []
    async with live(Shop().app) as running:
        page = await running.open_v1()
        for _ in range(5):
            tokens.append(page.token)
            await page.send({"type": "hello"})
        for _ in range(5):
            await drop(page)
            page = await running.come_back(page)
            tokens.append(page.token)
        assert running.session.id not in "".join(tokens)
    assert len(set(tokens)) == 10
    assert min(map(len, tokens)) >= 128 / 6


@pytest.mark.parametrize("token", ["", "x", "\ud800", "x" * 1000])
async def test_a_token_that_was_never_given_begins_a_session(
    token: str, autojump_clock: object
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        for guess in (token, running.session.id, page.token[:-1], page.token + "="):
            other = await running.open(SUBPROTOCOL)
            await other.send({"type": "hello", "resume": guess})
            if other.of_type("init"):
                assert outcome(other) == "fresh"
                assert other.messages[0]["state"] == {"count": 0}
        assert page.close_code is None


async def test_an_older_token_is_void_once_the_client_has_spoken(autojump_clock: object) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await drop(page)
        again = await running.come_back(page)
        await again.send({"type": "beat"})
        thief = await running.come_back(page)
        assert outcome(thief) == "fresh"
        assert again.close_code is None


async def test_a_goodbye_before_the_init_came_does_not_void_the_older_token(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await drop(page)
        lost = await running.come_back(page)
        await lost.send({"type": "bye"})
        await drop(lost)
        again = await running.come_back(page)
        assert again.messages[0]["state"] == {"count": 1}


async def test_a_beat_on_its_way_against_a_second_init_does_not_void_the_older_token(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        first = page.token
        await page.send({"type": "hello", "resume": first})
        await page.send({"type": "beat"})
        await drop(page)
        assert outcome(await running.open_v1(resume=first)) == "rebuilt"


async def test_a_token_that_is_presented_on_the_open_connection_has_come(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        first = page.token
        await page.send({"type": "hello", "resume": first})
        second = page.token
        await page.send({"type": "hello", "resume": second}, {"type": "beat"})
        assert outcome(await running.open_v1(resume=first)) == "fresh"
        assert outcome(await running.open_v1(resume=second)) == "rebuilt"


async def test_an_init_that_was_lost_does_not_cost_the_session(autojump_clock: object) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await drop(page)
        for _ in range(20):  # each of them sends its init into nothing
            lost = await running.come_back(page)
            await drop(lost)
        again = await running.come_back(page)
        assert again.messages[0]["state"] == {"count": 1}
        assert outcome(again) == "rebuilt"
        await again.send({"type": "beat"})
        assert outcome(await running.come_back(lost)) == "fresh"


@pytest.mark.parametrize("times", [1, 14])
async def test_connections_that_come_late_do_not_void_the_newer_token(
    autojump_clock: object, times: int
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await page.event("add", id=1)
        await drop(page)
        newer = await running.come_back(page)
        await drop(newer)  # before it could say that it has the new token
        for _ in range(times):  # opened before, and held up on their way
            await drop(await running.come_back(page))
        again = await running.come_back(newer)
        assert again.messages[0]["state"] == {"count": 1}
        assert outcome(again) == "rebuilt"


async def test_a_user_cannot_take_up_the_session_of_another(autojump_clock: object) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1(Peer(user="ada"))
        await drop(page)
        for user in (None, "bob"):
            other = await running.open_v1(Peer(user=user), resume=page.token, rev=page.rev)
            assert outcome(other) == "fresh"
        again = await running.open_v1(Peer(user="ada"), resume=page.token, rev=page.rev)
        assert outcome(again) == "resumed"


async def test_signals_that_are_declared_late_do_not_void_the_clients_token(
    autojump_clock: object,
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page, away = await running.open_v1(), await running.open_v1()
        tokens = page.token, away.token
        await drop(away)
        with shop.app.registry:
            late = [Signal(n, name=f"late {n}") for n in range(10)]
        page.connection.hang_up()  # before it can have got the new state
        await wait_all_tasks_blocked()
        for token in tokens:
            again = await running.open_v1(resume=token)
            assert outcome(again) == "rebuilt"
            assert len(again.messages[0]["state"]) == 1 + len(late)


# --- Taking over -------------------------------------------------------------------------------


async def test_a_newer_connection_takes_the_session_over(autojump_clock: object) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        await page.event("pay", id=1)
        newer = await running.come_back(page)
        assert page.close_code == 4001
        assert outcome(newer) == "resumed"
        await trio.sleep(10.1)
        assert results(newer) == [(1, True)]
        assert shop.diary == ["pay begins", "pay ends"]


async def test_late_bytes_of_the_older_connection_do_not_count(autojump_clock: object) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        newer = Page(SUBPROTOCOL)
        newer.connection.put(json.dumps({"type": "hello", "resume": page.token, "rev": page.rev}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(running.runtime.serve, newer.connection)
            for n in range(1, 20):
                page.connection.put(json.dumps({"type": "event", "name": "add", "id": n}))
                await trio.lowlevel.checkpoint()
            await wait_all_tasks_blocked()
            count = shop.count.get(running.session)
            (init,) = newer.of_type("init")
            assert init["state"] == {"count": count}
            assert init["lastEvent"] == count
            nursery.cancel_scope.cancel()


async def test_what_was_received_in_the_moment_of_a_take_over_does_not_count(
    autojump_clock: object,
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        exchange = running.session._exchange
        page.connection.put('{"type":"event","name":"add","id":1}')  # the reader is woken
        exchange.hang_up()  # and before it runs, a newer connection has come
        exchange.stop_reading(4001, "")
        await wait_all_tasks_blocked()
        assert page.close_code == 4001
        assert shop.count.get(running.session) == 0
        again = await running.come_back(page)
        assert again.of_type("init")[0]["lastEvent"] == 0


async def test_a_stalled_connection_does_not_hold_up_the_one_that_takes_over(
    autojump_clock: object,
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        page.stall()
        await page.event("add", id=1)
        before = trio.current_time()
        newer = await running.open_v1(resume=page.token, rev=page.rev)
        assert outcome(newer) == "rebuilt"
        assert newer.messages[0]["state"] == {"count": 1}
        assert trio.current_time() == before
        await newer.event("add", id=2)
        assert newer.of_type("update")[-1]["changes"] == {"count": 2}


async def test_of_many_that_take_over_at_once_the_last_one_has_it(autojump_clock: object) -> None:
    shop = Shop()

    @shop.app.on_disconnect
    async def tidy() -> None:
        await trio.sleep(1)

    async with live(shop.app) as running:
        page = await running.open_v1()
        newer = [await running.open(SUBPROTOCOL) for _ in range(4)]
        for each in newer:
            await each.send({"type": "hello", "resume": page.token, "rev": page.rev})
        await trio.sleep(10)
        assert [each.close_code for each in [page, *newer]] == [4001] * 4 + [None]
        assert [len(each.of_type("init")) for each in newer] == [0, 0, 0, 1]
        assert len(running.runtime.sessions) == 1


async def test_a_connection_that_is_lost_while_it_takes_over_leaves_the_session_waiting(
    autojump_clock: object,
) -> None:
    shop = Shop()

    @shop.app.on_disconnect
    async def tidy() -> None:
        await trio.sleep(2)

    async with live(shop.app) as running:
        page = await running.open_v1()
        newer = Page(SUBPROTOCOL)
        newer.connection.put(json.dumps({"type": "hello", "resume": page.token, "rev": page.rev}))
        with trio.move_on_after(1):
            await running.runtime.serve(newer.connection)
        assert newer.close_code == 1012
        await trio.sleep(4)
        again = await running.come_back(page)
        assert outcome(again) == "resumed"
        await drop(again)
        await trio.sleep(125)
        assert not running.runtime.sessions


async def test_a_greeting_is_not_lost_with_the_last_words_to_the_older_connection(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running, trio.open_nursery() as nursery:
        page = await running.open_v1()
        for n in range(1, 50):  # who is first of those who are woken at once is chance
            newer = Page(SUBPROTOCOL)
            hello = {"type": "hello", "resume": page.token, "rev": page.rev}
            newer.connection.put(json.dumps(hello))
            nursery.start_soon(running.runtime.serve, newer.connection)
            page.connection.put(json.dumps({"type": "event", "name": "add", "id": n}))
            page.connection.hang_up(1006)
            await wait_all_tasks_blocked()
            assert newer.messages[0]["type"] == "init"
            page = newer
        nursery.cancel_scope.cancel()


async def test_the_hooks_of_connections_do_not_overlap(autojump_clock: object) -> None:
    shop = Shop()

    @shop.app.on_connect
    async def connect() -> None:
        shop.diary.append("connect")
        await trio.sleep(1)
        shop.diary.append("connected")

    @shop.app.on_disconnect
    async def disconnect() -> None:
        shop.diary.append("disconnect")
        await trio.sleep(1)
        shop.diary.append("disconnected")

    async with live(shop.app) as running:
        page = await running.open_v1()
        await trio.sleep(2)
        await running.come_back(page)
        await trio.sleep(5)
    once = ["connect", "connected", "disconnect", "disconnected"]
    assert shop.diary == [*once, *once]


# --- A silent or stalled connection --------------------------------------------------------------


async def test_a_connection_cut_for_silence_leaves_its_session_waiting(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        await trio.sleep(60)
        assert page.close_code == 4408
        again = await running.come_back(page)
        assert outcome(again) == "resumed"


async def test_a_connection_cut_for_taking_nothing_leaves_its_session_waiting(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        page = await running.open_v1()
        page.stall()
        await page.event("add", id=1)
        await trio.sleep(20)
        assert page.close_code == 1008
        again = await running.come_back(page)
        assert again.messages[0]["state"] == {"count": 1}


async def test_many_silent_pages_are_sent_their_beats_some_at_a_time(
    autojump_clock: object,
) -> None:
    async with live(Shop().app) as running:
        pages = [await running.open_v1() for _ in range(120)]
        beats = []
        for _ in range(26):
            await trio.sleep(1)
            beats.append(sum(bool(page.of_type("beat")) for page in pages))
        assert beats[18] == 0
        assert beats[-1] == 120
        assert 0 < beats[20] < 120


# --- How many ------------------------------------------------------------------------------------


def public(number: int) -> Peer:
    return Peer(address=f"8.8.{number // 256}.{number % 256}")


async def test_when_there_is_no_room_who_has_waited_longest_makes_it(
    autojump_clock: object,
) -> None:
    async with live(Shop(max_sessions=3).app) as running:
        first, second, third = [await running.open_v1() for _ in range(3)]
        for page in (second, first):
            await drop(page)
            await trio.sleep(1)
        fourth = await running.open_v1()
        assert outcome(fourth) == "fresh"
        assert len(running.runtime.sessions) == 3
        assert outcome(await running.come_back(first)) == "resumed"
        fifth = await running.come_back(second)
        assert fifth.close_code == 1013
        assert not fifth.messages
        assert third.close_code is None


async def test_clients_that_say_nothing_are_counted_too(autojump_clock: object) -> None:
    async with live(Shop(max_sessions=3).app) as running:
        silent = [await running.open(SUBPROTOCOL) for _ in range(4)]
        assert [page.close_code for page in silent] == [None, None, None, 1013]
        await trio.sleep(6)
        assert [page.close_code for page in silent] == [1008, 1008, 1008, 1013]
        assert outcome(await running.open_v1()) == "fresh"


@pytest.mark.parametrize(
    ("addresses", "codes"),
    [
        (["8.8.8.8"] * 3, [None, None, 1013]),
        (["8.8.8.8", "8.8.8.8", "8.8.4.4"], [None] * 3),
        (["2a00:1450::1", "2a00:1450::2", "2a00:1450:0:0:1::1"], [None, None, 1013]),
        (["2a00:1450::1", "2a00:1450::2", "2a00:1451::1"], [None] * 3),
        (["::ffff:8.8.8.8", "8.8.8.8", "8.8.8.8"], [None, None, 1013]),
        (["127.0.0.1"] * 3, [None] * 3),
        (["10.1.2.3"] * 3, [None] * 3),
        (["/run/a.sock"] * 3, [None] * 3),
    ],
)
async def test_one_public_address_has_so_many_sessions(
    addresses: Sequence[str], codes: Sequence[int | None], autojump_clock: object
) -> None:
    async with live(Shop(max_sessions_per_address=2).app) as running:
        pages = [await running.open_v1(Peer(address=address)) for address in addresses]
        assert [page.close_code for page in pages] == codes
        for page in pages:
            await page.leave()
        assert outcome(await running.open_v1(Peer(address=addresses[0]))) == "fresh"


async def test_a_flood_is_read_slowly_and_nothing_of_it_is_lost(autojump_clock: object) -> None:
    shop = Shop(max_messages_per_second=100, message_burst=50)
    async with live(shop.app) as running:
        page, other = await running.open_v1(), await running.open_v1()
        await page.send(*({"type": "event", "name": "add", "id": n} for n in range(1, 251)))
        await other.event("add", id=1)
        assert results(other) == [(1, True)]
        await trio.sleep(1.8)
        assert 200 < len(results(page)) < 250
        await trio.sleep(0.4)
        assert len(results(page)) == 250
        await trio.sleep(10)
        before = trio.current_time()
        await page.send(*({"type": "event", "name": "add", "id": n} for n in range(251, 300)))
        assert results(page)[-1] == (299, True)
        assert trio.current_time() == before


# --- The server's end ----------------------------------------------------------------------------


async def test_a_drain_lets_handlers_end_and_then_closes(autojump_clock: object) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        busy, idle, late = [await running.open_v1() for _ in range(3)]
        await busy.event("pay", {"seconds": 2}, id=1)
        await late.event("pay", {"seconds": 60}, id=1)
        running.runtime.drain()
        await wait_all_tasks_blocked()
        assert [page.close_code for page in (busy, idle, late)] == [None, 1012, None]
        await busy.event("add", id=2)
        await trio.sleep(2.1)
        assert results(busy) == [(1, True)]  # what came after the drain was not accepted
        assert busy.of_type("update")[-1]["ack"] == 1
        assert [page.close_code for page in (busy, idle, late)] == [1012, 1012, None]
        await trio.sleep(1)
        assert late.close_code == 1012
        assert shop.diary.count("pay is cancelled") == 1
        assert not running.runtime.sessions
        refused = await running.open_v1()
        assert refused.close_code == 1012


@pytest.mark.parametrize("is_lost_first", [False, True])
async def test_a_drain_lets_handlers_end_whose_client_goes_in_that_moment(
    autojump_clock: object, is_lost_first: bool
) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        page = await running.open_v1()
        for number in (1, 2):
            await page.event("pay", {"seconds": 1}, id=number)
        steps = [lambda: page.connection.hang_up(1006), running.runtime.drain]
        for step in steps if is_lost_first else reversed(steps):
            step()
        await trio.sleep(2.1)
        assert shop.diary.count("pay ends") == 2
        assert not running.runtime.sessions


async def test_a_drain_ends_what_waits_and_what_is_stalled(autojump_clock: object) -> None:
    shop = Shop()
    async with live(shop.app) as running:
        away, stalled = [await running.open_v1() for _ in range(2)]
        await away.event("pay", {"seconds": 60}, id=1)
        await drop(away)
        stalled.stall()
        await stalled.event("add", id=1)
        before = trio.current_time()
        running.runtime.drain()
        await trio.sleep(4)
        assert shop.diary == ["pay begins", "pay is cancelled"]  # after 3 s
        assert stalled.close_code == 1012
        assert not running.runtime.sessions
        assert trio.current_time() - before < 5
