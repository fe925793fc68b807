"""One run of an app: the nursery that owns its sessions, and where their errors go.

An `App` is what the author declared and may be run many times, in a server or in a test; all that
lives belongs to a `Runtime`, and ends with it.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import trio

from cacao.errors import ConnectionClosed, MessageError
from cacao.lifetimes import keep_time
from cacao.protocol import (
    SUBPROTOCOL,
    CloseCode,
    Error,
    ErrorCode,
    Hello,
    byte_length_exceeds,
    decode,
    encode,
)
from cacao.session import RESTART, ErrorReport, Session

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from cacao.events import Events
    from cacao.lifetimes import Job, Lifetimes
    from cacao.limits import Limits
    from cacao.registry import Declaration, Registry
    from cacao.session import Connection

__all__ = ["Runtime", "open_runtime", "report_error"]

_log = logging.getLogger("cacao")


def report_error(report: ErrorReport, sinks: Iterable[Callable[[ErrorReport], None]]) -> None:
    """Write an error of the author's code to the log, and tell the sinks; never raises."""
    _log.error(
        "%s failed (error %s, session %s)",
        report.where,
        report.error_id,
        report.session_id or "none",
        exc_info=report.error,
        extra={
            "session_id": report.session_id,
            "event": report.event,
            "error_id": report.error_id,
        },
    )
    for sink in sinks:
        try:
            sink(report)
        except Exception:  # noqa: BLE001 - logged; the other sinks must hear of the error
            _log.exception("%r, told of error %s, failed", sink, report.error_id)


class Runtime:
    """The live sessions of one run; made by `open_runtime`.

    Attributes:
        sessions: The live sessions by id.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        registry: Registry,
        events: Events,
        lifetimes: Lifetimes,
        limits: Limits,
        error_sinks: Sequence[Callable[[ErrorReport], None]],
    ) -> None:
        self.sessions: dict[str, Session] = {}
        self._nursery = nursery
        self._registry = registry
        self._events = events
        self._lifetimes = lifetimes
        self._limits = limits
        self._error_sinks = error_sinks
        self._is_draining = False
        self._threads = trio.CapacityLimiter(limits.max_threads)

    async def serve(self, connection: Connection) -> None:
        """Give one connection its session; returns when the connection has ended.

        Cancelling closes the connection with 1012 and ends the session.
        """
        hello = None
        if connection.subprotocol == SUBPROTOCOL:
            hello = await self._wait_for_hello(connection)
            if hello is None:
                return
        if self._is_draining:
            await connection.close(*RESTART)
            return
        session = self._new_session(connection)
        self.sessions[session.id] = session
        self._nursery.start_soon(self._own, session, name=f"session {session.id}")
        try:
            await session.attach(connection, hello)
        finally:
            session.close()

    def _new_session(self, connection: Connection) -> Session:
        session = Session(
            self._registry,
            self._events,
            self._limits,
            self.report,
            self._threads,
            self._lifetimes,
        )
        session.peer = connection.peer
        return session

    def start_jobs(self, nursery: trio.Nursery) -> None:
        """Start the tasks and the timers of the app."""
        for job in self._lifetimes.tasks:
            nursery.start_soon(self._run_job, job, name=job.where)
        for seconds, job in self._lifetimes.app_timers:
            nursery.start_soon(keep_time, seconds, partial(self._run_job, job), name=job.where)

    async def _run_job(self, job: Job) -> None:
        try:
            await job.run()
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            self.report(ErrorReport(error, job.where, "", None, secrets.token_hex(6)))

    def drain(self) -> None:
        """Take no more connections and close those there are, with 1012; does not wait."""
        self._is_draining = True
        for session in list(self.sessions.values()):
            session.close(*RESTART)

    def report(self, report: ErrorReport) -> None:
        """Write an error of the author's code to the log, and tell all who asked to know."""
        report_error(report, self._error_sinks)

    async def _own(self, session: Session) -> None:
        """Run a session. What goes wrong in it ends that session and no other."""
        try:
            await session.run()
        except Exception as error:  # noqa: BLE001 - reported; the other sessions must live
            self.report(ErrorReport(error, "session", session.id, event=None, error_id=session.id))
        finally:
            del self.sessions[session.id]

    async def _wait_for_hello(self, connection: Connection) -> Hello | None:
        """Wait for `hello`, answering all else with an error; None if it does not come."""
        with trio.move_on_after(self._limits.hello_timeout):
            try:
                while (hello := await self._read_hello(connection)) is None:
                    pass
            except ConnectionClosed:
                return None
            return hello
        await connection.close(CloseCode.POLICY, "no 'hello' came in time")
        return None

    async def _read_hello(self, connection: Connection) -> Hello | None:
        text = await connection.receive()
        if byte_length_exceeds(text, self._limits.max_message_bytes):
            await connection.close(CloseCode.TOO_BIG, "the first message is 'hello'")
            raise ConnectionClosed(CloseCode.TOO_BIG)
        try:
            message = decode(text, self._limits)
            if isinstance(message, Hello):
                return message
            answer = Error(ErrorCode.INVALID_MESSAGE, "the first message is 'hello'")
        except MessageError as error:
            answer = Error(error.code, str(error), error.event_id)
        await connection.send(encode(answer))
        return None

    async def _tend_sessions(self) -> None:
        while True:
            await trio.sleep(self._limits.heartbeat / 4)
            now = trio.current_time()
            for session in list(self.sessions.values()):
                session.tend(now)

    def _resend(self, _: Declaration) -> None:
        """Show the live sessions a signal that was declared after they began."""
        for session in self.sessions.values():
            session.resend()


@asynccontextmanager
async def open_runtime(
    registry: Registry,
    events: Events,
    lifetimes: Lifetimes,
    limits: Limits,
    error_sinks: Sequence[Callable[[ErrorReport], None]],
) -> AsyncIterator[Runtime]:
    """Run an app for as long as the block lasts.

    Leaving the block closes every connection with 1012, cancels every session and waits for
    their `finally` blocks, then does the same to the tasks and timers of the app: no task is left
    behind.

    Args:
        registry: The signals that clients see.
        events: What answers their events.
        lifetimes: What runs beside them.
        limits: See `Limits`.
        error_sinks: Called with each error in the author's code.
    """
    async with trio.open_nursery() as jobs:
        async with trio.open_nursery() as nursery:
            runtime = Runtime(nursery, registry, events, lifetimes, limits, error_sinks)
            runtime.start_jobs(jobs)
            unsubscribe = registry.subscribe(runtime._resend)  # noqa: SLF001 - this is its maker
            nursery.start_soon(runtime._tend_sessions, name="tend sessions")  # noqa: SLF001
            try:
                yield runtime
            finally:
                unsubscribe()
                for session in runtime.sessions.values():
                    session.stop_finishing()
                nursery.cancel_scope.cancel()
        jobs.cancel_scope.cancel()  # sessions may lean on them to their last hook
