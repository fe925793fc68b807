"""Hear that the server shuts down, while its connections are still open.

ASGI tells an app of a shutdown only when every connection has ended; until then a server waits for
its connections, and they for the app. Hypercorn 0.18 cancels them after 3 s, or, with asyncio on
Python 3.12 and later, waits for ever (`asyncio.Server.wait_closed` changed there). Its workers set
an event, `terminated`, when they begin to end; ours tell of it.

Uvicorn closes the WebSockets itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from hypercorn.asyncio.worker_context import EventWrapper as AsyncioEvent
from hypercorn.asyncio.worker_context import WorkerContext as AsyncioContext
from hypercorn.trio.worker_context import EventWrapper as TrioEvent
from hypercorn.trio.worker_context import WorkerContext as TrioContext

if TYPE_CHECKING:
    from typing import Protocol

    class Drainable(Protocol):
        """Something that ends its connections when the server begins to end."""

        def drain(self) -> None:
            """Begin to end all connections; called in the server's loop, must not wait."""


__all__ = ["AsyncioWorker", "TrioWorker", "hear_of_shutdown", "stop_hearing"]

# Of the whole process, as the server is: whoever lives in it hears of its end.
_listeners: WeakSet[Drainable] = WeakSet()


def hear_of_shutdown(listener: Drainable) -> None:
    """Call `listener.drain()` when a worker begins to end.

    Args:
        listener: Held weakly.
    """
    _listeners.add(listener)


def stop_hearing(listener: Drainable) -> None:
    """Take back `hear_of_shutdown`."""
    _listeners.discard(listener)


def _announce() -> None:
    for listener in tuple(_listeners):
        listener.drain()


class _AnnouncedByAsyncio(AsyncioEvent):
    async def set(self) -> None:
        await super().set()
        _announce()


class _AnnouncedByTrio(TrioEvent):
    async def set(self) -> None:
        await super().set()
        _announce()


class AsyncioWorker(AsyncioContext):
    """What the connections of an asyncio worker share; its end is announced."""

    def __init__(self, max_requests: int | None) -> None:
        super().__init__(max_requests)
        self.terminated = _AnnouncedByAsyncio()


class TrioWorker(TrioContext):
    """What the connections of a trio worker share; its end is announced."""

    def __init__(self, max_requests: int | None) -> None:
        super().__init__(max_requests)
        self.terminated = _AnnouncedByTrio()
