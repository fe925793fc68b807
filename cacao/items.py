"""A list as it was at one moment, which shares its storage with what it grows into.

A list that grows by one item a thousand times has a thousand states, and each of them is to be
kept as it was: for a batch that is undone, and for the client that has seen it. A copy for each
would cost the square of its length, so they share: a state is a length, and the storage only grows
(as a slice of Go's does when something is appended to it).
"""

# ruff: noqa: SLF001 - lists that share a storage are of one class

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Items"]

T = TypeVar("T")


class Items(Sequence[T]):
    """A list that never changes; `grown` gives the next one.

    Args:
        items: What is in it. The items themselves are not copied.
    """

    __slots__ = ("_length", "_storage")

    _storage: list[T]
    _length: int

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._storage = list(items)
        self._length = len(self._storage)

    def grown(self, added: Iterable[T]) -> Items[T]:
        """Return these items and `added`; a copy only if something else was added before."""
        is_newest = self._length == len(self._storage)
        longer: Items[T] = Items.__new__(Items)
        longer._storage = self._storage if is_newest else self._storage[: self._length]
        longer._storage += added
        longer._length = len(longer._storage)
        return longer

    def added_to(self, earlier: object) -> list[T] | None:
        """Return what was added to `earlier` to make these; None if they did not grow from it."""
        if not isinstance(earlier, Items) or earlier._storage is not self._storage:
            return None
        if earlier._length > self._length:
            return None
        return self._storage[earlier._length : self._length]

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> list[T]: ...

    def __getitem__(self, index: int | slice) -> T | list[T]:
        if isinstance(index, slice):
            return [self._storage[i] for i in range(*index.indices(self._length))]
        return self._storage[range(self._length)[index]]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return islice(self._storage, self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Items | list):
            return NotImplemented
        return list(self) == list(other)

    __hash__ = None  # type: ignore[assignment] # like a list's: its items may change

    def __repr__(self) -> str:
        return f"Items({list(self)!r})"
