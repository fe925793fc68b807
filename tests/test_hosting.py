"""One trio application under a trio server and under an asyncio server, both written by hand."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import logging
import signal
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from cacao.errors import HostingError
from cacao.hosting import ASGIApp, Message, Receive, Scope, Send, TrioASGI, _outlast, host

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

KINDS = ["http", "websocket"]
PATIENCE = 10  # seconds until a test that hangs fails
_LAST: dict[str, Message] = {
    "http": {"type": "http.response.body", "body": b"bye"},
    "websocket": {"type": "websocket.close", "code": 1000},
}


def on_asyncio(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an asyncio loop of its own, which is torn down as a server's is."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE):
                await test(**fixtures)

        asyncio.run(bounded())

    return run


class ServerCall:
    """A call of an asyncio server: what it receives we put, what it sends we get."""

    def __init__(self, asgi: ASGIApp, scope: Scope) -> None:
        self.incoming: asyncio.Queue[Message | Exception] = asyncio.Queue()
        self.outgoing: asyncio.Queue[Message] = asyncio.Queue()
        self.failures: list[BaseException] = []
        self.fails_late = True
        self.received = 0
        self.taken_back = 0
        self.taking_messages = asyncio.Event()
        self.taking_messages.set()
        self.task = asyncio.get_running_loop().create_task(asgi(scope, self._receive, self._send))

    async def _receive(self) -> Message:
        message = await self.incoming.get()
        self.received += 1
        if isinstance(message, Exception):
            raise message
        return message

    async def _send(self, message: Message) -> None:
        try:
            await self.taking_messages.wait()
        except asyncio.CancelledError:
            self.taken_back += 1
            raise
        if self.failures:
            if self.fails_late:
                await asyncio.sleep(0)
            raise self.failures.pop()
        await self.outgoing.put(message)

    def put(self, kind: str, **fields: Any) -> None:
        self.incoming.put_nowait({"type": kind, **fields})

    async def get(self) -> str:
        return str((await self.outgoing.get())["type"])


def open_call(asgi: ASGIApp, kind: str = "http", **fields: Any) -> ServerCall:
    return ServerCall(asgi, {"type": kind, **fields})


async def start(asgi: ASGIApp, **fields: Any) -> ServerCall:
    """Make the lifespan call, and return it when the startup has been answered."""
    lifespan = open_call(asgi, "lifespan", **fields)
    lifespan.put("lifespan.startup")
    assert await lifespan.get() == "lifespan.startup.complete"
    return lifespan


async def stop(lifespan: ServerCall) -> None:
    lifespan.put("lifespan.shutdown")
    assert await lifespan.get() == "lifespan.shutdown.complete"
    await lifespan.task


async def until(condition: Callable[[], object]) -> None:
    """Let the loop go round until something holds; for what offers no event to wait for."""
    while not condition():  # noqa: ASYNC110 - it changes in the next turns, or the test times out
        await asyncio.sleep(0)


async def turns(number: int = 50) -> None:
    """Let the loop go round, for what must not happen to have had its chance."""
    for _ in range(number):
        await asyncio.sleep(0)


class Bridge:
    """Events that trio sets and asyncio waits for, or the other way round; same thread."""

    def __init__(self) -> None:
        self.in_trio = trio.Event()
        self.in_asyncio = asyncio.Event()


def with_lifespan(serve: TrioASGI, log: list[str] | None = None) -> TrioASGI:
    """Give a call handler the lifespan of a well-behaved application."""
    log = [] if log is None else log

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await serve(scope, receive, send)
            return
        await receive()
        log.append("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    return app


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Handle a call without doing anything."""


# Under a trio server


async def test_under_trio_the_app_is_awaited_in_place() -> None:
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.extend((scope, receive, send, trio.lowlevel.current_task()))

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    for kind in ["lifespan", *KINDS]:
        scope = {"type": kind}
        await host(app)(scope, receive, send)
        assert seen[-4:] == [scope, receive, send, trio.lowlevel.current_task()]


