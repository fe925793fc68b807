"""A recording as a test would tell it: who does what, one after the other, and what comes of it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from cacao.protocol import SUBPROTOCOL
from cacao.recording.tape import OUTPUTS
from cacao.testing.client_half import ClientHalf

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cacao.recording.tape import Entry

__all__ = ["Actor", "Effects", "Step", "script_of"]

_NAMES = "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"


@dataclass(eq=False)
class Actor:
    """One user of the recording: a page, with all its connections.

    Attributes:
        name: A variable's.
        subprotocol: None for the plain protocol.
        user: Whom `authenticate` has found; None for nobody.
        half: What the page knows.
        client: The number of its latest connection.
        sent: How many events it has sent.
        numbers: For each event's id in the session, which of the page's events that is.
        has_said_bye: Whether it has, on that connection.
    """

    name: str
    subprotocol: str | None
    user: str | None
    half: ClientHalf
    client: int
    sent: int = 0
    numbers: dict[int, int] = field(default_factory=dict)
    has_said_bye: bool = False


@dataclass
class Effects:
    """What came of something.

    Attributes:
        values: For each page, the names of the values that it was sent.
        states: For each page, all its values afterwards.
        results: Which event of a page has ended, and how: the message.
        refusals: For each page whose last error belongs to no event: its code.
        resumed: Pages that have found their session again.
        errors: The types of what the app has raised.
    """

    values: dict[Actor, dict[str, None]] = field(default_factory=lambda: defaultdict(dict))
    states: dict[Actor, dict[str, Any]] = field(default_factory=dict)
    results: list[tuple[Actor, int, dict[str, Any]]] = field(default_factory=list)
    refusals: dict[Actor, str] = field(default_factory=dict)
    resumed: list[Actor] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def take(self, actor: Actor, message: dict[str, Any]) -> None:
        """Note what a message to a page says."""
        actor.half.receive(message)
        match message:
            case {"type": "init"}:
                if message.get("outcome") == "resumed":
                    self.resumed.append(actor)
                else:
                    actor.numbers.clear()
                self._note(actor, message["state"])
            case {"type": "update"}:
                self._note(actor, {**message["changes"], **message.get("patches", {})})
            case {"type": "result" | "error", "id": int(id_)}:
                self.results.append((actor, actor.numbers.get(id_, 0), message))
                if message["type"] == "error":
                    self.refusals.pop(actor, None)
            case {"type": "error", "code": str(code)}:
                self.refusals[actor] = code

    def _note(self, actor: Actor, names: dict[str, Any]) -> None:
        self.values[actor].update(dict.fromkeys(names))
        self.states[actor] = actor.half.state


@dataclass
class Step:
    """Something that a test does.

    Attributes:
        at: When, in virtual seconds since the first client came.
        actor: Who does it.
        verb: `join`, `send`, `text`, `drop`, `restore` or `close`; `wait` for work in threads.
        name: Of the event that is sent, or the text.
        data: Of the event.
        secrets: What is masked in it.
        number: Which of its actor's events that is.
        at_once: What came of it at that moment.
        later: What came before the next step.
    """

    at: float
    actor: Actor
    verb: str
    name: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    number: int = 0
    at_once: Effects = field(default_factory=Effects)
    later: Effects = field(default_factory=Effects)

    @property
    def event(self) -> tuple[Actor, int]:
        """Whose event it sends, and which."""
        return self.actor, self.number


def script_of(entries: Sequence[Entry]) -> tuple[list[Step], float]:
    """Read a recording as steps.

    Returns:
        The steps, and when the last effect was seen.
    """
    reader = _Reader(entries)
    for entry in entries:
        if entry.kind in ("drain", "end", "full"):
            break  # the rest is of the server's end, and a test has its own
        reader.take(entry)
    return reader.steps, reader.seen_at


class _Reader:
    """Turns entries into steps, one after the other."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.steps: list[Step] = []
        self.seen_at = 0.0
        self._facts: dict[int, dict[str, Any]] = {}
        self._actors: dict[int, Actor] = {}
        self._by_token: dict[str, Actor] = {}
        self._count = 0
        self._resumed = {
            token for entry in entries if (token := _message(entry).get("resume")) is not None
        }
        self._last_token: dict[Actor, str] = {}

    def take(self, entry: Entry) -> None:
        """Take one more entry."""
        actor = self._actors.get(entry.client)
        if entry.kind in OUTPUTS:
            self._see(entry, actor)
        elif entry.kind == "open":
            self._facts[entry.client] = entry.value
            if entry.value["subprotocol"] != SUBPROTOCOL:
                self._join(entry)
        elif entry.kind == "in":
            self._hear(entry, actor)
        elif entry.kind == "close" and actor is not None and actor.client == entry.client:
            actor.half.lost()
            comes_back = self._last_token.get(actor) in self._resumed
            verb = "drop" if comes_back or not actor.has_said_bye else "close"
            self.steps.append(Step(entry.at, actor, verb))
        elif entry.kind == "outside" and self._actors:
            self.steps.append(Step(entry.at, next(reversed(self._actors.values())), "wait"))

    def _see(self, entry: Entry, actor: Actor | None) -> None:
        step = self.steps[-1] if self.steps else None
        if step is None:
            return
        effects = step.at_once if entry.at <= step.at else step.later
        if entry.kind == "error":
            effects.errors.append(entry.value["type"])
        elif entry.kind == "out" and actor is not None and actor.client == entry.client:
            message = _message(entry)
            if "token" in message:
                self._by_token[message["token"]] = actor
                self._last_token[actor] = message["token"]
            effects.take(actor, message)
        self.seen_at = entry.at

    def _hear(self, entry: Entry, actor: Actor | None) -> None:
        message = _message(entry)
        match message:
            case {"type": "hello"} if actor is None:
                self._greet(entry, message)
            case {"type": "beat"}:
                pass
            case {"type": "bye"} if actor is not None:
                actor.has_said_bye = True
            case {"type": "event", "name": str(name), **rest} if actor is not None:
                self._send(entry, actor, name, rest)
            case _ if actor is not None:
                self.steps.append(Step(entry.at, actor, "text", entry.value))

    def _greet(self, entry: Entry, hello: dict[str, Any]) -> None:
        actor = self._by_token.get(hello.get("resume", ""))
        if actor is None:
            self._join(entry)
            return
        if actor.half.is_ready:  # the server has not noticed that the older connection is gone
            actor.half.lost()
            self.steps.append(Step(entry.at, actor, "drop"))
        actor.client, actor.has_said_bye = entry.client, False
        self._actors[entry.client] = actor
        self.steps.append(Step(entry.at, actor, "restore"))

    def _join(self, entry: Entry) -> None:
        facts = self._facts[entry.client]
        name = _NAMES[self._count] if self._count < len(_NAMES) else f"user_{self._count + 1}"
        self._count += 1
        subprotocol = facts["subprotocol"]
        half = ClientHalf(is_numbered=subprotocol == SUBPROTOCOL)
        actor = Actor(name, subprotocol, facts["user"], half, entry.client)
        self._actors[entry.client] = actor
        self.steps.append(Step(entry.at, actor, "join"))

    def _send(self, entry: Entry, actor: Actor, name: str, rest: dict[str, Any]) -> None:
        data, number = rest.get("data"), rest.get("id")
        is_plain = actor.subprotocol is None
        if not isinstance(data, dict | None) or is_plain is not (number is None):
            self.steps.append(Step(entry.at, actor, "text", entry.value))
            return
        if number in actor.numbers:
            return  # a page that has come back was not sure that it had arrived
        actor.sent += 1
        if number is not None:
            actor.numbers[number] = actor.sent
        self.steps.append(
            Step(entry.at, actor, "send", name, data or {}, entry.secrets, actor.sent)
        )


def _message(entry: Entry) -> dict[str, Any]:
    """Decode a text; anything but an object is an empty one."""
    if entry.kind not in ("in", "out"):
        return {}
    try:
        message = orjson.loads(entry.value)
    except orjson.JSONDecodeError:
        return {}
    return message if isinstance(message, dict) else {}
