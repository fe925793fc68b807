"""Stable names for what is random in each run: session ids, tokens, error ids."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Names"]

# Where a message says one of them, and what it is called then.
_PLACES = {"sessionId": "session", "token": "token"}

# Anything shorter that a client takes for a token is none, and may be any word of a text.
_SHORTEST_TOKEN = 20


class Names:
    """What is random in one run, and the name of each in a recording: `<session-1>`, `<token-2>`.

    They are numbered as they appear, which is in the same order in every run of the same inputs.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._reals: dict[str, str] = {}
        self._counts: Counter[str] = Counter()

    def learn_sessions(self, ids: Iterable[str]) -> None:
        """Name the live sessions, in the order in which they began."""
        for session_id in ids:
            self._learn("session", session_id)

    def learn_from(self, message: dict[str, Any]) -> None:
        """Name what a message of the server's tells a client for the first time."""
        for place, kind in _PLACES.items():
            if isinstance(message.get(place), str):
                self._learn(kind, message[place])

    def learn_error(self, error_id: str) -> None:
        """Name an error, before its id gets into messages and values."""
        self._learn("error", error_id)

    def learn_token(self, token: str) -> None:
        """Name a token that a client has shown; it may be of another run."""
        if len(token) >= _SHORTEST_TOKEN or token.startswith("<token-"):
            self._learn("token", token)

    def _learn(self, kind: str, real: str) -> None:
        if real not in self._names:
            self._counts[kind] += 1
            name = f"<{kind}-{self._counts[kind]}>"
            self._names[real] = name
            self._reals.setdefault(name, real)

    def hide(self, text: str) -> str:
        """Put the names in, wherever in a text they stand for something."""
        for real, name in self._names.items():
            if real in text:
                text = text.replace(real, name)
        return text

    def show(self, text: str) -> str:
        """Put back what the names in a text stand for in this run."""
        if "<" in text:
            for name, real in self._reals.items():
                text = text.replace(name, real)
        return text

    def token_in(self, text: str) -> str | None:
        """Find the token that a client shows in a text of its own."""
        if '"resume"' not in text:
            return None
        try:
            resume = orjson.loads(text).get("resume")
        except (orjson.JSONDecodeError, AttributeError):
            return None
        return resume if isinstance(resume, str) else None
