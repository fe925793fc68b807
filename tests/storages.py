"""What the tests of storages share: the engines, and one that fails on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cacao.errors import StorageError
from cacao.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cacao.storage import Entry


class FlakyStorage(MemoryStorage):
    """A memory that can be out of order, or slow.

    Attributes:
        is_broken: Whether `put` fails.
        seconds: How long a `put` takes.
        puts: What each `put` that went well has written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_broken = False
        self.seconds = 0.0
        self.puts: list[dict[str, bytes | None]] = []

    async def put(self, entries: Mapping[str, Entry]) -> None:
        await trio.sleep(self.seconds)
        if self.is_broken:
            raise StorageError("storage is out of order; mend it")
        await super().put(entries)
        self.puts.append({key: entry.value for key, entry in entries.items()})
