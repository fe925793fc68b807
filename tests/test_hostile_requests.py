"""Requests that are malformed, or can be read in two ways: 4xx, never 5xx, and no traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hostile import KINDS, UPGRADE, Victim, connected, request, victim

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20


@pytest.fixture(scope="module", params=KINDS)
def target(request: pytest.FixtureRequest) -> Iterator[Victim]:
    with victim(request.param) as target:
        yield target


def post(headers: dict[str, str], more: bytes = b"", path: str = "/body") -> bytes:
    return request(path, headers, method="POST", more=more)


PATHS = [
    "/../../etc/passwd",
    "/..%2f..%2fetc/passwd",
    "/%2e%2e/%2e%2e/etc/passwd",
    "//etc/passwd",
    "/..\\..\\hostile_app.py",
    "/hostile_app.py",
    "/%00",
    "/%ff",
    "/%c0%ae%c0%ae/",
    "/%0d%0aX:1",
    "http://evil.com/",
    "*",
    "/" + "a" * 8000,
    "/ws",
]

MALFORMED = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": request("/", {"Host": "b"}),
    "two lengths": post({"Content-Length": "5", "content-length": "6"}, b"hello"),
    "negative length": post({"Content-Length": "-1"}),
    "hexadecimal length": post({"Content-Length": "0x5"}, b"hello"),
    "length with a sign": post({"Content-Length": "+5"}, b"hello"),
    "endless length": post({"Content-Length": "9" * 20}, b"hello"),
    "length and chunks": post(
        {"Content-Length": "5", "Transfer-Encoding": "chunked"}, b"0\r\n\r\n"
    ),
    "unknown coding": post({"Transfer-Encoding": "xchunked"}, b"0\r\n\r\n"),
    "two codings": post({"Transfer-Encoding": "gzip, chunked"}, b"0\r\n\r\n"),
    "chunk of no size": post({"Transfer-Encoding": "chunked"}, b"zz\r\n"),
    "chunk of endless size": post({"Transfer-Encoding": "chunked"}, b"f" * 40 + b"\r\n"),
    "chunk with endless extension": post({"Transfer-Encoding": "chunked"}, b"5;" + b"a" * 100_000),
    "space in a name": request("/", {"X ": "a"}),
    "nul in a value": request("/", {"X": "a\0b"}),
    "return in a value": request("/", {"X": "a\rb"}),
    "giant header": request("/", {"X": "a" * 200_000}),
    "giant line": b"GET /" + b"a" * 200_000,
    "version 2.0": request("/").replace(b"HTTP/1.1", b"HTTP/2.0"),
    "version 9.9": request("/").replace(b"HTTP/1.1", b"HTTP/9.9"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "zeros": bytes(1000),
    "all bytes": bytes(range(256)) * 4,
}

ODD = {
    "illegible cookie": request("/", {"Cookie": "\xff=\xfe; ="}),
    "illegible language": request("/", {"Accept-Language": "\xff;q=x", "Accept-Encoding": "\xff"}),
    "far range": request("/", {"Range": "bytes=" + "9" * 30 + "-"}),
    "no date": request("/", {"If-Modified-Since": "yesterday", "If-None-Match": "\xff"}),
    "forwarded nonsense": request("/", {"X-Forwarded-For": "\xff", "X-Forwarded-Proto": "java"}),
    "illegible boundary": post({"Content-Type": "multipart/form-data; boundary=\xff"}),
    "illegible origin": request(headers={**UPGRADE, "Origin": "\xff"}),
    "half an origin": request(headers={**UPGRADE, "Origin": "http://[::1"}),
}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:30])
def test_a_path_that_leads_out_leads_nowhere(target: Victim, path: str) -> None:
    with connected(target.server, request(path, {})) as attacker:
        status = attacker.read_status()
        assert status is not None
        assert 400 <= status < 500
        assert b"import" not in attacker.received
    assert target.is_well()


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_gets_4xx_and_ends(target: Victim, name: str) -> None:
    with connected(target.server, MALFORMED[name]) as attacker:
        status = attacker.read_status()
        assert status is not None
        assert 400 <= status < 500
        assert attacker.is_ended()
    assert target.is_well()


@pytest.mark.parametrize("name", ODD)
def test_an_odd_request_is_no_error_of_ours(target: Victim, name: str) -> None:
    with connected(target.server, ODD[name]) as attacker:
        status = attacker.read_status()
        assert status is not None
        assert status < 500
    assert target.is_well()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "TRACE", "CONNECT", "NONSENSE"])
def test_a_method_that_is_not_answered_gets_405(target: Victim, method: str) -> None:
    with connected(target.server, request("/health", {}, method=method)) as attacker:
        assert attacker.read_status() == 405
    assert target.is_well()


def test_fifty_requests_in_one_packet_are_answered_in_order(target: Victim) -> None:
    with connected(target.server, request("/health", {}) * 50) as client:
        for _ in range(50):
            assert client.read_status() == 200
            assert client.read_exactly(len('{"status":"ok"}\n')) is not None
    assert target.is_well()


def test_a_websocket_may_follow_requests_in_one_packet(target: Victim) -> None:
    with connected(target.server, request("/health", {}) + request()) as client:
        assert client.read_status() == 200
        client.read_exactly(len('{"status":"ok"}\n'))
        assert client.read_status() == 101
        assert client.read_message()["type"] == "init"


@pytest.mark.parametrize("path", ["/", "/health", "/nowhere", "/body"])
def test_a_body_that_nobody_wants_is_not_kept(target: Victim, path: str) -> None:
    before = target.peak()
    sent = post({"Content-Length": str(24 * MIB)}, b"x" * (24 * MIB), path)
    with connected(target.server, sent) as attacker:
        assert attacker.read_status() in {405, 413}
        assert attacker.is_ended()
    assert target.peak() - before < 16
    assert target.is_well()
