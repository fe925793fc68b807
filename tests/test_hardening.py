"""Hypercorn's parts with ours among them, in this process: both kinds of worker, raw clients."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import struct
import threading
import time
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import hypercorn.asyncio.run
import hypercorn.trio.run
import pytest
import trio
import trio.testing
from hostile import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    UPGRADE,
    Client,
    eventually,
    frame,
    request,
)
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.events import Closed, RawData

from cacao import hardening
from cacao.hardening import MAX_MESSAGE_BYTES, connections, harden
from cacao.hardening.connections import AsyncioConnection, TrioConnection
from cacao.hardening.shutdown import AsyncioWorker, TrioWorker
from cacao.hardening.websockets import _MessageBound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PATIENCE = 10
LIMIT = 1000
LARGE = 30_000_000  # bytes, more than the kernels take between them
CERTIFICATE = Path(__file__).parent / "localhost.pem"

Message = dict[str, Any]


async def app(scope: Message, receive: Any, send: Any) -> None:
    """Answer by the path, on asyncio and trio alike."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
    elif scope["type"] == "http":
        await answer(scope["path"], receive, send)
    else:
        await converse(scope["path"], receive, send)


async def answer(path: str, receive: Any, send: Any) -> None:
    if path == "/body":
        while (await receive()).get("more_body"):
            pass
    while path == "/never" and (await receive())["type"] != "http.disconnect":
        pass
    body = b"x" * (LARGE if path == "/large" else 2)
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def converse(path: str, receive: Any, send: Any) -> None:
    await receive()
    if path == "/refuse":
        await send({"type": "websocket.close"})
        return
    if path == "/wait":
        await receive()
    if path in {"/wait", "/ignore"}:
        return
    await send({"type": "websocket.accept", MAX_MESSAGE_BYTES: LIMIT})
    if path == "/leave":
        return
    if path == "/busy":
        await (trio.sleep if trio.lowlevel.in_trio_task() else asyncio.sleep)(1.2)
    if path == "/close":
        await send({"type": "websocket.close", "code": 4000})
        return
    while (message := await receive())["type"] == "websocket.receive":
        text = message["text"]
        await send(
            {"type": "websocket.send", "text": "x" * int(text[1:]) if text[0] == "*" else text}
        )


# --- The servers ---------------------------------------------------------------------------------


class Running:
    """A worker in a thread of its own."""

    def __init__(self, port: int, stop: Callable[[], None], thread: threading.Thread) -> None:
        self.port = port
        self._stop = stop
        self._thread = thread

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def stop(self) -> None:
        if self._thread.is_alive():
            self._stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


def serve_asyncio(config: Config, running: dict[str, Any], is_up: threading.Event) -> None:
    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        running["stop"] = partial(loop.call_soon_threadsafe, ended.set)
        is_up.set()
        wrapped = ASGIWrapper(app)  # type: ignore[arg-type]
        await hypercorn.asyncio.run.worker_serve(wrapped, config, shutdown_trigger=ended.wait)

    asyncio.run(main())


def serve_trio(config: Config, running: dict[str, Any], is_up: threading.Event) -> None:
    async def main() -> None:
        ended = trio.Event()
        token = trio.lowlevel.current_trio_token()
        running["stop"] = partial(token.run_sync_soon, ended.set)
        is_up.set()
        wrapped = ASGIWrapper(app)  # type: ignore[arg-type]
        await hypercorn.trio.run.worker_serve(wrapped, config, shutdown_trigger=ended.wait)

    trio.run(main)


KINDS = {"asyncio": serve_asyncio, "trio": serve_trio}


@contextmanager
def serving(kind: str, **options: Any) -> Iterator[Running]:
    harden()
    config = Config()
    config.errorlog = None
    config.graceful_timeout = 0.5
    for name, value in options.items():
        setattr(config, name, value)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    config.bind = [f"fd://{listener.detach()}"]
    found: dict[str, Any] = {}
    is_up = threading.Event()
    thread = threading.Thread(target=KINDS[kind], args=(config, found, is_up))
    thread.start()
    assert is_up.wait(PATIENCE)
    running = Running(port, found["stop"], thread)
    try:
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def _short_goodbyes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_LINGER_SECONDS", 0.2)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def worker(kind: str) -> Iterator[Running]:
    with serving(kind) as running:
        yield running


