"""One run of an app: the nursery that owns its sessions, and where their errors go.

An `App` is what the author declared and may be run many times, in a server or in a test; all that
lives belongs to a `Runtime`, and ends with it.
"""

# ruff: noqa: SLF001 - a run is made by `open_runtime`, here

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, closing
from functools import partial
from typing import TYPE_CHECKING

import trio

from cacao.errors import ConnectionClosed
from cacao.exchange import RESTART, TAKEN_OVER
from cacao.hello import wait_for_hello
from cacao.lifetimes import keep_time
from cacao.protocol import SUBPROTOCOL, CloseCode
from cacao.reactive import set_current_run
from cacao.reports import ErrorReport, report_error, report_outside
from cacao.roster import Roster
from cacao.session import Session
from cacao.shared import SharedStore
from cacao.survival import open_survival
from cacao.watched import WatchedConnection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from cacao.connection import Connection
    from cacao.dispatch import Witness
    from cacao.events import Events
    from cacao.handover import LetGo
    from cacao.lifetimes import Job, Lifetimes
    from cacao.limits import Limits
    from cacao.parking import ParkedSession
    from cacao.protocol import Hello
    from cacao.registry import Declaration, Registry
    from cacao.survival import Survival

__all__ = ["Runtime", "open_runtime"]

_CROWDED = CloseCode.TRY_LATER, "too many sessions"
_TENDED_AT_ONCE = 50

_log = logging.getLogger("cacao")


def _value_failed(
    sinks: Sequence[Callable[[ErrorReport], None]], error: Exception, declaration: Declaration
) -> None:
    """Report what an app-wide value has raised."""
    report_outside(declaration.description, error, sinks)


