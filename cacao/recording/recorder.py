"""A server's side of a recorded run: real sockets and real time in, the run's frames out."""

from __future__ import annotations

import logging
import math
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio

from cacao import server
from cacao.errors import ConnectionClosed
from cacao.exchange import RESTART
from cacao.hosting import host as host_anywhere
from cacao.protocol import CloseCode
from cacao.recording.disguise import Disguise
from cacao.recording.sealed import SealedRun
from cacao.recording.tape import Entry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cacao.app import App
    from cacao.connection import Connection
    from cacao.peer import Peer
    from cacao.recording.tape import Tape
    from cacao.reports import ErrorReport

__all__ = ["Recorder", "open_recorder", "record"]

# Digits of a second in a file: what comes in comes at a whole microsecond.
DIGITS = 6
# Real seconds between two looks at real I/O, which tells nobody that it has come.
_POLL = 0.005

_log = logging.getLogger("cacao")


class Recorder:
    """Serves connections as a `Runtime` does, from a sealed run, and writes all of it down.

    Before anything comes in, the run's time is brought to the real one: each deadline that has
    come due meanwhile is met at its exact moment.

    Args:
        app: The app.
        tape: The file, which has the seed and the start of the run.
        token: Of the trio run around, which is woken when a thread's work is done.
    """

    def __init__(self, app: App, tape: Tape, token: trio.lowlevel.TrioToken) -> None:
        self._app = app
        self._tape = tape
        self._disguise = Disguise(app)
        self._lines: dict[int, _Line] = {}
        self._count = 0
        self._stir = trio.Event()
        self._has_warned = self._has_ended = False
        seed, start = tape.header.seed, tape.header.start
        knock = partial(token.run_sync_soon, self._wake)
        self._run = SealedRun(app, seed, start, self._deliver, knock)
        self._began: float | None = None

    # --- A runtime, to the edge ----------------------------------------------------------------

    async def serve(self, connection: Connection) -> None:
        """Give one connection its session; returns when the connection has ended."""
        self._count += 1
        client = self._count
        line = self._lines[client] = _Line()
        try:
            peer, subprotocol = connection.peer, connection.subprotocol
            self._disguise.secrets.learn_credentials(peer)
            now = self._catch_up()
            self._enter(Entry(now, "open", self._facts(subprotocol, peer), client))
            self._run.open(client, subprotocol, peer)
            self._pass_on()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, client, connection)
                await self._write(client, line, connection)
                nursery.cancel_scope.cancel()
        except ConnectionClosed:
            pass  # the run is over
        finally:
            self._lose(client, *RESTART)
            with trio.move_on_after(1, shield=True):
                await connection.close(*line.closing)

    def drain(self) -> None:
        """Close every session with 1012: the server is about to end."""
        self._enter(Entry(self._catch_up(), "drain"))
        self._run.drain()
        self._pass_on()

    # --- In ------------------------------------------------------------------------------------

    def _facts(self, subprotocol: str | None, peer: Peer) -> dict[str, Any]:
        """Give what is kept of a handshake: no headers, no cookies, no address."""
        key = peer.user_key
        user = None if key is None else self._disguise.secrets.mask_text(key)
        return {"subprotocol": subprotocol, "query": peer.query, "user": user}

    async def _read(self, client: int, connection: Connection) -> None:
        try:
            while True:
                text = await connection.receive()
                now = self._catch_up()
                shown, secrets = self._disguise.of_client(text)
                self._enter(Entry(now, "in", shown, client, secrets))
                self._run.put(client, text)
                self._pass_on()
        except ConnectionClosed as closed:
            self._lose(client, closed.code, closed.reason)

    def _lose(self, client: int, code: int, reason: str) -> None:
        """Let the run know that a client has gone, unless the run has closed it."""
        line = self._lines.pop(client, None)
        if line is not None and not line.is_over and not self._has_ended:
            self._enter(Entry(self._catch_up(), "close", [int(code), reason], client))
            self._run.hang_up(client, code, reason)
            line.end(code, reason)
            line.tell()
            self._pass_on()

    def _enter(self, entry: Entry) -> None:
        """Write down what comes in, and bring the run to its moment, with no deadline between."""
        self._tape_it(entry)
        self._run.advance_to(entry.at)

    def _now(self) -> float:
        """Give the seconds since the first client came: as in a test, time begins with it."""
        if self._began is None:
            if not self._count:
                return 0.0
            self._began = trio.current_time()
        return round(trio.current_time() - self._began, DIGITS)

    def _catch_up(self) -> float:
        """Meet all deadlines that have come due, and let in what threads have done.

        Raises:
            ConnectionClosed: The run has ended.
        """
        if self._has_ended:
            raise ConnectionClosed(*RESTART)
        now = self._now()
        self._run.pass_deadlines(now)
        waiting = self._run.door.waiting
        if waiting:
            self._enter(Entry(now, "outside", waiting))
            self._run.let_in(waiting)
        return now

    async def keep_time(self) -> None:
        """Bring the run to the real time whenever something is due in it, until that has ended."""
        while not self._has_ended:
            self._stir = trio.Event()
            if self._run.waits_for_io:
                self._run.advance_to(self._now())
                self._run.settle()
            self._catch_up()
            self._tell_lines()
            due = (
                max(self._run.next_deadline - self._now(), 10**-DIGITS) if self._count else math.inf
            )
            with trio.move_on_after(min(due, _POLL) if self._run.waits_for_io else due):
                await self._stir.wait()

    def _wake(self) -> None:
        """Let `keep_time` look again at what is due."""
        self._stir.set()

    def _pass_on(self) -> None:
        """Let the sockets have what the run has delivered, and its next deadline be looked at.

        Not done as it is delivered: inside the run, the tasks of the server are out of reach.
        """
        self._tell_lines()
        self._wake()

    def _tell_lines(self) -> None:
        for line in self._lines.values():
            line.tell()

    # --- Out -----------------------------------------------------------------------------------

    def _deliver(self, client: int, kind: str, said: str | tuple[int, str] | ErrorReport) -> None:
        line = self._lines.get(client)
        if line is not None and isinstance(said, str):
            line.put(said)
        elif line is not None and isinstance(said, tuple):
            line.end(*said)
        shown = self._disguise.of_app(said, self._run.sessions)
        self._tape_it(Entry(round(self._run.time, DIGITS), kind, shown, client))
        if self._disguise.secrets.was_echoed and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "the app sends its users a secret that one has typed (to client %s); "
                "it is masked in the recording",
                client,
            )

    async def _write(self, client: int, line: _Line, connection: Connection) -> None:
        """Send what the run delivers, until either side has closed."""
        try:
            while (text := await line.take()) is not None:
                with trio.fail_after(self._app.limits.send_timeout):
                    await connection.send(text)
        except ConnectionClosed as closed:
            self._lose(client, closed.code, closed.reason)
        except trio.TooSlowError:
            self._lose(client, CloseCode.POLICY, "the client takes nothing")

    def _tape_it(self, entry: Entry) -> None:
        if self._has_ended:
            return
        was_full = self._tape.is_full
        self._tape.write(entry)
        if self._tape.is_full and not was_full:
            _log.warning("the recording is full, and ends here; the app goes on")

    def close(self) -> None:
        """End the run, and the recording with it; the second time it is nothing."""
        if self._has_ended:
            return
        self._tape_it(Entry(self._catch_up(), "end"))
        self._has_ended = True
        self._lines.clear()
        self._run.close()
        self._wake()


