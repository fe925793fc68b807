"""What takes a session up again: a secret that only its client has, and that changes each time.

A token is 192 random bits, apart from the session's public id. The server keeps its digest alone,
and finds the session by that: how long the search takes tells nothing about any token.

Each `init` brings a new one. The older ones hold until the client has shown that the newer has
come: an `init` that was lost on its way must not cost the session. Nor must a connection that comes
late, from another process perhaps, and shows an older token: the newer ones hold, too.
"""

from __future__ import annotations

import secrets
from hashlib import blake2b

__all__ = ["Tokens", "digest_of"]

# Tokens that may be valid at once: of `init`s that were lost, or sent to who came late.
_HELD = 16


def digest_of(token: str) -> bytes:
    """Give what is kept of a token, 16 bytes."""
    return blake2b(token.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Tokens:
    """The valid tokens of one session: one that its client is known to have had, and newer ones.

    Args:
        register: Which session each digest stands for, by id; shared by all of them.
        session_id: Whose tokens these are.

    Attributes:
        session_id: As given.
        digests: Of the valid tokens, the newest last.
    """

    __slots__ = ("_register", "digests", "session_id")

    def __init__(self, register: dict[bytes, str], session_id: str) -> None:
        self.digests: tuple[bytes, ...] = ()
        self._register = register
        self.session_id = session_id

    def issue(self) -> str:
        """Make the next token. Those before hold on: the oldest, and some of the others."""
        token = secrets.token_urlsafe(24)
        known, others = self.digests[:1], self.digests[1:]
        self.accept((*known, *others[2 - _HELD :], digest_of(token)))
        return token

    def accept(self, digests: tuple[bytes, ...]) -> None:
        """Let the tokens of these digests be the valid ones."""
        self.revoke()
        self.digests = digests
        for digest in digests:
            self._register[digest] = self.session_id

    def present(self, token: str) -> None:
        """Note that the client has shown this one: those before are void. It may have a newer."""
        digest = digest_of(token)
        if digest in self.digests:
            self._void(self.digests.index(digest))

    def confirm(self) -> None:
        """Note that the client has the newest token: those before are void."""
        self._void(len(self.digests) - 1)

    def revoke(self) -> None:
        """Make all void."""
        for digest in self.digests:
            del self._register[digest]
        self.digests = ()

    def _void(self, count: int) -> None:
        """Make so many void, the oldest ones."""
        if count > 0:
            for digest in self.digests[:count]:
                del self._register[digest]
            self.digests = self.digests[count:]
