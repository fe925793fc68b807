"""Sessions that live in another process: claimed for their clients, and handed over.

How it works. A client has come back to a process that does not have its session, nor is it in the
storage. That process *claims* it: it tells all others the digest of the token. Who has the session
says at once that it is found, ends it, stores it, and says when that is over; who has claimed it
takes it from the storage then. Who does not have it says nothing: what nobody has costs one message
and a short wait, and none where there is no other process.

A session is never nowhere. Who may be taking it from the storage in this moment says so, too, and
lets it go once it has it. All hear all claims and answers in one order, and each waits only for
what was claimed before: so they never wait for each other.

It knows no Redis: it is given what speaks to all processes, and told what they say.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

import orjson
import trio
from pydantic import StringConstraints, TypeAdapter, ValidationError

from cacao.errors import StorageError

__all__ = ["Channel", "Handover", "Home", "LetGo", "open_handover"]

Parked = TypeVar("Parked")
LetGo = Callable[[], Awaitable[None]]

_log = logging.getLogger("cacao")

# Claims of one process that wait at once; a client that needs one more begins anew.
_MAX_CLAIMS: Final = 1000

# How often one is made for a client: other connections of it may be ahead, in other processes.
_CLAIMS: Final = 10

_Digest = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{2})+$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    number: str
    digest: _Digest
    owner: str | None
    by: str
    type: Literal["claim"] = "claim"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    number: str  # of the claim
    digest: str
    is_over: bool
    type: Literal["answer"] = "answer"


_Message = TypeAdapter[_Claim | _Answer](_Claim | _Answer)


class Channel(Protocol):
    """What reaches all processes."""

    async def say(self, text: bytes) -> int:
        """Tell all a text, this one too; gives how many there are.

        Raises:
            StorageError: They are out of reach.
        """
        ...

    async def keep_hearing(self, hear: Callable[[bytes], object]) -> Any:
        """Call `hear` with all that is said, until cancelled."""
        ...


class Home(Protocol):
    """What has the sessions of this process; they are named by the digest of a token."""

    def has(self, digest: str) -> bool:
        """Tell whether a connection can take a session up here."""
        ...

    def offer(self, digest: str, owner: str | None) -> LetGo | None:
        """Give what ends a session and stores it; None if it is not here, or not the owner's."""
        ...

    async def flush(self) -> None:
        """Store all that is to be stored; raises nothing."""
        ...


class _Search:
    """One look into the storage, and the claim before it.

    Attributes:
        number: Of the claim.
        may_find: Whether the session may be had by this search in this moment.
    """

    def __init__(self, number: str) -> None:
        self.number = number
        self.may_find = False
        self.is_found = trio.Event()
        self.is_let_go = trio.Event()
        self.is_done = trio.Event()


