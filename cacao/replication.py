"""App-wide values in Redis, so that several processes and machines have one; by `replicate`.

How it works. Each named app-wide signal is a chain (see `replica.py`) whose end is a hash in Redis,
with the newest value and its token. One script lets an attempt in or tells the newest value; the
same script adds the signal's name to a stream, on which every process waits. Who hears a name
fetches the newest value: a process that is slow skips what is past, and all see one order. After a
connection was lost everything is fetched anew, so nothing leans on a message that may have been
missed. Two tasks do it, one that waits on the stream and one that does all else.
"""

from __future__ import annotations

import secrets
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

import coredis
import trio
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from cacao.outage import Outage
from cacao.reactive import Signal
from cacao.replica import Newest, Replica

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from coredis.commands import Script

    from cacao.registry import Declaration, Registry
    from cacao.store import Store

    Failed = Callable[[Exception, Declaration], None]

__all__ = ["replicate"]

# Lets an attempt in, or makes none; gives whether it was let in, and the newest value.
# KEYS: the value; the number of this process's last attempt; the stream.
# ARGV: the token that must still be the newest; the new token, or nothing for no attempt; the new
# value; the attempt's number; how many seconds that is remembered; the signal's name; this process.
_SCRIPT: Final = """
local state = redis.call('HMGET', KEYS[1], 'token', 'value')
local token = state[1] or ''
if ARGV[2] == '' or token ~= ARGV[1] then
  return {0, token, state[2] or '', tonumber(redis.call('GET', KEYS[2]) or '0')}
end
redis.call('HSET', KEYS[1], 'token', ARGV[2], 'value', ARGV[3])
redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[5])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '1000', '*', 'name', ARGV[6], 'by', ARGV[7])
return {1, ARGV[2], ARGV[3], tonumber(ARGV[4])}
"""

# All in seconds.
_REMEMBERED: Final = 24 * 3600  # far longer than an attempt may be on its way
_LISTENING: Final = 5.0  # for which Redis lets one wait on the stream
_ANSWERING: Final = 5.0  # after which a Redis that is silent counts as lost
_GATHERING: Final = 0.005  # within which changes are told together
_LEAVING: Final = 2.0  # that the last changes have, at the end

_LOST: Final = (RedisError, OSError, TimeoutError, trio.TooSlowError)