async def test_under_trio_an_exception_of_the_app_reaches_the_server() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("boom")

    async def unused(*args: object) -> Any:
        raise AssertionError

    with pytest.raises(ValueError, match="boom"):
        await host(app)({"type": "http"}, unused, unused)


# The lifespan of an asyncio server


@on_asyncio
async def test_the_app_starts_and_shuts_down_with_the_server() -> None:
    log: list[str] = []
    lifespan = await start(host(with_lifespan(nothing, log)))
    assert log == ["startup"]
    await stop(lifespan)
    assert log == ["startup", "shutdown"]


@on_asyncio
async def test_shutdown_is_complete_only_when_the_trio_run_has_ended() -> None:
    lifespan = await start(host(with_lifespan(nothing)))
    assert trio.lowlevel.in_trio_run()
    lifespan.put("lifespan.shutdown")
    await lifespan.get()
    assert not trio.lowlevel.in_trio_run()
    await lifespan.task


@on_asyncio
async def test_the_state_of_the_lifespan_is_the_servers_own_dict() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["pool"] = "made by the app"

    state: dict[str, str] = {}
    await stop(await start(host(app), state=state))
    assert state == {"pool": "made by the app"}


@on_asyncio
async def test_a_failed_startup_is_reported_with_its_message() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    lifespan = open_call(host(app), "lifespan")
    lifespan.put("lifespan.startup")
    await lifespan.task
    assert await lifespan.outgoing.get() == {
        "type": "lifespan.startup.failed",
        "message": "no database",
    }
    assert not trio.lowlevel.in_trio_run()


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
@on_asyncio
async def test_an_exception_in_the_lifespan_is_reported_and_logged(
    phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != f"lifespan.{phase}":
            await send({"type": message["type"] + ".complete"})
        raise ValueError("no database")

    lifespan = open_call(host(app), "lifespan")
    lifespan.put("lifespan.startup")
    lifespan.put("lifespan.shutdown")
    await lifespan.task
    messages = [lifespan.outgoing.get_nowait() for _ in range(lifespan.outgoing.qsize())]
    assert messages[-1] == {
        "type": f"lifespan.{phase}.failed",
        "message": "ValueError: no database",
    }
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "no database" in caplog.text


@on_asyncio
async def test_an_app_that_is_not_interested_in_lifespan_is_served_all_the_same() -> None:
    asgi = host(nothing)
    lifespan = await start(asgi)
    await open_call(asgi).task
    await stop(lifespan)


@on_asyncio
async def test_a_server_that_drops_its_lifespan_call_still_gets_the_app_shut_down() -> None:
    log: list[str] = []
    lifespan = await start(host(with_lifespan(nothing, log)))
    lifespan.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lifespan.task
    assert log == ["startup", "shutdown"]
    assert not trio.lowlevel.in_trio_run()


@on_asyncio
async def test_a_startup_that_takes_too_long_is_cancelled_with_the_servers_call() -> None:
    log: list[str] = []
    entered = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            entered.set()
            await trio.sleep_forever()
        finally:
            log.append("cleaned up")

    lifespan = open_call(host(app), "lifespan")
    lifespan.put("lifespan.startup")
    await entered.wait()
    lifespan.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lifespan.task
    assert log == ["cleaned up"]


@on_asyncio
async def test_a_call_that_is_cancelled_before_trio_runs_leaves_no_run_behind() -> None:
    lifespan = open_call(host(with_lifespan(nothing)), "lifespan")
    lifespan.put("lifespan.startup")
    await until(trio.lowlevel.in_trio_run)
    lifespan.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await lifespan.task
    await stop(await start(host(with_lifespan(nothing))))


# A server without lifespan


def test_without_lifespan_the_first_call_starts_the_app_and_the_teardown_ends_it() -> None:
    log: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        log.append("call")

    async def server() -> None:
        asgi = host(with_lifespan(serve, log))
        await open_call(asgi).task
        await open_call(asgi).task

    asyncio.run(server())
    assert log == ["startup", "call", "call", "shutdown"]


def test_without_lifespan_the_teardown_ends_open_calls_before_the_app() -> None:
    log: list[str] = []

    async def server() -> None:
        entered = asyncio.Event()

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                entered.set()
                await receive()
            finally:
                with trio.CancelScope(shield=True):
                    await trio.lowlevel.checkpoint()
                    log.append("call ended")

        open_call(host(with_lifespan(serve, log)), "websocket")
        await entered.wait()

    asyncio.run(server())
    assert log == ["startup", "call ended", "shutdown"]


@on_asyncio
async def test_calls_that_come_together_wait_for_one_startup() -> None:
    log: list[str] = []
    asgi = host(with_lifespan(nothing, log))
    calls = [open_call(asgi, kind) for kind in KINDS * 2]
    await asyncio.gather(*(call.task for call in calls))
    assert log == ["startup"]


@on_asyncio
async def test_without_lifespan_a_failed_startup_is_told_and_tried_again() -> None:
    attempts: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        attempts.append(str((await receive())["type"]))
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    asgi = host(app)
    for _ in range(2):
        with pytest.raises(HostingError, match="no database"):
            await open_call(asgi).task
        await turns()
    assert attempts == ["lifespan.startup"] * 2


@on_asyncio
async def test_the_first_request_does_not_lend_its_context_to_the_app() -> None:
    variable = contextvars.ContextVar("variable", default="default")
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(f"{scope['type']}: {variable.get()}")

    variable.set("of the request")
    await open_call(host(app)).task
    assert seen == ["lifespan: default", "http: of the request"]


# Calls


@pytest.mark.parametrize("kind", KINDS)
@on_asyncio
async def test_messages_pass_both_ways_and_the_call_returns(kind: str) -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "answer", "to": await receive()})
        await send(_LAST[kind])

    call = open_call(host(with_lifespan(serve)), kind)
    call.put("question")
    await call.task
    assert await call.outgoing.get() == {"type": "answer", "to": {"type": "question"}}
    assert await call.outgoing.get() == _LAST[kind]


