"""The client's half of the protocol, as `client/src/client.ts` does it: text in, texts out.

It knows no transport and no clock. Whoever has a connection gives it each text that comes, and
sends what it returns; when the connection is lost, the next one begins with `greeting()`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from cacao.protocol import ErrorCode


@dataclass(eq=False)
class Sent:
    """One event of the client's.

    Attributes:
        name: What is asked for.
        data: What goes with it.
        id: Its number; 0 until it is sent.
        outcomes: "ok", or the code of its failure; one in all, or somebody is wrong.
    """

    name: str
    data: dict[str, Any]
    id: int = 0
    outcomes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        message = {"type": "event", "id": self.id, "name": self.name, "data": self.data}
        return json.dumps(message, separators=(",", ":"))


class ResumingClient:
    """A client that loses nothing, whatever its connections do.

    Args:
        token: What a reloaded page has kept of the one before; None for a new page.

    Attributes:
        state: The values that it has.
        session_id: Its session; None before the first `init`.
        token: What takes that up again.
        rev: The last revision that it has seen.
        waiting: The events that the server has not accepted yet, in order.
        running: Those that it has, whose results are to come, by number.
        inits: The outcomes of all its `init`s.
        revs: The revisions that came on the latest connection.
        strays: Failures that belong to no event.
        is_ready: Whether events may be sent: the state is up to date and no `init` is awaited.
    """

    def __init__(self, token: str | None = None) -> None:
        self.state: dict[str, Any] = {}
        self.session_id: str | None = None
        self.token = token
        self.rev: int | None = None
        self.waiting: list[Sent] = []
        self.running: dict[int, Sent] = {}
        self.inits: list[str] = []
        self.revs: list[int] = []
        self.strays: list[dict[str, Any]] = []
        self.is_ready = False
        self._last_id = 0

    @property
    def is_settled(self) -> bool:
        """Whether every event has its outcome."""
        return not self.waiting and not self.running

    def greeting(self) -> str:
        """Give the first text of a connection; what asks for the whole state on an open one."""
        hello = {"type": "hello", "resume": self.token, "rev": self.rev, "patches": True}
        return json.dumps({name: value for name, value in hello.items() if value is not None})

    def send(self, name: str, data: dict[str, Any]) -> tuple[Sent, list[str]]:
        """Send an event, now or when there is a connection."""
        event = Sent(name, data)
        self.waiting.append(event)
        return event, [self._number(event)] if self.is_ready else []

    def receive(self, text: str) -> list[str]:
        """Take a text of the server's; gives what to answer, in order."""
        message = json.loads(text)
        match message["type"]:
            case "init":
                return self._begin(message)
            case "update":
                return self._update(message)
            case "beat":
                return ['{"type":"beat"}']
            case _:
                self._settle(message)
                return []

    def lost(self) -> None:
        """Note that there is no connection."""
        self.is_ready = False
        self.revs = []

    def _begin(self, init: dict[str, Any]) -> list[str]:
        outcome = init["outcome"]
        self.inits.append(outcome)
        self.revs.append(init["rev"])
        if outcome == "fresh" and self.session_id is not None:
            self._cancel_all()
        self._accept(init["lastEvent"])
        self.session_id, self.token, self.rev = init["sessionId"], init["token"], init["rev"]
        self.state = {**self.state, **init["state"]} if outcome == "resumed" else init["state"]
        self._last_id = init["lastEvent"]
        # That the new token has come is said at once: until then the older one holds too.
        texts = ['{"type":"beat"}'] if outcome != "fresh" else []
        texts += [self._number(event) for event in self.waiting]
        self.is_ready = True
        return texts

    def _update(self, update: dict[str, Any]) -> list[str]:
        self._accept(update["ack"])
        rev = update["rev"]
        self.revs.append(rev)
        if not self.is_ready or self.rev is None:
            return []  # an `init` with the whole state is on its way
        if rev > self.rev + 1:
            self.is_ready = False
            return [self.greeting()]
        patched = {
            name: _patched(self.state[name], steps)
            for name, steps in update.get("patches", {}).items()
        }
        self.rev = rev
        self.state = {**self.state, **update["changes"], **patched}
        return []

    def _number(self, event: Sent) -> str:
        self._last_id += 1
        event.id = self._last_id
        return event.text

    def _accept(self, number: int) -> None:
        while self.waiting and 0 < self.waiting[0].id <= number:
            event = self.waiting.pop(0)
            self.running[event.id] = event

    def _settle(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None:
            self.strays.append(message)
            return
        self._accept(number)
        event = self.running.pop(number, None)
        if event is not None:  # else it is told again, as it may have been lost
            event.outcomes.append("ok" if message.get("ok") else message["code"])

    def _cancel_all(self) -> None:
        for event in [*self.running.values(), *self.waiting]:
            event.outcomes.append(ErrorCode.CANCELLED)
        self.running.clear()
        self.waiting.clear()


def _patched(value: Any, steps: list[list[Any]]) -> Any:
    for step in steps:
        match step:
            case ["append", str(text)]:
                assert isinstance(value, str)
                value += text
            case ["splice", int(at), int(deleted), list(added)]:
                assert isinstance(value, list)
                assert at + deleted <= len(value)
                value = [*value[:at], *added, *value[at + deleted :]]
            case _:
                raise AssertionError(step)
    return value
