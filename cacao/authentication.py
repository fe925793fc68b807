"""Who a client is: the author's `authenticate`, asked before anything is sent to it."""

from __future__ import annotations

from dataclasses import replace
from http import HTTPStatus
from inspect import isawaitable
from typing import TYPE_CHECKING

import trio

from cacao.errors import DeclarationError, UnauthorizedError
from cacao.gate import Refusal
from cacao.protocol import CloseCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.peer import Peer

__all__ = ["Authentication"]

_FAILED = Refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "internal error", CloseCode.INTERNAL)


class Authentication:
    """The author's function that tells users from strangers.

    Args:
        authenticate: Takes a `Peer` and gives its user, or None; may be async. None: all are
            let in, with no user.
        timeout: Seconds that it may take.

    Raises:
        DeclarationError: It cannot be called.
    """

    def __init__(self, authenticate: Callable[[Peer], object] | None, timeout: float) -> None:
        if authenticate is not None and not callable(authenticate):
            raise DeclarationError(
                f"authenticate is {authenticate!r}; expected a function, which takes a Peer and "
                "gives its user, or None to refuse it"
            )
        self._authenticate = authenticate
        self._timeout = timeout

    @property
    def knows_users(self) -> bool:
        """Whether every peer that is let in has a user."""
        return self._authenticate is not None

    async def admit(self, peer: Peer, report: Callable[[str, Exception], object]) -> Peer | Refusal:
        """Ask who a peer is.

        Cancelling cancels the author's function.

        Args:
            peer: Who is at the door.
            report: Told of what the function raises, besides `UnauthorizedError`, and when it
                takes too long; the peer is refused, and hears nothing of it.

        Returns:
            The peer with its user, or how it is refused.
        """
        if self._authenticate is None:
            return peer
        try:
            user = await self._ask(self._authenticate, peer)
        except UnauthorizedError as error:
            return _unauthorized(str(error))
        except Exception as error:  # noqa: BLE001 - the author's code: reported
            report("authenticate", error)
            return _FAILED
        return _unauthorized() if user is None else replace(peer, user=user)

    async def _ask(self, authenticate: Callable[[Peer], object], peer: Peer) -> object:
        with trio.move_on_after(self._timeout):
            answer = authenticate(peer)
            return await answer if isawaitable(answer) else answer
        raise TimeoutError(
            f"it took longer than {self._timeout} s; bound what it waits for, or give it more by "
            "Limits(hook_timeout=...)"
        )


def _unauthorized(reason: str = "") -> Refusal:
    return Refusal(HTTPStatus.UNAUTHORIZED, reason or "unauthorized", CloseCode.UNAUTHORIZED)
