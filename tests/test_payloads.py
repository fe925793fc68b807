"""Which parameter of a handler gets what, and what is refused before anything runs."""

from __future__ import annotations

import datetime as dt
import enum
import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import pytest
import trio
from pydantic import BaseModel, ConfigDict, Field, field_validator
from typing_extensions import TypedDict

from cacao import App, DeclarationError, MessageError, Session, Signal
from cacao.payloads import Parameters, read_parameters
from cacao.testing import TestClient
from cacao.threads import ThreadSession  # noqa: TC001 - read when the handler is declared

if TYPE_CHECKING:
    from decimal import Decimal

SESSION = Session()


class Plan(enum.Enum):
    FREE = "free"
    PAID = "paid"


class Signup(BaseModel):
    name: str = Field(min_length=2)
    born: dt.date
    plan: Plan = Plan.FREE


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


@dataclass
class Move:
    x: int
    tags: list[str] = field(default_factory=list)


class Point(TypedDict):
    x: int


def called(function: Any, data: dict[str, Any]) -> object:
    call = read_parameters(function, "handler of event 'go'").bind(SESSION, data)
    return function(*call.args, **call.kwargs)


def refused(function: Any, data: dict[str, Any]) -> MessageError:
    with pytest.raises(MessageError) as caught:
        called(function, data)
    assert caught.value.code == "invalid_data"
    return caught.value


# --- What gets what ------------------------------------------------------------------------------


def resize(session: Session, width: int, height: int = 3) -> Any:
    return session, width, height


def named_otherwise(me: Session, data: Move) -> Any:
    return me, data


def in_a_thread(me: ThreadSession) -> Any:
    return me


def turned_round(event: Any, session: Any) -> Any:
    return event, session


def only_event(event: Any) -> Any:
    return event


def session_for_type_checkers(session: Decimal) -> Any:
    return session


def only_keyword(*, session: Any) -> Any:
    return session


def by_keyword(*, session: Any, event: Any, x: int) -> Any:
    return session, event, x


def model_and_field(event: Point, x: float) -> Any:
    return event, x


@pytest.mark.parametrize(
    ("function", "data", "expected"),
    [
        (resize, {"width": 2}, (SESSION, 2, 3)),
        (resize, {"width": 2, "height": 4, "depth": 5}, (SESSION, 2, 4)),
        (named_otherwise, {"x": 1}, (SESSION, Move(1))),
        (in_a_thread, {}, SESSION),
        (turned_round, {"x": 1}, ({"x": 1}, SESSION)),
        (only_event, {"x": 1}, {"x": 1}),
        (session_for_type_checkers, {}, SESSION),
        (only_keyword, {}, SESSION),
        (by_keyword, {"x": 1}, (SESSION, {"x": 1}, 1)),
        (model_and_field, {"x": 1, "y": 2}, ({"x": 1}, 1.0)),
        (lambda a, b: (a, b), {"x": 1}, (SESSION, {"x": 1})),
        (lambda event, a: (event, a), {"x": 1}, ({"x": 1}, SESSION)),
        (lambda session, event, more=3: more, {}, 3),
        (lambda session, event, more=3: more, {"more": 4}, 4),
        (lambda more=None: more, {"more": [4]}, [4]),
        (lambda more=[]: more, {}, []),
        (lambda *both: both, {"x": 1}, (SESSION, {"x": 1})),
        (lambda session, **more: more, {"x": 1}, {}),
        (lambda: "nothing", {"x": 1}, "nothing"),
    ],
)
def test_a_parameter_gets_what_its_name_annotation_or_default_says(
    function: Any, data: dict[str, Any], expected: object
) -> None:
    assert called(function, data) == expected


class Desk:
    def on_move(self, session: Session, move: Move) -> Any:
        return self, session, move

    def __call__(self, x: int) -> Any:
        return x


def test_methods_partials_and_callable_objects_are_functions_too() -> None:
    desk = Desk()
    assert called(desk.on_move, {"x": 1}) == (desk, SESSION, Move(1))
    assert called(desk, {"x": 1}) == 1
    assert called(functools.partial(resize, height=7), {"width": 1}) == (SESSION, 1, 7)
    assert called(functools.partial(named_otherwise), {"x": 1}) == (SESSION, Move(1))


def test_a_wrapped_function_has_the_parameters_and_names_of_the_inner_one() -> None:
    elsewhere: dict[str, Any] = {"functools": functools}
    source = "wrap = lambda inner: functools.wraps(inner)(lambda *all: inner(*all))"
    exec(source, elsewhere)  # noqa: S102 - a module that does not know the names of this one
    assert called(elsewhere["wrap"](named_otherwise), {"x": 1}) == (SESSION, Move(1))


@pytest.mark.parametrize(
    "hint", ["dict", "dict[str, Any]", "dict[str, object]", "object", "Any", None]
)
def test_a_plain_dict_goes_as_it_came(hint: str | None) -> None:
    names: dict[str, Any] = {"Any": Any}
    exec(f"def go(session, event{f': {hint!r}' if hint else ''}): return event", names)  # noqa: S102
    data = {"x": 1}
    assert called(names["go"], data) is data
    assert read_parameters(names["go"], "go").arity == 2


@pytest.mark.parametrize(
    ("function", "arity"),
    [
        (lambda: 0, 0),
        (lambda session: 0, 1),
        (lambda session, event: 0, 2),
        (turned_round, None),
        (only_event, None),
        (only_keyword, None),
        (by_keyword, None),
        (resize, None),
        (named_otherwise, None),
    ],
)
def test_arity_tells_the_handlers_that_need_no_binding(function: Any, arity: int | None) -> None:
    assert read_parameters(function, "go").arity == arity


