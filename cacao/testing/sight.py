"""What a client has seen: a search through every message that it got."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacao.testing.client_half import ClientHalf

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["saw_text", "saw_values"]

# What the server draws at random: "error" in a token is no error.
_RANDOM = {"sessionId", "token", "errorId"}
# What is searched as it stands in the state afterwards: a text may come in two pieces.
_PATCHES = "patches"


def saw_text(messages: Iterable[Mapping[str, Any]], text: str) -> bool:
    """Tell whether a text stands in any value of any message, or of the state after it."""
    return any(
        text in found
        for message, state in _replayed(messages)
        for value in (
            *(value for name, value in message.items() if name not in {*_RANDOM, _PATCHES}),
            *(state[name] for name in message.get(_PATCHES, ()) if name in state),
        )
        for found in _texts(value)
    )


def saw_values(messages: Iterable[Mapping[str, Any]], values: Mapping[str, object]) -> bool:
    """Tell whether these values were all in the state at once, after any message."""
    return any(
        all(name in state and state[name] == values[name] for name in values)
        for _, state in _replayed(messages)
    )


def _replayed(
    messages: Iterable[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], dict[str, Any]]]:
    """Go through the messages, each with the state that the client had after it."""
    half = ClientHalf(is_numbered=False)
    for message in messages:
        half.receive(dict(message))
        yield message, half.state


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
