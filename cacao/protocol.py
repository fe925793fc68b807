"""The wire: every message as a frozen dataclass, and the one place that encodes and decodes.

No I/O and no state: text in, message out, and back. A text that is not a message of the
protocol becomes a `MessageError` with the wire's error code, whatever it holds; nothing else
is ever raised for it. `docs/protocol.md` tells the whole protocol, `tests/wire/` holds one
golden message of each type, which the Python and the TypeScript suites both read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any, Literal

import orjson

from cacao.errors import MessageError, NotSerializableError
from cacao.items import Items

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cacao.limits import Limits

__all__ = [
    "MAX_INTEGER",
    "SUBPROTOCOL",
    "Beat",
    "Bye",
    "ClientMessage",
    "CloseCode",
    "Error",
    "ErrorCode",
    "Event",
    "Hello",
    "Init",
    "Outcome",
    "Patch",
    "Result",
    "ServerMessage",
    "Update",
    "byte_length_exceeds",
    "decode",
    "encode",
    "encode_value",
    "shorten",
]

SUBPROTOCOL = "cacao.v1"
MAX_INTEGER = 2**53 - 1  # the largest integer that JavaScript holds exactly

Outcome = Literal["fresh", "resumed", "rebuilt"]


class CloseCode(IntEnum):
    """Why the server ends a connection; what the client does then is in `docs/protocol.md`."""

    NORMAL = 1000
    UNSUPPORTED_DATA = 1003
    POLICY = 1008
    TOO_BIG = 1009
    INTERNAL = 1011
    RESTART = 1012
    TRY_LATER = 1013
    TAKEN_OVER = 4001
    UNAUTHORIZED = 4401
    HEARTBEAT_TIMEOUT = 4408


class ErrorCode(StrEnum):
    """Why an event, or another message of the client's, came to nothing."""

    INVALID_JSON = "invalid_json"
    INVALID_MESSAGE = "invalid_message"
    UNKNOWN_TYPE = "unknown_type"
    UNKNOWN_EVENT = "unknown_event"
    INVALID_DATA = "invalid_data"
    TOO_DEEP = "too_deep"
    RATE_LIMITED = "rate_limited"
    UNAUTHORIZED = "unauthorized"
    SUPERSEDED = "superseded"
    DROPPED = "dropped"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    HANDLER_ERROR = "handler_error"
    NOT_SERIALIZABLE = "not_serializable"


# --- What a client sends -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of a `cacao.v1` client; again on the same socket, it asks for `init`.

    Attributes:
        resume: The token of the session to take up again; None for a new session.
        rev: The last revision this client has seen.
        patches: Whether the client can apply patches.
    """

    resume: str | None = None
    rev: int | None = None
    patches: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened in the page: run the handler of that name.

    Attributes:
        name: The event's name, 1 to 128 characters.
        data: What the page sent with it.
        id: The client's number of this event (1, 2, 3 ...); None from a plain client.
    """

    name: str
    data: dict[str, Any] = field(default_factory=dict)
    id: int | None = None


@dataclass(frozen=True, slots=True)
class Bye:
    """The page goes."""


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, from either side."""


ClientMessage = Hello | Event | Bye | Beat


# --- What the server sends ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Init:
    """The whole state, as the first message of a connection or after another `hello`.

    A plain client gets `state` and `session_id` alone; all else is None for it.
    """

    state: Mapping[str, object]
    session_id: str
    rev: int | None = None
    token: str | None = None
    outcome: Outcome | None = None
    last_event: int | None = None
    heartbeat: float | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """What changed since the last message; all but `changes` for `cacao.v1` clients only.

    Attributes:
        changes: New values by name.
        rev: Number of this revision of the state.
        ack: All events up to this one have been accepted.
        patches: By name, what to do to the value that the client has; for clients that asked.
    """

    changes: Mapping[str, object]
    rev: int | None = None
    ack: int | None = None
    patches: Mapping[str, list[Patch]] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How the handler of a numbered event ended."""

    id: int
    ok: bool
    code: str | None = None
    message: str | None = None
    details: list[dict[str, object]] | None = None
    error_id: str | None = None


@dataclass(frozen=True, slots=True)
class Error:
    """A message of the client's came to nothing, or a part of the app failed; the session goes on.

    `id` is the client's number of the event concerned, where there is one.
    """

    code: str
    message: str
    id: int | None = None
    details: list[dict[str, object]] | None = None
    error_id: str | None = None


ServerMessage = Init | Update | Result | Error | Beat

# ["append", text] to a string, or ["splice", at, how many go, [what comes]] of a list.
Patch = list[object]


# --- Encoding ----------------------------------------------------------------------------------

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def encode(message: ServerMessage) -> str:
    """Write a message of the server's as JSON text; fields that are None are left out.

    Args:
        message: Its values must be JSON values, or `orjson.Fragment`s of what `encode_value` gave.
    """
    if isinstance(message, Update):  # first: all but a few messages are updates
        return orjson.dumps(_update_fields(message)).decode()
    present = {name: value for name, value in _fields(message).items() if value is not None}
    return orjson.dumps(present).decode()


def _update_fields(update: Update) -> dict[str, object]:
    fields: dict[str, object] = {"type": "update", "changes": update.changes}
    if update.patches is not None:
        fields["patches"] = update.patches
    if update.rev is not None:
        fields["rev"] = update.rev
        fields["ack"] = update.ack
    return fields


