"""The live sessions of one run: who they are, which waits for its client, and how many may live.

A session that has lost its connection *waits*. It is found again by its token; and when there is no
room for a new session, the one that has waited longest ends in its favour.
"""

from __future__ import annotations

from collections import Counter
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from cacao.tokens import digest_of

if TYPE_CHECKING:
    from cacao.limits import Limits
    from cacao.session import Session

__all__ = ["Roster"]

_NETWORK = 64  # bits of an IPv6 address that its owner cannot change at will


class Roster:
    """Sessions, by id and by token.

    Args:
        limits: `max_sessions` and `max_sessions_per_address`.

    Attributes:
        sessions: All of them, by id.
        register: Which session the digest of each token stands for, by id.
    """

    def __init__(self, limits: Limits) -> None:
        self.sessions: dict[str, Session] = {}
        self._limits = limits
        self.register: dict[bytes, str] = {}
        self._waiting: dict[Session, None] = {}  # the one that waits longest first
        self._owners: dict[Session, str] = {}
        self._counts: Counter[str] = Counter()

    def admit(self, session: Session) -> bool:
        """Enter a session, if there is room for it or can be made."""
        owner = _owner(session.peer.address)
        if owner and self._counts[owner] >= self._limits.max_sessions_per_address:
            return False
        if len(self.sessions) >= self._limits.max_sessions and not self._make_room():
            return False
        self.sessions[session.id] = session
        self._owners[session] = owner
        self._counts[owner] += 1
        return True

    def find(self, token: str) -> Session | None:
        """Give the session that a token stands for, if it can still be taken up."""
        session = self.holder_of(digest_of(token))
        return session if session is not None and session.is_open else None

    def holder_of(self, digest: bytes) -> Session | None:
        """Give the session that a token of this digest stands for, also one that ends."""
        return self.sessions.get(self.register.get(digest, ""))

    def waits(self, session: Session) -> None:
        """Note that a session has no connection now."""
        if session in self._owners:
            self._waiting[session] = None

    def is_back(self, session: Session) -> None:
        """Note that it has one."""
        self._waiting.pop(session, None)

    def dismiss(self, session: Session) -> None:
        """Forget a session that ends; doing so twice is nothing."""
        owner = self._owners.pop(session, None)
        if owner is None:
            return
        del self.sessions[session.id]
        self._waiting.pop(session, None)
        self._counts[owner] -= 1
        if not self._counts[owner]:
            del self._counts[owner]

    def end_waiting(self) -> None:
        """End all that wait."""
        for session in self._waiting:
            session.close()

    def _make_room(self) -> bool:
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        self.dismiss(longest)
        longest.close()
        return True


def _owner(address: str) -> str:
    """Give what stands for everybody who can use this address; nothing for who is not counted."""
    try:
        ip = ip_address(address)
    except ValueError:  # a Unix socket, or memory
        return ""
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    if not ip.is_global:
        return ""
    return str(ip) if ip.version == 4 else f"{int(ip) >> (128 - _NETWORK):x}"
