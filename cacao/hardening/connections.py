"""One TCP connection: what goes wrong in it ends it alone, and nobody can hold it for ever.

How it works, in both kinds of worker.

- Whatever hypercorn's protocols raise about a client's bytes is one line in the log.
- A write has a deadline, anew for each 64 KiB that the client takes; then the connection is cut.
- A client that sends nothing for a while is asked for a sign of life (`requests`).
- *Hanging up* says that nothing more will come, ends the reading of requests, which may wait for
  an app that has ended, and goes on for a moment to read what is thrown away: a socket that is
  closed with something unread may take its last words, a close code, from the client.
- When the worker begins to end, each connection is given the `graceful_timeout` and no more.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.asyncio.tcp_server import TCPServer as AsyncioServer
from hypercorn.events import Closed, RawData
from hypercorn.trio.tcp_server import TCPServer as TrioServer

from cacao.hardening.shutdown import hear_of_shutdown, stop_hearing

if TYPE_CHECKING:
    from hypercorn.events import Event

    from cacao.hardening.requests import Probed

__all__ = ["AsyncioConnection", "TrioConnection"]

_MAX_RECEIVE = 2**16

# A client must take this many bytes within so many seconds.
_PIECE = 2**16
_WRITE_SECONDS = 10.0

# After so many seconds without a byte the client is asked for one, and after as many again cut.
_SILENCE_SECONDS = 20.0

# What still comes after we have hung up is thrown away for so long.
_LINGER_SECONDS = 1.0

_GONE = (trio.BrokenResourceError, trio.ClosedResourceError)

_log = logging.getLogger("cacao")


def _log_end(connection: AsyncioServer | TrioServer, error: BaseException) -> None:
    """Say in one line what ended a connection; a client's fault is worth no more."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if not isinstance(error, OSError):
        client = getattr(getattr(connection, "protocol", None), "client", None)
        _log.warning("cut off %s: %s: %.200r", client, type(error).__name__, str(error))
        _log.debug("it was cut off here", exc_info=error)


