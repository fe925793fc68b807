from __future__ import annotations

import datetime as dt
import enum
import functools
from typing import Any

import pytest
import trio
import trio.lowlevel

from cacao import App, Computed, DeclarationError, MessageError, Session, Signal
from cacao.events import Binding, EventDescription, Events, Handler
from cacao.testing import TestClient

SESSION = Session()


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


def handle(function: Any) -> Handler:
    events = Events()
    events.declare_handler("go", function, {})
    declared = events.get("go")
    assert isinstance(declared, Handler)
    return declared


def bound(signal: Signal[Any]) -> Binding:
    events = Events()
    events.declare_binding("set", signal)
    declared = events.get("set")
    assert isinstance(declared, Binding)
    return declared


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda session, event: (session, event), (SESSION, {"a": 1})),
        (lambda session: (session,), (SESSION,)),
        (lambda: (), ()),
        (lambda *both: both, (SESSION, {"a": 1})),
        (lambda session, event, more=3: (session, event, more), (SESSION, {"a": 1}, 3)),
        (lambda session, **more: (session, more), (SESSION, {})),
    ],
)
def test_a_handler_gets_as_many_of_session_and_event_as_it_takes(
    function: Any, expected: tuple[object, ...]
) -> None:
    assert handle(function).call(SESSION, {"a": 1}) == expected


async def never_waits() -> None: ...


async def waits() -> None:
    await trio.lowlevel.checkpoint()


@functools.wraps(never_waits)
async def wrapped() -> None:
    await never_waits()


@pytest.mark.parametrize(
    ("function", "may_wait"),
    [
        (lambda: None, False),
        (never_waits, False),
        (waits, True),
        (wrapped, True),
        (functools.partial(never_waits), True),
    ],
)
def test_a_handler_without_await_needs_no_task(function: Any, may_wait: bool) -> None:
    assert handle(function).may_wait is may_wait


def test_an_async_handler_without_await_is_run_to_its_end() -> None:
    seen: list[object] = []

    async def note(session: Session, event: dict[str, Any]) -> None:
        seen.append(event)

    handle(note).call(SESSION, {"a": 1})
    assert seen == [{"a": 1}]


@pytest.mark.parametrize("function", [lambda a, b, c: None, lambda *, key: None])
def test_a_handler_of_other_parameters_is_refused(function: Any) -> None:
    with pytest.raises(DeclarationError, match="called with \\(session, event\\)"):
        handle(function)


def test_a_handler_that_is_no_function_is_refused() -> None:
    with pytest.raises(DeclarationError, match="handler of event 'go' is 5; give a function"):
        handle(5)


@pytest.mark.parametrize("name", ["", "x" * 129, 7, None])
def test_event_names_are_short_strings(name: Any) -> None:
    with pytest.raises(DeclarationError, match="give a string of 1 to 128 characters"):
        Events().declare_handler(name, lambda: None, {})


def test_one_event_has_one_handler_and_the_error_names_both_places() -> None:
    app = App()
    app.bind("save", Signal(""))
    with pytest.raises(DeclarationError, match=r"'save' at .*test_events.py:\d+ is already.*:\d+;"):
        app.bind("save", Signal(""))


def test_a_reloaded_module_replaces_its_own_handlers() -> None:
    source = "@app.on('go')\ndef go(): return {answer}"
    app = App()
    for answer in (1, 2):
        exec(compile(source.format(answer=answer), "reloaded.py", "exec"), {"app": app})  # noqa: S102
    (declared,) = app._events
    assert declared.call(SESSION, {}) == 2


def test_an_unknown_option_is_named() -> None:
    app = App()
    with pytest.raises(DeclarationError, match="event 'go' has no option 'concurency'"):
        app.on("go", concurency="latest")(lambda: None)  # type: ignore[call-arg]


def test_a_computed_signal_cannot_be_bound() -> None:
    computed: Any = Computed(lambda: 1)
    with pytest.raises(DeclarationError, match="bind it to a Signal"):
        App().bind("x", computed)


