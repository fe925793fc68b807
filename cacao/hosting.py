"""Trio under whatever runs us.

How it works. An ASGI application written for trio is called by a server that runs trio, and then
nothing is between them, or by a server that runs asyncio. In that case one trio run lives as the
guest of the server's loop (`trio.lowlevel.start_guest_run`): both take turns in one thread, so
either may call the other's synchronous functions, and only an `await` has to cross the border.

- `_Guest` is that run: one per loop, whoever asks for it, because trio allows one per thread.
- `_Residence` is one application's life in it: lifespan startup, its calls, lifespan shutdown.
- `_Call` is one ASGI call: one trio task, and the server's asyncio task that outlasts it. What
  happens in a call reaches nobody but its server, through one future.

Crossings are few because both directions run ahead a little: the messages of a websocket are pumped
into an inbox of four. A send that a server takes without waiting is done in place, once a turn; one
that has to wait goes on while the app does, and the next send waits for it. Only the loop's turns
refill these bounds, so a busy task still takes turns with the others.

A server without lifespan has one played to its application: the first call is its startup, and the
teardown of the loop, which cancels the task that plays it, its shutdown.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from typing import TYPE_CHECKING, Any

import trio

from cacao.errands import Border, Errand, from_asyncio, share_thread, take_first_step
from cacao.errors import HostingError
from cacao.turns import Turns

if TYPE_CHECKING:
    from outcome import Outcome

__all__ = ["ASGIApp", "Message", "Receive", "Scope", "Send", "TrioASGI", "from_asyncio", "host"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
TrioASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Coroutine[Any, Any, None]]

_INBOX_SIZE = 4
_STARTED = "lifespan.startup.complete"

_log = logging.getLogger(__name__)


def host(app: TrioASGI) -> ASGIApp:
    """Give an ASGI 3 application that runs `app` under trio servers and asyncio servers alike.

    Which of the two is found out at each call. Under trio, `app` is awaited in place. Under
    asyncio it runs in a trio run that is the guest of the server's loop, from lifespan startup to
    lifespan shutdown; a server that has no lifespan starts it by its first call, and it ends when
    `asyncio.run` (or whoever owns the loop) cancels what is left.

    Cancelling the server's task cancels the trio task, and ends after it: `finally` blocks with
    shielded awaits have run by then. A send of any message but the last of a call may return before
    the server has taken it; the server's error is then raised by the next send, or ends the call,
    and a send that is cancelled while it waits takes that message back, too. An exception that
    `app` raises goes to the server; in its lifespan it is logged and answered as
    `lifespan.startup.failed` or `lifespan.shutdown.failed`.

    Args:
        app: `async def app(scope, receive, send)`; `scope["type"]` is "lifespan", "http" or
            "websocket".

    Raises:
        HostingError: By a call, when trio cannot run here, when the application did not start or
            is shutting down, or when the guest run has crashed.
    """
    residences: dict[asyncio.AbstractEventLoop, _Residence] = {}

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if trio.lowlevel.in_trio_task():
            await app(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _Residence(app, scope, residences).serve_lifespan(receive, send)
        else:
            residence = residences.get(asyncio.get_running_loop())
            if residence is None:
                residence = _Residence(app, _lifespan_scope(), residences)
                residence.play_lifespan()
            await residence.call(scope, receive, send)

    return asgi


def _let_it_wait() -> None:
    """Do nothing about a cancellation."""


async def _outlast(
    future: asyncio.Future[None], on_cancel: Callable[[], object] = _let_it_wait
) -> None:
    """Wait until `future` is done, however often the waiting task is cancelled.

    `on_cancel` is called at each cancellation, and that is raised at the end, unless the future
    holds an exception to be raised.
    """
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await _done(future)
        except asyncio.CancelledError as error:
            cancellation = error
            on_cancel()
    future.result()
    if cancellation is not None:
        raise cancellation


async def _done(future: asyncio.Future[None]) -> None:
    """Wait until `future` is done; cancelling leaves it alone.

    As `asyncio.wait` does for many, in a third of the memory: each open call waits here.
    """
    waiter = asyncio.get_running_loop().create_future()

    def wake(_: object) -> None:
        if not waiter.done():
            waiter.set_result(None)

    future.add_done_callback(wake)
    try:
        await waiter
    finally:
        future.remove_done_callback(wake)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def _without_cancelled(error: BaseException) -> BaseException | None:
    """Strip what is trio's own business, and must never be put into an asyncio future."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)[1]
    return None if isinstance(error, trio.Cancelled) else error


