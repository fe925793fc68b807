"""Errors in the app's code: the test hears of each, once."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from cacao import App, HostingError, Session
from cacao.testing import TestClient


class Failing:
    """An app whose handlers fail in several ways."""

    def __init__(self) -> None:
        self.app = App()
        for handler in (self.now, self.later, self.often, self.well):
            self.app.on(handler.__name__)(handler)

    async def now(self, session: Session, event: dict[str, Any]) -> None:
        raise ValueError(f"no {event.get('what', 'luck')}")

    async def later(self) -> None:
        await trio.sleep(2)
        raise KeyError("later")

    async def often(self) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(self._fail)

    async def _fail(self) -> None:
        raise ValueError("one of two")

    async def well(self) -> None:
        pass


def test_a_handler_s_error_surfaces_from_the_send_that_caused_it() -> None:
    client = TestClient(Failing().app)
    with pytest.raises(ValueError, match="no luck") as caught:
        client.send("now")
    assert [entry.name for entry in caught.traceback][-1] == "now"


def test_an_error_surfaces_from_the_advance_that_caused_it() -> None:
    client = TestClient(Failing().app)
    client.send("later")
    client.advance(1.9)
    with pytest.raises(KeyError, match="later"):
        client.advance(0.2)


def test_an_error_surfaces_once_and_the_session_goes_on() -> None:
    client = TestClient(Failing().app)
    with pytest.raises(ValueError, match="no luck"):
        client.send("now")
    result = client.send("well")
    assert result is not None
    assert result.ok


def test_several_errors_surface_as_a_group() -> None:
    app = Failing().app
    alice, bob = TestClient(app), TestClient(app)
    alice.send("later")
    bob.send("later")
    with pytest.RaisesGroup(KeyError, KeyError):
        alice.advance(2)


def test_a_handler_s_own_group_surfaces_as_it_is() -> None:
    client = TestClient(Failing().app)
    with pytest.RaisesGroup(ValueError, ValueError):
        client.send("often")


def test_an_expected_error_lets_the_result_be_seen() -> None:
    client = TestClient(Failing().app)
    with client.expect_error(ValueError) as caught:
        result = client.send("now", what="bread")
        client.send("now", what="wine")
    assert str(caught.value) == "no bread"
    assert [str(error) for error in caught.values] == ["no bread", "no wine"]
    assert result is not None
    assert (result.ok, result.code) == (False, "handler_error")
    assert result.error_id


def test_an_expected_error_that_does_not_come_fails_the_test() -> None:
    client = TestClient(Failing().app)
    no_error = pytest.raises(AssertionError, match="nothing has raised ValueError or KeyError")
    with no_error, client.expect_error((ValueError, KeyError)):
        client.send("well")


def test_an_error_of_another_kind_than_expected_surfaces() -> None:
    client = TestClient(Failing().app)
    with pytest.raises(ValueError, match="no luck"), client.expect_error(KeyError):
        client.send("now")


def test_an_expectation_ends_with_its_block() -> None:
    client = TestClient(Failing().app)
    with client.expect_error(ValueError):
        client.send("now")
    with pytest.raises(ValueError, match="no luck"):
        client.send("now")


def test_one_user_expects_nothing_on_behalf_of_another() -> None:
    app = Failing().app
    alice, bob = TestClient(app), TestClient(app)
    with alice.expect_error(ValueError):
        with pytest.raises(ValueError, match="no luck"):
            bob.send("now")
        alice.send("now")


def test_closing_raises_what_no_call_has_raised() -> None:
    app = App()

    @app.on("fail_at_the_end")
    async def fail_at_the_end() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("while leaving")

    client = TestClient(app)
    client.send("fail_at_the_end")
    with pytest.raises(ValueError, match="while leaving"):
        client.close()


def test_an_error_of_the_server_itself_surfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    app = App()
    first = TestClient(app)

    async def fail(connection: object) -> None:
        raise RuntimeError("a bug in the server")

    monkeypatch.setattr(first._stage.runtime, "serve", fail)
    with pytest.raises(RuntimeError, match="a bug in the server"):
        TestClient(app)
    closed = first._stage.lines[-1].closing
    assert closed is not None
    assert closed.code == 1006
    first.send_text("still here")
    assert first.messages[-1]["code"] == "invalid_json"


def test_the_app_s_own_error_callback_is_told_as_well() -> None:
    app = Failing().app
    told: list[str] = []
    app.on_error(lambda report: told.append(report.where))
    client = TestClient(app)
    with client.expect_error(ValueError):
        client.send("now")
    assert told == ["handler of event 'now'"]


def test_an_error_as_a_user_comes_can_be_expected() -> None:
    app = App()
    client = TestClient(app)

    @app.on_session_start
    def fail() -> None:
        raise ValueError("no welcome")

    with client.expect_error(ValueError, match="no welcome"):
        client.user("alice")


def test_an_error_outside_of_all_sessions_can_be_expected() -> None:
    app = App()

    @app.every(1, scope="app")
    def fail() -> None:
        raise ValueError("no tick")

    client = TestClient(app)
    with client.expect_error(ValueError, match="no tick") as caught:
        client.advance(2)
    assert len(caught.values) == 2


@pytest.mark.parametrize("kinds", [ValueError("no luck"), "ValueError", (KeyError, None)])
def test_what_is_no_class_of_errors_cannot_be_expected(kinds: Any) -> None:
    client = TestClient(Failing().app)
    with pytest.raises(TypeError, match="expect_error needs an exception class"):
        client.expect_error(kinds)


def test_what_ends_a_program_comes_out_of_a_handler_as_it_was_raised() -> None:
    app = App()

    @app.on("skip")
    async def skip() -> None:
        await trio.lowlevel.checkpoint()
        pytest.skip("not on this machine")

    client = TestClient(app)
    with pytest.raises(pytest.skip.Exception, match="not on this machine"):
        client.send("skip")
    with pytest.raises(HostingError, match="it ended with not on this machine"):
        client.send("skip")
