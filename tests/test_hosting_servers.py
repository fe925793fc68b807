"""The hosted test application in real servers: over real sockets, ended by real signals."""

from __future__ import annotations

import signal
import sys
from contextlib import asynccontextmanager, closing
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from processes import Server, served
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractContextManager

PATIENCE = 10  # seconds for a server to answer, or to end
HYPERCORN = ["hypercorn", "--bind", "127.0.0.1:{port}", "--graceful-timeout", "1"]
UVICORN = ["uvicorn", "--port", "{port}"]
SERVERS = {
    "hypercorn": HYPERCORN,
    "hypercorn on uvloop": [*HYPERCORN, "-k", "uvloop"],
    "hypercorn on trio": [*HYPERCORN, "-k", "trio"],
    "hypercorn with two workers": [*HYPERCORN, "-w", "2"],
    "uvicorn": UVICORN,
    "uvicorn without lifespan": [*UVICORN, "--lifespan", "off"],
}
EXIT_CODES = {
    ("hypercorn", signal.SIGINT): 0,
    ("hypercorn", signal.SIGTERM): 0,
    ("uvicorn", signal.SIGINT): 0,
    ("uvicorn", signal.SIGTERM): -signal.SIGTERM,  # it shuts down, then dies of the signal
}
# Servers that end without telling their app, whatever it is written for.
ABRUPT = {
    ("hypercorn with two workers", signal.SIGINT),  # the first to end has the others terminated
    ("hypercorn with two workers", signal.SIGTERM),
    ("uvicorn without lifespan", signal.SIGTERM),  # it dies of the signal within its loop
}
# Servers that do not end before their clients leave, whatever the app is written for: hypercorn
# 0.18 begins with `asyncio.Server.wait_closed`, which waits for them since Python 3.12.
WAITS_FOR_CLIENTS = {"hypercorn"} if sys.version_info >= (3, 12) else set()
# asyncio's complaint, up to Python 3.11.7, of a connection that hypercorn has cancelled.
CANCELLED_STREAM = "Exception in callback"


def serve(command: list[str]) -> AbstractContextManager[Server]:
    return served([sys.executable, "-m", *command, "hosted_app:asgi"], cwd=Path(__file__).parent)


def fetch(server: Server, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    with closing(HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)) as connection:
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        return response.status, response.read()


@asynccontextmanager
async def open_websocket(server: Server, path: str) -> AsyncIterator[WebSocketConnection]:
    # By hand, because trio-websocket 0.12 leaves its socket open where the server closes first.
    async with (
        await trio.open_tcp_stream("127.0.0.1", server.port) as stream,
        trio.open_nursery() as nursery,
    ):
        websocket = await wrap_client_stream(nursery, stream, f"127.0.0.1:{server.port}", path)
        yield websocket
        await websocket.aclose()


async def check_http(server: Server) -> None:
    body = bytes(range(256)) * 4096
    assert fetch(server, "/echo", body) == (200, body)
    assert fetch(server, "/slow") == (200, b"slept")
    assert fetch(server, "/sqlite") == (200, b"from asyncio")


async def check_websocket(server: Server) -> None:
    async with open_websocket(server, "/echo") as websocket:
        for text in ["hello", "", "x" * 100_000]:
            await websocket.send_message(text)
            assert await websocket.get_message() == text


async def check_exceptions_are_survived(server: Server) -> None:
    assert fetch(server, "/boom")[0] == 500
    async with open_websocket(server, "/boom") as websocket:
        with pytest.raises(ConnectionClosed):
            await websocket.get_message()
    assert "ValueError: boom" in server.stderr
    assert server.process.poll() is None


async def check_it_ends(
    server: Server, number: signal.Signals, exit_code: int, *, client_leaves: bool
) -> None:
    complaints = server.stderr
    async with open_websocket(server, "/echo") as websocket:
        await websocket.send_message("still here")
        assert await websocket.get_message() == "still here"
        if client_leaves:
            await websocket.aclose()
        stop = partial(server.stop, number, within=PATIENCE)
        assert await trio.to_thread.run_sync(stop) == exit_code
    complaints = server.stderr.removeprefix(complaints)
    assert complaints.count("Traceback") == complaints.count(CANCELLED_STREAM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", SERVERS)
async def test_the_app_is_served_and_ends_in_order(name: str, number: signal.Signals) -> None:
    command = SERVERS[name]
    with serve(command) as server, trio.fail_after(3 * PATIENCE):
        await check_http(server)
        await check_websocket(server)
        assert "Traceback" not in server.stderr
        await check_exceptions_are_survived(server)
        await check_http(server)
        exit_code = EXIT_CODES[command[0], number]
        await check_it_ends(server, number, exit_code, client_leaves=name in WAITS_FOR_CLIENTS)
        if (name, number) not in ABRUPT:
            assert server.stdout.splitlines()[-2:] == ["websocket ended", "shutdown"]


def test_a_crash_of_trio_is_answered_and_logged() -> None:
    with serve(SERVERS["hypercorn"]) as server:
        assert fetch(server, "/crash")[0] == 500
        assert fetch(server, "/slow")[0] == 500
        assert "trio's guest run crashed" in server.stderr
        assert server.stop(signal.SIGTERM, within=PATIENCE) == 0
        assert "Lifespan failure in shutdown" in server.stderr


def test_a_server_that_cannot_start_is_reported_with_its_words() -> None:
    with (
        pytest.raises(RuntimeError, match="No module named nowhere"),
        served([sys.executable, "-m", "nowhere"]),
    ):
        raise AssertionError
