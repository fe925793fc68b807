"""The search, tested without a server: most of it in virtual time, a few milliseconds each."""

import database
import pytest
import trio
from app import app
from database import Bar

from cacao.testing import TestClient


class SlowFind:
    """Stands for `app.find`: takes two virtual seconds, and notes what became of each search."""

    def __init__(self) -> None:
        self.fates: list[tuple[str, str]] = []

    async def __call__(self, text: str) -> list[Bar]:
        fate = "cancelled"
        try:
            await trio.sleep(2)
            fate = "done"
            return [Bar(name=text, cocoa=70, rating=5.0)]
        finally:
            self.fates.append((text, fate))


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch) -> SlowFind:
    find = SlowFind()
    monkeypatch.setattr("app.find", find)
    return find


def test_a_search_shows_what_it_found(find: SlowFind) -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    assert fate(client, 1) == "running"
    client.advance(2)
    assert fate(client, 1) == "done"
    assert client.state["bars"] == [{"name": "dark", "cocoa": 70, "rating": 5.0}]
    assert client.state["answered"] == "dark"


def test_the_newest_search_cancels_the_one_before(find: SlowFind) -> None:
    client = TestClient(app)
    client.send("search", text="da")
    client.advance(1.5)
    client.send("search", text="dark")
    assert fate(client, 1) == "superseded"
    assert find.fates == [("da", "cancelled")]
    client.advance(2)
    assert fate(client, 2) == "done"
    assert client.state["answered"] == "dark"


def test_of_ten_quick_keystrokes_only_the_last_is_answered(find: SlowFind) -> None:
    client = TestClient(app)
    for end in range(1, 11):
        client.send("search", text="dark ghana"[:end])
        client.advance(0.1)
    client.advance(2)
    assert [fate(client, number) for number in range(1, 11)] == ["superseded"] * 9 + ["done"]
    assert answers(client) == ["dark ghana"]


def test_an_empty_field_ends_the_search_and_shows_nothing(find: SlowFind) -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    client.advance(2)
    client.send("search", text="dark g")
    client.send("search", text="")
    assert (fate(client, 2), fate(client, 3)) == ("superseded", "done")
    assert client.state["bars"] == []


def test_stop_ends_the_search_and_keeps_what_is_shown(find: SlowFind) -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    client.advance(2)
    client.send("search", text="milk")
    client.send("stop")
    assert fate(client, 2) == "cancelled"
    assert find.fates == [("dark", "done"), ("milk", "cancelled")]
    assert client.state["answered"] == "dark"


def test_leaving_cancels_the_search_of_that_user_only(find: SlowFind) -> None:
    ada, bob = TestClient(app), TestClient(app)
    ada.send("search", text="milk")
    bob.send("search", text="dark")
    ada.close()
    bob.advance(0.5)
    assert find.fates == [("milk", "cancelled")]
    bob.advance(1.5)
    assert find.fates == [("milk", "cancelled"), ("dark", "done")]


def test_the_database_finds_the_best_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "SECONDS_PER_ROW", 0)
    found = database.search("gHaNa with sea")
    assert len(found) == 12
    assert all("Ghana with Sea Salt" in bar["name"] for bar in found)
    assert [bar["rating"] for bar in found] == sorted((b["rating"] for b in found), reverse=True)


def test_a_cancelled_search_has_really_ended_its_query() -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    client.wait(lambda: database.running == ["dark"])
    client.send("search", text="milk")
    client.wait(lambda: database.running == ["milk"])
    assert fate(client, 1) == "superseded"
    client.send("stop")
    client.wait(lambda: client.result(2))
    assert fate(client, 2) == "cancelled"
    assert database.running == []


def test_no_query_runs_on_when_its_user_has_left() -> None:
    ada, bob = TestClient(app), TestClient(app)
    ada.send("search", text="dark")
    bob.wait(lambda: database.running == ["dark"])
    ada.close()
    bob.advance(0.5)
    bob.wait(lambda: database.running == [], timeout=1)  # a query would take two


def test_the_page_shows_how_many_queries_run(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(app)
    monkeypatch.setattr(database, "running", ["dark", "milk"])
    client.advance(0.1)
    assert client.state["running"] == 2


def fate(client: TestClient, number: int) -> str:
    """Tell what became of this client's first event, second event, ...: as the page's chips do."""
    result = client.result(number)
    if result is None:
        return "running"
    return "done" if result.ok else str(result.code)


def answers(client: TestClient) -> list[str]:
    """List the texts whose answers the page was sent, in order."""
    changes = [message.get("changes", {}) for message in client.messages]
    return [change["answered"] for change in changes if "answered" in change]
