"""The counter as users start it: real processes, real sockets, a clean end."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from processes import Server, served
from trio_websocket import ConnectionClosed, WebSocketConnection, open_websocket_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COUNTER = Path(__file__).parent.parent / "examples" / "counter"
BIN = Path(sys.executable).parent
RUN = "from app import app; app.run(port={port})"

HYPERCORN = [str(BIN / "hypercorn"), "app:asgi", "-b", "127.0.0.1:{port}"]

COMMANDS = {
    "hypercorn": HYPERCORN,
    "hypercorn -k trio": [*HYPERCORN, "-k", "trio"],
    "hypercorn -k uvloop": [*HYPERCORN, "-k", "uvloop"],
    "hypercorn -w 2": [*HYPERCORN, "-w", "2"],
    "uvicorn": [str(BIN / "uvicorn"), "app:asgi", "--port", "{port}"],
    "app.run()": [sys.executable, "-c", RUN],
}
# A server that gives back the signal it was ended with says so in its documentation.
GOOD_ENDS = {0, -signal.SIGINT, -signal.SIGTERM}


@asynccontextmanager
async def connected(
    server: Server, subprotocol: str | None = None
) -> AsyncIterator[WebSocketConnection]:
    protocols = [subprotocol] if subprotocol else None
    with trio.fail_after(10):
        async with open_websocket_url(f"{server.websocket_url}/ws", subprotocols=protocols) as ws:
            try:
                yield ws
            finally:
                # The library leaves the socket open where the server ended the connection.
                await trio.aclose_forcefully(ws._stream)


async def receive(socket: WebSocketConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await socket.get_message())
    return message


async def send(socket: WebSocketConnection, message: dict[str, Any]) -> None:
    await socket.send_message(json.dumps(message))


def get(url: str) -> tuple[int, str]:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - our own server
        return response.status, response.read().decode()


@pytest.mark.parametrize("name", COMMANDS)
async def test_the_counter_counts_under(name: str) -> None:
    with served(COMMANDS[name], cwd=COUNTER) as server:
        async with connected(server) as ada, connected(server) as bob:
            assert (await receive(ada))["state"]["count"] == 0
            assert (await receive(bob))["state"]["count"] == 0
            for expected in (1, 2, 3):
                await send(ada, {"type": "event", "name": "increment"})
                assert (await receive(ada))["changes"]["count"] == expected
            await send(bob, {"type": "event", "name": "decrement"})
            assert (await receive(bob))["changes"]["count"] == -1
        status, health = await trio.to_thread.run_sync(get, f"{server.url}/health")
        assert (status, json.loads(health)) == (200, {"status": "ok"})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_signal_ends_it_cleanly_with_a_page_open_under(
    name: str, number: signal.Signals
) -> None:
    with served(COMMANDS[name], cwd=COUNTER) as server:
        async with connected(server) as page:
            await receive(page)
            status = await trio.to_thread.run_sync(lambda: server.stop(number, within=9))
            with pytest.raises(ConnectionClosed):
                await page.get_message()
        assert status in GOOD_ENDS
        assert "Traceback" not in server.stderr


async def test_a_v1_client_gets_its_subprotocol_and_results() -> None:
    with served(COMMANDS["hypercorn"], cwd=COUNTER) as server:
        async with connected(server, "cacao.v1") as page:
            assert page.subprotocol == "cacao.v1"
            await send(page, {"type": "hello"})
            assert (await receive(page))["outcome"] == "fresh"
            await send(page, {"type": "event", "id": 1, "name": "increment"})
            assert (await receive(page))["ack"] == 1
            assert await receive(page) == {"type": "result", "id": 1, "ok": True}


@pytest.mark.parametrize("name", ["hypercorn", "hypercorn -k trio", "uvicorn"])
async def test_bad_input_harms_neither_its_session_nor_others_under(name: str) -> None:
    with served(COMMANDS[name], cwd=COUNTER) as server:
        async with connected(server) as bystander, connected(server) as page:
            await receive(bystander)
            await receive(page)
            for text, code in {
                "nonsense": "invalid_json",
                "[]": "invalid_message",
                '{"type":"nope"}': "unknown_type",
                '{"type":"event","name":"nope"}': "unknown_event",
                '{"type":"event","name":"name:input","data":{"value":5}}': "invalid_data",
                "[" * 5000: "too_deep",
                "[" * 100 + "]" * 100: "too_deep",
            }.items():
                await page.send_message(text)
                assert (await receive(page))["code"] == code
            await send(page, {"type": "event", "name": "increment"})
            assert (await receive(page))["changes"]["count"] == 1
            await send(bystander, {"type": "event", "name": "increment"})
            assert (await receive(bystander))["changes"]["count"] == 1


@pytest.mark.parametrize(
    ("message", "code"),
    [(b"binary", 1003), (json.dumps({"type": "event", "name": "x" * 300_000}), 1009)],
    ids=["binary", "too big"],
)
@pytest.mark.parametrize("name", ["hypercorn", "hypercorn -k trio", "uvicorn"])
async def test_what_ends_a_connection_ends_only_that_one_under(
    name: str, message: bytes | str, code: int
) -> None:
    with served(COMMANDS[name], cwd=COUNTER) as server:
        async with connected(server) as bystander:
            await receive(bystander)
            async with connected(server) as page:
                await receive(page)
                await page.send_message(message)
                with pytest.raises(ConnectionClosed) as caught:
                    await page.get_message()
                assert caught.value.reason is not None
                assert caught.value.reason.code == code
            await send(bystander, {"type": "event", "name": "increment"})
            assert (await receive(bystander))["changes"]["count"] == 1


@pytest.mark.parametrize("name", ["hypercorn", "hypercorn -k trio", "uvicorn"])
def test_a_page_of_another_host_gets_403_under(name: str) -> None:
    with served(COMMANDS[name], cwd=COUNTER) as server:
        assert handshake_status(server, f"http://127.0.0.1:{server.port}") == 101
        assert handshake_status(server, "http://evil.com") == 403


def handshake_status(server: Server, origin: str) -> int:
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Origin": origin,
    }
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", "/ws", headers=headers)
        return connection.getresponse().status


def test_python_app_py_serves_on_port_8000(tmp_path: Path) -> None:
    # The example's own port may be taken on this machine: the same file, with a free one.
    source = (COUNTER / "app.py").read_text()
    assert "app.run(port=8000)" in source
    app = tmp_path / "app.py"
    run = "import os; app.run(port=int(os.environ['PORT']))"
    app.write_text(source.replace("app.run(port=8000)", run))
    command = [sys.executable, "app.py"]
    with served(["env", "PORT={port}", *command], cwd=tmp_path) as server:
        assert get(f"{server.url}/health")[0] == 200
        assert server.stop(signal.SIGINT, within=9) == 0
        assert f"http://127.0.0.1:{server.port}" in server.stdout


def test_a_taken_port_is_named_with_what_to_do() -> None:
    command = [sys.executable, "-c", RUN]
    with served(command, cwd=COUNTER) as server:
        again = [word.format(port=server.port) for word in command]
        ended = subprocess.run(again, cwd=COUNTER, capture_output=True, text=True, check=False)
        assert ended.returncode != 0
        assert f"port {server.port} on 127.0.0.1 is taken by another process" in ended.stderr
