"""Signals that grow piece by piece: only what is new is sent, at the pace of the client."""

# ruff: noqa: SLF001 - a stream is a signal that knows how it grows

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from cacao import graph
from cacao.items import Items
from cacao.reactive import Signal, refuse_in_computed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from cacao.reactive import Persist, Scope
    from cacao.store import Store

__all__ = ["ListSignal", "TextSignal"]

T = TypeVar("T")


class ListSignal(Signal[Items[T]]):
    """A list that each session has for itself, and that grows at its end.

    `get` gives an `Items`: a sequence that stays as it is when the list grows on. Appending costs
    what is appended, on the server and on the wire, however long the list is.

    Example:
        lines = ListSignal(name="lines")

        async for line in process.stdout:
            await lines.append(session, line)

    Args:
        default: What is in every session's list at first; copied for each.
        name: The name on the wire, unique within a registry. Without one, no client sees it.
        client: False keeps a named one on the server.
        scope: As for `Signal`. An app-wide one keeps nobody's pace: there is no one client.
        persist: As for `Signal`.

    Raises:
        DeclarationError: As `Signal`.
    """

    __slots__ = ()

    def __init__(
        self,
        default: Iterable[T] = (),
        *,
        name: str | None = None,
        client: bool = True,
        scope: Scope = "session",
        persist: Persist | None = None,
    ) -> None:
        super().__init__(Items(default), name=name, client=client, scope=scope, persist=persist)

    def append(self, session: Store, item: T) -> Awaitable[None]:
        """Add one item, now; see `extend`."""
        return self.extend(session, (item,))

    def extend(self, session: Store, items: Iterable[T]) -> Awaitable[None]:
        """Add items at the end, now. An item must not be changed afterwards: it is sent once.

        Returns:
            Something to await, or not: `await` keeps the pace of the client. It waits while the
            client has more than `Limits.max_unsent_items` or `max_unsent_bytes` yet to take, and
            is a checkpoint otherwise. Cancelled, it takes nothing back.

        Raises:
            WriteInComputedError: If a computed signal is being evaluated.
            NotSerializableError: The client shall see them and JSON cannot carry one.
        """
        added = list(items)
        size = _check(self, session, added)
        if added:
            _grow(self, session, lambda items: items.grown(added))
        return _home_of(self, session).owe(len(added), size)

    def set(self, session: Store, value: Iterable[T]) -> None:
        """Put other items in the place of all; the client gets them whole."""
        super().set(session, Items(value))

    def update(self, session: Store, fn: Callable[[Items[T]], Iterable[T]]) -> None:
        """Put what `fn` makes of all items in their place; see `Signal.update`."""
        super().update(session, lambda items: Items(fn(items)))

    def clear(self, session: Store) -> None:
        """Take all items out."""
        self.set(session, ())


class TextSignal(Signal[str]):
    """A text that each session has for itself, and that grows at its end.

    Example:
        answer = TextSignal(name="answer")

        async for token in model.stream(question):
            await answer.append(session, token)

    Args:
        default: Every session's first text.
        name: The name on the wire, unique within a registry. Without one, no client sees it.
        client: False keeps a named one on the server.
        scope: As for `Signal`. An app-wide one keeps nobody's pace: there is no one client.
        persist: As for `Signal`.

    Raises:
        DeclarationError: As `Signal`.
    """

    __slots__ = ()

    def __init__(
        self,
        default: str = "",
        *,
        name: str | None = None,
        client: bool = True,
        scope: Scope = "session",
        persist: Persist | None = None,
    ) -> None:
        super().__init__(default, name=name, client=client, scope=scope, persist=persist)

    def append(self, session: Store, text: str) -> Awaitable[None]:
        """Add text at the end, now; see `ListSignal.extend` for what it returns and raises."""
        size = _check(self, session, text)
        if text:
            _grow(self, session, lambda before: before + text)
        return _home_of(self, session).owe(1, size)


def _check(signal: Signal[Any], session: Store, added: object) -> int:
    """Refuse what cannot be added, before anything changes; return its size on the wire."""
    if graph.observer is not None:
        refuse_in_computed(signal)
    if session.guard is None or not signal.is_synced:
        return 0
    return session.guard(signal, added)


def _grow(signal: Signal[T], session: Store, grown: Callable[[T], T]) -> None:
    home = _home_of(signal, session)
    if signal.scope == "app":
        home.note_operation(signal, grown)
    cell = signal._cell(session)
    signal._put(home, cell, grown(cell.value))


def _home_of(signal: Signal[Any], session: Store) -> Store:
    return session.shared if signal.scope == "app" else session