@on_asyncio
async def test_a_server_with_eager_tasks_is_served_alike() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "answer", "to": await receive()})

    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory", None))
    call = open_call(host(with_lifespan(serve)), "websocket")
    call.put("question")
    await call.task
    assert await call.get() == "answer"


@pytest.mark.parametrize("kind", KINDS)
@on_asyncio
async def test_an_exception_reaches_its_server_call_and_no_other(kind: str) -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if "path" in scope:
            raise ValueError("boom")

    asgi = host(with_lifespan(serve))
    healthy, failing = open_call(asgi, kind), open_call(asgi, kind, path="/boom")
    failing.put("go")
    with pytest.raises(ValueError, match="boom"):
        await failing.task
    healthy.put("go")
    await healthy.task


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("times", [1, 3])
@on_asyncio
async def test_a_cancelled_server_call_ends_after_the_cleanup_of_the_app(
    kind: str, times: int
) -> None:
    log: list[str] = []
    entered = asyncio.Event()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            entered.set()
            await receive()
        finally:
            with trio.CancelScope(shield=True):
                for _ in range(20):
                    await trio.lowlevel.checkpoint()
                await send({"type": "websocket.send", "text": "last words"})
                log.append("cleaned up")

    call = open_call(host(with_lifespan(serve)), kind)
    call.taking_messages.clear()
    await entered.wait()
    for _ in range(times):
        call.task.cancel()
        await turns()
    call.taking_messages.set()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert log == ["cleaned up"]
    assert call.outgoing.get_nowait()["text"] == "last words"


@pytest.mark.parametrize("kind", KINDS)
@on_asyncio
async def test_an_app_may_outlive_the_disconnect(kind: str) -> None:
    bridge = Bridge()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        bridge.in_asyncio.set()
        await bridge.in_trio.wait()

    call = open_call(host(with_lifespan(serve)), kind)
    call.put(f"{kind}.disconnect")
    await bridge.in_asyncio.wait()
    await turns()
    assert not call.task.done()
    bridge.in_trio.set()
    await call.task