class _Replication:
    """The app-wide values of one run, kept in step with those of other processes.

    Args:
        run: What stands for the run.
        url: Of the Redis.
        failed: Told of what the author's code raises, and of values that JSON cannot carry.
        prefix: Stands before every key in Redis.
    """

    def __init__(self, run: Store, url: str, failed: Failed, prefix: str) -> None:
        self._run = run
        self._failed = failed
        self._prefix = f"{prefix}shared:"
        self._stream = f"{self._prefix}changes"
        self._process = secrets.token_hex(8)
        self._numbers = count(1)
        self._replicas: dict[str, Replica] = {}
        self._has_work = trio.Event()
        self._round_over = trio.Event()
        self._is_in_step = False
        self._url = url
        self._outage = Outage(
            url,
            "app-wide values change in this process alone",
            "app-wide values are in step with Redis again",
        )

    # --- What is done here ---------------------------------------------------------------------

    def note(self, signal: Any, operation: Callable[[Any], Any]) -> None:
        """Take an operation on an app-wide signal, before it is done here."""
        if signal.name is not None:  # else there is nothing by which another process knows it
            self._replica_of(signal).note(operation)
            self._has_work.set()

    def declare(self, declaration: Declaration) -> None:
        """Begin to keep a signal in step, if it is an app-wide one.

        Raises:
            NotSerializableError: JSON cannot carry its value.
        """
        if isinstance(declaration, Signal) and declaration.scope == "app":
            self._replica_of(declaration)
            self._has_work.set()

    def _replica_of(self, signal: Signal[Any]) -> Replica:
        replica = self._replicas.get(signal.name or "")
        if replica is None or replica.signal is not signal:
            replica = Replica(signal, self._run, self._failed)
            self._replicas[signal.name or ""] = replica
        return replica

    async def wait_until_in_step(self) -> None:
        """Wait until Redis has been heard for the first time."""
        while not self._is_in_step:
            await self._round_over.wait()

    async def wait_until_told(self) -> None:
        """Wait until all that was done here is known to other processes."""
        while any(replica.is_ahead for replica in self._replicas.values()):
            await self._round_over.wait()

    # --- Redis ---------------------------------------------------------------------------------

    async def keep_in_step(self) -> NoReturn:
        """Tell Redis what is done here, and hear from it, for ever; a lost one is tried again."""
        while True:
            try:
                async with _open_client(self._url) as client:
                    await self._follow(client)
            except* _LOST as lost:
                error = lost.exceptions[0]
            await trio.sleep(self._outage.note(error))

    async def _follow(self, client: coredis.Redis[bytes]) -> NoReturn:
        last = await self._last_change(client)
        for replica in self._replicas.values():  # whatever the stream tells comes after `last`
            replica.is_stale = True
        script = client.register_script(_SCRIPT)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, client, last)
            while True:
                await self._go_round(script)
                await trio.sleep(_GATHERING)
                await self._has_work.wait()

    async def _go_round(self, script: Script[bytes]) -> None:
        self._has_work = trio.Event()
        for replica in list(self._replicas.values()):
            if replica.is_stale or replica.is_ahead:
                while not await self._settle(script, replica):
                    pass
        self._outage.end()
        self._is_in_step = True
        self._round_over.set()
        self._round_over = trio.Event()

    async def _settle(self, script: Script[bytes], replica: Replica) -> bool:
        """Make one attempt, or learn the newest value; tells whether that is enough."""
        replica.is_stale = False  # now: what is told while this waits is newer than the answer
        number = next(self._numbers)
        text = replica.attempt(number) if replica.is_ahead else None
        token = f"{self._process}:{number}" if text is not None else ""
        was_let_in, newest = await self._ask(script, replica, number, token, text or b"")
        if was_let_in:
            replica.let_in(number, newest.token, newest.text)
            return True
        replica.catch_up(newest)
        return not replica.is_ahead

    async def _ask(
        self, script: Script[bytes], replica: Replica, number: int, token: str, text: bytes
    ) -> tuple[bool, Newest]:
        """Have an attempt made, or none without a token; tells whether it was let in."""
        name = replica.signal.name or ""
        value = f"{self._prefix}value:{name}"
        applied = f"{self._prefix}applied:{self._process}:{name}"
        args: list[str | bytes | int] = [replica.token, token, text, number]
        args += [_REMEMBERED, name, self._process]
        with trio.fail_after(_ANSWERING):
            answer: object = await script(keys=[value, applied, self._stream], args=args)
        was_let_in, newest_token, newest_text, last = cast("tuple[int, bytes, bytes, int]", answer)
        return bool(was_let_in), Newest(newest_token.decode(), newest_text, last)

    async def _last_change(self, client: coredis.Redis[bytes]) -> bytes:
        with trio.fail_after(_ANSWERING):
            entries = await client.xrevrange(self._stream, count=1)
        return cast("bytes", entries[0].identifier) if entries else b"0-0"

    async def _listen(self, client: coredis.Redis[bytes], last: bytes) -> NoReturn:
        while True:
            with trio.fail_after(_LISTENING + _ANSWERING):
                found = await client.xread({self._stream: last}, block=round(1000 * _LISTENING))
            for entry in (found or {}).get(self._stream.encode(), ()):
                last = cast("bytes", entry.identifier)
                self._hear(cast("Mapping[bytes, bytes]", entry.field_values))

    def _hear(self, fields: Mapping[bytes, bytes]) -> None:
        replica = self._replicas.get(fields[b"name"].decode())
        if replica is not None and fields[b"by"] != self._process.encode():
            replica.is_stale = True
            self._has_work.set()


@asynccontextmanager
async def replicate(
    run: Store, registry: Registry, url: str, failed: Failed, prefix: str = "cacao:"
) -> AsyncIterator[None]:
    """Share a run's named app-wide values with other processes, for as long as the block lasts.

    The block begins when what the others have done is known, or after 5 seconds without a Redis.
    While Redis is away, values change in each process alone; what was done is brought together
    when it is back. Leaving, also by cancellation, waits 2 seconds at most for the last changes
    to be told.

    Args:
        run: What stands for the run.
        registry: Whose signals they are; those declared later count as well.
        url: As in `redis://user:password@host:6379/0`; `rediss:` for TLS.
        failed: Told of updates that raise when they are done again, on the value of another
            process, and of values that JSON cannot carry.
        prefix: Stands before every key in Redis, which other programs may share.

    Raises:
        NotSerializableError: JSON cannot carry an app-wide value.
    """
    replication = _Replication(run, url, failed, prefix)
    for declaration in registry.declarations:
        replication.declare(declaration)
    stop = registry.subscribe(replication.declare)
    run.on_operation = replication.note
    async with trio.open_nursery() as nursery:
        following = trio.CancelScope(shield=True)  # the last changes are told when all is cancelled
        nursery.start_soon(_within, following, replication.keep_in_step)
        try:
            with trio.move_on_after(_ANSWERING):
                await replication.wait_until_in_step()
            yield
        finally:
            stop()
            run.on_operation = None
            with trio.move_on_after(_LEAVING, shield=True):
                await replication.wait_until_told()
            following.cancel()


async def _within(scope: trio.CancelScope, function: Callable[[], Awaitable[object]]) -> None:
    with scope:
        await function()


def _open_client(url: str) -> coredis.Redis[bytes]:
    return coredis.Redis.from_url(url, connect_timeout=_ANSWERING, retry_policy=NoRetryPolicy())
