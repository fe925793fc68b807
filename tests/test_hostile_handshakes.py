"""Handshakes that end hypercorn 0.18, or its trio worker with all its users, when it is alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hostile import UPGRADE, WORKERS, Victim, connected, event, request, victim, websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

H2C = {"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings", "HTTP2-Settings": "AAMAAABk"}
EVIL = {**UPGRADE, "Origin": "http://evil.com"}


@pytest.fixture(scope="module", params=WORKERS)
def target(request: pytest.FixtureRequest) -> Iterator[Victim]:
    with victim(request.param) as target:
        yield target


def upgrade(**headers: str) -> dict[str, str]:
    return {**UPGRADE, **{name.replace("_", "-"): value for name, value in headers.items()}}


HANDSHAKES = {
    "an illegible subprotocol": (request(headers=upgrade(Sec_WebSocket_Protocol="\xff")), 400),
    "an illegible extension": (request(headers=upgrade(Sec_WebSocket_Extensions="\xff")), 400),
    "a window that is no number": (
        request(
            headers=upgrade(
                Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits=abc"
            )
        ),
        101,
    ),
    "a body": (request(headers=upgrade(Content_Length="5"), more=b"hello"), 400),
    "a chunked body": (request(headers=upgrade(Transfer_Encoding="chunked")), 400),
    "a frame behind a refused one": (request(headers=EVIL, more=event("increment")), 403),
    "bytes behind an unreadable one": (
        request(headers=upgrade(Sec_WebSocket_Version="8"), more=event("increment")),
        400,
    ),
    "no key": (request(headers={"Upgrade": "websocket", "Connection": "Upgrade"}), 400),
    "another version": (request(headers=upgrade(Sec_WebSocket_Version="12")), 400),
    "HTTP/1.0": (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 400),
    "another path": (request("/nowhere"), 404),
    "h2c with a broken frame": (request("/health", {**H2C, "HTTP2-Settings": "AAAA"}), 200),
    "h2c with no base64": (request("/health", {**H2C, "HTTP2-Settings": "!"}), 200),
    "h2c": (request("/health", H2C), 200),
}


@pytest.mark.parametrize("name", HANDSHAKES)
def test_a_handshake_harms_only_itself(target: Victim, name: str) -> None:
    sent, status = HANDSHAKES[name]
    with connected(target.server, sent) as attacker:
        assert attacker.read_status() == status
    assert target.is_well()


@pytest.mark.parametrize("sent", [EVIL, upgrade(Sec_WebSocket_Version="8")], ids=["403", "400"])
def test_a_refused_client_cannot_stay(target: Victim, sent: dict[str, str]) -> None:
    with connected(target.server, request(headers=sent)) as attacker:
        attacker.read_status()
        assert attacker.is_ended()


def test_a_frame_in_the_packet_of_the_handshake_is_read(target: Victim) -> None:
    with connected(target.server, request(more=event("increment") * 3)) as early:
        assert early.read_status() == 101
        state = early.read_message()["state"]
        while state["count"] < 3:
            state.update(early.read_message()["changes"])
    assert target.is_well()


def test_compression_is_never_agreed_to(target: Victim) -> None:
    with websocket(target.server, **upgrade(Sec_WebSocket_Extensions="permessage-deflate")) as page:
        assert "extensions" not in page.head.lower()
    assert target.is_well()


@pytest.mark.parametrize(
    "sent",
    [b"\0\0\0\4\0\0\0\0\0", b"garbage" * 100, b"\xff" * 100, b""],
    ids=["settings", "garbage", "ones", "nothing"],
)
def test_http_2_without_tls_harms_only_itself(target: Victim, sent: bytes) -> None:
    with connected(target.server, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + sent) as attacker:
        assert attacker.read()
    assert target.is_well()
