"""Frames that break the rules: each gets its close code, no memory, and nobody else notices."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from hostile import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KINDS,
    PING,
    PONG,
    TEXT,
    Victim,
    event,
    frame,
    victim,
    websocket,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 2**20
LIMIT = 256 * 1024


@pytest.fixture(scope="module", params=KINDS)
def target(request: pytest.FixtureRequest) -> Iterator[Victim]:
    with victim(request.param) as target:
        yield target


def closing(code: int) -> bytes:
    return frame(CLOSE, struct.pack("!H", code))


def opening(size: int) -> bytes:
    """Begin a text that will go on."""
    return frame(TEXT, b"x" * size, is_final=False)


VIOLATIONS = {
    "not masked": (frame(TEXT, b"hi", is_masked=False), 1002),
    "first reserved bit": (frame(TEXT, b"hi", reserved=4), 1002),
    "second reserved bit": (frame(TEXT, b"hi", reserved=2), 1002),
    "third reserved bit": (frame(TEXT, b"hi", reserved=1), 1002),
    "opcode 3": (frame(3, b"hi"), 1002),
    "opcode 11": (frame(11), 1002),
    "ping in pieces": (frame(PING, b"x", is_final=False), 1002),
    "close in pieces": (frame(CLOSE, is_final=False), 1002),
    "ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
    "pong of 126 bytes": (frame(PONG, b"x" * 126), 1002),
    "continuation of nothing": (frame(CONTINUATION, b"x"), 1002),
    "text within a text": (opening(1) + frame(TEXT, b"x"), 1002),
    "close of one byte": (frame(CLOSE, b"\3"), 1002),
    "close with 0": (closing(0), 1002),
    "close with 999": (closing(999), 1002),
    "close with 1005": (closing(1005), 1002),
    "close with 1006": (closing(1006), 1002),
    "close with 2999": (closing(2999), 1002),
    "close with 5000": (closing(5000), 1002),
    "close with no UTF-8": (frame(CLOSE, b"\3\xe8\xff"), 1007),
    "length longer than need be": (b"\x81\xfe\0\5\0\0\0\0hello", 1002),
    "negative length": (b"\x81\xff" + struct.pack("!Q", 2**63) + bytes(4), 1002),
    "text that is no UTF-8": (frame(TEXT, b"\xff"), 1007),
    "surrogate": (frame(TEXT, b"\xed\xa0\x80"), 1007),
    "UTF-8 that stops": (frame(TEXT, b"\xc3"), 1007),
    "UTF-8 broken between frames": (
        frame(TEXT, b"\xc3", is_final=False) + frame(CONTINUATION, b"("),
        1007,
    ),
    "binary": (frame(BINARY, b"x"), 1003),
    "empty binary": (frame(BINARY), 1003),
    "binary in pieces": (frame(BINARY, is_final=False) + frame(CONTINUATION, b"x"), 1003),
    "binary, and more than fits": (frame(BINARY) + event("increment") * 500, 1003),
    "no UTF-8, and more than fits": (frame(TEXT, b"\xff") + event("increment") * 500, 1007),
    "one byte too many": (frame(TEXT, b"x" * (LIMIT + 1)), 1009),
    "one byte too many, in pieces": (opening(LIMIT) + frame(CONTINUATION, b"x"), 1009),
    "a frame said to be 1 TiB": (frame(TEXT, claims=2**40), 1009),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_violation_gets_its_code_and_ends(target: Victim, name: str) -> None:
    sent, code = VIOLATIONS[name]
    with websocket(target.server) as attacker:
        attacker.send(sent)
        assert attacker.read_close_code() == code
        assert attacker.is_ended()
    assert target.is_well()


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999])
def test_a_good_close_is_answered_with_its_own_code(target: Victim, code: int) -> None:
    with websocket(target.server) as page:
        page.send(closing(code))
        assert page.read_close_code() == code
        assert page.is_ended()


def test_a_ping_is_answered_also_between_the_pieces_of_a_text(target: Victim) -> None:
    text = b'{"type":"event","name":"increment"}'
    with websocket(target.server) as page:
        page.send(frame(TEXT, text[:9], is_final=False) + frame(PING, b"you there?"))
        assert page.read_frame() == (PONG, b"you there?")
        page.send(frame(CONTINUATION, text[9:]))
        assert page.read_message()["changes"] == {"count": 1}


def test_a_frame_that_comes_byte_by_byte_counts_once(target: Victim) -> None:
    with websocket(target.server) as page:
        page.send(opening(LIMIT - 4))
        for byte in frame(CONTINUATION, b"xxxx"):
            page.send(bytes([byte]))
        assert page.read_message()["code"] == "invalid_json"


def test_endless_fragments_cost_no_memory(target: Victim) -> None:
    before = target.peak()
    with websocket(target.server) as attacker:
        attacker.send(opening(MIB // 8))
        for _ in range(192 * 8):
            attacker.send(frame(CONTINUATION, b"x" * (MIB // 8), is_final=False))
        assert attacker.read_close_code() == 1009
        assert attacker.is_ended()
    assert target.peak() - before < 16
    assert target.is_well()


def test_frames_that_never_end_cost_no_memory(target: Victim) -> None:
    before = target.peak()
    for _ in range(100):
        with websocket(target.server) as attacker:
            attacker.send(frame(TEXT, b"x" * 1000, claims=LIMIT) + b"x" * 1000)
    assert target.peak() - before < 32
    assert target.is_well()
