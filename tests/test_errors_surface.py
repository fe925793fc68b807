"""An error in the author's code cannot vanish: a test for each place where such code runs.

Raise there, and the log, `app.on_error`, the client (where one waits) and the test all see it.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio
from test_asgi import Server, edge_of

from cacao import App, Computed, MessageError, Session, Signal
from cacao.testing import TestClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao import ErrorReport


class PlantedError(Exception):
    """What the author's code raises in these tests, wherever it is."""


def fail(*_: object) -> Any:
    raise PlantedError("planted")


async def fail_later(*_: object) -> Any:
    await trio.sleep(0.1)
    raise PlantedError("planted")


def fail_on_odd(session: Session) -> int:
    if count.get(session) % 2:
        fail()
    return 0


async def fail_alone() -> None:
    fail()


count = Signal(0)


@dataclass
class Picky:
    """A payload whose own check fails in a way that is no validation error."""

    size: int

    def __post_init__(self) -> None:
        fail()


async def take_picky(event: Picky) -> None: ...


async def refusing_middleware(session: Session, event: Any, call_next: Any) -> Any:
    fail()


class Case:
    """One place: how code gets there, what it is called, and what the client hears."""

    def __init__(
        self,
        place: str,
        where: str,
        plant: Callable[[App], Any],
        *,
        is_told_by: str | None = "result",
        event: str = "go",
    ) -> None:
        self.place = place
        self.where = where
        self.plant = plant
        self.is_told_by = is_told_by
        self.event = event


def on_go(function: Callable[..., object], **options: Any) -> Callable[[App], Any]:
    return lambda app: app.on("go", **options)(function)


def change_count(session: Session) -> None:
    count.update(session, lambda n: n + 1)


def keep(*declarations: object) -> Callable[[App], Any]:
    """Declare something besides, and a handler that changes what it follows from."""

    def plant(app: App) -> Any:
        app.on("go")(change_count)
        return [each(app) if callable(each) else each for each in declarations]

    return plant


def hook(moment: str) -> Callable[[App], Any]:
    return lambda app: getattr(app, moment)(fail)


def start_background(session: Session) -> None:
    session.start_soon(fail_later)


def set_unwritable(session: Session) -> None:
    Signal[Any](None, name="unwritable").set(session, object())


CASES = [
    Case("async handler", "handler of event 'go'", on_go(fail_later)),
    Case("plain handler", "handler of event 'go'", on_go(fail)),
    Case("handler in a thread", "handler of event 'go'", on_go(fail, thread=True)),
    Case("payload's own check", "handler of event 'go'", on_go(take_picky)),
    Case("key function", "handler of event 'go'", on_go(fail_later, key=fail)),
    Case(
        "middleware",
        "handler of event 'go'",
        lambda app: (app.middleware(refusing_middleware), on_go(fail)(app)),
    ),
    Case("serializer", "handler of event 'go'", on_go(set_unwritable)),
    Case(
        "computed",
        "computed 'odd'",
        keep(lambda app: Computed(fail_on_odd, name="odd")),
        is_told_by="error",
    ),
    Case(
        "effect",
        "effect 'fail_on_odd'",
        keep(lambda app: app.effect(fail_on_odd)),
        is_told_by="error",
    ),
    Case(
        "async effect",
        "effect 'fail_async'",
        keep(lambda app: app.effect(fail_async)),
        is_told_by="error",
    ),
    Case(
        "resource",
        "resource 'odd'",
        keep(lambda app: app.resource(name="odd")(fail_async)),
        is_told_by="error",
    ),
    Case(
        "subscriber",
        f"signal {count.label!r}",
        keep(lambda app: subscribed(app)),
        is_told_by="error",
    ),
    Case(
        "background task",
        "background task 'fail_later'",
        on_go(start_background),
        is_told_by="error",
    ),
    Case(
        "timer of the session",
        "timer 'fail'",
        lambda app: app.every(1)(fail),
        is_told_by="error",
        event="",
    ),
    Case(
        "timer of the app",
        "timer 'fail_alone'",
        lambda app: app.every(1, scope="app")(fail_alone),
        is_told_by=None,
        event="",
    ),
    Case(
        "task of the app",
        "task 'fail_alone'",
        lambda app: app.task(fail_alone),
        is_told_by=None,
        event="",
    ),
    *(
        Case(
            f"{moment} hook",
            f"{moment} hook 'fail'",
            hook(moment),
            is_told_by=told,
            event="",
        )
        for moment, told in {
            "on_session_start": None,  # the client is not there yet
            "on_connect": None,
            "on_disconnect": None,
            "on_session_end": None,
        }.items()
    ),
]


