"""A session as bytes: what another process needs to take it up.

Values travel as JSON, by the names of their signals. What runs in a session does not travel, nor
do the values of signals without a name, or those that JSON cannot carry.
"""

# ruff: noqa: SLF001 - what a session has touched is in its nodes

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import orjson
from pydantic import TypeAdapter, ValidationError

from cacao.protocol import Error, Result, encode_value
from cacao.reactive import Signal
from cacao.stored import load_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cacao.registry import Registry
    from cacao.store import Store

__all__ = ["ParkedSession", "pack", "restore_values", "unpack", "values_of"]

_log = logging.getLogger("cacao")


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedSession:
    """A session without its process.

    Attributes:
        id: The session's.
        values: JSON texts by the names of signals, as `values_of` gives them.
        last_event: The highest number of an event accepted.
        rev: The last revision sent.
        outcomes: How the last events ended, each with the revision sent by then, oldest first.
        tokens: Digests of the tokens that take it up, in hexadecimal, the newest last.
        owner: The user whose session it is; None if nobody has said who they are.
        written_at: Seconds since 1970.
        version: Of this format.
    """

    id: str
    values: dict[str, str]
    last_event: int
    rev: int
    outcomes: list[tuple[int, Result | Error]]
    tokens: list[str]
    owner: str | None
    written_at: float
    version: Literal[1] = 1


_PARKED = TypeAdapter(ParkedSession)


def pack(session: ParkedSession) -> bytes:
    """Write a session for the storage."""
    return orjson.dumps(session)


def unpack(data: bytes) -> ParkedSession | None:
    """Read what `pack` has written.

    Returns:
        The session; None, with a line in the log, for what is damaged or of another version.
    """
    try:
        return _PARKED.validate_json(data, strict=True)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_context=False)[0]
        _log.warning(
            "a parked session cannot be read, its client starts anew: %s: %s",
            ".".join(map(str, wrong["loc"])) or "all of it",
            wrong["msg"],
        )
        return None


def values_of(session: Store, registry: Registry) -> dict[str, str]:
    """Write the values that a session has touched, of the signals that can be found again.

    Args:
        session: Not closed yet.
        registry: Whose names count.
    """
    values: dict[str, str] = {}
    left_out: list[str] = []
    for signal in _touched(session):
        name = signal.name or ""
        try:
            if registry.get(name) is not signal:
                raise LookupError(name)  # noqa: TRY301 - one way out for all that stays behind
            values[name] = encode_value(name, signal.peek(session)).decode()
        except Exception:  # noqa: BLE001 - a model's serializers are the author's code
            left_out.append(signal.label)
    if left_out:
        _log.debug(
            "a parked session leaves out signals without a name or a JSON value: %s",
            ", ".join(left_out),
        )
    return values


def restore_values(session: Store, registry: Registry, values: Mapping[str, str]) -> None:
    """Give a new session the values of a parked one, before anything runs in it.

    A name that stands for no signal any more is left out; so is a value that does not fit.
    """
    for name, text in values.items():
        signal = registry.get(name)
        if isinstance(signal, Signal) and signal.scope == "session":
            load_value(signal, session, text)


def _touched(session: Store) -> Iterator[Signal[Any]]:
    for key in tuple(session._nodes):
        signal = key()
        if isinstance(signal, Signal) and signal.scope == "session":
            yield signal
