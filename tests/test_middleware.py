"""What stands around events: its order, what it may do, and the middleware that is there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from cacao import App, DeclarationError, MessageError, Session, Signal
from cacao.middleware import CallNext, Event, log, rate_limit, require, timeout, transform
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable


def app_with(*middleware: Any) -> App:
    """Make an app of a waiting handler, one in place, and a binding, behind middleware."""
    app = App()
    for each in middleware:
        app.middleware(each)
    name = Signal("", name="name")
    ran: Signal[list[object]] = Signal(default_factory=list, name="ran")

    @app.on("save")
    async def save(session: Session, event: dict[str, Any]) -> str:
        ran.update(session, lambda runs: [*runs, event.get("n")])
        await trio.sleep(event.get("seconds", 0))
        return "saved"

    @app.on("now")
    def now(session: Session, n: int) -> str:
        ran.update(session, lambda runs: [*runs, n])
        return "done"

    @app.on("fail")
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise ValueError("on purpose")

    app.bind("name:input", name)
    return app


def code(client: TestClient, name: str, **fields: Any) -> str | None:
    result = client.send(name, fields)
    assert result is not None
    return None if result.ok else result.code


# --- Around ------------------------------------------------------------------------------------


def noting(log: list[object], label: str) -> Any:
    async def note(session: Session, event: Event, call_next: CallNext) -> object:
        log.append(f"{label} before {event.name} {event.id}")
        try:
            result = await call_next(event)
        except Exception as error:
            log.append(f"{label}: {error!r}")
            raise
        log.append(f"{label}: {result}")
        return result

    return note


def test_the_first_one_declared_is_the_outermost() -> None:
    notes: list[object] = []
    client = TestClient(app_with(noting(notes, "a"), noting(notes, "b")))
    assert code(client, "save") is None
    assert notes == ["a before save 1", "b before save 1", "b: saved", "a: saved"]


@pytest.mark.parametrize(
    ("name", "data", "last"),
    [
        ("save", {}, "a: saved"),
        ("now", {"n": 1}, "a: done"),
        ("name:input", {"value": "Ada"}, "a: None"),
        ("now", {}, "a: MessageError('n: Field required')"),
        ("name:input", {}, "a: MessageError(\"event 'name:input' needs a field 'value'\")"),
    ],
)
def test_it_stands_around_everything_that_answers(
    name: str, data: dict[str, Any], last: str
) -> None:
    notes: list[object] = []
    client = TestClient(app_with(noting(notes, "a")))
    code(client, name, **data)
    assert notes[-1] == last


def test_it_sees_what_the_handler_raises() -> None:
    notes: list[object] = []
    client = TestClient(app_with(noting(notes, "a")))
    with client.expect_error(ValueError):
        assert code(client, "fail") == "handler_error"
    assert notes[-1] == "a: ValueError('on purpose')"


def test_what_it_raises_itself_is_the_authors_error() -> None:
    async def broken(session: Session, event: Event, call_next: CallNext) -> None:
        raise KeyError(event.name)

    client = TestClient(app_with(broken))
    with client.expect_error(KeyError):
        assert code(client, "now", n=1) == "handler_error"


def test_an_unknown_event_does_not_reach_it() -> None:
    notes: list[object] = []
    client = TestClient(app_with(noting(notes, "a")))
    client.send("nothing")
    assert (client.messages[-1]["code"], notes) == ("unknown_event", [])


def test_one_that_lets_nothing_through_answers_in_the_handlers_place() -> None:
    async def shut(session: Session, event: Event, call_next: CallNext) -> None: ...

    client = TestClient(app_with(shut))
    assert code(client, "save") is None
    assert client.state["ran"] == []


def test_one_may_call_twice() -> None:
    async def again(session: Session, event: Event, call_next: CallNext) -> None:
        await call_next(event)
        await call_next(event)

    client = TestClient(app_with(again))
    assert code(client, "save", n=1) is None
    assert client.state["ran"] == [1, 1]


@pytest.mark.parametrize("function", [lambda session, event, call_next: None, 5])
def test_a_middleware_is_an_async_function(function: Any) -> None:
    with pytest.raises(DeclarationError, match="is no async function"):
        App().middleware(function)


# --- Order, policies ---------------------------------------------------------------------------


async def slow_once(session: Session, event: Event, call_next: CallNext) -> object:
    await trio.sleep(event.data.get("held", 0))
    return await call_next(event)


@pytest.mark.parametrize("seed", range(5))
def test_events_start_in_the_order_they_came_whatever_waits(seed: int) -> None:
    client = TestClient(app_with(slow_once), seed=seed)
    client.send("save", n=0, held=1, seconds=9)
    client.send("now", n=1)
    client.send("save", n=2)
    client.send("now", n=3)
    assert client.state["ran"] == []
    client.advance(1)
    assert client.state["ran"] == [0, 1, 3]  # the second save waits for the first
    client.advance(9)
    assert client.state["ran"] == [0, 1, 3, 2]


def test_what_becomes_of_an_event_in_its_lane_comes_by() -> None:
    notes: list[object] = []
    app = App()
    app.middleware(noting(notes, "a"))

    @app.on("search", concurrency="latest", deadline=5)
    async def search() -> None:
        await trio.sleep(9)

    client = TestClient(app)
    for _ in range(2):
        client.send("search")
    client.advance(5)
    assert notes == [
        "a before search 1",
        "a before search 2",
        "a: MessageError(\"event 'search': a newer one has taken its place\")",
        "a: MessageError(\"event 'search' took more than 5 s\")",
    ]
    assert [client.result(n).code for n in (1, 2)] == ["superseded", "timeout"]  # type: ignore[union-attr]


def test_one_that_gives_up_an_event_gives_its_place_free() -> None:
    client = TestClient(app_with(timeout(3)))
    client.send("save", n=0, seconds=9)
    client.advance(2)
    client.send("save", n=1, seconds=9)
    client.send("save", n=2, seconds=9)
    client.advance(1.5)
    assert client.result(1).code == "timeout"  # type: ignore[union-attr]
    assert client.state["ran"] == [0, 1]
    client.advance(2)  # the third has waited for its turn all the time
    assert [client.result(n).code for n in (2, 3)] == ["timeout", "timeout"]  # type: ignore[union-attr]
    client.advance(1)
    assert code(client, "save", n=3) is None
    assert client.state["ran"] == [0, 1, 3]


def test_nothing_that_waits_starts_when_its_user_leaves() -> None:
    ran: list[int] = []
    app = app_with(slow_once)

    @app.on("work")
    async def work(n: int) -> None:
        ran.append(n)
        await trio.sleep(9)

    client = TestClient(app)
    for n in range(3):
        client.send("work", n=n)
    client.close()
    assert ran == [0]


# --- What comes with Cacao ---------------------------------------------------------------------


def test_rate_limit_is_a_bucket_of_tokens_for_each_session() -> None:
    app = app_with(rate_limit(2, burst=3))
    ada, bob = TestClient(app), TestClient(app)
    assert [code(ada, "now", n=n) for n in range(5)] == [None] * 3 + ["rate_limited"] * 2
    assert code(bob, "name:input", value="Bob") is None
    ada.advance(0.5)
    assert [code(ada, "now", n=n) for n in (5, 6)] == [None, "rate_limited"]
    ada.advance(100)
    assert [code(ada, "now", n=n) for n in range(4)] == [None] * 3 + ["rate_limited"]
    assert ada.messages[-1]["message"] == "more than 2 events per second"


def test_rate_limit_lets_exactly_its_rate_through() -> None:
    client = TestClient(app_with(rate_limit(10)))
    codes = []
    for n in range(100):
        codes.append(code(client, "now", n=n))
        client.advance(0.1)
    assert codes == [None] * 100


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rate_limit(0), r"rate_limit\(0, burst=1\) lets nothing through"),
        (lambda: rate_limit(1, burst=0), r"rate_limit\(1, burst=0\) lets nothing through"),
        (lambda: timeout(0), r"timeout\(0\) ends everything"),
    ],
)
def test_middleware_of_no_use_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        make()


async def knows_the_word(session: Session, event: Event) -> bool:
    await trio.lowlevel.checkpoint()
    return bool(event.data.get("word") == "please")


@pytest.mark.parametrize(
    "check", [knows_the_word, lambda session, event: event.data.get("word") == "please"]
)
def test_require_lets_through_what_passes_the_check(check: Any) -> None:
    client = TestClient(app_with(require(check, "say please")))
    assert code(client, "save", n=1) == "unauthorized"
    assert client.messages[-1]["message"] == "say please"
    assert code(client, "save", n=2, word="please") is None
    assert client.state["ran"] == [2]


def test_timeout_counts_from_the_arrival() -> None:
    client = TestClient(app_with(timeout(3)))
    client.send("save", n=0, seconds=2)
    client.send("save", n=1, seconds=2)
    client.advance(3)
    assert client.result(1).ok  # type: ignore[union-attr]
    assert client.result(2).code == "timeout"  # type: ignore[union-attr]
    assert client.messages[-1]["message"] == "event 'save' took more than 3 s"


def test_transform_changes_the_data_before_it_is_checked() -> None:
    client = TestClient(app_with(transform(lambda data: {"n": data["number"]})))
    assert code(client, "now", number=7) is None
    assert client.state["ran"] == [7]


def test_log_writes_a_line_for_each_event(caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(app_with(log()))
    with caplog.at_level(logging.INFO, "cacao.events"):
        client.send("save", seconds=1.5)
        client.advance(2)
        client.send("now")
        with client.expect_error(ValueError):
            client.send("fail")
    records = [record for record in caplog.records if record.name == "cacao.events"]
    assert [record.getMessage() for record in records] == [
        "save: ok, 1500.0 ms",
        "now: invalid_data, 0.0 ms",
        "fail: ValueError, 0.0 ms",
    ]
    assert records[0].__dict__["session_id"] == client.session_id


def test_log_also_writes_who_was_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    client = TestClient(app_with(log(logging.getLogger("mine"), logging.WARNING)))
    client.send("save", seconds=9)
    client.close()
    assert "save: Cancelled" in caplog.text


def test_a_refusal_has_any_code() -> None:
    async def close_shop(session: Session, event: Event, call_next: CallNext) -> None:
        raise MessageError("closed", "come back tomorrow")

    assert code(TestClient(app_with(close_shop)), "save") == "closed"
