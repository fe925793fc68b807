from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import pathlib
import uuid
from typing import Any

import orjson
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacao.errors import MessageError, NotSerializableError
from cacao.limits import Limits
from cacao.protocol import (
    Beat,
    Bye,
    ClientMessage,
    Error,
    Event,
    Hello,
    Init,
    Result,
    ServerMessage,
    Update,
    byte_length_exceeds,
    decode,
    encode,
    encode_value,
)

WIRE = pathlib.Path(__file__).parent / "wire"
GOLDEN = {
    path.stem: json.loads(path.read_text())
    for path in sorted(WIRE.glob("*.json"))
    if path.stem != "invalid"
}
FROM_CLIENT = [name for name, golden in GOLDEN.items() if golden["direction"] == "client->server"]
FROM_SERVER = [name for name, golden in GOLDEN.items() if golden["direction"] == "server->client"]

LIMITS = Limits()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def as_dict(message: ClientMessage | ServerMessage) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(message).items() if v is not None}


def from_wire(message: dict[str, Any]) -> ServerMessage:
    """Read a golden message of the server's as the dataclass that must encode to it."""
    python = {"sessionId": "session_id", "lastEvent": "last_event", "errorId": "error_id"}
    fields = {python.get(name, name): value for name, value in message.items() if name != "type"}
    kinds: dict[str, Any] = {
        "init": Init,
        "update": Update,
        "result": Result,
        "error": Error,
        "beat": Beat,
    }
    made: ServerMessage = kinds[message["type"]](**fields)
    return made


@pytest.mark.parametrize("name", FROM_CLIENT)
def test_golden_client_messages_are_read(name: str) -> None:
    message = GOLDEN[name]["message"]
    text = GOLDEN[name].get("text") or json.dumps(message)
    read = decode(text, LIMITS)
    assert type(read).__name__.lower() == message["type"]
    defaults = {"data": {}, "patches": False}
    assert {**defaults, **as_dict(read)} == {
        **defaults,
        **{k: v for k, v in message.items() if k != "type"},
    }


@pytest.mark.parametrize("name", FROM_SERVER)
def test_golden_server_messages_are_written(name: str) -> None:
    golden = GOLDEN[name]["message"]
    assert json.loads(encode(from_wire(golden))) == golden


def test_each_message_has_a_golden_file_in_each_direction() -> None:
    kinds = {(golden["direction"], golden["message"]["type"]) for golden in GOLDEN.values()}
    client = {("client->server", kind) for kind in ("event", "hello", "bye", "beat")}
    server = {("server->client", kind) for kind in ("init", "update", "result", "error", "beat")}
    assert kinds == client | server


@pytest.mark.parametrize("case", json.loads((WIRE / "invalid.json").read_text()), ids=repr)
def test_golden_invalid_messages_get_their_code(case: dict[str, str]) -> None:
    with pytest.raises(MessageError) as caught:
        decode(case["text"], LIMITS)
    assert caught.value.code == case["code"]


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_a_message_or_a_coded_error(text: str) -> None:
    try:
        read = decode(text, LIMITS)
    except MessageError as error:
        assert error.code in {"invalid_json", "invalid_message", "unknown_type", "too_deep"}
        assert len(str(error)) < 300
    else:
        assert isinstance(read, Event | Hello | Bye | Beat)


@given(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["event", "hello", "bye", "beat", "init"])},
        optional=dict.fromkeys(("name", "data", "id", "resume", "rev", "patches"), JSON),
    )
)
def test_any_fields_are_a_message_or_a_coded_error(message: dict[str, Any]) -> None:
    text = orjson.dumps(message).decode()
    try:
        decode(text, LIMITS)
    except MessageError as error:
        assert error.code in {"invalid_message", "unknown_type"}


@pytest.mark.parametrize("text", ['{"type":{}}', '{"type":"hello","patches":1}'])
def test_other_fields_of_the_wrong_type_are_invalid_messages(text: str) -> None:
    with pytest.raises(MessageError) as caught:
        decode(text, LIMITS)
    assert caught.value.code == "invalid_message"


