"""The search, tested without a server: most of it in virtual time, a few milliseconds each."""

import database
import pytest
import trio
from app import app
from database import Bar

from cacao.testing import TestClient


@pytest.fixture
def slow_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `app.find` take two virtual seconds, and find one bar."""

    async def find(text: str) -> list[Bar]:
        await trio.sleep(2)
        return [Bar(name=text, cocoa=70, rating=5.0)]

    monkeypatch.setattr("app.find", find)


@pytest.mark.usefixtures("slow_find")
def test_a_search_shows_what_it_found() -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    assert client.runs("search") == [("dark", "running")]
    client.advance(2)
    assert client.runs("search") == [("dark", "done")]
    assert client.state["bars"] == [{"name": "dark", "cocoa": 70, "rating": 5.0}]
    assert client.state["answered"] == "dark"


@pytest.mark.usefixtures("slow_find")
def test_of_ten_quick_keystrokes_only_the_last_is_answered() -> None:
    client = TestClient(app)
    for end in range(1, 11):
        client.send("search", text="dark ghana"[:end])
        client.advance(0.1)
    client.advance(2)
    *earlier, last = client.runs("search")
    assert [fate for _, fate in earlier] == ["superseded"] * 9
    assert last == ("dark ghana", "done")
    assert client.never_saw(answered="dark ghan")


@pytest.mark.usefixtures("slow_find")
def test_an_empty_field_ends_the_search_and_shows_nothing() -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    client.advance(2)
    client.send("search", text="dark g")
    client.send("search", text="")
    assert client.runs("search")[1:] == [("dark g", "superseded"), ("", "done")]
    assert client.state["bars"] == []


@pytest.mark.usefixtures("slow_find")
def test_stop_ends_the_search_and_keeps_what_is_shown() -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    client.advance(2)
    client.send("search", text="milk")
    client.send("stop")
    assert client.runs("search") == [("dark", "done"), ("milk", "cancelled")]
    assert client.state["answered"] == "dark"


@pytest.mark.usefixtures("slow_find")
def test_leaving_cancels_the_search_of_that_user_only() -> None:
    client = TestClient(app)
    ada, bob = client.user("Ada"), client.user("Bob")
    ada.send("search", text="milk")
    bob.send("search", text="dark")
    ada.close()
    client.advance(2)
    assert client.runs("search") == [("milk", "cancelled"), ("dark", "done")]


@pytest.mark.usefixtures("slow_find")
def test_a_search_goes_on_while_its_user_is_in_a_tunnel() -> None:
    client = TestClient(app)
    client.send("search", text="dark")
    client.network.drop()
    client.advance(30)
    client.network.restore()
    assert client.resumed
    assert client.state["answered"] == "dark"
    assert client.delivered_once("search")


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
    client.send("stop")
    client.settle()
    assert client.runs("search") == [("dark", "superseded"), ("milk", "cancelled")]
    assert database.running == []


def test_no_query_runs_on_when_its_user_has_left() -> None:
    client = TestClient(app)
    ada = client.user("Ada")
    ada.send("search", text="dark")
    client.wait(lambda: database.running == ["dark"])
    ada.close()
    client.advance(0.5)
    client.wait(lambda: database.running == [], timeout=1)  # a query would take two


def test_the_page_shows_how_many_queries_run(monkeypatch: pytest.MonkeyPatch) -> None:
    client = TestClient(app)
    monkeypatch.setattr(database, "running", ["dark", "milk"])
    client.advance(0.1)
    assert client.state["running"] == 2
