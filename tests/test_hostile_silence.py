"""Clients that say nothing, take nothing, or go on for ever: each is cut, and nobody else waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hostile import (
    KINDS,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Bystander,
    Client,
    connected,
    event,
    eventually,
    frame,
    request,
    serve,
    websocket,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from processes import Server

SILENCE = 0.6  # seconds, where an author's server has 20, and 10 for a write
LARGE = 30_000_000  # bytes, more than the kernels take between them


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(request.param, SILENCE_SECONDS=str(SILENCE), WRITE_SECONDS=str(SILENCE)) as server:
        yield server


def is_well(server: Server) -> bool:
    with websocket(server) as page:
        return Bystander(page).still_counts() and "Traceback" not in server.stderr


def test_a_page_that_answers_no_ping_is_closed(server: Server) -> None:
    with websocket(server) as page:
        assert page.read_frame() == (PING, b"")
        assert page.read_close_code() == 4408
        assert page.is_ended()
    assert is_well(server)


def test_a_page_that_answers_pings_stays(server: Server) -> None:
    with websocket(server) as page:
        for _ in range(3):
            assert page.read_frame() == (PING, b"")
            page.send(frame(PONG))
        assert Bystander(page).still_counts()


def test_a_v1_page_that_is_gone_is_closed_too(server: Server) -> None:
    headers = {**UPGRADE, "Sec-WebSocket-Protocol": "cacao.v1"}
    with connected(server, request(headers=headers)) as page:
        assert page.read_status() == 101
        page.send(frame(TEXT, b'{"type":"hello"}'))
        assert page.read_message()["type"] == "init"
        assert page.read_close_code() == 4408


def test_a_page_that_takes_nothing_is_cut(server: Server) -> None:
    with websocket(server) as page:
        page.send(event("fill", size=LARGE))
        assert eventually(lambda: is_cut(page))
    assert is_well(server)


def is_cut(client: Client) -> bool:
    """Whether the server has given a connection up, seen without reading from it."""
    try:
        client.socket.sendall(frame(PONG))
    except OSError:
        return True
    return False


def test_a_request_whose_body_does_not_come_gets_408(server: Server) -> None:
    sent = request("/body", {"Content-Length": "9"}, method="POST", more=b"abc")
    with connected(server, sent) as attacker:
        assert attacker.read_status() == 408
        assert attacker.is_ended()
    assert is_well(server)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"], ids=["nothing", "half"])
def test_a_connection_without_a_request_ends(server: Server, sent: bytes) -> None:
    with connected(server, sent) as attacker:
        assert attacker.is_ended()


def test_an_idle_connection_ends_after_its_answer(server: Server) -> None:
    with connected(server, request("/health", {})) as client:
        assert client.read_status() == 200
        assert client.is_ended()


def test_a_client_that_waits_for_its_answer_may_be_silent(server: Server) -> None:
    with connected(server, request("/slow", {}), patience=3 * SILENCE) as client:
        assert not client.is_ended()
