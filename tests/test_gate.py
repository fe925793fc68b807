from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacao.gate import Gate


def scope(host: str = "localhost", kind: str = "http", **more: Any) -> dict[str, Any]:
    headers = [(b"host", host.encode())]
    return {"type": kind, "headers": headers, "server": ("127.0.0.1", 8000)} | more


def websocket(origin: str, **more: Any) -> dict[str, Any]:
    headers = [(b"host", b"localhost:8000"), (b"origin", origin.encode("latin-1"))]
    return {**scope(kind="websocket"), "headers": headers, **more}


def status(gate: Gate, scope: dict[str, Any]) -> int | None:
    refusal = gate.judge(scope)
    return None if refusal is None else refusal.status.value


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_a_host_that_was_rebound_to_loopback_is_misdirected(kind: str) -> None:
    assert status(Gate(), scope("evil.com", kind)) == 421
    assert status(Gate(), scope("localhost", kind)) is None


def test_away_from_loopback_any_host_is_answered_until_there_is_a_list() -> None:
    for server in (("10.0.0.1", 80), ("/run/app.sock", None), None):
        request = scope("example.com", server=server)
        assert status(Gate(), request) is None
        assert status(Gate(["example.org"]), request) == 421


@pytest.mark.parametrize(
    "headers", [[], [(b"host", b"\xff")], [(b"host", b"localhost")] * 2], ids=repr
)
def test_a_request_without_one_good_host_is_a_bad_request(headers: Any) -> None:
    assert status(Gate(["*"]), {**scope(), "headers": headers}) == 400


def test_a_page_of_another_origin_is_forbidden() -> None:
    assert status(Gate(), websocket("http://localhost:8000")) is None
    for origin in ("http://evil.com", "null", "\xff", "http://[::1", ""):
        assert status(Gate(), websocket(origin)) == 403
    assert status(Gate(), websocket("http://localhost:8000", scheme="wss")) == 403
    assert status(Gate(allowed_origins=["http://evil.com"]), websocket("http://evil.com")) is None


def test_a_plain_request_may_come_from_any_page() -> None:
    assert status(Gate(), websocket("http://evil.com", type="http")) is None


def test_the_log_names_a_refused_host_once_with_what_to_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    for _ in range(3):
        gate.judge(scope("example.com"))
    (record,) = caplog.records
    assert "on loopback (127.0.0.1)" in record.getMessage()
    assert "App(allowed_hosts=['example.com'])" in record.getMessage()


def test_the_log_names_a_refused_origin_once_with_what_to_write(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = Gate()
    for _ in range(3):
        gate.judge(websocket("http://localhost:5173"))
    (record,) = caplog.records
    assert "App(allowed_origins=['http://localhost:5173'])" in record.getMessage()


def test_names_without_end_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    for number in range(1000):
        gate.judge(scope(f"{number}.evil.com"))
    assert len(caplog.records) == 100


def test_a_long_origin_is_cut_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    Gate().judge(websocket("http://" + "x" * 60_000))
    assert len(caplog.text) < 1000


WORDS = st.sampled_from([b"localhost", b"[", b"::1", b"]", b":", b"80", b"http", b"//", b"@", b"%"])
VALUES = st.binary(max_size=20) | st.lists(WORDS, max_size=6).map(b"".join)


@given(
    headers=st.lists(st.tuples(st.sampled_from([b"host", b"origin"]), VALUES), max_size=4),
    kind=st.sampled_from(["http", "websocket"]),
)
def test_whatever_the_headers_say_there_is_an_answer(
    headers: list[tuple[bytes, bytes]], kind: str
) -> None:
    assert status(Gate(), scope(kind=kind, headers=headers)) in {None, 400, 403, 421}
