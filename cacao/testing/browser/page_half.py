"""What the client of a page knows, as far as its page and its messages tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cacao.testing.client_half import Sent, read_result

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PageHalf"]


class PageHalf:
    """The part of `ClientHalf` that tests look at; here the page's client is the one that acts.

    State, outcome, and how the events of `add` have ended are what the page's client says. Its
    other events, of clicks for example, are known by their messages.

    Args:
        values: Asks the page's client for the values of some names.

    Attributes:
        events: All that were sent, in order.
        session_id: What the server calls the session; empty before the first `init`.
        session_ids: All that it has had, in order.
        outcome: What became of its session when it was last taken up again; None if it never was.
    """

    def __init__(self, values: Callable[[list[str]], dict[str, Any]]) -> None:
        self.events: list[Sent] = []
        self.session_id = ""
        self.session_ids: list[str] = []
        self.outcome: str | None = None
        self._values = values
        self._names: dict[str, None] = {}  # in the order in which the server named them
        self._asked_for: set[int] = set()  # the numbers of the events of `add`

    @property
    def state(self) -> dict[str, Any]:
        """The values by name that the page's client has."""
        return self._values(list(self._names))

    def add(self, name: str, data: dict[str, Any]) -> Sent:
        """Note an event that the page's client is asked to send."""
        event = self._new(name, data)
        self._asked_for.add(event.number)
        return event

    def settle(self, number: int, result: dict[str, Any]) -> None:
        """Note how an event of `add` has ended, as the page's client says."""
        self.events[number - 1].result = read_result(number, result)

    def note_sent(self, text: str) -> None:
        """Note a message of the page's client."""
        try:
            message = orjson.loads(text)
        except ValueError:
            return  # a test has sent it, past the client
        if message["type"] == "event" and self._find(message["id"]) is None:
            name, data = message["name"], message["data"]
            waiting = (e for e in self.events if not e.id and (e.name, e.data) == (name, data))
            event = next(waiting, None) or self._new(name, data)
            event.id, event.session_id = message["id"], self.session_id

    def note_received(self, message: dict[str, Any]) -> None:
        """Note a message of the server's."""
        match message["type"]:
            case "init":
                if message["sessionId"] != self.session_id:
                    self.session_id = message["sessionId"]
                    self.session_ids.append(self.session_id)
                self._names.update(dict.fromkeys(message["state"]))
            case "update":
                self._names.update(dict.fromkeys(message["changes"]))
            case "result" | "error" if "id" in message:
                event = self._find(message["id"])
                if event is not None and event.number not in self._asked_for:
                    event.result = read_result(event.number, message)

    def _new(self, name: str, data: dict[str, Any]) -> Sent:
        event = Sent(len(self.events) + 1, name, data)
        self.events.append(event)
        return event

    def _find(self, id_: int) -> Sent | None:
        """Find the event that has this number in the present session."""
        found = (e for e in self.events if e.id == id_ and e.session_id == self.session_id)
        return next(found, None)
