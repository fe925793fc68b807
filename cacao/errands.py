"""Awaiting from trio what only asyncio can run.

How it works. A trio run has one asyncio loop on the other side of its `Border`. As the guest of an
asyncio server that is the server's own loop: both take turns in one thread, so either may call the
other's synchronous functions in place. In a trio run of its own it is a loop in one background
thread, kept by a system task and therefore gone when the run is. An `Errand` is a coroutine sent
over the border: an asyncio task there, a parked trio task here.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import types
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import trio

from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

__all__ = ["Border", "Errand", "from_asyncio", "share_thread", "take_first_step"]

_T = TypeVar("_T")


async def from_asyncio(awaitable: Awaitable[_T]) -> _T:
    """Await, in a trio task, a coroutine of a library that needs asyncio.

    In an asyncio server it runs as a task in the server's loop. In a trio run of its own
    (`hypercorn -k trio`, pytest-trio) it runs in a loop in a background thread, which is started
    at the first use and ends with the run. All calls of a run share the loop, so a connection pool
    that one of them made serves the next. Context variables are passed along.

    What needs a running loop, or has to stay within one asyncio task (`asyncio.timeout`, a task
    group, `async with`), goes into one coroutine function:

        async def find(pool, key):
            async with pool.acquire() as connection:
                return await connection.fetchrow("select * from item where id = $1", key)

        row = await from_asyncio(find(pool, key))

    Cancelling cancels the asyncio task, waits until that has ended, and raises `trio.Cancelled`;
    a value that the coroutine returns all the same is returned. Under trio's autojump clock a
    thread's work looks like idleness: time may jump while it runs.

    Args:
        awaitable: A coroutine, or another awaitable of asyncio.

    Returns:
        What the awaitable returns. What it raises is raised, with its traceback.

    Raises:
        HostingError: Outside trio, or when asyncio code has cancelled the awaitable.
    """
    coroutine = _as_coroutine(awaitable)
    if not trio.lowlevel.in_trio_task():
        coroutine.close()
        raise HostingError(
            "from_asyncio() was awaited outside trio; in asyncio code await the coroutine itself"
        )
    return await Errand(_current_border(), coroutine).result()


@dataclass(frozen=True)
class Border:
    """How a trio run calls functions on its asyncio side, and is called back.

    Attributes:
        loop: The asyncio side.
        to_asyncio: Calls a function there; in the order of the calls.
        to_trio: Calls a function in the trio run.
    """

    loop: asyncio.AbstractEventLoop
    to_asyncio: Callable[[Callable[[], object]], object]
    to_trio: Callable[[Callable[[], object]], object]


class Errand(Generic[_T]):
    """A coroutine that a trio task has asyncio run; started at once.

    Attributes:
        task: Its task on the asyncio side; for trio to touch only where they share a thread.
        is_taken_back: Whether a trio task that waits for it was cancelled, and so the errand.
    """

    task: asyncio.Task[_T]

    def __init__(self, border: Border, awaitable: Awaitable[_T]) -> None:
        self._border = border
        self._coroutine = _as_coroutine(awaitable)
        self._context = contextvars.copy_context()
        self.is_taken_back = False
        border.to_asyncio(self._start)

    def _start(self) -> None:
        # Not `loop.create_task`: an eager task factory would run the coroutine's first step here,
        # in trio's turn, when libraries that ask which of the two is running are told "trio".
        self.task = asyncio.Task(self._coroutine, loop=self._border.loop, context=self._context)

    async def result(self) -> _T:
        """Wait for the end and return or raise the outcome, as `from_asyncio` says."""
        raise_cancelled = await self._end()
        if raise_cancelled is not None and self.task.cancelled():
            raise_cancelled()
        if self.task.cancelled():
            raise HostingError(
                f"{self._coroutine!r} was cancelled by asyncio code, not by the trio task that "
                "awaits it; catch asyncio.CancelledError in it and raise what it means"
            )
        return self.task.result()

    async def _end(self) -> Callable[[], object] | None:
        """Wait for the end; return trio's raiser of Cancelled if that was asked for meanwhile."""
        waiter = trio.lowlevel.current_task()
        cancellation: Callable[[], object] | None = None

        def wake(_task: asyncio.Task[_T]) -> None:
            self._border.to_trio(lambda: trio.lowlevel.reschedule(waiter))

        def abort(raise_cancelled: Callable[[], object]) -> trio.lowlevel.Abort:
            nonlocal cancellation
            cancellation = raise_cancelled
            self.is_taken_back = True
            self._border.to_asyncio(lambda: self.task.cancel())
            return trio.lowlevel.Abort.FAILED

        self._border.to_asyncio(lambda: self.task.add_done_callback(wake))
        await trio.lowlevel.wait_task_rescheduled(abort)
        return cancellation


def take_first_step(awaitable: Awaitable[_T]) -> Awaitable[_T] | None:
    """Run what asyncio awaits up to where it first waits, here, without a task for it.

    What needs no more than that, as most sends do, saves a turn of the loop. The step is taken
    outside of any asyncio task: for code of a server's, which knows its loop, and not of authors.

    Returns:
        What is left of it, for an `Errand`; None if that was all.
    """
    coroutine = _as_coroutine(awaitable)
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return _rest(coroutine, waits_for)


@types.coroutine
def _rest(coroutine: Coroutine[Any, Any, _T], waits_for: Any) -> Generator[Any, Any, _T]:
    """Go on where the first step has stopped, now in a task."""
    while True:
        try:
            value = yield waits_for
        except BaseException as error:  # noqa: BLE001 - the coroutine's to handle
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, value)
        try:
            waits_for = step()
        except StopIteration as end:
            return cast("_T", end.value)


def _as_coroutine(awaitable: Awaitable[_T]) -> Coroutine[Any, Any, _T]:
    return awaitable if asyncio.iscoroutine(awaitable) else _await(awaitable)


async def _await(awaitable: Awaitable[_T]) -> _T:
    return await awaitable


_border: trio.lowlevel.RunVar[Border] = trio.lowlevel.RunVar("cacao_border")


def share_thread(loop: asyncio.AbstractEventLoop) -> Border:
    """Make the host's loop the asyncio side of this trio run, which is its guest."""
    border = Border(loop, to_asyncio=_call, to_trio=_call)
    _border.set(border)
    return border


def _call(function: Callable[[], object]) -> None:
    function()


def _current_border() -> Border:
    try:
        return _border.get()
    except LookupError:
        border = _open_thread()
        _border.set(border)
        return border


def _open_thread() -> Border:
    loop = asyncio.new_event_loop()
    trio.lowlevel.spawn_system_task(_keep_thread, loop)
    token = trio.lowlevel.current_trio_token()
    return Border(loop, to_asyncio=loop.call_soon_threadsafe, to_trio=token.run_sync_soon)


async def _keep_thread(loop: asyncio.AbstractEventLoop) -> None:
    """Run `loop` in a thread until the trio run cancels its system tasks."""
    stop = asyncio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_run_in_thread, loop, stop)
        try:
            await trio.sleep_forever()
        finally:
            loop.call_soon_threadsafe(stop.set)


async def _run_in_thread(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # Shielded, because a loop that is never run is never closed. A limiter of its own, because the
    # thread lasts as long as the run and would take one of the app's for good.
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(_run, loop, stop, limiter=trio.CapacityLimiter(1))


def _run(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        while not stop.is_set():
            # asyncio raises these two out of the loop too, and not only out of their errand.
            with contextlib.suppress(SystemExit, KeyboardInterrupt):
                runner.run(stop.wait())
