"""A parked session: packed, unpacked, damaged, and its values restored."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacao import Computed, ListSignal, Registry, Session, Signal, TextSignal
from cacao.parking import ParkedSession, pack, restore_values, unpack, values_of
from cacao.protocol import Error, Result

if TYPE_CHECKING:
    from collections.abc import Iterator


def parked(**changes: Any) -> ParkedSession:
    fields: dict[str, Any] = {
        "id": "abc",
        "values": {"count": "1", "name": '"Ada"'},
        "last_event": 17,
        "rev": 42,
        "outcomes": [
            (40, Result(15, ok=True)),
            (41, Result(16, ok=False, code="invalid_data", message="no", details=[{"path": []}])),
            (42, Error("invalid_message", "no such thing", 17, None, "e1")),
        ],
        "tokens": ["0" * 32, "f" * 32],
        "owner": "ada@example.org",
        "written_at": 1764000000.25,
    }
    return ParkedSession(**(fields | changes))


@pytest.mark.parametrize(
    "session",
    [parked(), parked(values={}, outcomes=[], tokens=[], owner=None, last_event=0, rev=0)],
    ids=["full", "empty"],
)
def test_what_was_packed_is_unpacked(session: ParkedSession) -> None:
    assert unpack(pack(session)) == session


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        pack(parked())[:-10],
        orjson.dumps(orjson.loads(pack(parked())) | {"version": 2}),
        orjson.dumps(orjson.loads(pack(parked())) | {"rev": "42"}),
        orjson.dumps(orjson.loads(pack(parked())) | {"values": {"count": 1}}),
        orjson.dumps({"version": 1}),
    ],
    ids=range(9),
)
def test_damage_and_another_version_are_none_and_a_line_in_the_log(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    assert unpack(data) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "a parked session cannot be read, its client starts anew" in record.message


@given(position=st.integers(0, len(pack(parked())) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_unpacked_or_none(position: int, byte: int) -> None:
    data = bytearray(pack(parked()))
    data[position] = byte
    session = unpack(bytes(data))
    assert session is None or isinstance(session, ParkedSession)


# --- Values ------------------------------------------------------------------------------------


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


def test_touched_values_with_a_name_move_to_another_session(registry: Registry) -> None:
    count = Signal(0, name="count")
    secret = Signal("", name="secret", client=False)
    lines, text = ListSignal[str](name="lines"), TextSignal(name="text")
    untouched = Signal(7, name="untouched")
    doubled = Computed(lambda s: count.get(s) * 2, name="doubled")
    first, second = Session(), Session()
    count.set(first, 2)
    secret.set(first, "s")
    lines.extend(first, ["a", "b"])
    text.append(first, "abc")
    assert doubled.get(first) == 4
    values = values_of(first, registry)
    assert set(values) == {"count", "secret", "lines", "text"}
    restore_values(second, registry, values)
    assert (count.get(second), doubled.get(second), secret.get(second)) == (2, 4, "s")
    assert (list(lines.get(second)), text.get(second)) == (["a", "b"], "abc")
    assert untouched.get(second) == 7


def test_what_cannot_be_parked_is_left_out_and_named_for_who_debugs(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cacao")
    session = Session()
    nameless = Signal(0)
    nameless.set(session, 1)
    odd: Signal[object] = Signal(None, name="odd", client=False)
    odd.set(session, object())
    with Registry():
        foreign = Signal(0, name="foreign")
    foreign.set(session, 1)
    kept = Signal(0, name="kept")
    kept.set(session, 1)
    assert values_of(session, registry) == {"kept": "1"}
    (record,) = caplog.records
    assert record.levelno == logging.DEBUG
    assert "without a name or a JSON value: signal at " in record.message
    assert record.message.endswith(", odd, foreign")


def test_app_wide_values_do_not_move_with_a_session(registry: Registry) -> None:
    visitors = Signal(0, name="visitors", scope="app")
    session = Session()
    visitors.set(session, 5)
    assert values_of(session, registry) == {}
    restore_values(session, registry, {"visitors": "1"})
    assert visitors.get(session) == 5


def test_names_that_stand_for_no_signal_any_more_are_left_out(registry: Registry) -> None:
    total = Computed(lambda: 7, name="total")
    session = Session()
    restore_values(session, registry, {"gone": "1", "total": "1"})
    assert total.get(session) == 7
