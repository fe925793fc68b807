"""Hear that the server shuts down, while its connections are still open.

ASGI tells an app of a shutdown only when every connection has ended; until then a server waits for
its connections, and they for the app. Hypercorn 0.18 cancels them after 3 s, or, with asyncio on
Python 3.12 and later, waits for ever (`asyncio.Server.wait_closed` changed there). Its workers set
an event, `terminated`, when they begin to end, and this file listens to that: the one place that
reaches into a server. It leaves other versions of hypercorn as they are.

Uvicorn closes the WebSockets itself.
"""

from __future__ import annotations

from functools import wraps
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from hypercorn.asyncio.worker_context import WorkerContext as AsyncioWorkerContext
from hypercorn.trio.worker_context import WorkerContext as TrioWorkerContext

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Drainable(Protocol):
        """Something that ends its connections when the server begins to end."""

        def drain(self) -> None:
            """Begin to end all connections; called in the server's loop, must not wait."""


__all__ = ["hear_of_shutdown"]

_KNOWN = "0.18."

# Of the whole process, as the server is: whoever lives in it hears of its end.
_listeners: WeakSet[Drainable] = WeakSet()


def hear_of_shutdown(listener: Drainable) -> None:
    """Call `listener.drain()` when a worker that starts after this call begins to end.

    Args:
        listener: Held weakly.
    """
    _listeners.add(listener)
    if not version("hypercorn").startswith(_KNOWN):
        return
    for context in (AsyncioWorkerContext, TrioWorkerContext):
        if not hasattr(context.__init__, "__wrapped__"):
            context.__init__ = _announcing(context.__init__)  # type: ignore[method-assign]


def _announcing(make_context: Callable[..., None]) -> Callable[..., None]:
    """Let a worker's context tell the listeners when its `terminated` event is set."""

    @wraps(make_context)
    def make(context: Any, max_requests: int | None) -> None:
        make_context(context, max_requests)
        set_terminated = context.terminated.set

        async def set_and_tell() -> None:
            await set_terminated()
            for listener in tuple(_listeners):
                listener.drain()

        context.terminated.set = set_and_tell

    return make