# One for each loop and not for each app: trio allows one run per thread, so that two apps mounted
# in one server have to share it.
_guests: dict[asyncio.AbstractEventLoop, _Guest] = {}


class _Guest:
    """The one trio run in an asyncio loop; it ends with its last residence."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.turns = Turns(loop)
        self.border: Border
        self._crash: BaseException | None = None
        self._residences = 0
        self._vacated = trio.Event()
        self._promises: set[asyncio.Future[None]] = set()
        self._opened = self.promise()
        self.ended = self.promise()
        self._nursery: trio.Nursery

    @classmethod
    async def admit(cls, residence: _Residence) -> _Guest:
        """Let a residence live in the run of this loop; start one where there is none."""
        loop = asyncio.get_running_loop()
        while (guest := _guests.get(loop)) is not None and guest.is_ending():
            await asyncio.wait((guest.ended,))
        if guest is None:
            guest = cls(loop)
            guest.start()
            _guests[loop] = guest
        await guest.take_in(residence)
        return guest

    def is_ending(self) -> bool:
        """Whether nobody can be admitted any more."""
        return self._vacated.is_set()

    def start(self) -> None:
        """Start the run."""
        try:
            trio.lowlevel.start_guest_run(
                self._main,
                run_sync_soon_threadsafe=self._loop.call_soon_threadsafe,
                run_sync_soon_not_threadsafe=self.turns.soon,
                done_callback=self._run_ended,
                host_uses_signal_set_wakeup_fd=True,
                clock=self.turns,
            )
        except RuntimeError as error:
            raise HostingError(
                "trio is already running in this thread, and not as a guest that Cacao started; "
                "end that run first, or serve the app from a thread of its own"
            ) from error

    async def _main(self) -> None:
        self.border = share_thread(self._loop)
        try:
            async with trio.open_nursery() as self._nursery:
                self._opened.set_result(None)
                await self._vacated.wait()
        finally:
            self.turns.stop()

    async def take_in(self, residence: _Residence) -> None:
        """Spawn a residence, as soon as there is a nursery for it."""
        self._residences += 1
        try:
            await asyncio.wait((self._opened,))
            self.check()
        except BaseException:
            self._leave()
            raise
        self._nursery.start_soon(self._house, residence)

    async def _house(self, residence: _Residence) -> None:
        await residence.live()
        self._leave()
        if self._residences:
            residence.has_left.set_result(None)  # otherwise the end of the run does it

    def _leave(self) -> None:
        self._residences -= 1
        if not self._residences:
            self._vacated.set()

    def promise(self) -> asyncio.Future[None]:
        """Make a future that is done at the latest when the run is, even by a crash."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._promises.add(future)
        future.add_done_callback(self._promises.discard)
        return future

    def check(self) -> None:
        """Raise HostingError if the run has crashed."""
        if self._crash is not None:
            raise _crash_report(self._crash) from self._crash

    def _run_ended(self, outcome: Outcome[None]) -> None:
        del _guests[self._loop]
        self.turns.stop()  # again, for a crash has not let `_main` do it
        try:
            outcome.unwrap()
        except BaseException as error:  # noqa: BLE001 - passed on to every call
            _log.critical("trio's guest run crashed; every call of its apps fails", exc_info=error)
            self._crash = error
        for promise in list(self._promises):
            self._keep(promise)
        if self._crash is not None and not isinstance(self._crash, Exception):
            raise KeyboardInterrupt from self._crash  # the host loop's to handle

    def _keep(self, promise: asyncio.Future[None]) -> None:
        if self._crash is None:
            promise.set_result(None)
        else:
            promise.set_exception(_crash_report(self._crash))
            promise.exception()  # it is logged already, should nobody ask


