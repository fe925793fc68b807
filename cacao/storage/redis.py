"""A storage in Redis, shared by many machines; needs `pip install cacao[redis]`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

import coredis
import trio
from coredis.exceptions import ConnectionError as LostConnectionError
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from cacao.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping

    from cacao.storage.seam import Entry

__all__ = ["RedisStorage", "open_redis"]

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


class RedisStorage:
    """Values in Redis, which also sees to their expiry; see `Storage`.

    A connection that is lost, and a Redis that is silent, starting or gone, are tried again for
    `patience` seconds, and again at the next use. When the connection is lost in the middle of a
    `take`, Redis may have deleted what never came: then it is lost, and never given twice.

    Args:
        client: An open one.
        address: What errors call it; without a password.
        patience: Seconds after which `StorageError` is raised.
        prefix: Stands before every key.
    """

    def __init__(
        self, client: coredis.Redis[bytes], address: str, patience: float, prefix: str
    ) -> None:
        self._client = client
        self._address = address
        self._patience = patience
        self._prefix = prefix

    async def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Read several keys at one moment."""
        names = list(keys)
        if not names:
            await trio.lowlevel.checkpoint()
            return {}
        values = await self._try(lambda: self._client.mget([self._prefix + key for key in names]))
        found = zip(names, values, strict=True)
        return {key: value for key, value in found if value is not None}

    async def put(self, entries: Mapping[str, Entry]) -> None:
        """Write several keys in one transaction; how durable they are then is up to Redis."""
        if entries:
            await self._try(lambda: self._transact(entries))
        else:
            await trio.lowlevel.checkpoint()

    async def take(self, key: str) -> bytes | None:
        """Read a key and delete it at once."""
        return await self._try(lambda: self._client.getdel(self._prefix + key))

    async def _transact(self, entries: Mapping[str, Entry]) -> None:
        async with self._client.pipeline(transaction=True) as pipeline:
            for key, entry in entries.items():
                lasts = None if entry.lasts is None else round(entry.lasts * 1000)
                if entry.value is None or (lasts is not None and lasts <= 0):
                    pipeline.delete([self._prefix + key])
                else:
                    pipeline.set(self._prefix + key, entry.value, px=lasts)

    async def _try(self, command: Callable[[], Awaitable[T]]) -> T:
        """Do a command, again and again while Redis does not answer."""
        deadline = trio.current_time() + self._patience
        pause = _FIRST_PAUSE
        while True:
            try:
                return await command()
            except (LostConnectionError, TimeoutError) as error:
                # What hangs would be used again, for it is not known to be dead.
                self._client.connection_pool.disconnect()
                if trio.current_time() + pause > deadline:
                    raise self._failure(error, "see that it runs and can be reached") from error
            except RedisError as error:
                raise self._failure(error, "see Redis's log and its configuration") from error
            await trio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _failure(self, error: Exception, advice: str) -> StorageError:
        why = str(error) or type(error).__name__
        return StorageError(f"storage {self._address} cannot be used: {why}; {advice}")


@asynccontextmanager
async def open_redis(
    url: str, patience: float = 5.0, prefix: str = "cacao:"
) -> AsyncIterator[RedisStorage]:
    """Keep connections to a Redis for as long as the block lasts.

    Args:
        url: As in `redis://user:password@host:6379/0`; `rediss:` for TLS.
        patience: See `RedisStorage`.
        prefix: See `RedisStorage`.

    Raises:
        StorageError: It does not answer, or refuses us.
    """
    client = coredis.Redis.from_url(
        url,
        decode_components=True,
        # A first try that hangs leaves time for a second one, over a new connection.
        connect_timeout=patience / 2,
        stream_timeout=patience / 2,
        retry_policy=NoRetryPolicy(),
    )
    passing: BaseException | None = None
    async with client:
        try:
            storage = RedisStorage(client, _without_password(url), patience, prefix)
            await storage.get(["hello"])  # what is wrong with it shows at the start
            yield storage
        except BaseException as error:  # noqa: BLE001 - raised below
            passing = error  # for the client would wrap it into a group, whatever it is
    if passing is not None:
        raise passing


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
