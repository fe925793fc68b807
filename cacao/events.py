"""What the author declared for the events of a page: handlers and bindings, by event name."""

from __future__ import annotations

import difflib
import dis
import inspect
from contextlib import suppress
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Protocol, cast

import orjson
from pydantic import TypeAdapter, ValidationError

from cacao.errors import DeclarationError, MessageError
from cacao.limits import MAX_NAME_LENGTH
from cacao.reactive import Signal
from cacao.registry import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from cacao.store import Store

__all__ = ["Binding", "Declared", "Events", "Handler"]

EventData = dict[str, Any]


class Declared(Protocol):
    """What stands behind an event name."""

    @property
    def name(self) -> str:
        """The event's name."""
        ...

    @property
    def place(self) -> Place:
        """Where it was declared."""
        ...

    @property
    def may_wait(self) -> bool:
        """Whether `call` gives an awaitable; otherwise it has answered when it returns."""
        ...

    def call(self, session: Store, data: EventData) -> object:
        """Answer one event."""
        ...


@dataclass(frozen=True, slots=True)
class Handler:
    """A function of the author's that answers an event. See `Declared`.

    Attributes:
        function: As the author wrote it; called with as many of `(session, event)` as it takes.
        arity: How many that are.
        never_waits: Whether it is async but contains no await.
    """

    name: str
    place: Place
    may_wait: bool
    function: Callable[..., object]
    arity: int
    never_waits: bool

    def call(self, session: Store, data: EventData) -> object:
        """Answer one event; gives an awaitable if `may_wait`."""
        result = self.function(*(session, data)[: self.arity])
        if self.never_waits:
            _run_to_its_end(cast("Coroutine[object, None, object]", result))
            return None
        return result


@dataclass(frozen=True, slots=True)
class Binding:
    """An event that sets a signal: `{"value": ...}`, checked against the signal's type."""

    name: str
    place: Place
    signal: Signal[Any]
    may_wait: bool = False

    def call(self, session: Store, data: EventData) -> None:
        """Set the signal from the event's `value`; None sets it back to its default.

        Raises:
            MessageError: `invalid_data`: there is no `value`, or it has another type.
        """
        if "value" not in data:
            raise _invalid_value(f"event {self.name!r} needs a field 'value'")
        value = data["value"]
        default = self.signal.default
        self.signal.set(session, default if value is None else _checked(value, type(default)))


class Events:
    """The events that an app answers, by name."""

    def __init__(self) -> None:
        self._by_name: dict[str, Declared] = {}

    def get(self, name: str) -> Declared | None:
        """Look up what answers an event; None if nothing does."""
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._by_name.values())

    def declare_handler(
        self, name: str, function: Callable[..., object], options: dict[str, object]
    ) -> None:
        """Let a function answer an event.

        Args:
            name: The event's name, 1 to 128 characters, not yet taken.
            function: Async or plain, taking `(session, event)`, `(session)` or nothing.
            options: What the author gave besides; none is known.

        Raises:
            DeclarationError: The name, the function or an option cannot be used.
        """
        for option in options:
            raise DeclarationError(_unknown_option(name, option))
        place = Place.of_caller()
        arity = _arity(name, function, place)
        is_async = inspect.iscoroutinefunction(function)
        never_waits = is_async and not _contains_await(function)
        self._declare(
            Handler(name, place, is_async and not never_waits, function, arity, never_waits)
        )

    def declare_binding(self, name: str, signal: Signal[Any]) -> None:
        """Let an event set a signal.

        Raises:
            DeclarationError: The name cannot be used, or `signal` is no Signal.
        """
        if not isinstance(signal, Signal):
            raise DeclarationError(
                f"event {name!r} cannot be bound to {type(signal).__name__} {signal!r}; "
                "bind it to a Signal (a Computed follows others and cannot be set)"
            )
        self._declare(Binding(name=name, place=Place.of_caller(), signal=signal))

    def _declare(self, declared: Declared) -> None:
        name = declared.name
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_LENGTH:
            raise DeclarationError(
                f"event name {name!r} cannot be used; "
                f"give a string of 1 to {MAX_NAME_LENGTH} characters"
            )
        earlier = self._by_name.get(name)
        if earlier is not None and not declared.place.runs_again(earlier.place):
            raise DeclarationError(
                f"event {name!r} at {declared.place} is already declared at {earlier.place}; "
                "one event has one handler: pick another name"
            )
        self._by_name[name] = declared


# No option is known yet: each is added here with the feature that it belongs to.
_OPTIONS: tuple[str, ...] = ()


def _unknown_option(name: str, option: str) -> str:
    known = ", ".join(_OPTIONS) or "none"
    message = f"handler of event {name!r} has no option {option!r}; options are: {known}"
    close = difflib.get_close_matches(option, _OPTIONS, n=1)
    return f"{message}; did you mean {close[0]!r}?" if close else message


def _arity(name: str, function: Callable[..., object], place: Place) -> int:
    """Count how many of `(session, event)` a function takes."""
    if not callable(function):
        raise DeclarationError(
            f"handler of event {name!r} is {function!r}; give a function of (session, event)"
        )
    parameters = inspect.signature(function).parameters.values()
    positional = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 2
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(needed) > 2 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise DeclarationError(
            f"handler of event {name!r} at {place} takes "
            f"({', '.join(p.name for p in parameters)}); it is called with (session, event), "
            "of which the last ones may be left out"
        )
    return min(len(positional), 2)


def _contains_await(function: Callable[..., object]) -> bool:
    """Tell whether an async function can wait at all; one that cannot needs no task.

    Every await, `async for` and `async with` compiles to a YIELD_VALUE, where it may stop.
    """
    code = getattr(function, "__code__", None)
    return code is None or any(i.opname == "YIELD_VALUE" for i in dis.get_instructions(code))


def _run_to_its_end(coroutine: Coroutine[object, None, object]) -> None:
    """Run a coroutine that contains no await."""
    with suppress(StopIteration):
        coroutine.send(None)


def _checked(value: object, expected: type) -> object:
    """Give the value as the signal's type, or refuse it."""
    if expected is NoneType or type(value) is expected:
        return value
    if expected is float and type(value) is int:
        return float(value)
    if expected in {str, bool, int, float, list, dict}:
        raise _invalid_value(f"expected {expected.__name__}, got {type(value).__name__}")
    try:
        return TypeAdapter(expected).validate_json(orjson.dumps(value), strict=True)
    except ValidationError as error:
        details: list[dict[str, object]] = [
            {"path": ["value", *entry["loc"]], "message": entry["msg"]} for entry in error.errors()
        ]
        raise MessageError("invalid_data", str(details[0]["message"]), details=details) from None


def _invalid_value(message: str) -> MessageError:
    return MessageError("invalid_data", message, details=[{"path": ["value"], "message": message}])