@contextmanager
def client(worker: Running, first: bytes) -> Iterator[Client]:
    with worker.connect() as raw:
        one = Client(raw)
        one.send(first)
        yield one


@contextmanager
def websocket(worker: Running, path: str = "/") -> Iterator[Client]:
    with client(worker, request(path)) as one:
        assert one.read_status() == 101
        yield one


def echoes(one: Client) -> bool:
    one.send(frame(TEXT, b"hello"))
    return one.read_frame() == (TEXT, b"hello")


def is_cut(one: Client) -> bool:
    """Whether the server has given a connection up, seen without reading from it."""
    try:
        one.socket.sendall(frame(PONG))
    except OSError:
        return True
    return False


# --- Which hypercorn -----------------------------------------------------------------------------


def test_another_hypercorn_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    place: Any = SimpleNamespace(Part=int)
    monkeypatch.setattr(hardening, "_PLACES", ((place, "Part", str),))
    monkeypatch.setattr(hardening, "version", lambda name: "0.19.0")
    harden()
    assert place == SimpleNamespace(Part=int)
    monkeypatch.setattr(hardening, "version", lambda name: "0.18.7")
    harden()
    harden()
    assert place == SimpleNamespace(Part=str)


def test_hypercorn_still_has_the_places_we_take() -> None:
    for module, name, ours in hardening._PLACES:
        assert issubclass(getattr(module, name), ours.__mro__[1])


# --- Handshakes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 101),
        ("/", {"Sec-WebSocket-Protocol": "\xff"}, 400),
        ("/", {"Sec-WebSocket-Extensions": "permessage-deflate"}, 101),
        ("/", {"Content-Length": "0"}, 101),
        ("/", {"Content-Length": "5"}, 400),
        ("/", {"Transfer-Encoding": "chunked"}, 400),
        ("/", {"Sec-WebSocket-Version": "12"}, 400),
        ("/refuse", {}, 403),
        ("/ignore", {}, 500),
    ],
)
def test_a_handshake_is_answered(
    worker: Running, path: str, headers: dict[str, str], status: int
) -> None:
    sent = request(path, {**UPGRADE, **headers}, more=frame(TEXT, b"early"))
    with client(worker, sent) as one:
        assert one.read_status() == status
        if status == 101:
            assert "extensions" not in one.head
            assert one.read_frame() == (TEXT, b"early")
        else:
            assert one.is_ended()


def test_the_bound_on_messages_is_offered_to_nobody() -> None:
    assert not _MessageBound(LIMIT).offer()


def test_h2c_is_not_upgraded_to(worker: Running) -> None:
    headers = {"Upgrade": "h2c", "Connection": "Upgrade", "HTTP2-Settings": "AAAA"}
    with client(worker, request("/", headers)) as one:
        assert one.read_status() == 200


# --- Frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(TEXT, b"x", is_masked=False), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(TEXT, b"x" * (LIMIT + 1)), 1009),
        (frame(TEXT, b"x" * LIMIT, is_final=False) + frame(CONTINUATION, b"x"), 1009),
        (frame(CLOSE, struct.pack("!H", 3000)), 3000),
    ],
)
def test_an_end_has_its_code(worker: Running, sent: bytes, code: int) -> None:
    with websocket(worker) as one:
        one.send(sent)
        assert one.read_close_code() == code
        assert one.is_ended()


def test_a_message_is_bounded_and_not_their_sum(worker: Running) -> None:
    with websocket(worker) as one:
        for _ in range(2):
            one.send(frame(TEXT, b"x" * (LIMIT - 1), is_final=False))
            one.send(frame(PING, b"?"))
            one.send(frame(CONTINUATION, b"y"))
            assert one.read_frame() == (PONG, b"?")
            assert one.read_frame() == (TEXT, b"x" * (LIMIT - 1) + b"y")


@pytest.mark.parametrize(("path", "code"), [("/leave", 1011), ("/close", 4000)])
def test_an_app_that_has_ended_is_not_waited_for(worker: Running, path: str, code: int) -> None:
    flood = frame(TEXT, b"x") * 100
    with client(worker, request(path, more=flood)) as one:
        assert one.read_status() == 101
        assert one.read_close_code() == code
        one.send(flood)
        assert one.is_ended()