@on_asyncio
async def test_an_error_during_the_cancellation_reaches_the_server_without_trios_cancelled() -> (
    None
):
    entered = asyncio.Event()

    async def fail_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("disk full")

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_cancelled)
            nursery.start_soon(trio.sleep_forever)
            entered.set()

    call = open_call(host(with_lifespan(serve)))
    await entered.wait()
    call.task.cancel()
    with pytest.RaisesGroup(OSError):
        await call.task


@on_asyncio
async def test_calls_still_open_at_the_shutdown_are_cancelled_and_return() -> None:
    log: list[str] = []
    entered = asyncio.Event()

    async def fail_when_cancelled() -> None:
        try:
            entered.set()
            await trio.sleep_forever()
        finally:
            log.append("call ended")
            raise OSError("disk full")

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            if scope["type"] == "http":
                nursery.start_soon(fail_when_cancelled)
            await receive()

    asgi = host(with_lifespan(serve, log))
    lifespan = await start(asgi)
    silent, failing = open_call(asgi, "websocket"), open_call(asgi, "http")
    await entered.wait()
    await stop(lifespan)
    assert log == ["startup", "call ended", "shutdown"]
    await silent.task
    with pytest.RaisesGroup(OSError):
        await failing.task


@on_asyncio
async def test_a_call_during_the_shutdown_is_refused() -> None:
    bridge = Bridge()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] != "lifespan.shutdown":
            await send({"type": message["type"] + ".complete"})
        bridge.in_asyncio.set()
        await bridge.in_trio.wait()

    asgi = host(app)
    lifespan = await start(asgi)
    lifespan.put("lifespan.shutdown")
    await bridge.in_asyncio.wait()
    with pytest.raises(HostingError, match="shutting down"):
        await open_call(asgi).task
    bridge.in_trio.set()
    await lifespan.task


@on_asyncio
async def test_the_context_of_the_server_call_reaches_the_app() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")
    seen: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(variable.get())

    variable.set("of the request")
    await open_call(host(with_lifespan(serve))).task
    assert seen == ["of the request"]


def test_a_keyboard_interrupt_in_a_call_reaches_whoever_runs_the_loop() -> None:
    log: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        raise KeyboardInterrupt

    async def server() -> None:
        await open_call(host(with_lifespan(serve, log))).task

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(server())
    assert log == ["startup", "shutdown"]


def test_ctrl_c_in_the_host_loop_shuts_the_app_down_in_order() -> None:
    log: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    async def server() -> None:
        await open_call(host(with_lifespan(serve, log))).task

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(server())
    assert log == ["startup", "shutdown"]


# Backpressure


@on_asyncio
async def test_an_http_body_is_read_only_as_far_as_the_app_asks() -> None:
    bridge = Bridge()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await bridge.in_trio.wait()
        assert await receive() == {"type": "http.request", "body": b"0", "more_body": True}
        assert await receive() == {"type": "http.request", "body": b"1", "more_body": True}
        bridge.in_asyncio.set()
        await trio.sleep_forever()

    call = open_call(host(with_lifespan(serve)))
    for part in [b"0", b"1", b"2", b"3"]:
        call.put("http.request", body=part, more_body=True)
    await turns()
    assert call.received == 0
    bridge.in_trio.set()
    await bridge.in_asyncio.wait()
    await turns()
    assert call.received == 2


@on_asyncio
async def test_a_websocket_is_read_four_messages_ahead() -> None:
    bridge = Bridge()
    go_on = trio.Event()
    texts: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await bridge.in_trio.wait()
        texts.append((await receive())["text"])
        bridge.in_asyncio.set()
        await go_on.wait()
        while (message := await receive())["type"] == "websocket.receive":
            texts.append(message["text"])

    call = open_call(host(with_lifespan(serve)), "websocket")
    for number in range(20):
        call.put("websocket.receive", text=str(number))
    call.put("websocket.disconnect")
    await until(lambda: call.received == 4)
    await turns()
    assert call.received == 4
    bridge.in_trio.set()
    await bridge.in_asyncio.wait()
    await turns()
    assert call.received == 5
    go_on.set()
    await call.task
    assert texts == [str(number) for number in range(20)]


