"""What has come for an app and was not taken yet, in 2 KiB less for each connection."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio.task_group import TaskGroup, _handle

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hypercorn.config import Config
    from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

__all__ = ["AppTasks", "Inbox"]


class Inbox:
    """A bounded queue, as `asyncio.Queue` is one; each connection has one for as long as it lives.

    Args:
        size: Messages that it holds; who puts more waits.
    """

    __slots__ = ("_messages", "_size", "_waiters")

    def __init__(self, size: int) -> None:
        self._size = size
        self._messages: list[ASGIReceiveEvent] = []
        self._waiters: list[asyncio.Future[None]] = []

    async def put(self, message: ASGIReceiveEvent) -> None:
        """Add a message, when there is room."""
        while len(self._messages) >= self._size:
            await self._until_changed()
        self._messages.append(message)
        self._tell()

    async def get(self) -> ASGIReceiveEvent:
        """Take the oldest message, when there is one."""
        while not self._messages:
            await self._until_changed()
        message = self._messages.pop(0)
        self._tell()
        return message

    async def _until_changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def _tell(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():  # cancelled in this turn of the loop
                waiter.set_result(None)


class AppTasks(TaskGroup):
    """The tasks of one connection, with that inbox for the app."""

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Call the app; gives what puts a message for it."""
        inbox = Inbox(config.max_app_queue_size)

        def call_soon(function: Callable[..., Any], *args: Any) -> Any:
            return asyncio.run_coroutine_threadsafe(function(*args), self._loop).result()

        in_thread = partial(self._loop.run_in_executor, None)
        self.spawn(_handle, app, config, scope, inbox.get, send, in_thread, call_soon)
        return inbox.put
