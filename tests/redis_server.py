"""A real Redis for tests: a port and a folder of its own, and nothing of it is left behind."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

_READY_SECONDS = 15
_RETRY_SECONDS = 0.01


class RedisServer:
    """A Redis that is started, stopped and started again, always at the same address.

    Args:
        folder: Where it keeps its log, and its data if it is durable.
        is_durable: Whether what it acknowledged outlives a `stop`; else it starts empty.

    Attributes:
        port: Where it listens on 127.0.0.1.
        url: The same as a URL, with the database 0.
    """

    def __init__(self, folder: Path, *, is_durable: bool = False) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._is_durable = is_durable
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return (self._folder / "redis.log").read_text()

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: It ends, or does not answer within 15 seconds; with what it wrote.
        """
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _READY_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"redis-server does not answer; it wrote: {self.log}")
            time.sleep(_RETRY_SECONDS)

    def stop(self) -> None:
        """Kill it, as a machine that fails does; stopping twice is nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kill it and start it again."""
        self.stop()
        self.start()

    def freeze(self) -> None:
        """Let it hang: its connections stay open, and nothing is answered until `thaw`."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "it is not running"
        self._process.send_signal(number)

    def _command(self) -> list[str]:
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("no redis-server is found: run `make test`, or install it")
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes" if self._is_durable else "no",
            "appendfsync": "always",
        }
        return [
            program,
            *(word for name, value in options.items() for word in (f"--{name}", value)),
        ]

    def _answers(self) -> bool:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.port), 1) as s,
        ):
            s.sendall(b"PING\r\n")
            return s.recv(16) == b"+PONG\r\n"  # else it is still loading
        return False


@contextlib.contextmanager
def running_redis(*, is_durable: bool = False) -> Iterator[RedisServer]:
    """Run a Redis for as long as the block lasts; it may be stopped and started meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        server = RedisServer(Path(folder), is_durable=is_durable)
        server.start()
        try:
            yield server
        finally:
            server.stop()