# --- What is checked -----------------------------------------------------------------------------


def test_values_come_as_json_has_them() -> None:
    def sign_up(event: Signup) -> Signup:
        return event

    assert called(sign_up, {"name": "Ada", "born": "1815-12-10", "plan": "paid"}) == Signup(
        name="Ada", born=dt.date(1815, 12, 10), plan=Plan.PAID
    )


def sign_up(event: Signup) -> None: ...
def strict(event: Strict) -> None: ...
def move(event: Move) -> None: ...
def point(event: Point) -> None: ...
def at_least(n: Annotated[int, Field(gt=0)], *, when: dt.date | None = None) -> None: ...
def inferred(height=3) -> None: ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "data", "paths"),
    [
        (sign_up, {"name": "A", "plan": "gold"}, [["name"], ["born"], ["plan"]]),
        (strict, {"name": "A", "age": 3}, [["age"]]),
        (move, {"x": "one", "tags": ["a", 5]}, [["x"], ["tags", 1]]),
        (point, {}, [["x"]]),
        (at_least, {"n": 0, "when": "today"}, [["n"], ["when"]]),
        (resize, {}, [["width"]]),
        (inferred, {"height": "tall"}, [["height"]]),
        (model_and_field, {"x": 1.5}, [["x"]]),
    ],
)
def test_what_does_not_fit_is_refused_with_its_paths(
    function: Any, data: dict[str, Any], paths: list[object]
) -> None:
    error = refused(function, data)
    assert error.details is not None
    assert [detail["path"] for detail in error.details] == paths
    first = error.details[0]
    assert str(error) == f"{'.'.join(map(str, paths[0]))}: {first['message']}"  # type: ignore[call-overload]


def items(event: list[int]) -> None: ...


def test_an_error_of_the_whole_has_no_path() -> None:
    error = refused(items, {"low": 1})
    assert error.details == [{"path": [], "message": "Input should be a valid array"}]
    assert str(error) == "Input should be a valid array"


def test_a_refusal_is_short_however_much_is_wrong() -> None:
    def go(event: dict[str, int]) -> None: ...

    error = refused(go, {f"{n:09}" * 1000: "x" for n in range(100)})
    assert error.details is not None
    assert len(error.details) == 20
    assert len(str(error.details)) < 8000


# --- What cannot be declared -----------------------------------------------------------------


def untold(session: Any, event: Any, third) -> None: ...  # type: ignore[no-untyped-def]
def untold_keyword(*, key) -> None: ...  # type: ignore[no-untyped-def]
def twice(event: Any, move: Move) -> None: ...
def for_type_checkers_only(price: Decimal) -> None: ...
def not_a_type(price: "5 +") -> None: ...  # type: ignore  # noqa: F722, PGH003
def uncheckable(thing: Signal[int]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (untold, "takes 'third', of which it is not said what it is"),
        (untold_keyword, "takes 'key', of which it is not said what it is"),
        (twice, "takes the whole event twice, as event and move"),
        (for_type_checkers_only, "annotation that cannot be resolved: name 'Decimal'"),
        (not_a_type, "annotation that cannot be resolved"),
        (uncheckable, "annotated with a type that cannot be checked"),
    ],
)
def test_what_cannot_be_filled_is_refused_when_declared(function: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=f"^handler of event 'go' .*{message}"):
        App().on("go")(function)


# --- In an app -----------------------------------------------------------------------------------


def in_place(ran: list[int]) -> Any:
    def handle(x: int) -> None:
        ran.append(x)

    return handle


def in_a_task(ran: list[int]) -> Any:
    async def handle(x: int) -> None:
        await trio.lowlevel.checkpoint()
        ran.append(x)

    return handle


@pytest.mark.parametrize("make", [in_place, in_a_task])
def test_an_event_that_does_not_fit_runs_nothing(make: Any) -> None:
    app = App()
    ran: list[int] = []
    app.on("move")(make(ran))
    client = TestClient(app)
    result = client.send("move", x="left")
    assert result is not None
    assert result.code == "invalid_data"
    assert result.details is not None
    assert result.details[0]["path"] == ["x"]
    client.send("move", x=1)
    assert ran == [1]


class Broken(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def check(cls, value: int) -> int:
        return 1 // value


def test_a_validator_that_breaks_is_the_authors_error() -> None:
    app = App()

    @app.on("go")
    def go(event: Broken) -> None: ...

    client = TestClient(app)
    with client.expect_error(ZeroDivisionError):
        result = client.send("go", x=0)
    assert result is not None
    assert result.code == "handler_error"


# --- Schemas -------------------------------------------------------------------------------------


def schema(function: Any) -> dict[str, Any]:
    return parameters(function).schema()


def parameters(function: Any) -> Parameters:
    return read_parameters(function, "handler of event 'go'")


def test_a_schema_tells_what_the_data_has_to_be() -> None:
    assert schema(lambda: 0) == {"type": "object", "properties": {}}
    assert schema(only_event) == {"type": "object"}
    assert schema(move)["required"] == ["x"]
    assert schema(resize)["properties"] == {
        "width": {"title": "Width", "type": "integer"},
        "height": {"default": 3, "title": "Height", "type": "integer"},
    }
    assert [set(part["properties"]) for part in schema(model_and_field)["allOf"]] == [{"x"}] * 2


def test_what_key_gets_is_the_event_or_an_object_of_the_fields() -> None:
    assert parameters(resize).bind(SESSION, {"width": 2}).payload.width == 2
    assert parameters(model_and_field).bind(SESSION, {"x": 1}).payload == {"x": 1}
    assert parameters(move).bind(SESSION, {"x": 1}).payload == Move(1)
    assert parameters(only_event).bind(SESSION, {"x": 1}).payload == {"x": 1}
