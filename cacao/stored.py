"""One signal's value as it is stored: JSON, read back as the type of the signal's default."""

# ruff: noqa: SLF001 - signals and their stores are one graph

from __future__ import annotations

import logging
from functools import lru_cache
from types import NoneType
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import TypeAdapter, ValidationError

from cacao.items import Items

if TYPE_CHECKING:
    from cacao.reactive import Signal
    from cacao.store import Store

__all__ = ["load_value", "read_value"]

_log = logging.getLogger("cacao")


def load_value(signal: Signal[Any], store: Store, text: bytes | str) -> None:
    """Give a signal its stored value, without that being a change; before anything has read it.

    A value that does not fit the signal any more leaves it at its default, with a line in the log.

    Args:
        signal: The type of its default is what the value is read as: a dataclass or a model
            becomes one again, a default of None takes any JSON. None fits every signal.
        store: The session, or what stands for the run.
        text: What `encode_value` gave.
    """
    try:
        value = read_value(type(signal.default), text)
    except Exception as error:  # noqa: BLE001 - a type's validators are the author's code
        _log.warning(
            "the stored value of signal %r is left out, for it does not fit: %s; "
            "a session starts with the default",
            signal.label,
            _without_the_value(error),
        )
    else:
        signal._cell(store).value = value


def read_value(kind: Any, text: bytes | str) -> object:
    """Read a value as what it was when it was written, if it is of that type.

    Args:
        kind: The type of the signal's default.
        text: What `encode_value` gave.

    Raises:
        ValueError: It does not fit.
        Exception: What a validator of the author's raises.
    """
    value: object = orjson.loads(text)
    if value is None or kind is NoneType:
        return value
    if kind is Items:
        return Items(_adapter(list).validate_python(value, strict=True))
    return _adapter(kind).validate_json(text, strict=True)


@lru_cache(maxsize=256)
def _adapter(kind: type[object]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _without_the_value(error: Exception) -> str:
    """Say what is wrong, and not with what: values may be secret."""
    if isinstance(error, ValidationError):
        return str(error.errors(include_input=False, include_context=False)[0]["msg"])
    return type(error).__name__