class _Line:
    """What is on its way to one real socket.

    Attributes:
        closing: The code and the reason to close it with.
        is_over: Whether the run has closed it.
    """

    def __init__(self) -> None:
        self.closing: tuple[int, str] = RESTART
        self.is_over = False
        self._texts: list[str] = []
        self._news = trio.Event()

    def put(self, text: str) -> None:
        """Send a text, later."""
        self._texts.append(text)

    def end(self, code: int, reason: str) -> None:
        """Send no more than what was put before, and close."""
        self.closing = code, reason
        self.is_over = True

    def tell(self) -> None:
        """Wake who waits for something to send; in the server's own trio run."""
        if self._texts or self.is_over:
            self._news.set()

    async def take(self) -> str | None:
        """Wait for the next text; None when there are no more."""
        while not self._texts:
            if self.is_over:
                return None
            self._news = trio.Event()
            await self._news.wait()
        return self._texts.pop(0)


def record(app: App, tape: Tape, *, host: str, port: int) -> None:
    """Serve an app until SIGINT or SIGTERM, and write down what happens.

    Args:
        app: The app.
        tape: The file.
        host: Address to listen on.
        port: TCP port; 0 picks a free one.

    Raises:
        HostingError: The address cannot be had.
    """
    # To the edge a recorder is a runtime: it serves and drains.
    open_run = cast("Any", partial(open_recorder, app, tape))
    server.run(host_anywhere(app.edge(open_run)), host=host, port=port)


@asynccontextmanager
async def open_recorder(app: App, tape: Tape) -> AsyncIterator[Recorder]:
    """Run an app for a server as long as the block lasts, and write down what happens."""
    recorder = Recorder(app, tape, trio.lowlevel.current_trio_token())
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(recorder.keep_time)
            yield recorder
            nursery.cancel_scope.cancel()
    finally:
        recorder.close()