@on_asyncio
async def test_a_send_waits_for_the_delivery_of_the_one_before_it() -> None:
    sent: list[int] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        for number in range(3):
            await send({"type": "websocket.send", "text": str(number)})
            sent.append(number)

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.taking_messages.clear()
    await until(lambda: sent)
    await turns()
    assert sent == [0]
    call.taking_messages.set()
    await call.task
    assert [call.outgoing.get_nowait()["text"] for _ in range(3)] == ["0", "1", "2"]


@on_asyncio
async def test_an_echo_goes_on_as_long_as_it_is_fed() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})

    call = open_call(host(with_lifespan(serve)), "websocket")
    for number in range(10):
        call.put("websocket.receive", text=str(number))
        assert (await call.outgoing.get())["text"] == str(number)
    call.put("websocket.disconnect")
    await call.task


@on_asyncio
async def test_tasks_that_send_at_once_take_turns() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(send, {"type": "websocket.send", "text": str(number)})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.taking_messages.clear()
    await turns()
    call.taking_messages.set()
    await call.task
    texts = [call.outgoing.get_nowait()["text"] for _ in range(10)]
    assert sorted(texts) == [str(number) for number in range(10)]


@pytest.mark.parametrize("kind", KINDS)
@on_asyncio
async def test_the_last_message_is_delivered_before_its_send_returns(kind: str) -> None:
    sent: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        sent.append("sending")
        await send(_LAST[kind])
        sent.append("sent")

    call = open_call(host(with_lifespan(serve)), kind)
    call.taking_messages.clear()
    await until(lambda: sent)
    await turns()
    assert sent == ["sending"]
    call.taking_messages.set()
    await call.task
    assert sent == ["sending", "sent"]