def _crash_report(crash: BaseException) -> HostingError:
    return HostingError(
        f"trio's guest run crashed: {crash!r}; the log has its traceback; restart the process"
    )


class _Residence:
    """One application's life in one asyncio loop: startup, its calls, shutdown."""

    def __init__(
        self, app: TrioASGI, scope: Scope, register: dict[asyncio.AbstractEventLoop, _Residence]
    ) -> None:
        self._app = app
        self._lifespan = _Lifespan(app, scope)
        self._loop = asyncio.get_running_loop()
        self._register = register
        register[self._loop] = self
        self._is_decided = asyncio.Event()
        self._reply = _failed("startup", "it was cancelled")
        self._starting = trio.CancelScope()
        self._stop = trio.Event()
        self._guest: _Guest | None = None
        self._is_ready: asyncio.Future[None]
        self.has_left: asyncio.Future[None]
        self._calls: trio.Nursery

    # On the asyncio side

    async def serve_lifespan(self, receive: Receive, send: Send) -> None:
        """Answer a server's lifespan call."""
        await receive()
        async with self._run():
            if self._has_started():
                await send(self._reply)
                await receive()
        # Only now, when the run has ended: a server stops its loop as soon as it has read this.
        await send(self._reply)

    def play_lifespan(self) -> None:
        """Stand in for the lifespan call of a server that makes none."""
        # In an empty context: the app's life must not inherit that of its first request.
        self._player = self._loop.create_task(self._play(), context=contextvars.Context())

    async def _play(self) -> None:
        async with self._run():
            if self._has_started():
                await self._loop.create_future()  # until the loop's teardown cancels this task

    @contextlib.asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        try:
            await self._open()
            yield
        finally:
            await self._close()

    async def _open(self) -> None:
        try:
            self._guest = await _Guest.admit(self)
            self._is_ready, self.has_left = self._guest.promise(), self._guest.promise()
            await _outlast(self._is_ready, self._starting.cancel)
        except HostingError as error:
            self._reply = _failed("startup", error)
        finally:
            self._is_decided.set()

    async def _close(self) -> None:
        try:
            if self._guest is not None:
                self._guest.check()
                self._stop.set()
                await _outlast(self.has_left)
        except HostingError as error:
            self._reply = _failed("shutdown" if self._has_started() else "startup", error)
        finally:
            self._register.pop(self._loop, None)

    def _has_started(self) -> bool:
        return bool(self._reply["type"] == _STARTED)

    async def call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the application answer one http or websocket call."""
        await self._is_decided.wait()
        call = _Call(self._app, scope, receive, send, self._open_guest(), self._stop)
        self._calls.start_soon(call.run)
        await call.outlast()

    def _open_guest(self) -> _Guest:
        if self._guest is not None:
            self._guest.check()
            if self._has_started() and not self._stop.is_set():
                return self._guest
        why = self._reply.get("message", "it is shutting down")
        raise HostingError(f"the app takes no calls: {why}; see the log, then restart the server")

    # On the trio side

    async def live(self) -> None:
        """Run the application's lifespan around its calls, until `_close` or a failed startup."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._lifespan.run)
            with self._starting:
                self._reply = await self._lifespan.ask("startup")
            self._is_ready.set_result(None)
            if self._has_started():
                await self._take_calls()
                self._reply = await self._lifespan.ask("shutdown")
            nursery.cancel_scope.cancel()

    async def _take_calls(self) -> None:
        async with trio.open_nursery() as self._calls:
            await self._stop.wait()
            self._calls.cancel_scope.cancel()


