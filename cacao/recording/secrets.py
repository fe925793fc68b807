"""What users type in secret, and what stands for it in a recording.

Secret is what the app declares so: a field of an event whose type is pydantic's `SecretStr` or
`SecretBytes`, as the JSON Schema of the event tells. From then on that text is masked wherever the
server sends it, too: `<secret-1>` is the first one, wherever it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cacao.app import App
    from cacao.peer import Peer

__all__ = ["Secrets", "put_back"]

# A shorter secret is masked only where it is the whole of a text: "on" is part of many.
_SHORTEST_PART = 4
# What of a message of the server's the app has a hand in.
_OF_THE_APP = ("state", "changes", "patches", "message", "details")

Schema = Mapping[str, Any]


class Secrets:
    """The secrets of one recording.

    Args:
        app: Whose events tell what is secret.
        told: What to put back for a masked field, by its name such as `login.password`.

    Attributes:
        was_echoed: Whether the server has sent one.
    """

    def __init__(self, app: App, told: Mapping[str, str] | None = None) -> None:
        self._app = app
        self._told = told or {}
        self._masks: dict[str, str] = {}
        self._schemas: dict[str, Schema] = {}
        self.was_echoed = False

    def learn_credentials(self, peer: Peer) -> None:
        """Remember what a client has shown to be let in: no app should send it, but one may."""
        scheme, _, credentials = peer.headers.get("authorization", "").partition(" ")
        if peer.user_key in {credentials or scheme, *peer.cookies.values()}:
            self._mask_of(peer.user_key)

    def mask_event(self, message: dict[str, Any]) -> list[str]:
        """Mask what is secret in an event, in place, and remember it.

        Args:
            message: Any message of a client's, decoded.

        Returns:
            The names of what was masked: the event's, a dot, and the path in its data.
        """
        name, data = message.get("name"), message.get("data")
        if message.get("type") != "event" or not isinstance(name, str):
            return []
        schema = self._schema_of(name)
        found: list[str] = []

        def mask(value: Any, path: tuple[str, ...]) -> Any:
            masked = self._masked(value)
            if masked != value:
                found.append(".".join((name, *path)))
            return masked

        if data is not None:
            masked = _Walk(schema, mask).through(data, schema, ())
            message["data"] = _each_text(masked, self.mask_text)
        return list(dict.fromkeys(found))

    def unmask_event(self, message: dict[str, Any], names: Sequence[str]) -> None:
        """Put back, in place, what is known of the secrets of an event, by their names."""
        for name in names:
            if name in self._told:
                path = name.removeprefix(f"{message['name']}.")
                mask = put_back(message["data"], path, self._told[name])
                self._masks[self._told[name]] = str(mask)

    def mask_frame(self, text: str) -> str:
        """Mask every known secret in a message of the server's; one without any stays as it is."""
        if not any(_escaped(secret) in text for secret in self._masks):
            return text
        message = orjson.loads(text)
        masked = {
            key: _each_text(value, self.mask_text) if key in _OF_THE_APP else value
            for key, value in message.items()
        }
        if masked == message:
            return text
        self.was_echoed = True
        return orjson.dumps(masked).decode()

    def mask_text(self, text: str) -> str:
        """Mask every known secret in any other text."""
        if text in self._masks:
            return self._masks[text]
        for secret in sorted(self._masks, key=len, reverse=True):
            if len(secret) >= _SHORTEST_PART:
                text = text.replace(secret, self._masks[secret])
        return text

    def _mask_of(self, secret: str) -> str:
        return self._masks.setdefault(secret, f"<secret-{len(self._masks) + 1}>")

    def _schema_of(self, name: str) -> Schema:
        if name not in self._schemas:  # it may have been declared since
            self._schemas = {event.name: event.schema for event in self._app.events()}
        return self._schemas.get(name, {})

    def _masked(self, value: Any) -> Any:
        """Give what stands for a value: of the same kind, as far as there is something to hide."""
        match value:
            case None | bool() | "":
                return value
            case str():
                return self._mask_of(value)
            case list():
                return [self._masked(item) for item in value]
            case dict():
                return {key: self._masked(item) for key, item in value.items()}
            case _:
                return 0