class Runtime:
    """The live sessions of one run; made by `open_runtime`.

    Attributes:
        shared: The app-wide values.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        registry: Registry,
        events: Events,
        lifetimes: Lifetimes,
        limits: Limits,
        error_sinks: Sequence[Callable[[ErrorReport], None]],
        shared: SharedStore,
        survival: Survival | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.shared = shared
        self._roster = Roster(limits)
        self._nursery = nursery
        self._registry = registry
        self._events = events
        self._lifetimes = lifetimes
        self._limits = limits
        self._error_sinks = error_sinks
        self._survival = survival
        self._witness = witness
        if survival is not None:
            survival.holder = self
        self._leaving: set[Session] = set()  # for another process
        self._is_draining = False
        self._announced = 0  # the revision of the app-wide values that all sessions know of
        self._arriving = 0
        self._threads = trio.CapacityLimiter(limits.max_threads)

    @property
    def sessions(self) -> Mapping[str, Session]:
        """The live sessions by id."""
        return self._roster.sessions

    async def serve(self, connection: Connection) -> None:
        """Give one connection its session; returns when the connection has ended.

        A `cacao.v1` client may take an earlier session up again. When its connection has ended,
        its session waits for the next one; that of a plain client ends. Cancelling closes the
        connection with 1012.
        """
        closing: tuple[int, str] = RESTART
        try:
            hello = await self._hello_from(connection)
            session, connection = await self._session_for(connection, hello)
            self._roster.is_back(session)
            try:
                closing = await session.attach(connection, hello)
            finally:
                self._part(session, connection)
                if self._is_draining and self._survival is not None:
                    await self._until_parked(session, self._survival)
        except ConnectionClosed as closed:
            closing = closed.code, closed.reason
        finally:
            with trio.move_on_after(1, shield=True):
                await connection.close(*closing)

    async def _hello_from(self, connection: Connection) -> Hello | None:
        """Wait for a client to say who it is; None for a plain one, which does not."""
        if connection.subprotocol != SUBPROTOCOL:
            return None
        if self._arriving >= self._limits.max_sessions:
            raise ConnectionClosed(*_CROWDED)
        self._arriving += 1
        try:
            return await wait_for_hello(connection, self._limits)
        finally:
            self._arriving -= 1

    async def _session_for(
        self, connection: Connection, hello: Hello | None
    ) -> tuple[Session, Connection]:
        """Find the session that a client takes up again, or begin one.

        Returns:
            The session, and what to read its client from.

        Raises:
            ConnectionClosed: There is no room, the run ends, or the client has gone meanwhile.
        """
        if self._is_draining:  # another process is to have it, and not to lose it to this one
            raise ConnectionClosed(*RESTART)
        session = self._find(connection, hello)
        if session is None and hello is not None and hello.resume and self._survival is not None:
            connection = watched = WatchedConnection(connection)
            session = await self._take_up(watched, hello.resume, self._survival)
            if session is not None:
                return session, connection
            session = self._find(connection, hello)  # another connection of this client has it
        if session is None or self._is_draining:
            session = self._begin(connection)
        return session, connection

    async def _take_up(
        self, connection: WatchedConnection, token: str, survival: Survival
    ) -> Session | None:
        """Go on with a session that another process has, or has parked; None if there is none.

        This may take a while. A client that has gone meanwhile may be back in another process, with
        its session, and must not take that away from itself.

        Raises:
            ConnectionClosed: There is no room, the run ends, or the client has gone; what was
                taken is parked anew.
        """
        parked = None
        with connection.watched(self._nursery):
            parked = await survival.take(token, connection.peer.user_key)
        try:  # without waiting: a session is never nowhere
            connection.raise_if_gone()
            return None if parked is None else self._begin(connection, parked)
        except Exception:
            if parked is not None:
                survival.park(parked)
                await survival.flush()
            raise

    async def _until_parked(self, session: Session, survival: Survival) -> None:
        """Wait until another process can take a session up: its client goes there at once."""
        with trio.CancelScope(shield=True):
            with trio.move_on_after(self._limits.drain_timeout):
                await session.until_ended()
            session.stop_finishing()
            with trio.move_on_after(self._limits.drain_timeout):
                await session.until_ended()
                await survival.flush()

    def _find(self, connection: Connection, hello: Hello | None) -> Session | None:
        """Find the session that a client takes up again: its own, as far as that is known."""
        if hello is None or hello.resume is None:
            return None
        session = self._roster.find(hello.resume)
        if session is None or session in self._leaving:
            return None
        if session.peer.user_key != connection.peer.user_key:
            return None
        return session

    def _begin(self, connection: Connection, parked: ParkedSession | None = None) -> Session:
        """Begin a session, or go on with a parked one.

        Raises:
            ConnectionClosed: There is no room, or the run ends.
        """
        if self._is_draining:
            raise ConnectionClosed(*RESTART)
        session = self._new_session(connection)
        if parked is not None:
            session.unpark(parked)
        if not self._roster.admit(session):
            session.close()
            _log.warning("no room for a session of %s; see Limits", connection.peer.address)
            raise ConnectionClosed(*_CROWDED)
        self._nursery.start_soon(self._own, session, name=f"session {session.id}")
        return session

    def _part(self, session: Session, connection: Connection) -> None:
        """Decide what becomes of a session whose connection has ended."""
        if session.is_attached:  # another has taken it over
            return
        if connection.subprotocol == SUBPROTOCOL and not self._is_to_be_parked(session):
            session.wait_for_client()
            self._roster.waits(session)
        else:
            session.close()

    def _new_session(self, connection: Connection) -> Session:
        session = Session(
            self._registry,
            self._events,
            self._limits,
            self.report,
            self._threads,
            self._lifetimes,
            self._roster.register,
            self.shared,
            self,
            self._witness,
        )
        session.peer = connection.peer
        return session

    async def prepare(self, session: Session) -> None:
        """Bring what is stored for a session's user; the session asks for it."""
        user = session.peer.user_key
        if self._survival is not None and user is not None:
            await self._survival.load_user(session, user)

    def release(self, session: Session) -> None:
        """Park a session that another process is to have; the session tells when."""
        if self._survival is not None and self._is_to_be_parked(session):
            self._survival.park(session.park())

    def _is_to_be_parked(self, session: Session) -> bool:
        return self._is_draining or session in self._leaving

    def has(self, digest: bytes) -> bool:
        """Tell whether a connection can take up the session that has a token of this digest."""
        session = self._roster.holder_of(digest)
        return session is not None and session.is_open and session not in self._leaving

    def offer(self, digest: bytes, owner: str | None) -> LetGo | None:
        """Give what ends and parks a session, for its client has come to another process.

        Args:
            digest: Of a token of the session's.
            owner: Whose session it must be.

        Returns:
            None if it is not here, is somebody else's, or ends of itself.
        """
        session = self._roster.holder_of(digest)
        if self._survival is None or session is None or session.peer.user_key != owner:
            return None
        if session.is_open or self._is_to_be_parked(session):
            return partial(self._hand_over, session, self._survival)
        return None

    async def _hand_over(self, session: Session, survival: Survival) -> None:
        """Let the events of a session end for a while, and then the session; it is parked."""
        if not self._is_to_be_parked(session):
            self._leaving.add(session)
            if session.is_attached:
                session.drain(*TAKEN_OVER)  # who reads its connection sees to the rest
            else:
                await self._close_when_idle(session)
        await self._until_parked(session, survival)

    async def _close_when_idle(self, session: Session) -> None:
        """End a session without a connection, when its events have ended or have had their time."""
        await session.until_idle()
        session.close(*RESTART)

    def start_jobs(self, nursery: trio.Nursery) -> None:
        """Start the tasks and the timers of the app."""
        for job in self._lifetimes.tasks:
            nursery.start_soon(self._run_job, job, name=job.where)
        for seconds, job in self._lifetimes.app_timers:
            nursery.start_soon(keep_time, seconds, partial(self._run_job, job), name=job.where)

    async def _run_job(self, job: Job) -> None:
        set_current_run(self.shared)
        try:
            await job.run()
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            report_outside(job.where, error, self._error_sinks)

    def drain(self) -> None:
        """Take no more connections and events; does not wait.

        Events under way have `Limits.drain_timeout` s to end. Each session ends when its own have,
        and its connection is closed with 1012.
        """
        self._is_draining = True
        for session in list(self.sessions.values()):
            if session.is_attached:
                session.drain()
            else:
                self._nursery.start_soon(self._close_when_idle, session, name="drain")

    def end_waiting(self) -> None:
        """End the sessions that wait for their clients; does not wait."""
        self._roster.end_waiting()

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
            self._roster.dismiss(session)
            self._leaving.discard(session)

    async def _tend_sessions(self) -> None:
        """Look after each session four times in a heartbeat, and after some at a time.

        Thousands to whom a beat is owed in one moment would hold up everybody.
        """
        while True:
            parts = 1 + len(self.sessions) // _TENDED_AT_ONCE
            for part in range(parts):
                await trio.sleep(self._limits.heartbeat / 4 / parts)
                now = trio.current_time()
                for session in list(self.sessions.values())[part::parts]:
                    session.tend(now)

    def announce(self) -> bool:
        """Let all live sessions send what is new of the app-wide values; does not wait.

        Returns:
            Whether there is anything to send.
        """
        self.shared.flush()
        if self._announced == self.shared.revision:
            return False
        self._announced = self.shared.revision
        told = [session for session in self.sessions.values() if session.hear()]
        return bool(told)

    async def _keep_announcing(self) -> None:
        """Announce the first change at once, and what then comes once an interval."""
        while True:
            await self.shared.wait_for_news()
            self.announce()
            await trio.sleep(self._limits.flush_interval)

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
    storage: str | None = None,
    witness: Witness | None = None,
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
        storage: Where values and sessions are kept; see `open_storage`. None keeps none.
        witness: Told of each event of every session; None for nobody.

    Raises:
        DeclarationError: The storage is none.
        StorageError: It cannot be used.
    """
    failed = partial(_value_failed, error_sinks)
    with closing(SharedStore(failed)) as shared:
        async with (
            open_survival(storage, registry, shared, failed, limits) as survival,
            trio.open_nursery() as jobs,
        ):
            async with trio.open_nursery() as nursery:
                runtime = Runtime(
                    nursery,
                    registry,
                    events,
                    lifetimes,
                    limits,
                    error_sinks,
                    shared,
                    survival,
                    witness,
                )
                runtime.start_jobs(jobs)
                unsubscribe = registry.subscribe(runtime._resend)
                nursery.start_soon(runtime._tend_sessions, name="tend sessions")
                nursery.start_soon(runtime._keep_announcing, name="announce app-wide values")
                try:
                    yield runtime
                finally:
                    unsubscribe()
                    runtime._is_draining = True
                    for session in runtime.sessions.values():
                        session.stop_finishing()
                    nursery.cancel_scope.cancel()
            jobs.cancel_scope.cancel()  # sessions may lean on them to their last hook
