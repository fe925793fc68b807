"""Where two states differ, in few words."""

from __future__ import annotations

from itertools import takewhile
from operator import eq
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["brief", "differences"]

_NOTHING: Any = object()
# Characters that are shown of a value, and of what two long texts have in common.
_LONG = 40
_COMMON = 10


def brief(value: object, limit: int = _LONG) -> str:
    """Write a JSON value in one line, cut to so many characters."""
    text = "nothing" if value is _NOTHING else orjson.dumps(value, default=repr).decode()
    return text if len(text) <= limit else text[: limit - 1] + "…"


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, str, str]]:
    """Compare two states name by name; of one value only the first place that differs is told.

    Yields:
        The place, as in `rows[2].done`; what stands there before, and after.
    """
    for name in {**before, **after}:
        place, old, new = _first(name, _in(before, name), _in(after, name))
        if old != new or type(old) is not type(new):
            yield place, brief(old), brief(new)


def _first(place: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    match old, new:
        case dict(), dict():
            parts = (
                (f"{place}.{name}", old.get(name, _NOTHING), new.get(name, _NOTHING))
                for name in {**old, **new}
            )
        case list(), list():
            longest = range(max(len(old), len(new)))
            parts = ((f"{place}[{at}]", _at(old, at), _at(new, at)) for at in longest)
        case str(), str() if max(len(old), len(new)) > _LONG:
            common = sum(1 for _ in takewhile(bool, map(eq, old, new)))
            start = max(common - _COMMON, 0)
            return place, _from(old, start), _from(new, start)
        case _:
            return place, old, new
    return next((_first(*part) for part in parts if part[1] != part[2]), (place, old, new))


def _in(state: Mapping[str, Any], name: str) -> Any:
    return state.get(name, _NOTHING)


def _at(values: list[Any], place: int) -> Any:
    return values[place] if place < len(values) else _NOTHING


def _from(text: str, start: int) -> str:
    return f"…{text[start:]}" if start else text
