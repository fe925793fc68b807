"""The client's half of the protocol, as `client/src/client.ts` does it: text in, texts out.

It knows no transport and no clock. Whoever has a connection sends the `greeting` first, gives it
each message that comes, and sends what it returns; when the connection is lost, the next one begins
with another `greeting`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from cacao.protocol import CloseCode, ErrorCode, Result

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ClientHalf", "Sent", "check_text", "event_data", "read_result"]


@dataclass(eq=False, slots=True)
class Sent:
    """One event of the client's.

    Attributes:
        number: Its place among the client's events: 1, 2, 3 ...
        name: What is asked for.
        data: What goes with it.
        session_id: The session that it was last sent to; empty until it is sent.
        id: Its number in that session; 0 until it is sent.
        result: How it ended; None until that is known, and always in the plain protocol.
    """

    number: int
    name: str
    data: dict[str, Any]
    session_id: str = ""
    id: int = 0
    result: Result | None = None


class ClientHalf:
    """A client that loses nothing, whatever its connections do.

    Args:
        is_numbered: Whether it speaks `cacao.v1`; else the plain protocol, in which an event that
            is sent without a connection is lost, and each connection has a session of its own.

    Attributes:
        state: The values by name, as they were sent last; replaced, never changed.
        events: All that were sent, in order.
        session_id: What the server calls the session; empty before the first `init`.
        session_ids: All that it has had, in order.
        outcome: What became of its session when the connection was last lost: "resumed" as it was,
            "rebuilt" where it had missed something, or "fresh", a new one; None before that.
        is_ready: Whether events may be sent: the state is up to date and no `init` is awaited.
    """

    def __init__(self, *, is_numbered: bool) -> None:
        self.state: dict[str, Any] = {}
        self.events: list[Sent] = []
        self.session_id = ""
        self.session_ids: list[str] = []
        self.outcome: str | None = None
        self.is_ready = False
        self._is_numbered = is_numbered
        self._is_returning = False  # this connection is to take up what an earlier one has lost
        self._token: str | None = None
        self._rev: int | None = None
        self._last_id = 0
        self._waiting: deque[Sent] = deque()  # those that the server has not accepted, in order
        self._running: dict[int, Sent] = {}  # those that it has, whose results are to come

    def greeting(self) -> list[str]:
        """Give the first texts of a connection."""
        self._is_returning = bool(self.session_id)
        return [self._hello()] if self._is_numbered else []

    def lost(self, code: int | None = None) -> None:
        """Note that there is no connection.

        Args:
            code: With which the server has closed, if it has. After 1009 the biggest event that
                waits is given up: it can only be that one.
        """
        self.is_ready = False
        sent = [event for event in self._waiting if event.id]
        if code == CloseCode.TOO_BIG and sent:
            biggest = max(sent, key=lambda event: len(_text(event.data)))
            self._waiting.remove(biggest)
            text = f"event {biggest.name!r} is larger than the server takes"
            biggest.result = Result(biggest.number, ok=False, code="too_big", message=text)

    def send(self, name: str, data: dict[str, Any]) -> tuple[Sent, list[str]]:
        """Make an event of the client's; gives what is to be sent now."""
        event = Sent(len(self.events) + 1, name, data)
        self.events.append(event)
        if not self._is_numbered:
            event.session_id = self.session_id
            return event, [_text({"type": "event", "name": name, "data": data})]
        self._waiting.append(event)
        return event, [self._number(event)] if self.is_ready else []

    def receive(self, message: dict[str, Any]) -> list[str]:
        """Take a message of the server's; gives what to answer, in order."""
        match message["type"]:
            case "update":
                return self._update(message)
            case "init":
                return self._begin(message)
            case "beat":
                return ['{"type":"beat"}']
            case _:
                self._settle(message)
                return []

    def _hello(self) -> str:
        hello = {"type": "hello", "resume": self._token, "rev": self._rev, "patches": True}
        return _text({name: value for name, value in hello.items() if value is not None})

    def _begin(self, init: dict[str, Any]) -> list[str]:
        outcome = init.get("outcome", "fresh")
        if outcome == "fresh" and self.session_id:
            self._cancel_all()
        self._last_id = init.get("lastEvent", 0)
        self._accept(self._last_id)
        if not self.session_ids or self.session_ids[-1] != init["sessionId"]:
            self.session_ids.append(init["sessionId"])
        self.session_id = init["sessionId"]
        self._token, self._rev = init.get("token"), init.get("rev")
        self.state = {**self.state, **init["state"]} if outcome == "resumed" else init["state"]
        if self._is_returning:  # else the server says it all anew, over the same connection
            self._is_returning = False
            self.outcome = outcome
        # That the new token has come is said at once: until then the older one holds, too.
        texts = ['{"type":"beat"}'] if outcome != "fresh" else []
        texts += [self._number(event) for event in self._waiting]
        self.is_ready = True
        return texts

    def _update(self, update: dict[str, Any]) -> list[str]:
        if "ack" in update:
            self._accept(update["ack"])
        if not self.is_ready:
            return []  # an `init` with the whole state is on its way
        if self._rev is not None:
            if update["rev"] <= self._rev:
                return []  # it has come twice
            if update["rev"] > self._rev + 1:
                self.is_ready = False
                return [self._hello()]
            self._rev = update["rev"]
        patched = {
            name: _patched(self.state[name], steps)
            for name, steps in update.get("patches", {}).items()
        }
        self.state = {**self.state, **update["changes"], **patched}
        return []

    def _number(self, event: Sent) -> str:
        self._last_id += 1
        event.id, event.session_id = self._last_id, self.session_id
        return _text({"type": "event", "id": event.id, "name": event.name, "data": event.data})

    def _accept(self, number: int) -> None:
        while self._waiting and 0 < self._waiting[0].id <= number:
            event = self._waiting.popleft()
            self._running[event.id] = event

    def _settle(self, message: dict[str, Any]) -> None:
        number = message.get("id")
        if number is None:
            return
        self._accept(number)
        event = self._running.pop(number, None)
        if event is not None:  # else it is told again, as it may have been lost
            event.result = read_result(event.number, message)

    def _cancel_all(self) -> None:
        """Give up the events of a session that is gone: they are never sent into another one."""
        for event in [*self._running.values(), *self._waiting]:
            event.result = Result(
                event.number, ok=False, code=ErrorCode.CANCELLED, message="the session is gone"
            )
        self._running.clear()
        self._waiting.clear()


