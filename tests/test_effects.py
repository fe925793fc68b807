"""Effects and resources of live sessions: what begins them anew, what ends them, what is seen."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from live import live

from cacao import (
    App,
    Computed,
    EffectLoopError,
    ErrorReport,
    NotSerializableError,
    Registry,
    Resource,
    Session,
    Signal,
)
from cacao.async_effect import _Watched
from cacao.testing import LeakError, TestClient


class Search:
    """An app with a query to set, and what it does about it in `entries`."""

    def __init__(self) -> None:
        with Registry() as registry:
            self.app = App(registry=registry)
            self.query = Signal("", name="query")
            self.other = Signal("", name="other")
        self.entries: list[str] = []
        self.app.bind("query:input", self.query)
        self.app.bind("other:input", self.other)
        self.app.on("type")(self.type)

    def type(self, session: Session, event: dict[str, Any]) -> None:
        """Set the query to each text in turn, as a user who types quickly."""
        for text in event["texts"]:
            self.query.set(session, text)

    async def find(self, query: str, seconds: float = 1, tidy: float = 0) -> list[str]:
        self.entries.append(f"find {query!r}")
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.entries.append(f"give up {query!r}")
            if tidy:
                with trio.CancelScope(shield=True):
                    await trio.sleep(tidy)
                self.entries.append(f"tidy {query!r}")
            raise
        if query == "bad":
            raise ValueError("a secret of the server's")
        return [query.upper()]


# --- Plain effects -----------------------------------------------------------------------------


def test_a_plain_effect_runs_for_each_session_and_once_for_many_changes() -> None:
    search = Search()

    @search.app.effect
    def watch(session: Session) -> None:
        search.entries.append(search.query.get(session))

    client, other = TestClient(search.app), TestClient(search.app)
    client.send("type", texts=["a", "b", "c"])
    assert search.entries == ["", "", "c"]
    other.send("other:input", value="x")
    assert search.entries == ["", "", "c"]


def test_a_plain_effect_never_runs_inside_set_and_what_it_sets_goes_along() -> None:
    search = Search()

    @search.app.effect
    def copy() -> None:
        search.other.value = search.query.value
        search.entries.append("copied")

    @search.app.on("set")
    def set_it(session: Session) -> None:
        search.query.set(session, "new")
        search.entries.append(f"set, other is {search.other.get(session)!r}")

    client = TestClient(search.app)
    client.send("set")
    assert search.entries == ["copied", "set, other is ''", "copied"]
    updates = [message["changes"] for message in client.messages if message["type"] == "update"]
    assert updates == [{"query": "new", "other": "new"}]


def test_the_greeting_holds_what_the_effects_of_the_beginning_have_set() -> None:
    search = Search()

    @search.app.on_session_start
    def start() -> None:
        search.query.value = "first"

    @search.app.effect
    def copy() -> None:
        search.other.value = search.query.value

    client = TestClient(search.app)
    assert client.messages[0]["state"]["other"] == "first"


def test_a_plain_effect_that_fails_is_reported_and_runs_again() -> None:
    search = Search()

    @search.app.effect
    def watch() -> None:
        if search.query.value == "bad":
            raise ZeroDivisionError
        search.entries.append(search.query.value)

    client = TestClient(search.app)
    with client.expect_error(ZeroDivisionError):
        client.send("query:input", value="bad")
    client.send("query:input", value="good")
    assert search.entries == ["", "good"]


def test_an_effect_that_triggers_itself_is_named_with_its_place() -> None:
    search = Search()

    @search.app.effect
    def grow() -> None:
        search.query.value += "!"

    with pytest.raises(EffectLoopError, match=r"grow at .*test_effects\.py:\d+ still triggers"):
        TestClient(search.app)


# --- Async effects -----------------------------------------------------------------------------


def test_a_change_cancels_the_older_run_waits_for_its_end_and_begins_anew() -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        await search.find(search.query.get(session), seconds=10, tidy=2)
        search.entries.append("found")

    client = TestClient(search.app)
    client.advance(5)
    client.send("query:input", value="a")
    assert search.entries == ["find ''", "give up ''"]
    client.advance(1.9)
    assert len(search.entries) == 2
    client.advance(0.1)
    assert search.entries == ["find ''", "give up ''", "tidy ''", "find 'a'"]
    client.advance(9.9)
    assert search.entries[4:] == []
    client.advance(0.1)
    assert search.entries[4:] == ["found"]
    client.send("query:input", value="b")
    assert search.entries[5:] == ["find 'b'"]


def test_many_changes_begin_one_run_with_the_latest() -> None:
    search = Search()

    @search.app.effect
    async def watch() -> None:
        await search.find(search.query.value, seconds=10, tidy=1)

    client = TestClient(search.app)
    client.send("type", texts=["a", "b"])
    client.send("type", texts=["c", "d"])
    client.advance(1)
    assert search.entries == ["find ''", "give up ''", "tidy ''", "find 'd'"]


def test_what_is_read_after_the_first_wait_is_not_tracked() -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        search.entries.append(f"query {search.query.get(session)!r}")
        await trio.sleep(1)
        search.entries.append(f"other {search.other.value!r}")
        await trio.sleep(1)

    client = TestClient(search.app)
    client.advance(5)
    client.send("other:input", value="x")
    client.advance(5)
    assert search.entries == ["query ''", "other ''"]


def test_what_is_read_before_the_first_real_wait_is_tracked_wherever_it_is_read() -> None:
    search = Search()
    shouted = Computed(lambda s: search.query.get(s).upper())

    async def read_deep_down(session: Session) -> str:
        async with trio.open_nursery():
            return shouted.get(session)

    @search.app.effect
    async def watch(session: Session) -> None:
        search.entries.append(await read_deep_down(session))

    client = TestClient(search.app)
    client.send("query:input", value="a")
    assert search.entries == ["", "A"]


def test_a_task_that_an_effect_starts_is_not_watched() -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        search.entries.append(search.query.get(session))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read_other, session)

    async def read_other(session: Session) -> None:
        search.other.get(session)

    client = TestClient(search.app)
    client.send("other:input", value="x")
    assert search.entries == [""]


def test_an_async_effect_that_never_waits_is_as_good() -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        search.entries.append(search.query.get(session))

    client = TestClient(search.app)
    client.send("type", texts=["a", "b"])
    client.send("query:input", value="c")
    assert search.entries == ["", "b", "c"]


def test_an_effect_may_change_what_it_has_read() -> None:
    search = Search()

    @search.app.effect
    async def settle(session: Session) -> None:
        query = search.query.get(session)
        search.entries.append(query)
        if len(query) < 3:
            search.query.set(session, query + "!")
        await trio.lowlevel.checkpoint()

    client = TestClient(search.app)
    client.advance(1)
    assert search.entries == ["", "!", "!!", "!!!"]


@pytest.mark.parametrize("seconds", [0, 1])
def test_an_async_effect_that_fails_is_reported_and_begins_anew(seconds: float) -> None:
    search = Search()
    reports: list[ErrorReport] = []
    search.app.on_error(reports.append)

    @search.app.effect
    async def watch(session: Session) -> None:
        query = search.query.get(session)
        if seconds:
            await trio.sleep(seconds)
        if query == "bad":
            raise ZeroDivisionError
        search.entries.append(query)

    client = TestClient(search.app)
    client.advance(2)
    with client.expect_error(ZeroDivisionError):
        client.send("query:input", value="bad")
        client.advance(2)
    client.send("query:input", value="good")
    client.advance(2)
    assert search.entries == ["", "good"]
    assert [report.where for report in reports] == ["effect 'watch'"]


def test_an_effect_that_fails_while_it_is_cancelled_is_reported() -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        query = search.query.get(session)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                await trio.sleep_forever()
            finally:
                if not query:
                    raise ZeroDivisionError

    client = TestClient(search.app)
    with client.expect_error(ExceptionGroup):
        client.send("query:input", value="a")
    client.send("query:input", value="b")


async def test_leaving_cancels_an_effect_and_its_finally_runs(autojump_clock: object) -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        await search.find(search.query.get(session), seconds=60, tidy=1)

    async with live(search.app) as running:
        page = await running.open_v1()
        await page.leave()
        assert search.entries == ["find ''", "give up ''"]
        await trio.sleep(2)
        assert search.entries[2:] == ["tidy ''"]
        assert not running.runtime.sessions


async def test_a_run_that_is_thrown_away_runs_its_finally() -> None:
    entries: list[str] = []

    async def run() -> None:
        try:
            await trio.sleep_forever()
        finally:
            entries.append("tidy")

    watched = _Watched(run(), Session(), lambda: None)
    next(watched)
    watched.close()
    assert entries == ["tidy"]


def test_an_effect_that_hangs_is_named_with_its_line() -> None:
    search = Search()

    @search.app.effect
    async def hold_on() -> None:
        await trio.lowlevel.checkpoint()
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    client = TestClient(search.app)
    with pytest.raises(LeakError, match=r"effect 'hold_on'.*test_effects\.py:\d+, in hold_on"):
        client.close()


def test_the_runs_of_an_effect_leave_nothing_behind() -> None:
    search = Search()

    @search.app.effect
    async def watch(session: Session) -> None:
        search.entries.append(search.query.get(session))
        await trio.sleep(1)

    client = TestClient(search.app)
    for number in range(20):
        client.send("query:input", value=str(number))
    assert len(search.entries) == 21
    assert len(client.session._effects) == 1


def test_a_session_alone_has_no_effects() -> None:
    search = Search()
    search.app.effect(lambda: search.entries.append("ran"))
    search.query.set(Session(), "a")
    assert search.entries == []


# --- Resources ---------------------------------------------------------------------------------


class Results(Search):
    """A search whose results are a resource."""

    def __init__(self, seconds: float = 1, tidy: float = 0) -> None:
        super().__init__()

        @self.app.resource
        async def results(session: Session) -> list[str]:
            return await self.find(self.query.get(session), seconds, tidy)

        self.results: Resource[list[str]] = results
        with self.app.registry:
            self.shown = Computed(lambda s: len(results.get(s) or ()), name="shown")


@pytest.mark.parametrize("seed", range(8))
def test_a_resource_is_loading_from_the_beginning_and_then_has_a_value(seed: int) -> None:
    search = Results()
    client = TestClient(search.app, seed=seed)
    assert client.messages[0]["state"]["results"] == {
        "value": None,
        "isLoading": True,
        "error": None,
    }
    client.advance(1)
    assert client.state["results"] == {"value": [""], "isLoading": False, "error": None}
    assert search.results.get(client.session) == [""]
    assert search.results.state(client.session) == ([""], False, None)
    assert client.state["shown"] == 1


def test_the_latest_wins_and_the_last_value_stays_meanwhile() -> None:
    search = Results()
    client = TestClient(search.app)
    client.advance(1)
    for query in "abc":
        client.send("query:input", value=query)
        client.advance(0.5)
        assert client.state["results"] == {"value": [""], "isLoading": True, "error": None}
    client.advance(0.5)
    assert client.state["results"] == {"value": ["C"], "isLoading": False, "error": None}
    assert search.entries == [
        "find ''",
        "find 'a'",
        "give up 'a'",
        "find 'b'",
        "give up 'b'",
        "find 'c'",
    ]


def test_an_error_is_state_and_is_reported_and_the_last_value_stays() -> None:
    search = Results()
    reports: list[ErrorReport] = []
    search.app.on_error(reports.append)
    client = TestClient(search.app)
    client.advance(1)
    with client.expect_error(ValueError):
        client.send("query:input", value="bad")
        client.advance(1)
    (report,) = reports
    assert report.where == "resource 'results'"
    assert client.state["results"] == {
        "value": [""],
        "isLoading": False,
        "error": {
            "message": "resource 'results' failed; the server's log has the details",
            "errorId": report.error_id,
        },
    }
    assert search.results.state(client.session).error is report.error
    client.send("query:input", value="good")
    client.advance(1)
    assert client.state["results"] == {"value": ["GOOD"], "isLoading": False, "error": None}


def test_handlers_and_computed_signals_read_a_resource() -> None:
    search = Results()

    @search.app.on("look")
    def look() -> None:
        results = search.results
        search.entries.append(f"{results.value} {results.is_loading} {results.error}")

    with search.app.registry:
        spinner = Computed(lambda: search.results.is_loading, name="spinner")
        trouble = Computed(lambda: search.results.error is not None, name="trouble")
    client = TestClient(search.app)
    client.send("look")
    assert client.state["spinner"] is True
    client.advance(1)
    client.send("look")
    assert search.entries == ["find ''", "None True None", "[''] False None"]
    assert (client.state["spinner"], client.state["trouble"]) == (False, False)
    with client.expect_error(ValueError):
        client.send("query:input", value="bad")
        client.advance(1)
    assert client.state["trouble"] is trouble.get(client.session) is True
    assert spinner.get(client.session) is False


async def test_a_value_that_json_cannot_carry_is_the_resources_error(
    autojump_clock: object,
) -> None:
    search = Search()

    @search.app.resource(name="things")
    async def fetch() -> object:
        return object()

    async with live(search.app) as running:
        page = await running.open()
        await trio.sleep(1)
        (report,) = running.errors
        assert isinstance(report.error, NotSerializableError)
        assert fetch.state(running.session) == (None, False, report.error)
        assert page.messages[0]["state"]["things"]["error"]["errorId"] == report.error_id


def test_a_resource_may_have_a_name_or_stay_on_the_server() -> None:
    search = Search()

    @search.app.resource(name="found", client=False)
    async def fetch() -> object:
        return object()

    client = TestClient(search.app)
    assert "found" not in client.state
    assert fetch.get(client.session) is not None
    assert repr(fetch) == "<Resource 'found'>"


def test_one_resource_may_follow_another() -> None:
    search = Results()

    @search.app.resource
    async def details(session: Session) -> str:
        results = search.results.get(session)
        await trio.sleep(1)
        return f"details of {results}"

    client = TestClient(search.app)
    client.advance(3)
    assert client.state["details"]["value"] == "details of ['']"


async def test_leaving_cancels_what_is_being_fetched(autojump_clock: object) -> None:
    search = Results(seconds=60)
    async with live(search.app) as running:
        page = await running.open_v1()
        await page.leave()
        assert search.entries == ["find ''", "give up ''"]


def test_a_session_alone_fetches_nothing() -> None:
    search = Results()
    assert search.results.state(Session()) == (None, False, None)
    assert search.entries == []


def test_each_session_has_its_own() -> None:
    search = Results()
    client, other = TestClient(search.app), TestClient(search.app)
    client.send("query:input", value="a")
    client.advance(2)
    assert (client.state["results"]["value"], other.state["results"]["value"]) == (["A"], [""])
