"""The seam between what is kept and where: all that the rest of Cacao knows of a storage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Entry", "Storage"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be kept under a key.

    Attributes:
        value: The bytes; None deletes the key.
        lasts: Seconds until it expires; None keeps it for good.
    """

    value: bytes | None
    lasts: float | None = None


class Storage(Protocol):
    """Values by key. Several tasks may use it at once, and but for memory several processes.

    Keys are any text that UTF-8 can carry. Every method raises `StorageError` when the storage
    cannot be reached or used, after trying for its `patience`. Cancelled before it has begun,
    a method has done nothing; later, what it does may have been done.
    """

    async def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Read several keys at one moment.

        Returns:
            The values of those that exist and have not expired.
        """
        ...

    async def put(self, entries: Mapping[str, Entry]) -> None:
        """Write several keys, all of them or none; they are kept when this returns."""
        ...

    async def take(self, key: str) -> bytes | None:
        """Read a key and delete it at once: of all who take it, one alone gets the value.

        Returns:
            The value; None where there is none, or somebody else has taken it.
        """
        ...