def put_back(data: Any, path: str, text: str) -> object:
    """Put a text where something is masked in an event's data, in place; gives what stood there."""
    *steps, last = path.split(".")
    for step in steps:
        data = data[int(step) if isinstance(data, list) else step]
    place: Any = int(last) if isinstance(data, list) else last
    masked: object = data[place]
    data[place] = text
    return masked


class _Walk:
    """Goes through data along its JSON Schema, to what the schema says is never to be shown.

    Args:
        root: The whole schema, with the definitions of its parts.
        mask: Given what is secret and its path; gives what is to stand there.
    """

    def __init__(self, root: Schema, mask: Callable[[Any, tuple[str, ...]], Any]) -> None:
        self._definitions = dict(_definitions(root))
        self._mask = mask

    def through(self, value: Any, schema: Schema, path: tuple[str, ...]) -> Any:
        """Give a value with its secrets masked."""
        branches = list(self._branches(schema))
        if any(_is_secret(branch) for branch in branches):
            return self._mask(value, path)
        if isinstance(value, dict):
            return {
                key: self._member(key, item, value, branches, (*path, key))
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [
                self._first_change(item, _item_schemas(branches, at), (*path, str(at)))
                for at, item in enumerate(value)
            ]
        return value

    def _member(
        self, key: str, item: Any, whole: dict[str, Any], branches: list[Schema], path: Any
    ) -> Any:
        schemas = [branch["properties"][key] for branch in branches if _has(branch, key)]
        if schemas:
            return self._first_change(item, schemas, path)
        if any(self._misses_secret(branch, whole) for branch in branches):
            return self._mask(item, path)  # it may be the secret, by another name or misspelt
        further = [branch.get("additionalProperties") for branch in branches]
        return self._first_change(item, [each for each in further if isinstance(each, dict)], path)

    def _first_change(self, value: Any, schemas: list[Schema], path: tuple[str, ...]) -> Any:
        changes = (self.through(value, schema, path) for schema in schemas)
        return next((changed for changed in changes if changed != value), value)

    def _misses_secret(self, branch: Schema, whole: dict[str, Any]) -> bool:
        missing = [
            schema for key, schema in branch.get("properties", {}).items() if key not in whole
        ]
        return any(_is_secret(each) for schema in missing for each in self._branches(schema))

    def _branches(self, schema: Schema, seen: frozenset[str] = frozenset()) -> Iterator[Schema]:
        """Give a schema and all that it may stand for."""
        yield schema
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in seen:
            target = self._definitions.get(reference.removeprefix("#/$defs/"), {})
            yield from self._branches(target, seen | {reference})
        for key in ("anyOf", "oneOf", "allOf"):
            for branch in schema.get(key, ()):
                yield from self._branches(branch, seen)


def _definitions(part: Any) -> Iterator[tuple[str, Schema]]:
    """Find the definitions in a schema: that of an event is put together of several."""
    if isinstance(part, Mapping):
        yield from part.get("$defs", {}).items()
        for each in part.values():
            yield from _definitions(each)
    elif isinstance(part, list):
        for each in part:
            yield from _definitions(each)


def _is_secret(schema: Schema) -> bool:
    return schema.get("writeOnly") is True or schema.get("format") == "password"


def _has(branch: Schema, key: str) -> bool:
    return key in branch.get("properties", {})


def _item_schemas(branches: list[Schema], at: int) -> list[Schema]:
    """Find what a list's item at a place may be."""
    found: list[Schema] = []
    for branch in branches:
        before = branch.get("prefixItems", [])
        items = before[at] if at < len(before) else branch.get("items")
        if isinstance(items, dict):
            found.append(items)
    return found


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """Change every text in a JSON value, the keys of objects included."""
    match value:
        case str():
            return change(value)
        case list():
            return [_each_text(item, change) for item in value]
        case dict():
            return {change(key): _each_text(item, change) for key, item in value.items()}
        case _:
            return value


def _escaped(text: str) -> str:
    return orjson.dumps(text).decode()[1:-1]
