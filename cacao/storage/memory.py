"""A storage that ends with its process: for tests, and where nothing need outlive a restart."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from cacao.storage.seam import Entry

__all__ = ["MemoryStorage", "open_memory"]


class MemoryStorage:
    """Values in a dict; they expire by trio's clock. See `Storage`."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[bytes, float]] = {}  # and until when
        self._swept_to = 0

    async def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Read several keys; a checkpoint."""
        await trio.lowlevel.checkpoint()
        found = {key: self._read(key) for key in keys}
        return {key: value for key, value in found.items() if value is not None}

    async def put(self, entries: Mapping[str, Entry]) -> None:
        """Write several keys; a checkpoint."""
        await trio.lowlevel.checkpoint()
        now = trio.current_time()
        for key, entry in entries.items():
            if entry.value is None:
                self._kept.pop(key, None)
            else:
                until = math.inf if entry.lasts is None else now + entry.lasts
                self._kept[key] = entry.value, until
        self._sweep(now)

    async def take(self, key: str) -> bytes | None:
        """Read and delete a key; a checkpoint."""
        await trio.lowlevel.checkpoint()
        value = self._read(key)
        self._kept.pop(key, None)
        return value

    def _read(self, key: str) -> bytes | None:
        value, until = self._kept.get(key, (None, 0))
        return value if trio.current_time() < until else None

    def _sweep(self, now: float) -> None:
        """Drop what has expired, whenever the dict has doubled: each entry is looked at twice."""
        if len(self._kept) > 2 * self._swept_to + 64:
            self._kept = {key: kept for key, kept in self._kept.items() if now < kept[1]}
            self._swept_to = len(self._kept)


@asynccontextmanager
async def open_memory() -> AsyncIterator[MemoryStorage]:
    """Give an empty storage, which is gone with the block."""
    yield MemoryStorage()
