"""The client's half of the protocol, and what tests of coming back look at in it."""

from __future__ import annotations

from typing import Any

import orjson

from cacao.testing.client_half import ClientHalf, Sent

__all__ = ["ResumingClient", "Sent", "outcome_of", "text_of"]


class ResumingClient(ClientHalf):
    """A `ClientHalf` that takes texts, and keeps a record.

    Args:
        token: What a reloaded page has kept of the one before; None for a new page.

    Attributes:
        token: What takes the session up again.
        inits: The outcomes of all its `init`s.
        revs: The revisions that came on the latest connection.
        strays: Failures that belong to no event.
    """

    def __init__(self, token: str | None = None) -> None:
        super().__init__(is_numbered=True)
        self._token = token
        self.inits: list[str] = []
        self.revs: list[int] = []
        self.strays: list[dict[str, Any]] = []

    @property
    def token(self) -> str | None:
        return self._token

    @property
    def under_way(self) -> int:
        """How many events have no outcome yet."""
        return len(self._waiting) + len(self._running)

    @property
    def is_settled(self) -> bool:
        """Whether every event has its outcome."""
        return not self.under_way

    def hear(self, text: str) -> list[str]:
        """Take a text of the server's; gives what to answer, in order."""
        message = orjson.loads(text)
        if message["type"] == "init":
            self.inits.append(message["outcome"])
        if "rev" in message:
            self.revs.append(message["rev"])
        if message["type"] in {"error", "result"} and message.get("id") is None:
            self.strays.append(message)
        return self.receive(message)

    def lost(self, code: int | None = None) -> None:
        """Note that there is no connection."""
        super().lost(code)
        self.revs = []


def outcome_of(event: Sent) -> str | None:
    """Tell how an event ended: "ok", or the code of its failure; None for not yet."""
    if event.result is None:
        return None
    return "ok" if event.result.ok else event.result.code


def text_of(event: Sent) -> str:
    """Write an event that was sent once more."""
    message = {"type": "event", "id": event.id, "name": event.name, "data": event.data}
    return orjson.dumps(message).decode()
