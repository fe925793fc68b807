"""App-wide values on their way to all pages of a run, over the same wire as all else."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from live import Live, Page, live
from trio.testing import wait_all_tasks_blocked

from cacao import App, Computed, Limits, ListSignal, Registry, Session, Signal, TextSignal
from cacao.outbox import Outbox
from cacao.reactive import current_run
from cacao.testing import AsyncTestClient, TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Room:
    """An app in which all see who is there, what is written, and each in their own language."""

    def __init__(self, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=Limits(**limits))
            self.title: Signal[Any] = Signal("", name="title", scope="app")
            self.visitors = Signal(0, name="visitors", scope="app")
            self.hidden = Signal(0, name="hidden", client=False, scope="app")
            self.lines: ListSignal[Any] = ListSignal(name="lines", scope="app")
            self.text = TextSignal("", name="text", scope="app")
            self.factor = Signal(1, name="factor")
            self.result = Computed(
                lambda s: self.visitors.get(s) * self.factor.get(s), name="result"
            )
        self.app.on("enter")(self.enter)
        self.app.on("append")(self.append)
        self.app.bind("title", self.title)
        self.app.bind("factor", self.factor)

    def enter(self, session: Session) -> None:
        self.visitors.update(session, lambda n: n + 1)

    async def append(self, session: Session, line: int) -> None:
        await self.lines.append(session, line)
        self.text.append(session, f"{line} ")

    @asynccontextmanager
    async def open(self, pages: int) -> AsyncIterator[tuple[Live, list[Page]]]:
        """Run the app with so many pages, after a second in which nothing has happened."""
        async with live(self.app) as here:
            yield here, [await self.page(here) for _ in range(pages)]

    async def page(self, here: Live) -> Page:
        page = await here.open_v1(patches=True)
        await trio.sleep(1)
        page.messages.clear()
        return page


def changes(page: Page) -> list[dict[str, Any]]:
    return [message["changes"] for message in page.of_type("update")]


# --- What pages get ----------------------------------------------------------------------------


async def test_every_page_gets_what_anyone_has_changed(autojump_clock: object) -> None:
    room = Room()
    async with room.open(3) as (here, pages):
        await pages[0].event("enter", id=1)
        assert [changes(page) for page in pages] == [[{"visitors": 1, "result": 1}]] * 3
        late = await here.open_v1()
        assert late.of_type("init")[0]["state"]["visitors"] == 1
        assert "hidden" not in late.of_type("init")[0]["state"]


async def test_a_plain_client_gets_them_too(autojump_clock: object) -> None:
    room = Room()
    async with room.open(1) as (here, pages):
        plain = await here.open()
        await trio.sleep(1)
        await pages[0].event("title", {"value": "Hello"}, id=1)
        assert plain.messages[1:] == [{"type": "update", "changes": {"title": "Hello"}}]


async def test_an_answer_does_not_overtake_a_change(autojump_clock: object) -> None:
    room = Room()
    async with room.open(2) as (_, (page, _other)):
        for number in (1, 2, 3):  # within the time in which other changes are gathered
            await page.event("enter", id=number)
        kinds = [(each["type"], each.get("ack") or each.get("id")) for each in page.messages]
        assert kinds == [(kind, n) for n in (1, 2, 3) for kind in ("update", "result")]
        assert [each["visitors"] for each in changes(page)] == [1, 2, 3]


async def test_a_change_of_both_scopes_is_one_message(autojump_clock: object) -> None:
    room = Room()
    async with room.open(1) as (here, (page,)):
        room.factor.set(here.session, 2)
        room.visitors.set(here.session, 3)
        await wait_all_tasks_blocked()
        assert changes(page) == [{"factor": 2, "result": 6, "visitors": 3}]


async def test_the_first_change_leaves_at_once_and_others_once_an_interval(
    autojump_clock: object,
) -> None:
    room = Room(flush_interval=0.010)
    async with room.open(2) as (here, pages):
        for number in range(1, 41):
            room.hidden.set(here.runtime.shared, number)
            room.visitors.set(here.runtime.shared, number)
            await trio.sleep(0.001)
        await trio.sleep(1)
        for page in pages:
            got = [each["visitors"] for each in changes(page)]
            assert got[0] == 1
            assert got[-1] == 40
            assert len(got) <= 6


async def test_a_value_is_written_once_however_many_pages_get_it(autojump_clock: object) -> None:
    class Document:
        written = 0

        def model_dump(self, mode: str) -> dict[str, int]:
            Document.written += 1
            return {"size": 3}

    room = Room()
    async with room.open(20) as (here, pages):
        room.title.set(here.runtime.shared, Document())
        assert Document.written == 1  # to see that it can be
        await wait_all_tasks_blocked()
        assert [changes(page) for page in pages] == [[{"title": {"size": 3}}]] * 20
        late = await here.open_v1()
        assert late.of_type("init")[0]["state"]["title"] == {"size": 3}
        assert Document.written == 2


async def test_a_page_that_takes_nothing_gets_the_last_value_and_holds_up_nobody(
    autojump_clock: object,
) -> None:
    room = Room()
    async with room.open(2) as (here, (slow, quick)):
        slow.stall()
        for number in range(1, 101):
            room.visitors.set(here.runtime.shared, number)
            await trio.sleep(0.010)
        assert changes(quick)[-1]["visitors"] == 100
        assert changes(slow) == []
        await slow.take()
        assert [each["visitors"] for each in changes(slow)] == [1, 100]


async def test_of_what_grows_only_the_new_part_is_sent(autojump_clock: object) -> None:
    room = Room()
    async with room.open(2) as (here, (page, other)):
        plain = await here.open()
        run = here.runtime.shared
        room.lines.extend(run, ["a", "b"])
        room.text.set(run, "long enough to be kept")
        await trio.sleep(1)
        room.lines.append(run, "c")
        room.text.append(run, "!")
        await trio.sleep(1)
        for each in (page, other):
            assert each.of_type("update")[-1]["patches"] == {
                "lines": [["splice", 2, 0, ["c"]]],
                "text": [["append", "!"]],
            }
        assert changes(plain)[-1] == {"lines": ["a", "b", "c"], "text": "long enough to be kept!"}


async def test_a_page_that_comes_back_has_what_it_missed(autojump_clock: object) -> None:
    room = Room()
    async with live(room.app) as here:
        page = await here.open_v1()
        page.connection.hang_up(1006)
        await wait_all_tasks_blocked()
        room.visitors.set(here.runtime.shared, 5)
        await trio.sleep(1)
        back = await here.come_back(page)
        assert back.of_type("init")[0]["state"]["visitors"] == 5
        room.visitors.set(here.runtime.shared, 6)
        await trio.sleep(1)
        assert changes(back) == [{"visitors": 6, "result": 6}]


def test_a_session_that_is_a_run_of_its_own_sends_its_own() -> None:
    room = Room()
    outbox, session = Outbox(), Session()

    def failed(error: Exception, _: object) -> None:
        raise error

    room.visitors.set(session, 1)
    assert outbox.take(session, None, failed) == ['{"type":"update","changes":{"visitors":1}}']
    assert not outbox.has_news


# --- Runs --------------------------------------------------------------------------------------


async def test_a_task_of_the_app_reaches_all_pages(autojump_clock: object) -> None:
    room = Room()

    @room.app.every(5, scope="app")
    def count_up() -> None:
        room.visitors.value += 1
        room.hidden.update(current_run(), lambda n: n + 1)

    async with room.open(2) as (here, pages):
        await trio.sleep(10)
        assert [changes(page)[-1]["visitors"] for page in pages] == [2, 2]
        assert room.hidden.get(here.runtime.shared) == 2
        assert here.errors == []


async def test_two_runs_of_one_app_share_nothing(autojump_clock: object) -> None:
    room = Room()
    async with room.open(1) as (_, (mine,)), room.open(1) as (_, (yours,)):
        await mine.event("enter", id=1)
        await trio.sleep(1)
        assert (changes(mine), changes(yours)) == ([{"visitors": 1, "result": 1}], [])


async def test_sessions_that_come_and_go_leave_nothing_in_the_run(autojump_clock: object) -> None:
    room = Room()
    async with live(room.app) as here:
        for _ in range(20):
            page = await here.open()
            await page.event("enter")
            page.connection.hang_up()
            await wait_all_tasks_blocked()
        run = here.runtime.shared
        assert room.visitors.get(run) == 20
        assert not run._nodes[room.visitors._key].subs


# --- What goes wrong ---------------------------------------------------------------------------


async def test_what_a_subscriber_raises_is_reported_for_the_run(autojump_clock: object) -> None:
    room = Room()

    def fail(_: object, value: int) -> None:
        raise ZeroDivisionError

    async with room.open(1) as (here, (page,)):
        end = room.visitors.subscribe(fail)
        await page.event("enter", id=1)
        end()
        (report,) = here.errors
        assert (report.where, report.session_id) == ("signal 'visitors'", "")
        assert page.of_type("result")[0]["ok"]


async def test_what_cannot_be_written_any_more_is_reported_and_the_rest_is_sent(
    autojump_clock: object,
) -> None:
    room = Room()
    async with room.open(1) as (here, (page,)):
        value: list[object] = []
        room.title.set(here.runtime.shared, value)
        room.visitors.set(here.runtime.shared, 1)
        value.append(object())
        await wait_all_tasks_blocked()
        assert changes(page) == [{"visitors": 1, "result": 1}]
        assert [error["code"] for error in page.of_type("error")] == ["not_serializable"]
        late = await here.open_v1()
        assert "title" not in late.of_type("init")[0]["state"]
        assert len(here.errors) == 2


async def test_a_signal_that_is_gone_is_not_sent(autojump_clock: object) -> None:
    room = Room()
    async with room.open(1) as (here, (page,)):
        with room.app.registry:
            passing = Signal(0, name="passing", scope="app")
        await trio.sleep(1)
        page.stall()
        room.visitors.set(here.runtime.shared, 1)
        await wait_all_tasks_blocked()
        passing.set(here.runtime.shared, 1)
        await trio.sleep(1)
        del passing
        room.visitors.set(here.runtime.shared, 2)
        await page.take()
        assert changes(page)[-1] == {"visitors": 2, "result": 2}


# --- Test clients, and whatever happens ---------------------------------------------------------


def test_two_clients_of_one_app_see_one_value_after_each_call() -> None:
    room = Room()
    ada, bob = TestClient(room.app), TestClient(room.app)
    for number in (1, 2, 3):
        ada.send("enter")
        assert (ada.state["visitors"], bob.state["visitors"]) == (number, number)
        assert bob.state["result"] == number
    other = Room()
    assert TestClient(other.app).state["visitors"] == 0


async def test_two_async_clients_see_one_value_after_each_call() -> None:
    room = Room()
    async with AsyncTestClient(room.app) as ada:
        bob = await ada.user()
        for number in (1, 2, 3):
            await ada.send("enter")
            assert bob.state["visitors"] == number


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["enter", "title", "append", "join", "leave", "wait"]),
        st.integers(0, 5),
    ),
    max_size=30,
)


@settings(deadline=None)
@given(ACTIONS)
def test_whatever_happens_every_page_ends_with_the_values_of_the_run(
    actions: list[tuple[str, int]],
) -> None:
    room = Room()
    clients = [TestClient(room.app), TestClient(room.app)]
    for number, (action, who) in enumerate(actions):
        client = clients[who % len(clients)]
        if action == "join":
            clients.append(TestClient(room.app))
        elif action == "leave":
            clients.append(TestClient(room.app))  # the last one would end the run
            clients.remove(client)
            client.close()
        elif action == "wait":
            client.advance(who / 200)
        elif action == "append":
            client.send("append", line=number)
        elif action == "title":
            client.send("title", value=f"title {number}")
        else:
            client.send("enter")
    clients[0].advance(1)
    run = clients[0].session.shared
    expected = {
        "visitors": room.visitors.get(run),
        "title": room.title.get(run),
        "lines": list(room.lines.get(run)),
        "text": room.text.get(run),
    }
    assert expected["visitors"] == sum(action == "enter" for action, _ in actions)
    for client in clients:
        assert {name: client.state[name] for name in expected} == expected
        client.close()
