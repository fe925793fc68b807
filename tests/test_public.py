"""The public names, and the public API as its users write it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import cacao
import cacao.clock
import cacao.middleware
import cacao.testing
from cacao import App, Computed, Registry, Session, Signal, server
from cacao.testing import TestClient

REFERENCE = (Path(__file__).parent.parent / "docs" / "reference.md").read_text()


def listed(section: str) -> set[str]:
    """Read the names in the tables of one section of docs/reference.md."""
    text = REFERENCE.split(f"## `from {section} import")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("module", [cacao, cacao.clock, cacao.testing, cacao.middleware])
def test_the_public_names_are_those_of_the_reference(module: Any) -> None:
    assert listed(module.__name__) == set(module.__all__)
    for name in module.__all__:
        assert getattr(module, name).__doc__ or name in {"CallNext", "Middleware"}


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'cacao' has no attribute 'Singal'"):
        _ = cacao.Singal


def counter() -> tuple[App, Signal[int], Signal[str]]:
    app = App()
    count = Signal(0, name="count")
    name = Signal("", name="name")

    @app.on("increment")
    async def increment(session: Session, event: dict[str, Any]) -> None:
        count.set(session, count.get(session) + event.get("by", 1))

    app.bind("name:input", name)
    return app, count, name


def test_signals_are_got_set_and_updated_for_a_session() -> None:
    count = Signal(0, name="count")
    session = Session()
    assert count.get(session) == 0
    count.set(session, 2)
    count.update(session, lambda n: n + 1)
    assert count.get(session) == 3


def test_a_computed_signal_follows() -> None:
    count = Signal(1, name="count")
    doubled = Computed(lambda s: count.get(s) * 2, name="doubled")
    session = Session()
    assert doubled.get(session) == 2
    count.set(session, 21)
    assert doubled.get(session) == 42


def test_events_reach_their_handler_and_bindings_their_signal() -> None:
    app, count, name = counter()
    client = TestClient(app)
    client.send("increment", {"by": 5})
    client.send("name:input", {"value": "Ada"})
    assert client.state == {"count": 5, "name": "Ada"}
    assert (count.get(client.session), name.get(client.session)) == (5, "Ada")


def test_the_asgi_application_is_one_and_the_same() -> None:
    app, *_ = counter()
    assert app.asgi is app.asgi


def test_app_run_serves_the_asgi_application_at_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[object] = []
    monkeypatch.setattr(server, "run", lambda asgi, **where: served.append((asgi, where)))
    app, *_ = counter()
    app.run(port=8000)
    app.run()
    where = {"host": "127.0.0.1", "port": 8000}
    assert served == [(app.asgi, where), (app.asgi, where)]


def test_two_apps_in_one_process_do_not_see_each_others_signals() -> None:
    first, *_ = counter()
    second, *_ = counter()
    with Registry() as registry:
        third = App(registry=registry)
        other = Signal(1, name="other")
    for app, names in {
        first: {"count", "name"},
        second: {"count", "name"},
        third: {"other"},
    }.items():
        assert set(TestClient(app).state) == names, other