@pytest.mark.parametrize(
    ("default", "sent", "held"),
    [
        ("", "Ada", "Ada"),
        (0, 7, 7),
        (0.0, 7, 7.0),
        (0.5, 0.25, 0.25),
        (False, True, True),
        ([], [1], [1]),
        ({}, {"a": 1}, {"a": 1}),
        (None, {"any": ["thing"]}, {"any": ["thing"]}),
        (dt.date(2026, 1, 1), "2026-11-24", dt.date(2026, 11, 24)),
        (Size.SMALL, "large", Size.LARGE),
        ((1, 2), [3, 4], (3, 4)),
    ],
)
def test_a_binding_sets_a_value_of_the_signals_type(
    default: object, sent: object, held: object
) -> None:
    session = Session()
    signal = Signal(default)
    bound(signal).call(session, {"value": sent})
    assert signal.get(session) == held
    assert type(signal.get(session)) is type(held)


@pytest.mark.parametrize(
    ("default", "sent"),
    [
        ("", 5),
        (0, "7"),
        (0, True),
        (0, 1.5),
        (0, {"a": 1}),
        (0.0, "1"),
        (False, 0),
        ([], {}),
        ({}, []),
        (dt.date(2026, 1, 1), "yesterday"),
        (Size.SMALL, "huge"),
    ],
)
def test_a_binding_refuses_another_type_and_keeps_its_value(default: object, sent: object) -> None:
    session = Session()
    signal = Signal(default)
    with pytest.raises(MessageError) as caught:
        bound(signal).call(session, {"value": sent})
    assert caught.value.code == "invalid_data"
    assert caught.value.details is not None
    assert caught.value.details[0]["path"] == ["value"]
    assert signal.get(session) == default


def test_null_clears_a_bound_signal_to_its_default() -> None:
    session = Session()
    signal = Signal("nobody")
    binding = bound(signal)
    binding.call(session, {"value": "Ada"})
    binding.call(session, {"value": None})
    assert signal.get(session) == "nobody"


def test_a_binding_needs_a_value() -> None:
    with pytest.raises(MessageError, match="event 'set' needs a field 'value'"):
        bound(Signal("")).call(Session(), {"valeu": "x"})


# --- What there is -------------------------------------------------------------------------------


def test_events_lists_what_an_app_answers() -> None:
    app = App()

    @app.on("search", concurrency="latest", key=lambda text: text, deadline=5)
    async def search(text: str) -> None:
        """Look for a text."""
        await trio.lowlevel.checkpoint()

    app.on("export", thread=True, limit=2)(lambda: None)
    app.on("increment")(never_waits)
    app.bind("age:input", Signal(0))
    searches, exports, increments, ages = app.events()
    assert searches == EventDescription(
        name="search",
        kind="handler",
        place=searches.place,
        doc="Look for a text.",
        schema=searches.schema,
        runs="task",
        concurrency="latest",
        limit=None,
        has_key=True,
        deadline=5,
    )
    assert searches.schema["properties"] == {"text": {"title": "Text", "type": "string"}}
    assert searches.place.file == __file__
    assert (exports.runs, exports.limit, exports.doc) == ("thread", 2, None)
    assert increments.runs == "in place"
    assert (ages.kind, ages.runs) == ("binding", "in place")
    assert ages.schema == {
        "type": "object",
        "properties": {"value": {"type": "integer"}},
        "required": ["value"],
    }
    assert len({searches, exports, increments, ages}) == 4


class Opaque: ...


@pytest.mark.parametrize("default", [None, Opaque()])
def test_a_binding_of_no_type_that_json_knows_takes_anything(default: object) -> None:
    app = App()
    app.bind("set", Signal(default))
    (description,) = app.events()
    assert description.schema["properties"] == {"value": {}}


def test_a_plain_function_around_an_async_one_is_told_from_one_that_works() -> None:
    client = TestClient(app := App())
    app.on("go")(lambda: waits())
    with client.expect_error(DeclarationError) as caught:
        client.send("go")
    assert "'go' is a plain function that returns a coroutine" in str(caught.value)


def test_an_async_call_method_is_awaited() -> None:
    class Callable:
        async def __call__(self) -> None:
            await trio.lowlevel.checkpoint()

    assert handle(Callable()).may_wait


def test_a_name_of_an_objects_prototype_is_a_field_like_any_other() -> None:
    app, seen = App(), []
    app.on("take")(lambda _, event: seen.append(event))
    data = {"__proto__": {"admin": True}, "constructor": 1, "__class__": 2}
    TestClient(app).send("take", data)
    assert seen == [data]