class _Lifespan:
    """The application's own lifespan call, on the trio side."""

    def __init__(self, app: TrioASGI, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._failure: BaseException | None = None
        self._to_app, self._questions = trio.open_memory_channel[Message](2)
        self._from_app, self._replies = trio.open_memory_channel[Message](2)

    async def run(self) -> None:
        """Call the application; an error is logged here and reported by `ask`."""
        with self._from_app:
            try:
                await self._app(self._scope, self._questions.receive, self._from_app.send)
            except BaseException as error:  # noqa: BLE001 - it must not reach the other apps
                self._failure = _without_cancelled(error)
        if self._failure is not None:
            _log.error("the app's lifespan failed", exc_info=self._failure)

    async def ask(self, phase: str) -> Message:
        """Ask for startup or shutdown and return the answer.

        An application that has ended without an answer had nothing to do, or has failed.
        """
        self._to_app.send_nowait({"type": f"lifespan.{phase}"})
        try:
            return await self._replies.receive()
        except trio.EndOfChannel:
            if self._failure is None:
                return {"type": f"lifespan.{phase}.complete"}
            return _failed(phase, self._failure)


def _failed(phase: str, why: object) -> Message:
    message = f"{type(why).__name__}: {why}" if isinstance(why, BaseException) else why
    return {"type": f"lifespan.{phase}.failed", "message": message}


def _lifespan_scope() -> Scope:
    return {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}


class _Call:
    """One http or websocket call: a trio task, and the server's asyncio task that outlasts it."""

    __slots__ = (
        "_app",
        "_border",
        "_cancel_scope",
        "_done",
        "_inbox",
        "_scope",
        "_send_by_server",
        "_sending",
        "_sent_at",
        "_stop",
        "_turns",
    )

    def __init__(
        self,
        app: TrioASGI,
        scope: Scope,
        receive: Receive,
        send: Send,
        guest: _Guest,
        stop: trio.Event,
    ) -> None:
        self._app = app
        self._scope = scope
        # An http body is fetched when asked for: reading on would answer "Expect: 100-continue".
        ahead = _INBOX_SIZE if scope["type"] == "websocket" else 0
        self._inbox = _Inbox(receive, ahead, guest.turns)
        self._send_by_server = send
        self._sending: Errand[None] | None = None
        self._border = guest.border
        self._turns = guest.turns
        self._sent_at = 0
        self._stop = stop
        self._cancel_scope = trio.CancelScope()
        self._done = guest.promise()

    # On the asyncio side

    async def outlast(self) -> None:
        """Wait for the trio task's end; cancelling cancels it and waits on."""
        pump = self._border.loop.create_task(self._inbox.pump())
        try:
            await _outlast(self._done, self._cancel_scope.cancel)
        finally:
            await _end([pump] if self._sending is None else [pump, self._sending.task])

    # On the trio side

    async def run(self) -> None:
        """Call the application; whatever it does ends here, in the future of this call."""
        failure: BaseException | None = None
        try:
            with self._cancel_scope:
                failure = await self._failure_of_app()
                await self._sent()
        except BaseException as error:  # noqa: BLE001 - it must not reach the other calls
            failure = failure or _without_cancelled(error)
            if failure is None and not self._stop.is_set():
                return  # the run itself is crashing; its end keeps the promise
        self._resolve(failure)

    async def _failure_of_app(self) -> Exception | None:
        try:
            await self._app(self._scope, self._inbox.take, self._send)
        except Exception as error:  # noqa: BLE001 - it is the server's to handle
            return error
        return None

    def _resolve(self, failure: BaseException | None) -> None:
        # Trio abandons its tasks in the worst of crashes; they get here when they are collected.
        with contextlib.suppress(asyncio.InvalidStateError):
            if failure is None:
                self._done.set_result(None)
            else:
                self._done.set_exception(failure)

    async def _send(self, message: Message) -> None:
        if self._sending is None:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await self._sent()
        delivery = self._begin_sending(message)
        if delivery is not None:
            await self._go_on_sending(delivery, message)

    def _begin_sending(self, message: Message) -> Awaitable[None] | None:
        delivery = self._send_by_server(message)
        # Once in each turn: a task that sends on and on must wait for the loop, and let others in.
        if self._sent_at == self._turns.count:
            return delivery
        self._sent_at = self._turns.count
        return take_first_step(delivery)

    async def _go_on_sending(self, delivery: Awaitable[None], message: Message) -> None:
        self._sending = Errand(self._border, delivery)
        # Others are delivered while the app works on. The last one, and those of a cancelled app,
        # which has no time, are waited for under the deadlines that the app has set itself.
        if _is_last(message) or self._cancel_scope.cancel_called:
            await self._sent()

    async def _sent(self) -> None:
        """Wait until nothing is on its way; a wait that is cancelled takes back what is."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while (sending := self._sending) is not None:
            try:
                await sending.result()
            except HostingError:
                if not sending.is_taken_back:  # by another task that waited: nothing is on its way
                    raise
            finally:
                if self._sending is sending:
                    self._sending = None


def _is_last(message: Message) -> bool:
    """Whether the application may end after this message without sending another."""
    kind = message["type"]
    return kind == "websocket.close" or (kind.endswith(".body") and not message.get("more_body"))


class _Inbox:
    """What a call has received from its server and its application has not yet taken.

    It holds `ahead` messages, and one more for each task that waits for one.
    """

    __slots__ = (
        "_ahead",
        "_failure",
        "_messages",
        "_pump_wakes",
        "_receive",
        "_takers",
        "_turns",
    )

    def __init__(self, receive: Receive, ahead: int, turns: Turns) -> None:
        self._receive = receive
        self._ahead = ahead
        self._turns = turns
        self._messages: list[Message] = []
        self._failure: Exception | None = None
        # Where a ParkingLot and an Event would read better: they are 1.2 KiB for each connection.
        self._takers: list[trio.lowlevel.Task] = []
        self._pump_wakes: asyncio.Future[None] | None = None

    async def pump(self) -> None:
        """Receive until cancelled; on the asyncio side."""
        try:
            while True:
                await self._until_room()
                self._messages.append(await self._receive())
                self._turns.run(self._wake_taker)
        except Exception as error:  # noqa: BLE001 - the app's `receive` raises it
            self._failure = error
            while self._takers:
                self._wake_taker()

    async def _until_room(self) -> None:
        while len(self._messages) >= self._ahead + len(self._takers):
            self._pump_wakes = asyncio.get_running_loop().create_future()
            await self._pump_wakes

    def _wake_taker(self) -> None:
        if self._takers:
            trio.lowlevel.reschedule(self._takers.pop(0))

    def _make_room(self) -> None:
        if self._pump_wakes is not None and not self._pump_wakes.done():
            self._pump_wakes.set_result(None)

    async def take(self) -> Message:
        """Give the next message, or raise what the server's `receive` raised; on the trio side."""
        if self._messages:
            await trio.lowlevel.checkpoint_if_cancelled()
        while not self._messages:
            if self._failure is not None:
                await trio.lowlevel.checkpoint_if_cancelled()
                raise self._failure
            await self._until_woken()
        self._make_room()
        return self._messages.pop(0)

    def _until_woken(self) -> Awaitable[object]:
        taker = trio.lowlevel.current_task()
        self._takers.append(taker)
        self._make_room()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._takers.remove(taker)
            return trio.lowlevel.Abort.SUCCEEDED

        return trio.lowlevel.wait_task_rescheduled(abort)  # noqa: ASYNC105 - `take` awaits it
