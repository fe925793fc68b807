"""What of a run outlives its process: stored values, parked sessions, app-wide values in Redis.

A session is parked when its run ends: its values, and what its client has yet to hear, under the
digests of its tokens. Whichever process is shown a token takes the session, once.
"""

from __future__ import annotations

import logging
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

import trio

from cacao.errors import StorageError
from cacao.handover import open_handover
from cacao.parking import pack, unpack
from cacao.persistence import open_persistence
from cacao.storage.opening import open_storage
from cacao.storage.seam import Entry
from cacao.storage.write_behind import open_write_behind
from cacao.tokens import digest_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from cacao.handover import Handover, LetGo
    from cacao.limits import Limits
    from cacao.parking import ParkedSession
    from cacao.persistence import Persistence
    from cacao.registry import Declaration, Registry
    from cacao.shared import SharedStore
    from cacao.storage.seam import Storage
    from cacao.storage.write_behind import WriteBehind
    from cacao.store import Store

    Failed = Callable[[Exception, Declaration], None]

__all__ = ["Survival", "open_survival"]

_log = logging.getLogger("cacao")


class Holder(Protocol):
    """What has the live sessions of this process."""

    def has(self, digest: bytes) -> bool:
        """Tell whether a connection can take up the session that has a token of this digest."""
        ...

    def offer(self, digest: bytes, owner: str | None) -> LetGo | None:
        """Give what ends a session here and keeps it; None if it is not here, or another's.

        Args:
            digest: Of a token of the session's.
            owner: Whose session it must be.
        """
        ...


class Survival:
    """What one run keeps; made by `open_survival`.

    Args:
        storage: Where it is kept.
        behind: Writes there.
        persistence: Loads and saves the signals with `persist=`.
        park_window: Seconds for which a parked session waits for its client.

    Attributes:
        holder: Lets go of sessions for other processes; None while there are none.
        handover: Asks other processes for theirs; None where they share no Redis.
    """

    def __init__(
        self, storage: Storage, behind: WriteBehind, persistence: Persistence, park_window: float
    ) -> None:
        self._storage = storage
        self._behind = behind
        self._persistence = persistence
        self._park_window = park_window
        self.holder: Holder | None = None
        self.handover: Handover | None = None

    async def load_user(self, session: Store, user: str) -> None:
        """Give a session its user's stored values; without the storage it has the defaults."""
        try:
            await self._persistence.load_user(session, user)
        except StorageError:
            _log.exception("a session has the defaults, and saves nothing: its user's values")

    def park(self, session: ParkedSession) -> None:
        """Keep a session that ends; `flush` tells when it is kept."""
        parked = Entry(pack(session), self._park_window)
        pointer = Entry(session.id.encode(), self._park_window)
        self._behind.later(_session_key(session.id), lambda: parked)
        for digest in session.tokens:
            self._behind.later(_token_key(digest), lambda: pointer)

    async def flush(self) -> None:
        """Wait until all is kept that was to be; what fails is reported, and tried again later."""
        try:
            await self._behind.flush()
        except StorageError:
            _log.exception("what is to outlive this process is not kept yet")

    async def take(self, token: str, owner: str | None) -> ParkedSession | None:
        """Take the session that a token stands for; nobody else gets it then.

        Another process that has it lets it go before. Cancelled, it has taken none.

        Args:
            token: As the client has shown it.
            owner: Whose session it must be.

        Returns:
            The session; None if there is none to be had, also for want of the storage.
        """
        try:
            digest = digest_of(token).hex()
            look = partial(self._take, digest, owner)
            if self.handover is None:
                return await look()
            return await self.handover.take(digest, owner, look)
        except StorageError:
            _log.exception("a client begins anew, for its session cannot be looked up")
            return None

    async def _take(self, digest: str, owner: str | None) -> ParkedSession | None:
        pointer = (await self._storage.get([_token_key(digest)])).get(_token_key(digest))
        if pointer is None:
            return None
        key = _session_key(pointer.decode())
        data = (await self._storage.get([key])).get(key)
        session = unpack(data) if data is not None else None
        if session is None or session.owner != owner or digest not in session.tokens:
            return None
        with trio.CancelScope(shield=True):  # what is taken must get to who takes it
            was_there = await self._storage.take(key) is not None
        return session if was_there else None

    def has(self, digest: str) -> bool:
        """Tell whether a connection can take up a session here.

        Args:
            digest: Of a token of the session's, in hexadecimal.
        """
        return self.holder is not None and self.holder.has(bytes.fromhex(digest))

    def offer(self, digest: str, owner: str | None) -> LetGo | None:
        """Give what lets another process take a session that is here; None if it is not.

        Args:
            digest: Of a token of the session's, in hexadecimal.
            owner: Whose session it must be.
        """
        let_go = None
        if self.holder is not None:
            let_go = self.holder.offer(bytes.fromhex(digest), owner)
        if let_go is None and self._behind.has(_token_key(digest)):
            return self.flush  # it has ended, and is not kept yet
        return let_go


@asynccontextmanager
async def open_survival(
    url: str | None, registry: Registry, run: SharedStore, failed: Failed, limits: Limits
) -> AsyncIterator[Survival | None]:
    """Let the stored values of a run live for as long as the block lasts.

    Args:
        url: See `open_storage`; None keeps nothing.
        registry: Whose signals are stored.
        run: Has the app-wide values; nothing has used it yet.
        failed: Told of what goes wrong with a value of another process.
        limits: `park_window`, `handover_timeout` and `drain_timeout`.

    Raises:
        DeclarationError: The URL is no storage's.
        StorageError: The storage cannot be used.
    """
    if url is None:
        yield None
        return
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(url))
        behind = await stack.enter_async_context(open_write_behind(storage, _report))
        persistence = stack.enter_context(open_persistence(registry, behind))
        await persistence.load_run(run)
        if url.startswith("redis"):
            await stack.enter_async_context(_replicate(run, registry, url, failed))
        survival = Survival(storage, behind, persistence, limits.park_window)
        if url.startswith("redis"):
            opened = _open_handover(survival, url, limits)
            survival.handover = await stack.enter_async_context(opened)
        yield survival


def _replicate(
    run: SharedStore, registry: Registry, url: str, failed: Failed
) -> AbstractAsyncContextManager[None]:
    replication = import_module("cacao.replication")  # needs what only Redis's users have
    return cast(
        "AbstractAsyncContextManager[None]", replication.replicate(run, registry, url, failed)
    )


def _open_handover(
    survival: Survival, url: str, limits: Limits
) -> AbstractAsyncContextManager[Handover]:
    channel = import_module("cacao.channel").Channel(url, "sessions")
    return open_handover(
        channel,
        survival,
        answer_timeout=limits.handover_timeout,
        patience=4 * limits.drain_timeout,  # three for the session, one for the storage
    )


def _report(error: StorageError) -> None:
    _log.error("what is to outlive this process cannot be written: %s", error)


def _session_key(session_id: str) -> str:
    return f"session:{session_id}"


def _token_key(digest: str) -> str:
    return f"token:{digest}"
