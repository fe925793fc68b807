"""Lets one task sleep until there is something for it to do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Wakeup"]


class Wakeup:
    """Where one task waits to be woken, again and again; a call that came before counts."""

    __slots__ = ("_is_set", "_sleeper")

    def __init__(self) -> None:
        self._is_set = False
        self._sleeper: trio.lowlevel.Task | None = None

    def set(self) -> None:
        """Wake the task that waits, or the next one to wait."""
        if self._sleeper is not None:
            trio.lowlevel.reschedule(self._sleeper)
            self._sleeper = None
        else:
            self._is_set = True

    async def wait(self) -> None:
        """Sleep until `set` is called, or not at all if it was called since the last time."""
        if self._is_set:
            await trio.lowlevel.checkpoint()
        else:
            self._sleeper = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort)
        self._is_set = False

    def _abort(self, _: Callable[[], object]) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED
