"""When a value counts as unchanged: the one rule for signals and computed signals.

Unchanged means: both values have exactly the same immutable type, and look the same to the client.
Everything else is a change, so a list that was mutated in place and set again still travels, and a
foreign `__eq__` (numpy, pandas, an ORM) is never called.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Final
from uuid import UUID

__all__ = ["PLAIN", "is_immutable", "unchanged"]

PLAIN: Final = frozenset({int, str, bool, type(None), bytes, date, timedelta, UUID})
"""Immutable types whose own `==` is exact: values that are equal also look the same as JSON."""


class _MutableError(Exception):
    """A value has no fingerprint, for it may change in place."""


def unchanged(old: object, new: object) -> bool:
    """Tell whether `new` may be dropped because `old` is known already.

    Args:
        old: The value stored so far.
        new: The value that would replace it.

    Returns:
        True only for two values of exactly the same immutable type that look the same: NaN is
        unchanged after NaN, but `0.0` and `-0.0`, `1` and `True`, `Decimal("1.0")` and
        `Decimal("1.00")` differ.
    """
    if type(old) is not type(new):
        return False
    try:
        return _fingerprint(old) == _fingerprint(new)
    except _MutableError:
        return False


def is_immutable(value: object) -> bool:
    """Tell whether `value` can be shared by all sessions, for nobody can change it in place."""
    try:
        _fingerprint(value)
    except _MutableError:
        return False
    return True


def _fingerprint(value: object) -> object:
    """Return a hashable stand-in that is equal for values that look the same, and only for them.

    Raises:
        _MutableError: If `value`, or something in it, is of no type known to be immutable.
    """
    kind = type(value)
    if kind in PLAIN:
        return kind, value
    if isinstance(value, Enum):
        # By identity: an enum may define `__eq__` and `__hash__` of its own.
        return kind, id(value)
    if isinstance(value, tuple | frozenset) and kind in {tuple, frozenset}:
        return kind, kind(map(_fingerprint, value))
    return kind, _look(value)


def _look(value: object) -> object:
    """Return what tells apart two values that `==` takes for equal, or the other way round."""
    kind = type(value)
    if kind is float:
        return repr(value)  # NaN equals itself; 0.0 and -0.0 differ
    if kind is Decimal:
        return str(value)  # scale and sign count; a signalling NaN does not raise
    if isinstance(value, datetime | time) and kind in {datetime, time}:
        # The zone by identity: `==` would call its `utcoffset`, which is the author's code.
        return value.replace(tzinfo=None, fold=0), value.fold, id(value.tzinfo)
    raise _MutableError