class Handover:
    """What one process asks of the others, and they of it; made by `open_handover`."""

    def __init__(
        self,
        channel: Channel,
        home: Home,
        nursery: trio.Nursery,
        answer_timeout: float,
        patience: float,
    ) -> None:
        self._say = channel.say
        self._home = home
        self._nursery = nursery
        self._answer_timeout = answer_timeout
        self._patience = patience
        self._process = secrets.token_hex(8)
        self._numbers = count(1)
        self._searches: dict[str, _Search] = {}  # by digests; one at a time for each
        self._turns: dict[str, trio.Lock] = {}
        self._claims = 0
        self._is_giving = True

    async def take(
        self, digest: str, owner: str | None, look: Callable[[], Awaitable[Parked | None]]
    ) -> Parked | None:
        """Take a session, wherever it is: it is let go of before, if another process has it.

        Args:
            digest: Of the token that its client has shown, in hexadecimal.
            owner: The user whose session it must be.
            look: Takes it from the storage.

        Returns:
            What `look` gave. None if there is none to be had; or if it is here by now, for another
            connection was ahead.

        Raises:
            StorageError: The other processes are out of reach.
        """
        turn = self._turns.setdefault(digest, trio.Lock())  # of those that look for the same
        try:
            async with turn:
                return await self._take(digest, owner, look)
        finally:
            if not turn.locked():
                del self._turns[digest]

    async def _take(
        self, digest: str, owner: str | None, look: Callable[[], Awaitable[Parked | None]]
    ) -> Parked | None:
        with self._searching(digest) as search:
            search.may_find = True
            parked = await look()
        left = _CLAIMS
        while parked is None and left and not self._home.has(digest):
            with self._searching(digest) as search:
                left = left - 1 if await self._claim(digest, owner, search) else 0
                search.may_find = True
                parked = await look()  # somebody may have let it go without a word
        return parked

    @contextmanager
    def _searching(self, digest: str) -> Iterator[_Search]:
        search = self._searches[digest] = _Search(f"{self._process}:{next(self._numbers)}")
        try:
            yield search
        finally:
            del self._searches[digest]
            search.is_done.set()

    async def _claim(self, digest: str, owner: str | None, search: _Search) -> bool:
        """Have a session let go of; tells whether somebody has done it."""
        let_go = self._home.offer(digest, owner)
        if let_go is not None:  # it is on its way from here to another process
            await let_go()
            return True
        if self._claims >= _MAX_CLAIMS:
            _log.warning("a client begins anew, for %d others wait for theirs", _MAX_CLAIMS)
            return False
        claim = _Claim(number=search.number, digest=digest, owner=owner, by=self._process)
        self._claims += 1
        try:
            return await self._say(orjson.dumps(claim)) > 1 and await self._is_let_go(search)
        finally:
            self._claims -= 1

    async def _is_let_go(self, search: _Search) -> bool:
        with trio.move_on_after(self._answer_timeout):
            await search.is_found.wait()
        if search.is_found.is_set():
            with trio.move_on_after(self._patience):
                await search.is_let_go.wait()
        return search.is_let_go.is_set()

    def hear(self, text: bytes) -> None:
        """Take what a process has said, this one included; does not wait."""
        try:
            message = _Message.validate_json(text, strict=True)
        except ValidationError:
            _log.debug("another version of Cacao says something: %d bytes", len(text))
            return
        if isinstance(message, _Answer):
            self._hear_answer(message)
        elif self._is_giving and message.by != self._process:
            self._hear_claim(message)

    def _hear_answer(self, answer: _Answer) -> None:
        search = self._searches.get(answer.digest)
        if search is None or search.number != answer.number:
            return
        search.may_find = True  # at once: the next claim that is heard may be for the same
        search.is_found.set()
        if answer.is_over:
            search.is_let_go.set()

    def _hear_claim(self, claim: _Claim) -> None:
        let_go = self._home.offer(claim.digest, claim.owner) or self._offer_found(claim)
        if let_go is not None:
            self._nursery.start_soon(self._hand_over, claim, let_go, name="hand over")

    def _offer_found(self, claim: _Claim) -> LetGo | None:
        """Offer what is not here yet, but may be in a moment."""
        search = self._searches.get(claim.digest)
        if search is None or not search.may_find:
            return None
        return partial(self._let_go_when_found, search, claim)

    async def _let_go_when_found(self, search: _Search, claim: _Claim) -> None:
        await search.is_done.wait()
        let_go = self._home.offer(claim.digest, claim.owner)
        if let_go is not None:
            await let_go()

    async def _hand_over(self, claim: _Claim, let_go: LetGo) -> None:
        with trio.CancelScope(shield=True):  # somebody waits for it, and all of it is bounded
            try:
                await self._answer(claim, is_over=False)
                await let_go()
                await self._answer(claim, is_over=True)
            except StorageError as error:
                _log.warning("a session that another process asks for: %s", error)

    async def _answer(self, claim: _Claim, *, is_over: bool) -> None:
        answer = _Answer(number=claim.number, digest=claim.digest, is_over=is_over)
        await self._say(orjson.dumps(answer))

    def stop_giving(self) -> None:
        """Offer nothing any more."""
        self._is_giving = False


@asynccontextmanager
async def open_handover(
    channel: Channel, home: Home, *, answer_timeout: float, patience: float
) -> AsyncIterator[Handover]:
    """Hand sessions over for as long as the block lasts.

    Leaving it, also by cancellation, waits for what is being handed over, and for the storage,
    while this process still answers.

    Args:
        channel: Nobody else hears on it.
        home: Has the sessions of this process.
        answer_timeout: Seconds within which who has a session must say so.
        patience: Seconds that they may take then to let it go.
    """
    async with trio.open_nursery() as nursery:
        hearing = trio.CancelScope(shield=True)
        try:
            async with trio.open_nursery() as giving:
                handover = Handover(channel, home, giving, answer_timeout, patience)
                nursery.start_soon(_hear_within, hearing, channel, handover)
                try:
                    yield handover
                finally:
                    with trio.move_on_after(patience, shield=True):
                        await home.flush()
                    handover.stop_giving()
        finally:
            hearing.cancel()


async def _hear_within(scope: trio.CancelScope, channel: Channel, handover: Handover) -> None:
    with scope:
        await channel.keep_hearing(handover.hear)