def _fields(message: Init | Result | Error | Beat) -> dict[str, object]:
    fields: dict[str, object]
    match message:
        case Result(id_, ok, code, text, details, error_id):
            fields = {"type": "result", "id": id_, "ok": ok, "code": code, "message": text}
            return fields | {"details": details, "errorId": error_id}
        case Error(code, text, id_, details, error_id):
            fields = {"type": "error", "code": code, "message": text, "id": id_}
            return fields | {"details": details, "errorId": error_id}
        case Beat():
            return {"type": "beat"}
        case _:
            fields = {"type": "init", "state": message.state, "sessionId": message.session_id}
            fields |= {"rev": message.rev, "token": message.token, "outcome": message.outcome}
            return fields | {"lastEvent": message.last_event, "heartbeat": message.heartbeat}


def encode_value(name: str, value: object) -> bytes:
    """Write a signal's value as JSON.

    Numbers, strings, lists, dicts (keys that are not strings are written as strings), dates (ISO
    8601), dataclasses, enums, UUIDs and numpy arrays as orjson writes them; NaN and infinities
    become null, a Decimal its exact digits as a string, a pydantic model its fields.

    Args:
        name: The signal's name, for the error.
        value: Anything.

    Raises:
        NotSerializableError: JSON cannot carry the value.
    """
    try:
        return orjson.dumps(value, _plain, _OPTIONS)
    except TypeError:
        pass
    try:  # dicts with other keys than strings are rare, and slower to write
        return orjson.dumps(value, _plain, _OPTIONS | orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise NotSerializableError(name, f"{type(value).__name__}: {error}") from None


def _plain(value: object) -> object:
    """Turn what orjson does not know into what it does."""
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, Items):
        return list(value)
    dump: Callable[..., object] | None = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"type {type(value).__name__} is not JSON")


# --- Decoding ----------------------------------------------------------------------------------


def byte_length_exceeds(text: str, limit: int) -> bool:
    """Tell whether a text is more than `limit` bytes of UTF-8, without encoding short ones."""
    if len(text) * 4 <= limit:
        return False
    return len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit


def decode(text: str, limits: Limits) -> ClientMessage:
    """Read one message of a client's.

    Args:
        text: The JSON text as it came; its size was checked before.
        limits: `max_depth` bounds the nesting, `max_name_length` the names of events.

    Raises:
        MessageError: With the code `invalid_json`, `too_deep`, `invalid_message` or
            `unknown_type`, and the event's id where one could be read.
    """
    fields = _parse(text, limits.max_depth)
    if not isinstance(fields, dict):
        raise _invalid(f"a message is a JSON object with a 'type', not {_json_kind(fields)}")
    kind = fields.get("type", "")
    if not isinstance(kind, str):
        raise _invalid(f"'type' of a message is a string, not {_json_kind(kind)}")
    read = _READERS.get(kind)
    if read is None:
        raise MessageError(
            ErrorCode.UNKNOWN_TYPE,
            f"message type {shorten(kind)} is unknown; "
            "a client sends 'event', 'hello', 'bye' or 'beat'",
        )
    return read(fields, limits)


def _parse(text: str, max_depth: int) -> object:
    try:
        value: object = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        if error.msg.startswith("depth limit"):
            raise _too_deep(max_depth) from None
        reason = shorten(str(error), 100)
        raise MessageError(ErrorCode.INVALID_JSON, f"a message is JSON text: {reason}") from None
    # Counting brackets is a C loop; only a text that has enough of them is walked.
    if text.count("[") + text.count("{") > max_depth and _is_deeper(value, max_depth):
        raise _too_deep(max_depth)
    return value


def _is_deeper(value: object, max_depth: int) -> bool:
    """Tell whether lists and dicts nest deeper than `max_depth`, without recursion."""
    level = [value]
    for _ in range(max_depth + 1):
        containers = [item for item in level if isinstance(item, (list, dict))]
        if not containers:
            return False
        level = [
            child
            for item in containers
            for child in (item.values() if isinstance(item, dict) else item)
        ]
    return True


def _read_hello(fields: dict[str, Any], _: Limits) -> Hello:
    resume, rev, patches = fields.get("resume"), fields.get("rev"), fields.get("patches", False)
    if resume is not None and not isinstance(resume, str):
        raise _invalid("'resume' in 'hello' is a session's token, a string")
    if rev is not None and not _is_integer(rev, least=0):
        raise _invalid("'rev' in 'hello' is the last revision seen, a whole number from 0")
    if not isinstance(patches, bool):
        raise _invalid("'patches' in 'hello' is true or false")
    return Hello(resume, rev, patches)


def _read_event(fields: dict[str, Any], limits: Limits) -> Event:
    event_id = fields.get("id")
    if event_id is not None and not _is_integer(event_id, least=1):
        raise _invalid("'id' in 'event' is a whole number from 1, counting this client's events")
    name = fields.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= limits.max_name_length:
        raise _invalid(
            f"'name' in 'event' is a string of 1 to {limits.max_name_length} characters", event_id
        )
    data = fields.get("data")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise _invalid(f"'data' in 'event' is a JSON object, not {_json_kind(data)}", event_id)
    return Event(name, data, event_id)


_READERS: dict[str, Callable[[dict[str, Any], Limits], ClientMessage]] = {
    "event": _read_event,
    "hello": _read_hello,
    "bye": lambda *_: Bye(),
    "beat": lambda *_: Beat(),
}


def _is_integer(value: object, *, least: int) -> bool:
    return type(value) is int and least <= value <= MAX_INTEGER


def _invalid(message: str, event_id: int | None = None) -> MessageError:
    return MessageError(ErrorCode.INVALID_MESSAGE, message, event_id=event_id)


def _too_deep(max_depth: int) -> MessageError:
    return MessageError(
        ErrorCode.TOO_DEEP, f"lists and objects in a message nest at most {max_depth} deep"
    )


def _json_kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "a number"


def shorten(text: str, length: int = 40) -> str:
    """Quote a text of the client's for a message, never at length."""
    return repr(text if len(text) <= length else text[: length - 3] + "...")
