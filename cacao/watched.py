"""A connection that is watched while its client waits: whether that is still there.

What the client says meanwhile is received later, in its order. It says little before it is greeted;
after a few messages the watch ends, so that the rest waits in the client's own socket.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cacao.connection import Connection

__all__ = ["WatchedConnection"]

_MOST_EARLY: Final = 8  # messages


class WatchedConnection:
    """A `Connection` around another one, for one watch and all that is received after it.

    Args:
        connection: Nobody else receives from it.
    """

    __slots__ = (
        "_connection",
        "_early",
        "_failure",
        "_is_over",
        "_watching",
        "close",
        "peer",
        "send",
        "subprotocol",
    )

    def __init__(self, connection: Connection) -> None:
        self.subprotocol = connection.subprotocol
        self.peer = connection.peer
        self.send = connection.send
        self.close = connection.close
        self._connection = connection
        self._early: list[str] = []
        self._failure: Exception | None = None
        self._watching = trio.CancelScope()
        self._is_over = trio.Event()

    @contextmanager
    def watched(self, nursery: trio.Nursery) -> Iterator[None]:
        """Cancel the block when the client goes; `raise_if_gone` tells of it then.

        Leaving the block does not wait: the next `receive` waits until the watch is over.

        Args:
            nursery: Where the watch runs.
        """
        with trio.CancelScope() as block:
            nursery.start_soon(self._watch, block, name="watch")
            try:
                yield
            finally:
                self._watching.cancel()

    async def _watch(self, block: trio.CancelScope) -> None:
        try:
            with self._watching:
                while len(self._early) < _MOST_EARLY:
                    self._early.append(await self._connection.receive())
        except Exception as error:  # noqa: BLE001 - kept: who receives next gets it
            self._failure = error
            block.cancel()
        finally:
            self._is_over.set()

    def raise_if_gone(self) -> None:
        """Do nothing, unless the watch has seen the client go.

        Raises:
            ConnectionClosed: It has; or another error of the server's `receive`.
        """
        if self._failure is not None:
            raise self._failure

    async def receive(self) -> str:
        """Wait for the next text message.

        Raises:
            ConnectionClosed: There will be no more.
        """
        if not self._is_over.is_set():
            await self._is_over.wait()
        if self._early:
            return self._early.pop(0)
        self.raise_if_gone()
        return await self._connection.receive()