class AsyncioConnection(AsyncioServer):
    """A connection of the asyncio worker, with or without uvloop."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._heard_at = 0.0
        self._life = asyncio.timeout(None)
        self._ends_at = math.inf
        self._conversation: asyncio.Timeout | None = None
        self._has_hung_up = False

    async def run(self) -> None:
        """Serve the connection until it ends; raises nothing but a cancellation."""
        hear_of_shutdown(self)
        try:
            await self._live()
        except asyncio.CancelledError:
            # All has ended. By hypercorn at the end of its grace, and then the task ends as any
            # other does: of a cancelled one Python 3.11 would write a traceback to the log.
            if not self.context.terminated.is_set():
                raise
        finally:
            stop_hearing(self)

    async def _live(self) -> None:
        try:
            async with self._life:
                if self.context.terminated.is_set():
                    self.drain()
                await super().run()
        except* Exception as errors:  # noqa: BLE001 - logged; the other connections must live
            _log_end(self, errors)

    def drain(self) -> None:
        """Let the connection end within the server's grace."""
        self._ends_at = self.loop.time() + self.config.graceful_timeout
        self._life.reschedule(self._ends_at)

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for."""
        if isinstance(event, RawData):
            async with self.send_lock:
                await self._write(event.data)
        elif isinstance(event, Closed):
            async with self.send_lock:  # what was sent before goes first
                self._hang_up()
        else:
            await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        """Write all of it; a cancelled app leaves no half a frame, for the transport has it all."""
        transport = self.writer.transport
        if self._has_hung_up or transport.is_closing():
            return
        self.writer.write(data)
        waiting = transport.get_write_buffer_size()
        if not waiting:
            return
        self._expect_less_than(waiting)
        try:
            with suppress(OSError):  # the reader hears of it
                await self.writer.drain()
        finally:
            self._deadline.cancel()

    def _expect_less_than(self, waiting: int) -> None:
        at = min(self.loop.time() + _WRITE_SECONDS, self._ends_at)
        self._deadline = self.loop.call_at(at, self._check_progress, waiting)

    def _check_progress(self, before: int) -> None:
        waiting = self.writer.transport.get_write_buffer_size()
        if before - waiting < _PIECE or self.loop.time() >= self._ends_at:
            self.writer.transport.abort()
        else:
            self._expect_less_than(waiting)

    async def _read_data(self) -> None:
        """Read until the client or we hang up."""
        try:
            async with asyncio.timeout(None) as self._conversation:
                await self._converse()
        except TimeoutError:
            pass  # we have hung up, or the client is gone
        finally:
            self._conversation = None
            self._listening.cancel()
        await self.idle_task.stop()
        await self.protocol.handle(Closed())
        await self._linger()

    async def _converse(self) -> None:
        self._heard_at = self.loop.time()
        self._listen()
        data = None
        while data != b"" and not self._has_hung_up:
            try:
                data = await self.reader.read(_MAX_RECEIVE)
            except OSError:
                return
            self._heard_at = math.inf  # while we do not listen
            await self.protocol.handle(RawData(data))
            self._heard_at = self.loop.time()

    def _listen(self) -> None:
        """Ask a client that has been silent for too long; one timer, not one for each message."""
        seconds = self.config.read_timeout or _SILENCE_SECONDS
        now = self.loop.time()
        heard_at = min(self._heard_at, now)
        if now - heard_at >= seconds:
            heard_at = self._heard_at = now
            self._task_group.spawn(self._probe)
        self._listening = self.loop.call_at(heard_at + seconds, self._listen)

    async def _probe(self) -> None:
        protocol: Probed = self.protocol.protocol  # type: ignore[assignment]
        if not await protocol.probe():
            self._leave_conversation()

    def _hang_up(self) -> None:
        self._has_hung_up = True
        with suppress(OSError, RuntimeError, NotImplementedError):
            self.writer.write_eof()
        self._leave_conversation()

    def _leave_conversation(self) -> None:
        conversation, self._conversation = self._conversation, None
        if conversation is not None:
            conversation.reschedule(self.loop.time())

    async def _linger(self) -> None:
        if self._has_hung_up:
            with suppress(OSError):
                async with asyncio.timeout(_LINGER_SECONDS):
                    while await self.reader.read(_MAX_RECEIVE):
                        pass

    async def _initiate_server_close(self) -> None:
        await self.protocol.handle(Closed())
        await self.protocol_send(Closed())

    async def _close(self) -> None:
        deadline = self.loop.call_later(_LINGER_SECONDS, self.writer.transport.abort)
        try:
            await super()._close()
        finally:
            deadline.cancel()


class TrioConnection(TrioServer):
    """A connection of the trio worker."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._ends_at = math.inf
        self._writing = trio.CancelScope()
        self._conversation = trio.CancelScope()
        self._has_hung_up = False

    async def run(self) -> None:
        """Serve the connection until it ends; raises nothing but a cancellation."""
        hear_of_shutdown(self)
        try:
            if self.context.terminated.is_set():
                self.drain()
            await super().run()
        except* Exception as errors:  # noqa: BLE001 - logged; the other connections must live
            _log_end(self, errors)
        finally:
            stop_hearing(self)

    def drain(self) -> None:
        """Let a write under way end within the server's grace; the server cancels the rest."""
        self._ends_at = trio.current_time() + self.config.graceful_timeout
        self._writing.deadline = min(self._writing.deadline, self._ends_at)

    async def protocol_send(self, event: Event) -> None:
        """Do what the protocol asks for."""
        if isinstance(event, RawData):
            async with self.send_lock:
                await self._write(event.data)
            return
        # Shielded, because an app that has answered may be cancelled: the client would wait for
        # the end, and an idle connection would have no timer.
        with trio.CancelScope(shield=True):
            if isinstance(event, Closed):
                async with self.send_lock:  # what was sent before goes first
                    self._hang_up()
            else:
                await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        """Write all of it, also if cancelled: half a frame would spoil the next one."""
        if self._has_hung_up:
            return
        try:
            for start in range(0, len(data), _PIECE):
                deadline = min(trio.current_time() + _WRITE_SECONDS, self._ends_at)
                with trio.CancelScope(shield=True, deadline=deadline) as self._writing:
                    await self.stream.send_all(data[start : start + _PIECE])
                if self._writing.cancelled_caught:
                    raise trio.BrokenResourceError
        except _GONE:
            self._conversation.cancel()
            await trio.aclose_forcefully(self.stream)

    async def _read_data(self) -> None:
        """Read until the client or we hang up."""
        with self._conversation:
            await self._converse()
        await self.idle_task.stop()
        await self.protocol.handle(Closed())
        await self._linger()

    async def _converse(self) -> None:
        data = None
        while data != b"" and not self._has_hung_up:
            try:
                with trio.fail_after(self.config.read_timeout or _SILENCE_SECONDS):
                    data = await self.stream.receive_some(_MAX_RECEIVE)
            except trio.TooSlowError:
                protocol: Probed = self.protocol.protocol  # type: ignore[assignment]
                if not await protocol.probe():
                    return
            except _GONE:
                return
            else:
                await self.protocol.handle(RawData(bytes(data)))

    def _hang_up(self) -> None:
        self._has_hung_up = True
        self._conversation.cancel()
        if isinstance(self.stream, trio.SocketStream):  # TLS cannot end one direction alone
            with suppress(OSError):
                self.stream.socket.shutdown(socket.SHUT_WR)

    async def _linger(self) -> None:
        if self._has_hung_up:
            with trio.move_on_after(_LINGER_SECONDS), suppress(*_GONE):
                while await self.stream.receive_some(_MAX_RECEIVE):
                    pass

    async def _initiate_server_close(self) -> None:
        await self.protocol.handle(Closed())
        await self.protocol_send(Closed())

    async def _close(self) -> None:
        with trio.move_on_after(_LINGER_SECONDS):  # TLS says goodbye, and may have to wait for that
            await super()._close()
