"""The counter, tested without a server: each test takes about a millisecond."""

from app import app

from cacao.testing import TestClient


def test_the_buttons_count() -> None:
    client = TestClient(app)
    client.send("increment")
    client.send("increment")
    client.send("decrement")
    assert client.state["count"] == 1
    assert client.state["doubled"] == 2


def test_reset_starts_again() -> None:
    client = TestClient(app)
    client.send("increment", {"by": 5})
    client.send("reset")
    assert client.state["count"] == 0


def test_the_name_field_greets() -> None:
    client = TestClient(app)
    assert client.state["greeting"] == "Hello, stranger!"
    client.send("name:input", {"value": "Ada"})
    assert client.state["greeting"] == "Hello, Ada!"


def test_two_users_count_apart() -> None:
    client = TestClient(app)
    ada, bob = client.user("Ada"), client.user("Bob")
    ada.send("increment")
    assert ada.state["count"] == 1
    assert bob.state["count"] == 0
