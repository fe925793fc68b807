"""Write values a moment later, many at once: of each key the last one counts.

A value that changes a thousand times a second costs a thousand entries in a dict, and two writes.
What was given in the last `interval` is lost if the process is killed: that is the loss window.
While the storage fails, what waits is kept, one value a key, and tried again ever more rarely.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from cacao.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Mapping

    from cacao.storage.seam import Entry, Storage

    MakeEntry = Callable[[], Entry | None]

__all__ = ["WriteBehind", "open_write_behind"]

_LONGEST_PAUSE: Final = 10.0
_LAST_PAUSE: Final = 0.1


class WriteBehind:
    """What waits to be written; made by `open_write_behind`."""

    def __init__(
        self, storage: Storage, failed: Callable[[StorageError], object], interval: float
    ) -> None:
        self._storage = storage
        self._failed = failed
        self._interval = interval
        self._waiting: dict[str, MakeEntry] = {}
        self._in_flight: dict[str, MakeEntry] = {}
        self._has_work = trio.Event()
        self._one_at_a_time = trio.Lock()

    def later(self, key: str, make: MakeEntry) -> None:
        """Write a key soon; what waits for it already is not written any more.

        Args:
            key: See `Storage`.
            make: Gives the entry when its turn has come, or None if there is nothing to write.
                It must not raise, and may be called again.
        """
        self._waiting[key] = make
        self._has_work.set()

    async def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Read several keys; what waits to be written counts as written.

        Raises:
            StorageError: They cannot be read.
        """
        before = self._newest()
        found = await self._storage.get(keys)
        newest = _made({**before, **self._newest()}, keys)
        found = {key: value for key, value in found.items() if key not in newest}
        return found | {
            key: entry.value for key, entry in newest.items() if entry.value is not None
        }

    async def flush(self) -> None:
        """Write all that was given before this call, now.

        Raises:
            StorageError: It cannot be written. It is kept, and tried again.
        """
        async with self._one_at_a_time:
            self._in_flight, self._waiting = self._waiting, {}
            self._has_work = trio.Event()
            try:
                entries = _made(self._in_flight, self._in_flight)
                if entries:
                    await self._storage.put(entries)
            except BaseException:
                self._waiting = self._in_flight | self._waiting
                self._has_work.set()
                raise
            finally:
                self._in_flight = {}

    async def keep_writing(self) -> None:
        """Write what is given, at most once an interval, until cancelled."""
        pause = self._interval
        while True:
            await self._has_work.wait()
            try:
                await self.flush()
                pause = self._interval
            except StorageError as error:
                self._failed(error)
                pause = min(2 * pause, _LONGEST_PAUSE)
            await trio.sleep(pause)

    async def write_the_rest(self) -> None:
        """Write all there is, trying until it is done."""
        while True:
            try:
                await self.flush()
            except StorageError as error:
                self._failed(error)
                await trio.sleep(_LAST_PAUSE)
            else:
                return

    def has(self, key: str) -> bool:
        """Tell whether a key waits, or is being written."""
        return key in self._waiting or key in self._in_flight

    @property
    def left(self) -> int:
        """How many keys wait."""
        return len(self._waiting)

    def _newest(self) -> dict[str, MakeEntry]:
        return self._in_flight | self._waiting


@asynccontextmanager
async def open_write_behind(
    storage: Storage,
    failed: Callable[[StorageError], object],
    *,
    interval: float = 0.5,
    last_seconds: float = 5.0,
) -> AsyncIterator[WriteBehind]:
    """Write behind for as long as the block lasts; what waits at its end is written then.

    That last writing is shielded from cancellation.

    Args:
        storage: Open for longer than the block.
        failed: Told of each failure; it comes from once an interval to once in 10 seconds.
        interval: Seconds between two writes, and so what a killed process may lose.
        last_seconds: How long the last writing may take; what is lost then is told to `failed`.
    """
    behind = WriteBehind(storage, failed, interval)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(behind.keep_writing, name="write behind")
        try:
            yield behind
        finally:
            with trio.move_on_after(last_seconds, shield=True):
                await behind.write_the_rest()
            if behind.left:
                failed(
                    StorageError(
                        f"{behind.left} changed values could not be written within "
                        f"{last_seconds} s at the end, and are lost; see the failures before"
                    )
                )
            nursery.cancel_scope.cancel()


def _made(waiting: Mapping[str, MakeEntry], keys: Collection[str]) -> dict[str, Entry]:
    made = {key: waiting[key]() for key in keys if key in waiting}
    return {key: entry for key, entry in made.items() if entry is not None}
