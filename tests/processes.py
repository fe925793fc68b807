"""Real servers for tests: start a command, wait until it listens, and never leave it behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HYPERCORN = [str(Path(sys.executable).parent / "hypercorn"), "app:asgi", "-b", "127.0.0.1:{port}"]
"""How a user serves the app of a folder."""

_READY_SECONDS = 60  # four workers on a busy machine
_RETRY_SECONDS = 0.02


@dataclass
class Server:
    """A running server process.

    Attributes:
        port: Where it listens on 127.0.0.1.
        process: The process that was started; its children are in its process group.
    """

    port: int
    process: subprocess.Popen[bytes]
    _stdout: IO[bytes]
    _stderr: IO[bytes]

    @property
    def url(self) -> str:
        """Where the server answers HTTP, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def websocket_url(self) -> str:
        """Where the server accepts WebSockets, without a slash at the end."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def stdout(self) -> str:
        """What the server and its children have written so far."""
        return Path(self._stdout.name).read_text()

    @property
    def stderr(self) -> str:
        """What the server and its children have complained about so far."""
        return Path(self._stderr.name).read_text()

    def stop(self, number: signal.Signals, *, within: float) -> int:
        """Send a signal and return the exit code.

        Raises:
            subprocess.TimeoutExpired: If the server runs for `within` more seconds.
        """
        self.process.send_signal(number)
        return self.process.wait(within)


@contextlib.contextmanager
def served(
    command: list[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
) -> Iterator[Server]:
    """Run a server command until the end of the block; `{port}` in it becomes a free port.

    Args:
        command: The words of the command line.
        cwd: Its working directory; by default ours.
        env: Variables to add to our environment.
        port: The port that `{port}` becomes, instead of a free one.

    Raises:
        RuntimeError: If it ends, or does not listen within 60 seconds; with what it wrote.
    """
    port = free_port() if port is None else port
    with (
        tempfile.NamedTemporaryFile() as stdout,
        tempfile.NamedTemporaryFile() as stderr,
        _group([word.format(port=port) for word in command], cwd, env, stdout, stderr) as process,
    ):
        server = Server(port, process, stdout, stderr)
        _wait_until_listening(server)
        yield server


def free_port() -> int:
    """Find a TCP port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _group(
    command: list[str],
    cwd: Path | None,
    env: Mapping[str, str] | None,
    stdout: IO[bytes],
    stderr: IO[bytes],
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process in a session of its own, and kill all of that at the end."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_until_listening(server: Server) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not _listens(server.port):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                f"server {server.process.args!r} does not listen on port {server.port} "
                f"(exit code {server.process.returncode}); it wrote: {server.stderr}"
            )
        time.sleep(_RETRY_SECONDS)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
