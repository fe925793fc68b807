"""From an event's data to a handler's arguments: which parameter gets what, and checked how.

A parameter is filled with the session (named `session`, or annotated as one), with the whole of
the event's data (named `event`, or annotated with a model, a dataclass, a TypedDict or a dict), or
with one field of it (any other that has an annotation or a default). Without name, annotation or
default to go by, `(session, event)` is meant, in this order. Types are read once, when a handler
is declared; pydantic checks against them.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from types import NoneType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_origin, get_type_hints

import orjson
from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from cacao.errors import DeclarationError, MessageError
from cacao.limits import MAX_NAME_LENGTH
from cacao.protocol import ErrorCode
from cacao.store import Store
from cacao.threads import ThreadSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["Call", "EventData", "Parameters", "check_value", "read_parameters", "schema_of_value"]

EventData = dict[str, Any]
Schema = dict[str, Any]
Role = Literal["session", "event", "field"]

# Errors of one event that its client is told of; a long list may have one for each item.
_MOST_DETAILS = 20
_ANY_OBJECT: Schema = {"type": "object"}
_UNCHECKED = (Any, object, dict, EventData, dict[str, object])


class Call(NamedTuple):
    """A handler's arguments for one event.

    Attributes:
        payload: What `key` gets: the event as the handler takes it, else an object of its fields.
    """

    payload: Any
    args: list[Any]
    kwargs: dict[str, Any]


class Slot(NamedTuple):
    """One parameter and what fills it."""

    name: str
    role: Role
    by_keyword: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters:
    """What a handler's parameters are filled with.

    Attributes:
        slots: In order.
        event: Checks the whole of the data; None if nobody takes it, or it goes as it came.
        fields: Checks the fields taken one by one; None if none are.
    """

    slots: tuple[Slot, ...]
    event: TypeAdapter[Any] | None
    fields: TypeAdapter[Any] | None

    @property
    def arity(self) -> int | None:
        """How many of `(session, event)` are taken, where that is all and nothing is checked."""
        roles = tuple(slot.role for slot in self.slots)
        is_plain = (
            self.event is None
            and roles == ("session", "event")[: len(roles)]
            and not any(slot.by_keyword for slot in self.slots)
        )
        return len(roles) if is_plain else None

    def bind(self, session: object, data: EventData) -> Call:
        """Check an event's data and lay out the arguments.

        Raises:
            MessageError: `invalid_data`, with the path of each field that does not fit.
        """
        event = data if self.event is None else _check(self.event, data)
        fields = None if self.fields is None else _check(self.fields, data)
        call = Call(event if fields is None or self._takes("event") else fields, [], {})
        for slot in self.slots:
            value = _pick(slot, session, event, fields)
            if slot.by_keyword:
                call.kwargs[slot.name] = value
            else:
                call.args.append(value)
        return call

    def schema(self) -> Schema:
        """Describe the data as JSON Schema."""
        whole = _ANY_OBJECT if self.event is None else self.event.json_schema()
        if self.fields is not None:
            fields = self.fields.json_schema()
            return {"allOf": [whole, fields]} if self.event is not None else fields
        return whole if self._takes("event") else {**_ANY_OBJECT, "properties": {}}

    def _takes(self, role: Role) -> bool:
        return any(slot.role == role for slot in self.slots)


def read_parameters(function: Callable[..., object], label: str) -> Parameters:
    """Find out what fills the parameters of a handler.

    Args:
        function: Async or plain.
        label: What error messages call it.

    Raises:
        DeclarationError: A parameter can be filled with nothing, two take the whole event, or an
            annotation cannot be resolved or checked against.
    """
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind is not parameter.VAR_KEYWORD
    ]
    hints = _hints(function, parameters, label)
    slots = tuple(_slots(parameters, hints, label))
    takers = [slot.name for slot in slots if slot.role == "event"]
    if len(takers) > 1:
        raise DeclarationError(
            f"{label} takes the whole event twice, as {' and '.join(takers)}; "
            "take it once, and single fields by their names"
        )
    fields = {slot.name: hints[slot.name] for slot in slots if slot.role == "field"}
    defaults = {parameter.name: parameter.default for parameter in parameters}
    whole = hints.get(takers[0], Any) if takers else Any
    return Parameters(
        slots,
        event=None if whole in _UNCHECKED else _adapter(whole, label),
        fields=_adapter(_dataclass_of(fields, defaults), label) if fields else None,
    )


def _hints(
    function: Callable[..., object], parameters: list[inspect.Parameter], label: str
) -> dict[str, Any]:
    """Resolve the annotations, also those written as strings.

    A default without annotation tells its type. What is called `session` is left alone: its type
    may be imported for type checkers only.
    """
    written = {
        parameter.name: parameter.annotation
        for parameter in parameters
        if parameter.annotation is not parameter.empty and parameter.name != "session"
    }
    inner = inspect.unwrap(function)
    while isinstance(inner, functools.partial):
        inner = inner.func
    names = getattr(inner, "__globals__", None) or getattr(type(inner).__call__, "__globals__", {})
    try:
        hints = get_type_hints(SimpleNamespace(__annotations__=written), names, include_extras=True)
    except (NameError, TypeError, SyntaxError) as error:
        raise DeclarationError(
            f"{label} has an annotation that cannot be resolved: {error}; "
            "define or import what it names at the top of the module, not only for type checkers"
        ) from error
    for parameter in parameters:
        if parameter.name not in hints and parameter.default is not parameter.empty:
            hints[parameter.name] = _type_of(parameter.default)
    return hints


def _type_of(default: object) -> Any:
    return Any if default is None else type(default)


def _slots(
    parameters: list[inspect.Parameter], hints: dict[str, Any], label: str
) -> Iterator[Slot]:
    roles = {each.name: _role(each, hints) for each in parameters}
    left: list[Role] = [each for each in ("session", "event") if each not in roles.values()]
    for parameter in parameters:
        role = roles[parameter.name]
        by_keyword = parameter.kind is parameter.KEYWORD_ONLY
        if parameter.kind is parameter.VAR_POSITIONAL:
            yield from (Slot(parameter.name, each, by_keyword=False) for each in left)
        elif role is not None:
            yield Slot(parameter.name, role, by_keyword)
        elif left and not by_keyword:
            yield Slot(parameter.name, left.pop(0), by_keyword=False)
        else:
            raise DeclarationError(
                f"{label} takes {parameter.name!r}, of which it is not said what it is; it is "
                "called with (session, event), and with those fields of the event that are "
                f"annotated or have a default: write {parameter.name}: str, say"
            )


def _role(parameter: inspect.Parameter, hints: dict[str, Any]) -> Role | None:
    """Tell what a parameter is by its name, its annotation or its default; None by none of them."""
    hint = hints.get(parameter.name)
    if parameter.kind is parameter.VAR_POSITIONAL:
        return None
    if parameter.name == "session" or _is_class(hint, (Store, ThreadSession)):
        return "session"
    if parameter.name == "event" or _is_record(hint):
        return "event"
    return None if parameter.name not in hints else "field"


def _is_class(hint: object, kinds: type | tuple[type, ...]) -> bool:
    return isinstance(kind := get_origin(hint) or hint, type) and issubclass(kind, kinds)


def _is_record(hint: object) -> bool:
    return _is_class(hint, (BaseModel, dict)) or dataclasses.is_dataclass(get_origin(hint) or hint)


def _dataclass_of(fields: dict[str, Any], defaults: dict[str, Any]) -> type:
    """Make one type of the fields that a handler takes by name, for pydantic to check at once."""
    return dataclasses.make_dataclass(
        "Fields",
        [
            (name, hint)
            if defaults[name] is inspect.Parameter.empty
            else (name, hint, _default(defaults[name]))
            for name, hint in fields.items()
        ],
        kw_only=True,
    )


def _default(value: Any) -> Any:
    """Let a dataclass hand out a default as a function does: the thing itself, also a list."""
    if type(value).__hash__ is None:
        return dataclasses.field(default_factory=lambda: value)
    return dataclasses.field(default=value)


def _adapter(hint: Any, label: str) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(hint)
    except (PydanticUserError, NameError) as error:
        reason = str(error).partition("\n")[0]
        raise DeclarationError(
            f"{label} is annotated with a type that cannot be checked: {reason}"
        ) from error


def _pick(slot: Slot, session: object, event: object, fields: object) -> Any:
    match slot.role:
        case "session":
            return session
        case "event":
            return event
        case _:
            return getattr(fields, slot.name)


def _check(adapter: TypeAdapter[Any], data: object) -> Any:
    """Check against a type, by the rules of JSON: a date comes as a string."""
    try:
        return adapter.validate_json(orjson.dumps(data))
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError, *above: str) -> MessageError:
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    found = [
        ([*above, *map(_shortened, entry["loc"])], entry["msg"]) for entry in errors[:_MOST_DETAILS]
    ]
    path, reason = found[0]
    return MessageError(
        ErrorCode.INVALID_DATA,
        f"{'.'.join(map(str, path))}: {reason}" if path else reason,
        details=[{"path": path, "message": reason} for path, reason in found],
    )


def _shortened(step: int | str) -> int | str:
    return step[:MAX_NAME_LENGTH] if isinstance(step, str) else step


# --- The value of a binding --------------------------------------------------------------------


def check_value(data: EventData, expected: type, label: str) -> object:
    """Take the field `value` of an event as a signal's type, exactly; None stays None.

    Args:
        data: The event's.
        expected: The type of the signal's default; NoneType for any.
        label: What error messages call the event.

    Raises:
        MessageError: `invalid_data`: there is no value, or it has another type.
    """
    if "value" not in data:
        raise _invalid_value(f"{label} needs a field 'value'")
    value = data["value"]
    if value is None or expected is NoneType or type(value) is expected:
        return value
    if expected is float and type(value) is int:
        return float(value)
    if expected in {str, bool, int, float, list, dict}:
        raise _invalid_value(f"expected {expected.__name__}, got {type(value).__name__}")
    try:
        return TypeAdapter(expected).validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        raise _refusal(error, "value") from None


def schema_of_value(expected: type) -> Schema:
    """Describe the data of a binding as JSON Schema; a type that JSON cannot tell is any."""
    try:
        value = {} if expected is NoneType else TypeAdapter(expected).json_schema()
    except PydanticUserError:
        value = {}
    return {**_ANY_OBJECT, "properties": {"value": value}, "required": ["value"]}


def _invalid_value(message: str) -> MessageError:
    return MessageError(
        ErrorCode.INVALID_DATA, message, details=[{"path": ["value"], "message": message}]
    )