async def fail_async(session: Session) -> int:
    return fail_on_odd(session)


def subscribed(app: App) -> object:
    return count.subscribe(fail)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.place)
def test_an_error_in_the_authors_code_reaches_all_who_should_know(
    case: Case, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    reports: list[ErrorReport] = []
    app.on_error(reports.append)
    kept = case.plant(app)
    seen: list[Exception] = []
    messages: list[dict[str, Any]] = []
    client: TestClient | None = None
    try:
        client = TestClient(app)
        messages = client.messages
        if case.event:
            client.send(case.event, {"size": 1})
        client.wait(lambda: reports) if "thread" in case.place else client.advance(2)
    except (PlantedError, TypeError, Exception) as error:  # noqa: BLE001 - asserted below
        seen.append(error)
    if client is not None:
        messages = client.messages
        try:
            client.close()
        except Exception as error:  # noqa: BLE001 - asserted below
            seen.append(error)
    del kept

    assert seen, "the test did not hear of it"
    assert reports
    assert {report.where for report in reports} == {case.where}
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [vars(record)["error_id"] for record in logged] == [r.error_id for r in reports]
    if case.is_told_by is not None:
        told = [m for m in messages if m["type"] == case.is_told_by and not m.get("ok")]
        assert told[0]["errorId"] == reports[0].error_id
        assert "planted" not in json.dumps(messages)


async def test_an_error_in_a_route_reaches_log_and_sink_and_the_client_gets_a_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = App()
    reports: list[ErrorReport] = []
    app.on_error(reports.append)
    app.quart.get("/boom")(fail_later)
    response = await app.quart.test_client().get("/boom")
    assert response.status_code == 500
    assert "planted" not in await response.get_data(as_text=True)
    assert [report.where for report in reports] == ["route GET /boom"]
    assert "planted" in caplog.text


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_an_error_in_the_lifespan_reaches_log_sink_and_server(
    phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    reports: list[ErrorReport] = []
    app.on_error(reports.append)
    (app.quart.before_serving if phase == "startup" else app.quart.after_serving)(fail_later)
    server = Server({"type": "lifespan"})
    server.tell.send_nowait({"type": "lifespan.startup"})
    server.tell.send_nowait({"type": "lifespan.shutdown"})
    await edge_of(app)(server.scope, server.receive, server.send)
    assert [report.where for report in reports] == [f"lifespan {phase}"]
    assert "planted" in caplog.text
    assert server.answers[-1]["type"] == f"lifespan.{phase}.failed"


def test_siblings_that_fail_together_come_as_a_group() -> None:
    app = App()

    @app.on("go")
    async def go() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_alone)
            nursery.start_soon(fail_alone)

    client = TestClient(app)
    with pytest.raises(ExceptionGroup) as caught:
        client.send("go")
    assert len(caught.value.exceptions) == 2


def test_a_refusal_of_the_authors_is_no_error() -> None:
    app = App()
    reports: list[ErrorReport] = []
    app.on_error(reports.append)

    @app.on("go")
    async def go() -> None:
        raise MessageError("sold_out", "there is none left")

    result = TestClient(app).send("go")
    assert result is not None
    assert (result.code, reports) == ("sold_out", [])
