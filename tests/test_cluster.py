"""Several servers on one Redis, as users see them: nothing is lost, and nothing done twice."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import cycle
from random import Random
from typing import TYPE_CHECKING, Self

import pytest
import trio
from processes import HYPERCORN, Server, free_port, served
from resuming_client import ResumingClient, Sent, outcome_of
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from cacao.protocol import SUBPROTOCOL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from redis_server import RedisServer

APP = """
import os
import trio
from cacao import App, Limits, Signal

app = App(storage=os.environ["STORAGE"], limits=Limits(handover_timeout=5))
numbers = Signal([], name="numbers")
worker = Signal(0, name="worker")

@app.on_connect
def connected(session):
    worker.set(session, os.getpid())

@app.on("add")
async def add(session, number: int):
    await trio.sleep(0.002)
    numbers.update(session, lambda before: [*before, number])

asgi = app.asgi
"""

HOST = "127.0.0.1"
PATIENCE = 60  # seconds


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class User:
    """A page whose user sends numbers, and that comes back whenever it is cut off.

    Args:
        port: Where it dials.
        seed: Of its dice.
        interval: Seconds between two numbers.
        total: How many it sends at most.
        life: Seconds after which it loses a connection, chosen at random up to this.

    Attributes:
        client: Its half of the protocol.
        sent: What it has sent.
        workers: The processes that it has seen.
    """

    def __init__(
        self,
        port: int,
        seed: int,
        *,
        interval: float,
        total: float = math.inf,
        life: float = math.inf,
    ) -> None:
        self.client = ResumingClient()
        self.sent: list[Sent] = []
        self.workers: set[int] = set()
        self._port = port
        self._random = Random(seed)  # noqa: S311 - a dice, no secret
        self._patience = 1.0
        self._interval = interval
        self._total = total
        self._life = life

    def stop(self) -> None:
        """Send no more numbers; those that are under way are waited for."""
        self._total = len(self.sent)

    async def live(self) -> None:
        """Dial until every number is answered."""
        while not self._is_done():
            try:
                with trio.move_on_after(self._life * self._random.random()):
                    async with dialled(self._port, self._patience) as socket:
                        await self._converse(socket)
            except* (ConnectionClosed, HandshakeError, OSError):
                pass
            except* trio.TooSlowError:
                self._patience *= 1.5  # the machine may be slow, and not the network dead
            self.client.lost()
            await trio.sleep(0.1 * self._random.random())

    async def _converse(self, socket: WebSocketConnection) -> None:
        writer, texts = trio.open_memory_channel[str](math.inf)
        for greeting in self.client.greeting():
            writer.send_nowait(greeting)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write, socket, texts)
            nursery.start_soon(self._send_numbers, writer)
            while not self._is_done():
                with trio.fail_after(PATIENCE):
                    text = str(await socket.get_message())
                for answer in self.client.hear(text):
                    writer.send_nowait(answer)
                self.workers.add(self.client.state["worker"])
            nursery.cancel_scope.cancel()

    async def _write(
        self, socket: WebSocketConnection, texts: trio.MemoryReceiveChannel[str]
    ) -> None:
        async for text in texts:  # one task writes: numbers go in order
            await socket.send_message(text)

    async def _send_numbers(self, writer: trio.MemorySendChannel[str]) -> None:
        await trio.sleep(self._interval * self._random.random())
        while len(self.sent) < self._total:
            number, texts = self.client.send("add", {"number": len(self.sent)})
            self.sent.append(number)
            for text in texts:
                writer.send_nowait(text)
            await trio.sleep(self._interval)

    def _is_done(self) -> bool:
        return len(self.sent) >= self._total and self.client.is_settled

    def check(self) -> None:
        """See that every number was taken once, in order, and its user told so."""
        assert set(map(outcome_of, self.sent)) == {"ok"}
        assert self.client.state["numbers"] == list(range(len(self.sent)))
        assert self.client.inits[0] == "fresh"
        assert set(self.client.inits[1:]) <= {"resumed", "rebuilt"}


@asynccontextmanager
async def dialled(port: int, patience: float) -> AsyncIterator[WebSocketConnection]:
    """Open a connection; on leaving it is dropped without a goodbye.

    Raises:
        TooSlowError: The handshake takes more than `patience` seconds; one that was cut, for ever.
    """
    async with await trio.open_tcp_stream(HOST, port) as stream, trio.open_nursery() as nursery:
        with trio.fail_after(patience):
            socket = await wrap_client_stream(
                nursery, stream, HOST, "/ws", subprotocols=[SUBPROTOCOL]
            )
        yield socket
        nursery.cancel_scope.cancel()


async def test_every_event_counts_once_whichever_worker_a_client_comes_back_to(
    folder: Path, redis_server: RedisServer
) -> None:
    command = [*HYPERCORN, "-w", "4"]
    with served(command, cwd=folder, env={"STORAGE": redis_server.url}) as server:
        users = [User(server.port, seed, interval=0.1, total=30, life=1.5) for seed in range(30)]
        with trio.fail_after(2 * PATIENCE):
            async with trio.open_nursery() as nursery:
                for user in users:
                    nursery.start_soon(user.live)
        for user in users:
            user.check()
        assert sum(len(user.client.inits) for user in users) > 2 * len(users)
        assert len(set().union(*(user.workers for user in users))) > 1
        assert max(len(user.workers) for user in users) > 1
        assert "Traceback" not in server.stderr


class Balancer:
    """A proxy that takes the next server for each connection, but for those that refuse.

    Args:
        ports: Where the servers listen, if they run.
    """

    def __init__(self, ports: list[int]) -> None:
        self._ports = cycle(ports)
        self._count = len(ports)

    async def handle(self, client: trio.SocketStream) -> None:
        """Be one connection."""
        for _ in range(self._count):
            with suppress(OSError):
                async with await trio.open_tcp_stream(HOST, next(self._ports)) as server:
                    await self._connect(client, server)
                    return

    async def _connect(self, client: trio.SocketStream, server: trio.SocketStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, client, server, nursery.cancel_scope)
            nursery.start_soon(self._pump, server, client, nursery.cancel_scope)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await target.send_all(data)
        scope.cancel()


class Fleet:
    """Server processes, each at a port of its own that it keeps."""

    def __init__(self, folder: Path, storage: str, *, servers: int, workers: int) -> None:
        self.ports = [free_port() for _ in range(servers)]
        self._command = [*HYPERCORN, "-w", str(workers)]
        self._folder = folder
        self._storage = storage
        self._running: dict[int, tuple[Server, ExitStack]] = {}
        self.complaints = ""

    def start(self, port: int) -> None:
        stack = ExitStack()
        env = {"STORAGE": self._storage}
        server = served(self._command, cwd=self._folder, env=env, port=port)
        self._running[port] = stack.enter_context(server), stack

    def stop(self, port: int) -> int:
        """End it as a deployment does; gives its exit code."""
        server, stack = self._running.pop(port)
        with stack:
            code = server.stop(signal.SIGTERM, within=PATIENCE)
            self.complaints += server.stderr
            return code

    async def restart(self, port: int) -> None:
        assert await trio.to_thread.run_sync(self.stop, port) == 0
        await trio.to_thread.run_sync(self.start, port)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self.close)
            for port in self.ports:
                self.start(port)
            stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for _, stack in self._running.values():
            stack.close()


async def test_a_rolling_restart_loses_nothing(folder: Path, redis_server: RedisServer) -> None:
    with Fleet(folder, redis_server.url, servers=3, workers=1) as fleet:
        async with balanced(fleet.ports) as port:
            users = [User(port, seed, interval=1.0) for seed in range(200)]
            async with all_living(users):
                await until_all_have_sent(users, 1)
                for each in fleet.ports:
                    await fleet.restart(each)
                    await until_all_have_sent(users, 1)
        for user in users:
            user.check()
            assert len(user.client.inits) > 1
        assert "Traceback" not in fleet.complaints


async def test_all_workers_are_restarted_at_once_and_nothing_is_lost(
    folder: Path, redis_server: RedisServer
) -> None:
    with Fleet(folder, redis_server.url, servers=1, workers=4) as fleet:
        (port,) = fleet.ports
        users = [User(port, seed, interval=0.2) for seed in range(40)]
        async with all_living(users):
            await until_all_have_sent(users, 1)
            await fleet.restart(port)
            await until_all_have_sent(users, 1)
        for user in users:
            user.check()
            assert len(user.client.inits) > 1
            assert len(user.workers) > 1
        assert "Traceback" not in fleet.complaints


@asynccontextmanager
async def balanced(ports: list[int]) -> AsyncIterator[int]:
    """Give a port that leads to all of these."""
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, Balancer(ports).handle, 0, host=HOST)
        (listener,) = await nursery.start(serve)
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def all_living(users: list[User]) -> AsyncIterator[None]:
    """Let users send numbers during the block; it ends when all are answered."""
    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as nursery:
            for user in users:
                nursery.start_soon(user.live)
            yield
            for user in users:
                user.stop()
            while not all(user.client.is_settled for user in users):  # noqa: ASYNC110
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()


async def until_all_have_sent(users: list[User], more: int) -> None:
    """Wait until each has sent so many more numbers, and every earlier one is answered."""
    before = {user: list(user.sent) for user in users}
    while not all(  # noqa: ASYNC110 - the other side is other processes
        len(user.sent) >= len(sent) + more and all(each.result is not None for each in sent)
        for user, sent in before.items()
    ):
        await trio.sleep(0.05)