def check_text(text: object) -> None:
    """Refuse what a client cannot send as it is.

    Raises:
        TypeError: It is no text.
    """
    if not isinstance(text, str):
        raise TypeError(f"a client sends text, not {text!r}; for an event, use send(name, ...)")


def event_data(name: str, data: dict[str, Any] | None, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Put together what an event carries, and see that a page could send it.

    Raises:
        TypeError: `data` is no dict, or something in it is nothing of JSON's.
    """
    if not isinstance(data, dict | None):
        raise TypeError(
            f"event {name!r} carries fields, not {data!r}; give a dict or keywords, as in "
            f"send({name!r}, by=3)"
        )
    together = {**(data or {}), **fields}
    try:
        orjson.dumps(together)
    except TypeError as error:
        raise TypeError(f"event {name!r} cannot carry {together!r} as JSON: {error}") from None
    return together


def _text(message: dict[str, Any]) -> str:
    return orjson.dumps(message).decode()


def _patched(value: Any, steps: list[list[Any]]) -> Any:
    """Apply patches to a copy: who has seen the value keeps what was seen."""
    for step in steps:
        match step:
            case ["append", str(text)] if isinstance(value, str):
                value += text
            case ["splice", int(at), int(deleted), list(added)] if at + deleted <= len(value):
                value = [*value[:at], *added, *value[at + deleted :]]
            case _:
                raise AssertionError(f"patch {step!r} does not fit the value {value!r}")
    return value


def read_result(number: int, message: dict[str, Any]) -> Result:
    """Read a `result`, or the `error` that a refused event gets instead.

    Args:
        number: Of the event, among all of its client's.
        message: As it came.
    """
    return Result(
        id=number,
        ok=message.get("ok", False),
        code=message.get("code"),
        message=message.get("message"),
        details=message.get("details"),
        error_id=message.get("errorId"),
    )
