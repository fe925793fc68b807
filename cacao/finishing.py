"""What goes on for a while when its user has left.

It runs in the session's own nursery, in a scope that is shielded from that nursery's end. So a
session in which nothing of the kind runs pays nothing for it, and the nursery still waits for all.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Finishing"]


class Finishing:
    """The tasks of one session that may finish.

    Args:
        nursery: The session's; it may be cancelled, but not closed, when a task is started.

    Attributes:
        was_cut: Whether a task had not ended by the deadline.
    """

    __slots__ = ("_deadline", "_nursery", "_scopes", "was_cut")

    def __init__(self, nursery: trio.Nursery) -> None:
        self.was_cut = False
        self._nursery = nursery
        self._deadline = math.inf
        self._scopes: set[trio.CancelScope] = set()

    def start_soon(
        self, function: Callable[..., Awaitable[object]], *args: object, name: str
    ) -> None:
        """Run an async function until it ends, until the deadline, or until `stop`."""
        self._nursery.start_soon(self._run, function, args, name=name)

    def finish_by(self, deadline: float) -> None:
        """Let the tasks go on until this moment of trio's clock, and no longer."""
        self._deadline = min(deadline, self._deadline)
        for scope in self._scopes:
            scope.deadline = self._deadline

    def stop(self) -> None:
        """Cancel the tasks, and those that are still started, at once: the app ends."""
        self.finish_by(-math.inf)

    async def _run(
        self, function: Callable[..., Awaitable[object]], args: tuple[object, ...]
    ) -> None:
        with trio.CancelScope(shield=True, deadline=self._deadline) as scope:
            self._scopes.add(scope)
            try:
                await function(*args)
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught and self._deadline > -math.inf:
            self.was_cut = True