@on_asyncio
async def test_an_app_can_give_up_a_client_that_does_not_read() -> None:
    bridge = Bridge()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_twice, send)
            await bridge.in_trio.wait()
            nursery.cancel_scope.cancel()

    async def send_twice(send: Send) -> None:
        await send({"type": "websocket.send", "text": "in flight"})
        bridge.in_asyncio.set()
        await send({"type": "websocket.send", "text": "waiting"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.taking_messages.clear()
    await bridge.in_asyncio.wait()
    await turns()
    bridge.in_trio.set()
    await call.task
    assert call.taken_back == 1
    assert call.outgoing.empty()


@on_asyncio
async def test_a_message_that_one_task_takes_back_is_no_failure_to_the_next_that_sends() -> None:
    bridge = Bridge()
    scope_of_writer = trio.CancelScope()

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_twice, send)
            await bridge.in_trio.wait()
            scope_of_writer.cancel()
            await send(_LAST["websocket"])  # waits for the message that is about to be taken back

    async def send_twice(send: Send) -> None:
        with scope_of_writer:
            await send({"type": "websocket.send", "text": "in flight"})
            bridge.in_asyncio.set()
            await send({"type": "websocket.send", "text": "waiting"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.taking_messages.clear()
    await bridge.in_asyncio.wait()
    await turns()
    bridge.in_trio.set()
    await until(lambda: call.taken_back)
    call.taking_messages.set()
    await call.task
    assert call.taken_back == 1
    assert await call.get() == "websocket.close"
    assert call.outgoing.empty()


@pytest.mark.parametrize("sends", [1, 2])
@on_asyncio
async def test_a_cancelled_call_leaves_no_message_on_its_way(sends: int) -> None:
    log: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(sends):
            await send({"type": "websocket.send", "text": "stuck"})
            log.append("sent")
        await receive()

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.taking_messages.clear()
    await until(lambda: log)
    call.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call.task
    assert call.taken_back == 1


@on_asyncio
async def test_a_shutdown_leaves_no_message_on_its_way() -> None:
    log: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "stuck"})
        log.append("sent")
        await receive()

    asgi = host(with_lifespan(serve))
    lifespan = await start(asgi)
    call = open_call(asgi, "websocket")
    call.taking_messages.clear()
    await until(lambda: log)
    await stop(lifespan)
    await call.task
    assert call.taken_back == 1


# Errors of the server


@on_asyncio
async def test_what_the_server_takes_without_waiting_is_delivered_when_send_returns() -> None:
    call: ServerCall

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.send", "text": "at once"})
        assert call.outgoing.get_nowait()["text"] == "at once"
        call.failures.append(OSError("client is gone"))
        call.fails_late = False
        await trio.sleep(0.001)
        with pytest.raises(OSError, match="client is gone"):
            await send({"type": "websocket.send", "text": "lost"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.put("websocket.connect")
    await call.task


@on_asyncio
async def test_a_task_that_sends_on_and_on_lets_the_loop_have_its_turns() -> None:
    turns_of_others = 0

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        for _ in range(200):
            await send({"type": "websocket.send", "text": "more"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    while not call.task.done():
        turns_of_others += 1
        await asyncio.sleep(0)
    assert turns_of_others > 100


@on_asyncio
async def test_a_failed_delivery_is_raised_by_the_next_send() -> None:
    raised: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "lost"})
        try:
            await send({"type": "websocket.send", "text": "not sent"})
        except OSError as error:
            raised.append(str(error))
        await send({"type": "websocket.send", "text": "sent"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.failures.append(OSError("client is gone"))
    await call.task
    assert raised == ["client is gone"]
    assert [call.outgoing.get_nowait()["text"]] == ["sent"]


@on_asyncio
async def test_a_delivery_that_its_server_cancels_is_an_error_that_says_so() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "lost"})
        with pytest.raises(HostingError, match="was cancelled by asyncio code"):
            await send({"type": "websocket.send", "text": "not sent"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.failures.append(asyncio.CancelledError())
    await call.task


@on_asyncio
async def test_a_failed_delivery_that_nobody_asked_for_ends_the_call() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "lost"})

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.failures.append(OSError("client is gone"))
    with pytest.raises(OSError, match="client is gone"):
        await call.task


@on_asyncio
async def test_the_apps_own_exception_comes_before_that_of_its_last_delivery() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.send", "text": "lost"})
        raise ValueError("boom")

    call = open_call(host(with_lifespan(serve)), "websocket")
    call.failures.append(OSError("client is gone"))
    with pytest.raises(ValueError, match="boom"):
        await call.task


@pytest.mark.parametrize("kind", KINDS)
@on_asyncio
async def test_an_error_of_receive_is_raised_by_receive_again_and_again(kind: str) -> None:
    raised: list[str] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        for _ in range(2):
            try:
                await receive()
            except RuntimeError as error:
                raised.append(str(error))

    call = open_call(host(with_lifespan(serve)), kind)
    call.put("connect")
    call.incoming.put_nowait(RuntimeError("already disconnected"))
    await call.task
    assert raised == ["already disconnected"] * 2


@pytest.mark.parametrize("kind", KINDS)
@on_asyncio
async def test_a_cancelled_receive_loses_no_message(kind: str) -> None:
    bridge = Bridge()
    received: list[Message] = []

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        bridge.in_asyncio.set()
        received.append(await receive())

    call = open_call(host(with_lifespan(serve)), kind)
    await bridge.in_asyncio.wait()
    call.put("first")
    await call.task
    assert received == [{"type": "first"}]


# One run in each loop


@on_asyncio
async def test_two_apps_share_the_run_and_the_last_one_ends_it() -> None:
    first_log: list[str] = []
    second_log: list[str] = []
    first = await start(host(with_lifespan(nothing, first_log)))
    second_asgi = host(with_lifespan(nothing, second_log))
    second = await start(second_asgi)
    await stop(first)
    assert first_log == ["startup", "shutdown"]
    assert trio.lowlevel.in_trio_run()
    await open_call(second_asgi).task
    await stop(second)
    assert second_log == ["startup", "shutdown"]
    assert not trio.lowlevel.in_trio_run()


@on_asyncio
async def test_an_app_that_comes_while_the_run_ends_gets_the_next_one() -> None:
    runs: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        runs.append(trio.lowlevel.current_trio_token())
        if scope["path"] == "first":
            trio.lowlevel.spawn_system_task(call_next_app_when_cancelled)

    async def call_next_app_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            second.set_result(open_call(host(app), "lifespan", path="second"))
            with trio.CancelScope(shield=True):
                for _ in range(10):
                    await trio.lowlevel.checkpoint()

    second: asyncio.Future[ServerCall] = asyncio.get_running_loop().create_future()
    await stop(await start(host(app), path="first"))
    lifespan = await second
    lifespan.put("lifespan.startup")
    assert await lifespan.get() == "lifespan.startup.complete"
    await stop(lifespan)
    assert len(set(runs)) == 2


@on_asyncio
async def test_a_trio_run_that_cacao_did_not_start_is_an_error_that_says_so() -> None:
    async def other_main() -> None:
        await leave.wait()

    leave, left = trio.Event(), asyncio.Event()
    trio.lowlevel.start_guest_run(
        other_main,
        run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
        done_callback=lambda _: left.set(),
        host_uses_signal_set_wakeup_fd=True,
    )
    with pytest.raises(HostingError, match="already running in this thread"):
        await open_call(host(with_lifespan(nothing))).task
    leave.set()
    await left.wait()


# A crash of the run


async def crash(scope: Scope, receive: Receive, send: Send) -> None:
    """Break trio, as a bug in a system task does."""

    async def broken() -> None:
        raise RuntimeError("broken system task")

    if scope.get("path") == "/crash":
        trio.lowlevel.spawn_system_task(broken)
    await trio.sleep_forever()


@on_asyncio
async def test_a_crash_reaches_every_call() -> None:
    asgi = host(with_lifespan(crash))
    lifespan = await start(asgi)
    calls = [open_call(asgi, "websocket"), open_call(asgi, "http", path="/crash")]
    for call in calls:
        with pytest.raises(HostingError, match="guest run crashed"):
            await call.task
    with pytest.raises(HostingError, match="guest run crashed"):
        await open_call(asgi).task
    lifespan.put("lifespan.shutdown")
    assert await lifespan.get() == "lifespan.shutdown.failed"
    await lifespan.task


def test_a_crash_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def server() -> None:
        with pytest.raises(HostingError):
            await open_call(host(with_lifespan(crash)), "http", path="/crash").task

    asyncio.run(server())
    gc.collect()  # a future with an exception that nobody has asked for complains here
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
    assert "broken system task" in caplog.text


@on_asyncio
async def test_a_crash_during_the_startup_is_a_failed_startup() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await crash({"path": "/crash"}, receive, send)

    lifespan = open_call(host(app), "lifespan")
    lifespan.put("lifespan.startup")
    assert await lifespan.get() == "lifespan.startup.failed"
    await lifespan.task


def test_an_interrupt_that_hits_trio_itself_stops_the_host_loop() -> None:
    """Where nobody handles SIGINT trio does, and interrupts its main task."""

    @trio.lowlevel.enable_ki_protection
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        signal.raise_signal(signal.SIGINT)
        await trio.sleep_forever()

    async def server() -> None:
        lifespan = await start(asgi)
        with pytest.raises(HostingError, match="KeyboardInterrupt"):
            await open_call(asgi).task
        lifespan.put("lifespan.shutdown")
        assert await lifespan.get() == "lifespan.shutdown.failed"
        await lifespan.task

    asgi = host(with_lifespan(serve))
    loop = asyncio.new_event_loop()
    task = loop.create_task(server())
    with contextlib.closing(loop):
        with pytest.raises(KeyboardInterrupt):
            loop.run_forever()
        loop.run_until_complete(task)


# What is left


@on_asyncio
async def test_a_finished_call_leaves_no_garbage() -> None:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})

    asgi = host(with_lifespan(serve))
    lifespan = await start(asgi)
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            call = open_call(asgi, "websocket")
            call.put("websocket.connect")
            await call.task
        del call
        assert gc.collect() == 0
    finally:
        gc.enable()
    await stop(lifespan)


@on_asyncio
async def test_a_call_that_ends_in_the_moment_it_is_cancelled_ends_once() -> None:
    end = asyncio.get_running_loop().create_future()
    waiting = asyncio.get_running_loop().create_task(_outlast(end))
    await asyncio.sleep(0)
    end.set_result(None)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