# --- Requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "version", "status"),
    [
        ({}, b"HTTP/1.1", 200),
        ({"Content-Length": "2", "Transfer-Encoding": "chunked"}, b"HTTP/1.1", 400),
        ({"Transfer-Encoding": "gzip"}, b"HTTP/1.1", 400),
        ({"Content-Length": "x"}, b"HTTP/1.1", 400),
        ({}, b"HTTP/9.9", 400),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused(
    worker: Running, headers: dict[str, str], version: bytes, status: int
) -> None:
    sent = request("/", {**headers, "Connection": "close"}).replace(b"HTTP/1.1", version)
    with client(worker, sent) as one:
        assert one.read_status() == status
        assert one.is_ended()


def test_an_error_of_the_protocol_is_one_line_and_one_connection(
    worker: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "cacao")
    block = hpack.Encoder().encode(
        [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", b"/\xff")]
    )
    headers = len(block).to_bytes(3, "big") + b"\1\5" + (1).to_bytes(4, "big") + block
    with websocket(worker) as bystander:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
        with client(worker, preface + headers) as one:
            assert one.is_ended()
        assert echoes(bystander)
    told, detail = caplog.records
    assert told.levelname == "WARNING"
    assert "cut off ('127.0.0.1'" in told.getMessage()
    assert "UnicodeDecodeError" in told.getMessage()
    assert detail.levelname == "DEBUG"


# --- HTTP/2 --------------------------------------------------------------------------------------


class H2:
    """An HTTP/2 client without TLS."""

    def __init__(self, one: Client) -> None:
        self._one = one
        self.connection = h2.connection.H2Connection(h2.config.H2Configuration())
        self.connection.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self._one.send(self.connection.data_to_send())

    def ask(self, **pseudo: str) -> int:
        number = self.connection.get_next_available_stream_id()
        headers = [(f":{name}", value) for name, value in pseudo.items()]
        self.connection.send_headers(number, headers, end_stream=True)
        self.flush()
        return number

    def until(self, kind: type[Any]) -> Any:
        """Read until an event of a kind, or the end of the connection."""
        while data := self._one.read():
            events = self.connection.receive_data(data)
            self.flush()
            for event in events:
                if isinstance(event, kind):
                    return event
        return None


def get(path: str = "/") -> dict[str, str]:
    return {"method": "GET", "scheme": "http", "authority": "a", "path": path}


def test_http_2_is_answered(worker: Running) -> None:
    with client(worker, b"") as one:
        page = H2(one)
        page.ask(**get())
        assert (b":status", b"200") in page.until(h2.events.ResponseReceived).headers


def test_http_2_offers_no_websockets(worker: Running) -> None:
    with client(worker, b"") as one:
        page = H2(one)
        offered = page.until(h2.events.RemoteSettingsChanged).changed_settings
        assert h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL not in offered
        page.ask(method="CONNECT", authority="a")
        assert page.until(h2.events.StreamReset).error_code == 7
        page.ask(**get())
        assert page.until(h2.events.ResponseReceived) is not None


def test_a_silent_http_2_client_is_asked_by_a_ping(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", 0.3)
    with serving(kind) as worker, client(worker, b"") as one:
        page = H2(one)
        page.ask(**get("/never"))
        for _ in range(3):
            assert page.until(h2.events.PingReceived) is not None  # and answers it
        one.socket.settimeout(PATIENCE)
        assert one.is_ended()  # having answered nothing more


def test_an_http_2_client_without_requests_is_not_asked(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", 0.3)
    with serving(kind) as worker, client(worker, b"") as one:
        assert H2(one).until(h2.events.PingReceived) is None


# --- Silence -------------------------------------------------------------------------------------


def test_a_silent_page_is_asked_and_then_closed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", 0.3)
    with serving(kind) as worker, websocket(worker) as one:
        assert one.read_frame() == (PING, b"")
        one.send(frame(PONG))
        assert one.read_frame() == (PING, b"")
        assert one.read_close_code() == 4408
        assert one.is_ended()


def test_hypercorns_own_read_timeout_is_kept(kind: str) -> None:
    with serving(kind, read_timeout=0.3) as worker, websocket(worker) as one:
        assert one.read_frame() == (PING, b"")


def test_a_body_that_does_not_come_gets_408(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", 0.3)
    sent = request("/body", {"Content-Length": "9"}, method="POST")
    with serving(kind) as worker:
        with client(worker, sent) as one:
            assert one.read_status() == 408
            assert one.is_ended()
        with client(worker, b"GET /") as one:
            assert one.is_ended()


def test_who_waits_for_an_answer_may_be_silent(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", 0.1)
    for sent in (request("/never", {}), request("/wait")):
        with serving(kind) as worker, client(worker, sent) as one:
            one.socket.settimeout(0.5)
            assert not one.is_ended()


def test_who_is_not_read_is_not_taken_for_silent(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_SILENCE_SECONDS", 0.3)
    with serving(kind) as worker, websocket(worker, "/busy") as one:
        for _ in range(30):  # more than wait for an app that does not receive
            one.send(frame(TEXT, b"x" * LIMIT))
            one.send(frame(PING))
        texts = 0
        while texts < 30:
            opcode, _ = one.read_frame() or (CLOSE, b"")
            assert opcode in {TEXT, PONG}
            texts += opcode == TEXT


# --- Writing -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/large"])
def test_who_takes_nothing_is_cut(kind: str, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr(connections, "_WRITE_SECONDS", 0.3)
    with serving(kind) as worker:
        first = request(path) + frame(TEXT, b"*%d" % LARGE) if path == "/" else request(path, {})
        with client(worker, first) as one:
            assert eventually(lambda: is_cut(one))
        with websocket(worker) as other:
            assert echoes(other)


def test_who_takes_it_slowly_gets_it_all(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_WRITE_SECONDS", 0.5)
    with serving(kind) as worker, client(worker, request("/large", {})) as one:
        assert one.read_status() == 200
        for _ in range(100):
            assert one.read_exactly(LARGE // 100) is not None
            time.sleep(0.02)  # 2 s in all: a real client is slow in real time


def test_who_leaves_while_we_write_is_let_go(worker: Running) -> None:
    with client(worker, request(more=frame(TEXT, b"*%d" % LARGE))) as one:
        assert one.read_status() == 101
        assert one.read_exactly(100_000) is not None  # the rest is on its way
        reset_at_close(one)
    with websocket(worker) as other:
        assert echoes(other)


def test_who_resets_a_quiet_connection_is_let_go(worker: Running) -> None:
    with websocket(worker) as one:
        assert echoes(one)
        reset_at_close(one)
    with websocket(worker) as other:
        assert echoes(other)


def reset_at_close(one: Client) -> None:
    one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_all_of_a_large_answer_comes(worker: Running) -> None:
    with client(worker, request("/large", {})) as one:
        assert one.read_status() == 200
        assert one.read_exactly(LARGE) is not None


def test_what_comes_after_the_close_is_read_and_thrown_away(worker: Running) -> None:
    with websocket(worker) as one:
        one.send(frame(BINARY, claims=2**40))
        one.send(bytes(1_000_000))
        assert one.read_close_code() == 1009
        assert one.is_ended()


def test_who_does_not_leave_is_left(worker: Running) -> None:
    with websocket(worker, "/close") as one:
        assert one.read_close_code() == 4000
        assert eventually(lambda: is_cut(one))


# --- The end of the server -----------------------------------------------------------------------


def test_the_end_waits_for_nobody_for_long(worker: Running) -> None:
    with ExitStack() as stack:
        for first in (
            request("/") + frame(TEXT, b"*%d" % LARGE),
            request("/large", {}),
            request("/never", {}),
            request("/", {}),
            b"",
        ):
            stack.enter_context(client(worker, first))
        with websocket(worker) as last:
            assert echoes(last)
            worker.stop()


@asynccontextmanager
async def accepted(
    worker: AsyncioWorker, *, grace: float = PATIENCE
) -> AsyncIterator[tuple[AsyncioConnection, Client]]:
    """Give a connection of the asyncio worker that has not begun to run, and its client."""
    found = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(
        lambda reader, writer: found.set_result((reader, writer)), "127.0.0.1", 0
    )
    async with server:
        with socket.create_connection(server.sockets[0].getsockname()) as raw:
            loop = asyncio.get_running_loop()
            wrapped = ASGIWrapper(app)  # type: ignore[arg-type]
            config = Config()
            config.graceful_timeout = grace
            yield AsyncioConnection(wrapped, loop, config, worker, {}, *await found), Client(raw)


async def test_a_trio_connection_that_comes_as_the_server_ends_is_ended() -> None:
    worker = TrioWorker(None)
    await worker.terminated.set()
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with socket.create_connection(listener.socket.getsockname()), trio.fail_after(PATIENCE):
        stream = await listener.accept()
        await TrioConnection(ASGIWrapper(app), Config(), worker, {}, stream).run()  # type: ignore[arg-type]
    await listener.aclose()


async def test_a_cancelled_write_is_completed_by_trio() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with socket.create_connection(listener.socket.getsockname()) as raw:
        stream = await listener.accept()
        connection = TrioConnection(ASGIWrapper(app), Config(), TrioWorker(None), {}, stream)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.protocol_send, RawData(b"x" * LARGE))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                taken = await trio.to_thread.run_sync(Client(raw).read_exactly, LARGE)
        assert taken == b"x" * LARGE
        await stream.aclose()
    await listener.aclose()


def test_a_cancelled_write_is_completed_by_asyncio() -> None:
    async def main() -> None:
        async with accepted(AsyncioWorker(None)) as (connection, client):
            task = asyncio.get_running_loop().create_task(
                connection.protocol_send(RawData(b"x" * LARGE))
            )
            await asyncio.sleep(0.05)
            assert not task.done()
            task.cancel()
            await connection.protocol_send(Closed())
            assert await asyncio.to_thread(client.read_exactly, LARGE) == b"x" * LARGE
            assert await asyncio.to_thread(client.is_ended)
            connection.writer.close()

    asyncio.run(main())


async def test_nothing_is_sent_after_the_goodbye_of_a_trio_connection() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    with socket.create_connection(listener.socket.getsockname()) as raw:
        stream = await listener.accept()
        connection = TrioConnection(ASGIWrapper(app), Config(), TrioWorker(None), {}, stream)  # type: ignore[arg-type]
        for event in (RawData(b"a"), Closed(), RawData(b"b")):
            await connection.protocol_send(event)
        assert raw.recv(9) == b"a"
        assert raw.recv(9) == b""
        raw.sendall(b"still read")
        assert await stream.receive_some() == b"still read"
        await stream.aclose()
    await listener.aclose()


def test_an_asyncio_connection_that_comes_as_the_server_ends_is_ended() -> None:
    async def main() -> None:
        worker = AsyncioWorker(None)
        await worker.terminated.set()
        async with accepted(worker) as (connection, _):
            await asyncio.wait_for(connection.run(), PATIENCE)

    asyncio.run(main())


def test_an_asyncio_connection_has_the_servers_grace_and_no_more() -> None:
    async def main() -> None:
        async with accepted(AsyncioWorker(None), grace=0) as (connection, _):
            task = asyncio.get_running_loop().create_task(connection.run())
            await asyncio.sleep(0)
            connection.drain()
            await asyncio.wait_for(task, PATIENCE)

    asyncio.run(main())


def test_a_connection_that_the_server_cancels_at_its_end_just_ends() -> None:
    async def main() -> None:
        worker = AsyncioWorker(None)
        async with accepted(worker) as (connection, _):
            task = asyncio.get_running_loop().create_task(connection.run())
            await asyncio.sleep(0)
            await worker.terminated.set()
            task.cancel()
            await task

    asyncio.run(main())


def test_a_cancelled_connection_ends_as_cancelled() -> None:
    async def main() -> None:
        async with accepted(AsyncioWorker(None)) as (connection, _):
            task = asyncio.get_running_loop().create_task(connection.run())
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


# --- TLS -----------------------------------------------------------------------------------------


@contextmanager
def websocket_by_tls(worker: Running, path: str = "/") -> Iterator[Client]:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    with (
        worker.connect() as raw,
        context.wrap_socket(raw, server_hostname="localhost", suppress_ragged_eofs=True) as wrapped,
    ):
        one = Client(wrapped)
        one.send(request(path))
        assert one.read_status() == 101
        yield one


@pytest.mark.parametrize(
    ("path", "sent", "code"), [("/", b"\xff", 1007), ("/close", b"late", 4000)]
)
def test_over_tls_it_is_the_same(kind: str, path: str, sent: bytes, code: int) -> None:
    with (
        serving(kind, certfile=str(CERTIFICATE), keyfile=str(CERTIFICATE)) as worker,
        websocket_by_tls(worker) as bystander,
    ):
        with websocket_by_tls(worker, path) as one:
            one.send(frame(TEXT, sent))
            assert one.read_close_code() == code
            assert one.is_ended()
        assert echoes(bystander)