def test_an_error_in_a_numbered_event_names_the_event() -> None:
    with pytest.raises(MessageError) as caught:
        decode('{"type":"event","id":7,"name":"a","data":[]}', LIMITS)
    assert caught.value.event_id == 7


def test_unknown_fields_are_ignored() -> None:
    read = decode('{"type":"event","name":"a","data":{},"later":1}', LIMITS)
    assert read == Event("a", {}, None)


def test_missing_and_null_data_are_an_empty_object() -> None:
    assert decode('{"type":"event","name":"a"}', LIMITS) == Event("a", {}, None)
    assert decode('{"type":"event","name":"a","data":null}', LIMITS) == Event("a", {}, None)


@pytest.mark.parametrize(("depth", "is_refused"), [(64, False), (65, True), (2000, True)])
def test_nesting_is_bounded(depth: int, is_refused: bool) -> None:
    # The message and its data are the two outermost levels.
    nested = "[" * (depth - 2) + "]" * (depth - 2)
    text = f'{{"type":"event","name":"a","data":{{"x":{nested}}}}}'
    if is_refused:
        with pytest.raises(MessageError, match="at most 64 deep") as caught:
            decode(text, LIMITS)
        assert caught.value.code == "too_deep"
    else:
        assert isinstance(decode(text, LIMITS), Event)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert isinstance(
        decode(json.dumps({"type": "event", "name": "a", "data": {"x": [[]] * 1000}}), LIMITS),
        Event,
    )


def test_a_message_never_echoes_what_a_client_sent_at_length() -> None:
    with pytest.raises(MessageError) as caught:
        decode(json.dumps({"type": "x" * 100_000}), LIMITS)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "limit", "exceeds"),
    [("a" * 8, 8, False), ("a" * 9, 8, True), ("é" * 4, 8, False), ("é" * 5, 8, True)],
)
def test_size_is_counted_in_bytes(text: str, limit: int, exceeds: bool) -> None:
    assert byte_length_exceeds(text, limit) is exceeds


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: int
    y: int


class Person(pydantic.BaseModel):
    name: str
    born: dt.date


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (float("nan"), "null"),
        (float("inf"), "null"),
        ((1, 2), "[1,2]"),
        ({1: "one"}, '{"1":"one"}'),
        (dt.date(2026, 11, 24), '"2026-11-24"'),
        (decimal.Decimal("1.10"), '"1.10"'),
        (Colour.RED, '"red"'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        (
            Person(name="Ada", born=dt.date(1815, 12, 10)),
            '{"name":"Ada","born":"1815-12-10"}',
        ),
    ],
)
def test_values_are_written_as_documented(value: object, text: str) -> None:
    assert encode_value("v", value).decode() == text


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), 2**64, [object()], "\ud800"])
def test_what_json_cannot_carry_names_the_signal(value: object) -> None:
    with pytest.raises(NotSerializableError, match="signal 'v' cannot be sent") as caught:
        encode_value("v", value)
    assert caught.value.name == "v"


def test_a_circular_value_is_refused() -> None:
    circle: list[object] = []
    circle.append(circle)
    with pytest.raises(NotSerializableError):
        encode_value("v", circle)


@given(JSON)
def test_json_values_survive_the_wire(value: object) -> None:
    try:
        written = encode_value("v", value)
    except NotSerializableError:  # a lone surrogate
        return
    again = orjson.loads(written)
    assert orjson.dumps(again) == written


def test_how_long_the_name_of_an_event_may_be_is_a_limit() -> None:
    text = '{"type":"event","name":"save"}'
    assert decode(text, Limits(max_name_length=4)) == Event("save")
    with pytest.raises(MessageError, match="a string of 1 to 3 characters"):
        decode(text, Limits(max_name_length=3))
