"""What the author declared for the events of a page: handlers and bindings, by event name."""

from __future__ import annotations

import dis
import inspect
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, cast

from cacao.errors import DeclarationError
from cacao.items import Items
from cacao.limits import MAX_NAME_LENGTH
from cacao.options import HandlerOptions, OnLeave, Options, read_options
from cacao.payloads import Call, check_value, read_parameters, schema_of_value
from cacao.reactive import Signal
from cacao.registry import Place

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from cacao.lanes import Concurrency
    from cacao.middleware import Middleware
    from cacao.payloads import EventData, Parameters
    from cacao.store import Store

__all__ = ["Binding", "Declared", "EventDescription", "Events", "Handler"]


@dataclass(frozen=True, slots=True)
class EventDescription:
    """An event that an app answers, as `App.events` lists it.

    Attributes:
        name: The event's name.
        kind: Whether a function answers it, or it sets a signal.
        place: Where it was declared.
        doc: The function's docstring; None without one.
        schema: What its data has to be, as JSON Schema.
        runs: Where: `in place` in the task that reads, in a `task`, or in a `thread`.
        concurrency: What becomes of an event while an earlier one runs.
        limit: How many run at once; None for what the policy is made for.
        has_key: Whether only events of the same key are in each other's way.
        deadline: Seconds that a run may take; None for any time.
        on_leave: What becomes of a run when the user leaves.
    """

    name: str
    kind: Literal["handler", "binding"]
    place: Place
    schema: Mapping[str, object] = field(hash=False)
    doc: str | None = None
    runs: Literal["in place", "task", "thread"] = "in place"
    concurrency: Concurrency = "queue"
    limit: int | None = None
    has_key: bool = False
    deadline: float | None = None
    on_leave: OnLeave = "cancel"


@dataclass(frozen=True, slots=True)
class Handler:
    """A function of the author's that answers an event.

    Attributes:
        name: The event's name.
        place: Where it was declared.
        function: As the author wrote it.
        parameters: What it is called with.
        arity: See `Parameters`.
        options: When and where it runs.
        may_wait: Whether it needs a task: it is async and contains an await, or runs in a thread.
        never_waits: Whether it is async but contains no await.
    """

    name: str
    place: Place
    function: Callable[..., object]
    parameters: Parameters
    arity: int | None
    options: Options
    may_wait: bool
    never_waits: bool

    @property
    def label(self) -> str:
        """What error messages call it."""
        return _label(self.name)

    @property
    def on_leave(self) -> OnLeave:
        """What becomes of a run when the user leaves."""
        return self.options.on_leave

    def bind(self, session: object, data: EventData) -> Call:
        """Check an event's data and lay out the function's arguments; see `Parameters.bind`."""
        if self.arity is None:
            return self.parameters.bind(session, data)
        return Call(data, [session, data][: self.arity], {})

    def call(self, session: Store, data: EventData) -> object:
        """Answer one event in place; not for one that `may_wait`.

        Raises:
            MessageError: `invalid_data`.
            DeclarationError: It is plain, but made a coroutine, which nobody would run.
            Exception: What the function raised.
        """
        if self.arity is None:
            _, args, kwargs = self.parameters.bind(session, data)
            result = self.function(*args, **kwargs)
        else:
            result = self.function(*(session, data)[: self.arity])
        if self.never_waits:
            _run_to_its_end(cast("Coroutine[object, None, object]", result))
            return None
        if result is not None and inspect.iscoroutine(result):
            result.close()
            raise DeclarationError(
                f"{self.label} is a plain function that returns a coroutine; write it, and what "
                "wraps it, as async def"
            )
        return result

    def describe(self) -> EventDescription:
        """Tell what there is to know of it."""
        options = self.options
        return EventDescription(
            self.name,
            "handler",
            self.place,
            self.parameters.schema(),
            inspect.getdoc(self.function),
            "thread" if options.thread else "task" if self.may_wait else "in place",
            options.concurrency,
            options.limit,
            options.key is not None,
            options.deadline,
            options.on_leave,
        )


@dataclass(frozen=True, slots=True)
class Binding:
    """An event that sets a signal: `{"value": ...}`, checked against the signal's type."""

    name: str
    place: Place
    signal: Signal[Any]
    may_wait: bool = False
    on_leave: OnLeave = "cancel"

    def call(self, session: Store, data: EventData) -> None:
        """Set the signal from the event's `value`; None sets it back to its default.

        Raises:
            MessageError: `invalid_data`: there is no `value`, or it has another type.
        """
        value = check_value(data, self._type, f"event {self.name!r}")
        self.signal.set(session, self.signal.default if value is None else value)

    @property
    def _type(self) -> type:
        kind = type(self.signal.default)
        return list if kind is Items else kind  # a stream's

    def describe(self) -> EventDescription:
        """Tell what there is to know of it."""
        schema = schema_of_value(self._type)
        return EventDescription(self.name, "binding", self.place, schema)


Declared = Handler | Binding


class Events:
    """The events that an app answers, by name.

    Attributes:
        middleware: What stands around every event's answer, the outermost first.
    """

    def __init__(self) -> None:
        self.middleware: list[Middleware] = []
        self._by_name: dict[str, Declared] = {}

    def get(self, name: str) -> Declared | None:
        """Look up what answers an event; None if nothing does."""
        return self._by_name.get(name)

    def __iter__(self) -> Iterator[Declared]:
        return iter(self._by_name.values())

    def declare_handler(
        self, name: str, function: Callable[..., object], given: HandlerOptions
    ) -> None:
        """Let a function answer an event.

        Args:
            name: The event's name, 1 to 128 characters, not yet taken.
            function: Async or plain; `payloads.py` tells what its parameters are filled with.
            given: What the author said besides; see `Options`.

        Raises:
            DeclarationError: The name, the function or an option cannot be used.
        """
        label = _label(name)
        if not callable(function):
            raise DeclarationError(f"{label} is {function!r}; give a function of (session, event)")
        is_async = _is_async(function)
        options = read_options(given, label, is_async=is_async)
        never_waits = is_async and not _contains_await(function)
        parameters = read_parameters(function, label)
        self._declare(
            Handler(
                name,
                Place.of_caller(),
                function,
                parameters,
                parameters.arity,
                options,
                may_wait=options.thread or (is_async and not never_waits),
                never_waits=never_waits,
            )
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
        self._declare(Binding(name, Place.of_caller(), signal))

    def add_middleware(self, function: Middleware) -> None:
        """Put a function around the answer to every event, inside of those that are there.

        Raises:
            DeclarationError: It is not async.
        """
        if not callable(function) or not _is_async(function):
            raise DeclarationError(
                f"middleware {function!r} is no async function; "
                "write async def name(session, event, call_next)"
            )
        self.middleware.append(function)

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


def _label(name: str) -> str:
    return f"handler of event {name!r}"


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        type(function).__call__
    )


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
