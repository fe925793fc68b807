"""A signal's value as it is stored: what comes back is what was there, or the default."""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel

from cacao import Computed, ListSignal, Session, Signal, TextSignal
from cacao.items import Items
from cacao.protocol import encode_value
from cacao.stored import load_value


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Odd:
    """Nothing that pydantic knows."""

    def __repr__(self) -> str:
        return "Odd()"


@dataclass
class Point:
    x: int
    y: float = 0.0


class Cart(BaseModel):
    items: list[str] = []
    ordered: dt.date | None = None


@pytest.mark.parametrize(
    ("default", "value"),
    [
        (0, 2**53),
        (0.5, 3),
        (0.5, -1e300),
        ("", "grüezi 🍫\n"),
        (False, True),
        ([], [1, [2, {"three": None}]]),
        ({}, {"a": [1], "": 2}),
        ((), (1, "two", None)),
        (None, {"any": ["thing"]}),
        (None, "text"),
        (Colour.RED, Colour.BLUE),
        (Decimal(0), Decimal("1.10")),
        (UUID(int=0), UUID(int=7)),
        (dt.date.min, dt.date(2026, 11, 24)),
        (dt.datetime.min, dt.datetime(2026, 11, 24, 8, 50, 1, 5)),
        (Point(0), Point(1, 2.5)),
        (Cart(), Cart(items=["tea"], ordered=dt.date(2026, 1, 2))),
        (7, None),
        (Point(0), None),
    ],
)
def test_a_stored_value_comes_back_as_it_was(default: Any, value: Any) -> None:
    signal = Signal(default)
    session = Session()
    load_value(signal, session, encode_value("signal", value))
    loaded = signal.get(session)
    assert (loaded, type(loaded)) == (value, type(value) if default != 0.5 else float)


def test_streams_come_back_and_grow_on() -> None:
    lines, text = ListSignal(["zero"]), TextSignal("zero")
    session = Session()
    load_value(lines, session, encode_value("lines", Items(["one", {"two": 2}])))
    load_value(text, session, encode_value("text", "one"))
    lines.append(session, "three")
    text.append(session, " two")
    assert list(lines.get(session)) == ["one", {"two": 2}, "three"]
    assert text.get(session) == "one two"


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (0, '"secret"'),
        (0, "0.5"),
        ("", "7"),
        ([], "{}"),
        (Colour.RED, '"secret"'),
        (Point(0), '{"y":1.5}'),
        (Odd(), '"secret"'),
        (Items(), '"secret"'),
        ({}, "{secret"),
        ({}, ""),
    ],
    ids=repr,
)
def test_a_value_that_does_not_fit_is_the_default_and_is_not_shown(
    default: Any, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    signal = Signal(default_factory=lambda: default, name="signal")
    session = Session()
    load_value(signal, session, text)
    assert signal.get(session) is default
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "stored value of signal 'signal' is left out" in record.message
    assert "secret" not in record.message


def test_a_loaded_value_is_no_change() -> None:
    count = Signal(0, name="count")
    doubled = Computed(lambda s: count.get(s) * 2, name="doubled")
    session = Session()
    told: list[int] = []
    unsubscribe = count.subscribe(lambda _, value: told.append(value))
    load_value(count, session, b"21")
    assert session.take_changes() == {}
    assert told == []
    assert doubled.get(session) == 42
    count.set(session, 4)
    assert told == [4]
    unsubscribe()
