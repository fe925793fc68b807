"""Handlers that run in a thread: what they may touch, and what becomes of one nobody waits for.

A thread cannot be stopped. When its event is cancelled or times out, it is *abandoned*: the event
ends, the log says so, the thread goes on until its function returns, and keeps its place in the
pool so long. From then on it can reach the session no more.
"""

# ruff: noqa: SLF001 - a job and its session are one life, in two threads

from __future__ import annotations

import logging
from threading import Lock
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar, cast

import trio

from cacao.errors import MessageError, ReactiveError
from cacao.store import set_current_session, use_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.store import Store

__all__ = ["ThreadSession", "run_in_thread"]

T = TypeVar("T")

_log = logging.getLogger("cacao")


class ThreadSession:
    """What a handler with `thread=True` gets as its session.

    Signals belong to trio's thread, so they cannot be read or set through it: `call` goes there.

    Attributes:
        id: The session's id.
    """

    def __init__(self, session: Store, label: str) -> None:
        self.id: str = getattr(session, "id", "")
        self._session = session
        self._label = label
        self._is_abandoned = False

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a plain function in trio's thread, where `.value` means this session's; wait for it.

        Args:
            function: Short, for it holds up everything else.
            args: Passed on.

        Returns:
            What it returned.

        Raises:
            trio.Cancelled: The event was cancelled or has timed out; it calls nothing any more.
            Exception: What the function raised.
        """
        result = trio.from_thread.run_sync(self._call, function, args)
        trio.from_thread.check_cancelled()
        return cast("T", result)

    def _call(self, function: Callable[..., T], args: tuple[object, ...]) -> T | None:
        if self._is_abandoned:
            return None  # the thread learns of it next
        with use_session(self._session):
            return function(*args)

    def _refuse(self) -> NoReturn:
        raise ReactiveError(
            f"{self._label} runs in a thread and touches a signal, which belongs to trio's; "
            "take session.call(function), where function uses .value, or pass values in and out"
        )

    # What signals, computed signals and effects look at first.
    _nodes = _home = shared = property(_refuse)


async def run_in_thread(
    work: Callable[[], T],
    session: ThreadSession,
    limiter: trio.CapacityLimiter | None,
    failed: Callable[[Exception], object],
) -> T:
    """Run a handler's function in a thread, and wait for it.

    Cancelling abandons the thread, with a warning in the log; one that still waits for a place in
    the pool is not started.

    Args:
        work: Called in the thread, without arguments.
        session: What the handler has as its session.
        limiter: The pool; None for trio's own.
        failed: Called in trio's thread with what an abandoned `work` raises.

    Raises:
        Exception: What `work` raised.
    """
    job = _Job(work, session, failed)
    try:
        return await trio.to_thread.run_sync(job.run, abandon_on_cancel=True, limiter=limiter)
    except trio.Cancelled:
        job.abandon()
        raise


class _Job(Generic[T]):
    """One function in a thread. The lock decides who reports its error: exactly one does."""

    def __init__(
        self,
        work: Callable[[], T],
        session: ThreadSession,
        failed: Callable[[Exception], object],
    ) -> None:
        self._work = work
        self._session = session
        self._failed = failed
        self._token = trio.lowlevel.current_trio_token()
        self._lock = Lock()
        self._is_running = False
        self._error: Exception | None = None

    def run(self) -> T:
        """Do the work; called in the thread."""
        set_current_session(cast("Store", self._session))
        self._is_running = True
        try:
            return self._work()
        except MessageError:
            raise  # a refusal: no mistake, and nobody to tell when the event has ended
        except Exception as error:
            self._fail(error)
            raise
        finally:
            self._is_running = False

    def abandon(self) -> None:
        """Give the thread up; called in trio's thread."""
        with self._lock:
            self._session._is_abandoned = True
            error = self._error
        if error is not None:
            self._failed(error)
        elif self._is_running:
            _log.warning(
                "%s was abandoned: its event has ended, its thread runs on (session %s)",
                self._session._label,
                self._session.id,
                extra={"session_id": self._session.id},
            )

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self._error = error
            is_abandoned = self._session._is_abandoned
        if is_abandoned:
            self._report(error)

    def _report(self, error: Exception) -> None:
        try:
            self._token.run_sync_soon(self._failed, error)
        except trio.RunFinishedError:
            _log.error("%s failed, abandoned", self._session._label, exc_info=error)
