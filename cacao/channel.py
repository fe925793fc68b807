"""What the processes of an app say to each other over one Redis: each text reaches all of them.

Nothing is kept: who is not there at the moment, as a connection was lost, does not hear of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn, cast
from urllib.parse import urlsplit

import coredis
import trio
from anyio import ClosedResourceError
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from cacao.errors import StorageError
from cacao.outage import Outage

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Channel"]

# All in seconds.
_ANSWERING: Final = 2.0  # after which a Redis that is silent counts as lost
_QUIET: Final = 5.0  # after which it is asked whether it is still there

_LOST: Final = (RedisError, OSError, TimeoutError, trio.TooSlowError, ClosedResourceError)


class Channel:
    """Where processes speak and hear, while one of them `keep_hearing`.

    Args:
        url: As in `redis://user:password@host:6379/0`; `rediss:` for TLS.
        name: Who has the same one hears the same.
        prefix: Stands before the name, for other programs may share Redis.
    """

    def __init__(self, url: str, name: str, prefix: str = "cacao:") -> None:
        self._url = url
        self._host = urlsplit(url).hostname
        self._name = prefix + name
        self._client: coredis.Redis[bytes] | None = None  # None while nothing can be heard
        self._connected = trio.Event()
        self._outage = Outage(
            url,
            "other processes are not heard",
            "other processes are heard again, through Redis at %s",
        )

    async def say(self, text: bytes) -> int:
        """Tell all processes; gives how many of them there are to hear it, this one included.

        Raises:
            StorageError: Redis is out of reach, and nothing is known to have been said.
        """
        with trio.move_on_after(_ANSWERING):
            await self._connected.wait()
        if self._client is None:
            raise StorageError(
                f"other processes cannot be reached, for Redis at {self._host} is lost; "
                "see that it runs and can be reached"
            )
        try:
            with trio.fail_after(_ANSWERING):
                return await self._client.publish(self._name, text)
        except _LOST as error:
            why = str(error) or type(error).__name__
            raise StorageError(
                f"other processes cannot be reached through Redis at {self._host}: {why}"
            ) from error

    async def keep_hearing(self, hear: Callable[[bytes], object]) -> NoReturn:
        """Hear what is said, for ever; a Redis that is lost is tried again.

        Args:
            hear: Called with each text, one's own too; must not wait.
        """
        while True:
            try:
                await self._listen(hear)
            except* _LOST as lost:
                error = lost.exceptions[0]
            await trio.lowlevel.checkpoint_if_cancelled()  # what coredis makes of that is no loss
            await trio.sleep(self._outage.note(error))

    async def _listen(self, hear: Callable[[bytes], object]) -> NoReturn:
        client = coredis.Redis.from_url(
            self._url,
            decode_components=True,
            connect_timeout=_ANSWERING,
            stream_timeout=_ANSWERING,
            retry_policy=NoRetryPolicy(),
        )
        heard = client.pubsub(
            channels=[self._name],
            ignore_subscribe_messages=True,
            retry_policy=NoRetryPolicy(),
            max_idle_seconds=_QUIET,
        )
        async with client, heard:
            try:
                self._find(client)
                while True:
                    message = await heard.get_message()
                    if message is not None:
                        hear(cast("bytes", message["data"]))
            finally:
                self._client = None
                self._connected = trio.Event()

    def _find(self, client: coredis.Redis[bytes]) -> None:
        self._outage.end()
        self._client = client
        self._connected.set()
