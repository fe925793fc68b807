"""Who is let in, and who somebody is: in memory, and at the edge as a server drives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import trio
from test_asgi import Server, connected

from cacao import (
    App,
    ConnectionClosed,
    DeclarationError,
    ErrorReport,
    Limits,
    Peer,
    Session,
    UnauthorizedError,
)
from cacao.asgi import Edge
from cacao.testing import AsyncTestClient, TestClient

if TYPE_CHECKING:
    from collections.abc import Callable

USERS = {"ada-key": "ada", "bob-key": "bob"}


def by_key(peer: Peer) -> str | None:
    return USERS.get(peer.headers.get("x-key", ""))


def app_with(authenticate: Callable[[Peer], object] | None, **options: Any) -> App:
    app = App(authenticate=authenticate, **options)

    @app.on("whoami")
    def whoami(session: Session) -> None:
        seen.append(session.user)

    seen: list[object] = []
    app.__dict__["seen"] = seen
    return app


def seen_by(app: App) -> list[object]:
    seen: list[object] = app.__dict__["seen"]
    return seen


# --- In memory ---------------------------------------------------------------------------------


def test_a_handler_knows_its_user() -> None:
    app = app_with(by_key)
    for key in USERS:
        TestClient(app, headers={"X-Key": key}).send("whoami")
    assert seen_by(app) == ["ada", "bob"]


def test_without_authentication_nobody_is_anybody() -> None:
    app = app_with(None)
    TestClient(app).send("whoami")
    assert seen_by(app) == [None]


def test_it_may_wait() -> None:
    async def ask_a_database(peer: Peer) -> str | None:
        await trio.sleep(1)
        return by_key(peer)

    app = app_with(ask_a_database)
    client = TestClient(app, headers={"x-key": "ada-key"})
    assert client.messages == []
    client.advance(1)
    client.send("whoami")
    assert seen_by(app) == ["ada"]


def test_a_user_may_be_any_object() -> None:
    @dataclass(frozen=True)
    class User:
        id: int

    app = app_with(lambda _: User(7))
    TestClient(app).send("whoami")
    assert seen_by(app) == [User(7)]


def test_none_refuses_before_a_session_begins() -> None:
    app = app_with(by_key)
    begun: list[object] = []
    app.on_session_start(lambda: begun.append(1))
    with pytest.raises(ConnectionClosed) as caught:
        TestClient(app, headers={"x-key": "wrong"})
    assert (caught.value.code, caught.value.reason) == (4401, "unauthorized")
    assert begun == []


def test_a_refusal_may_tell_why() -> None:
    def refuse(_: Peer) -> None:
        raise UnauthorizedError("your invitation has expired")

    with pytest.raises(ConnectionClosed, match="4401: your invitation has expired"):
        TestClient(app_with(refuse))


def test_a_refused_client_leaves_the_others_alone() -> None:
    app = app_with(by_key)
    ada = TestClient(app, headers={"x-key": "ada-key"})
    with pytest.raises(ConnectionClosed):
        TestClient(app)
    ada.send("whoami")
    assert seen_by(app) == ["ada"]


async def test_the_async_client_is_refused_and_let_in_by_the_same_function() -> None:
    app = app_with(lambda peer: peer.cookies.get("user"))
    with pytest.raises(ConnectionClosed, match="4401"):
        async with AsyncTestClient(app):
            pass
    async with AsyncTestClient(app, cookies={"user": "ada"}) as ada:
        with pytest.raises(ConnectionClosed, match="4401"):
            await ada.user()
        bob = await ada.user(cookies={"user": "bob"})
        await ada.send("whoami")
        await bob.send("whoami")
    assert seen_by(app) == ["ada", "bob"]


def test_what_it_raises_is_the_authors_error_and_refuses() -> None:
    def fail(_: Peer) -> None:
        raise KeyError("no such table")

    app = app_with(fail)
    reports: list[ErrorReport] = []
    app.on_error(reports.append)
    with pytest.raises(KeyError, match="no such table"):
        TestClient(app)
    (report,) = reports
    assert (report.where, report.session_id, report.event) == ("authenticate", "", None)


def test_it_has_some_seconds_and_then_refuses() -> None:
    ended: list[object] = []

    async def hang(_: Peer) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(1)

    client = TestClient(app_with(hang, limits=Limits(hook_timeout=2)))
    client.advance(1.9)
    assert ended == []
    with pytest.raises(TimeoutError, match=r"longer than 2 s; .* Limits\(hook_timeout=...\)"):
        client.advance(0.2)
    assert ended == [1]
    with pytest.raises(ConnectionClosed, match="1011"):
        client.send("whoami")


def test_a_user_who_leaves_is_not_asked_about_any_longer() -> None:
    ended: list[object] = []

    async def hang(_: Peer) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(1)

    with pytest.raises(TimeoutError):
        TestClient(app_with(hang)).close()
    assert ended == [1]


def test_it_must_be_a_function() -> None:
    with pytest.raises(DeclarationError, match="authenticate is 'ada'; expected a function"):
        App(authenticate="ada")  # type: ignore[arg-type] # the mistake


# --- At the edge -------------------------------------------------------------------------------


def edge_of(app: App) -> Edge:
    return Edge(app.runtime, app.quart, app._report, admit=app.admit)


def handshake(*protocols: str, key: str = "", can_answer: bool = True) -> dict[str, Any]:
    headers = [(b"host", b"localhost"), (b"x-key", key.encode())]
    scope = {"type": "websocket", "path": "/ws", "headers": headers, "subprotocols": protocols}
    return scope | ({"extensions": {"websocket.http.response": {}}} if can_answer else {})


async def answers(app: App, scope: dict[str, Any]) -> list[Any]:
    async with connected(edge_of(app), Server(scope)) as server:
        return list(server.answers)


async def test_a_user_is_let_in() -> None:
    first, *_ = await answers(app_with(by_key), handshake(key="ada-key"))
    assert first == {"type": "websocket.accept", "subprotocol": None}


async def test_a_page_is_told_by_a_close_code_and_nothing_else() -> None:
    accept, close = await answers(app_with(by_key), handshake("cacao.v1"))
    assert accept == {"type": "websocket.accept", "subprotocol": "cacao.v1"}
    assert close == {"type": "websocket.close", "code": 4401, "reason": "unauthorized"}


async def test_what_is_no_page_of_ours_is_told_by_http() -> None:
    start, body = await answers(app_with(by_key), handshake())
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    assert (body["type"], body["body"]) == ("websocket.http.response.body", b"unauthorized\n")


async def test_a_server_without_the_words_for_it_says_403() -> None:
    assert await answers(app_with(by_key), handshake(can_answer=False)) == [
        {"type": "websocket.close"}
    ]


async def test_a_long_reason_is_cut_to_what_the_protocol_takes() -> None:
    def refuse(_: Peer) -> None:
        raise UnauthorizedError("é" * 100 + "\ud800")

    _, close = await answers(app_with(refuse), handshake("cacao.v1"))
    assert close["reason"] == "é" * 61


async def test_a_failure_betrays_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: Peer) -> None:
        raise KeyError("password")

    _, close = await answers(app_with(fail), handshake("cacao.v1"))
    assert (close["code"], close["reason"]) == (1011, "internal error")
    start, body = await answers(app_with(fail), handshake())
    assert (start["status"], body["body"]) == (500, b"internal error\n")
    assert caplog.text.count("authenticate failed") == 2


async def test_a_page_of_another_origin_is_not_asked_who_it_is() -> None:
    asked: list[Peer] = []
    scope = handshake("cacao.v1", key="ada-key")
    scope["headers"].append((b"origin", b"http://evil.com"))
    start, _ = await answers(app_with(asked.append), scope)
    assert (start["status"], asked) == (403, [])
