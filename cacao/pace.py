"""How far the producers of a stream may run ahead of their client."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Any

__all__ = ["Pace"]


class Pace:
    """What one client has yet to take of its streams; awaited, it waits while that is too much.

    Args:
        max_items: How many pieces may be on their way.
        max_bytes: How many bytes.

    Attributes:
        owed: Pieces and bytes that were added and not taken yet.
    """

    __slots__ = ("_max_bytes", "_max_items", "_producers", "owed")

    def __init__(self, max_items: int, max_bytes: int) -> None:
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._producers = trio.lowlevel.ParkingLot()
        self.owed = (0, 0)

    def owe(self, items: int, size: int) -> None:
        """Note what was added."""
        self.owed = self.owed[0] + items, self.owed[1] + size

    def settle(self, taken: tuple[int, int]) -> None:
        """Note what the client has taken, of what was `owed` when its message was written."""
        self.owed = self.owed[0] - taken[0], self.owed[1] - taken[1]
        self._producers.unpark_all()

    def __await__(self) -> Generator[Any, Any, None]:
        return self._wait().__await__()

    async def _wait(self) -> None:
        await trio.lowlevel.checkpoint()
        while self.owed[0] > self._max_items or self.owed[1] > self._max_bytes:
            await self._producers.park()
