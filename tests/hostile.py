"""Clients that break the rules: bytes on a socket, and what comes back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from processes import Server, served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BIN = Path(sys.executable).parent
HYPERCORN = [str(BIN / "hypercorn"), "hostile_app:asgi", "-b", "127.0.0.1:{port}"]
WORKERS = {
    "hypercorn": HYPERCORN,
    "hypercorn -k trio": [*HYPERCORN, "-k", "trio"],
    "hypercorn -k uvloop": [*HYPERCORN, "-k", "uvloop"],
    "cacao run": [str(BIN / "cacao"), "run", "hostile_app.py", "--port", "{port}"],
}
# With the flags that docs/servers.md gives, but for the time: the test waits it out.
UVICORN = [str(BIN / "uvicorn"), "hostile_app:asgi", "--port", "{port}", "--log-level", "warning"]
UVICORN += ["--timeout-graceful-shutdown", "1", "--ws-max-size", "262144"]
UVICORN += ["--ws-per-message-deflate", "false"]
# The two whose connections are different classes of hypercorn's.
KINDS = ["hypercorn", "hypercorn -k trio"]
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
PATIENCE = 10  # seconds, for all that should come soon
NO_CODE = 1006

TEXT, BINARY, CLOSE, PING, PONG, CONTINUATION = 1, 2, 8, 9, 10, 0


def serve(worker: str, **env: str) -> contextlib.AbstractContextManager[Server]:
    """Serve the hostile app under one of WORKERS, or "uvicorn"."""
    return served({**WORKERS, "uvicorn": UVICORN}[worker], cwd=Path(__file__).parent, env=env)


def eventually(is_so: Callable[[], bool]) -> bool:
    """Wait until something is so, and tell whether it came to be."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# --- Bytes ---------------------------------------------------------------------------------------


def request(
    path: str = "/ws",
    headers: Mapping[str, str] = UPGRADE,
    *,
    method: str = "GET",
    more: bytes = b"",
) -> bytes:
    """Write a request; header values are latin-1, and `more` is what comes in the same packet."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + more


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    is_final: bool = True,
    reserved: int = 0,
    is_masked: bool = True,
    claims: int | None = None,
) -> bytes:
    """Write a WebSocket frame; `claims` is the length in its header, if not the true one."""
    length = len(payload) if claims is None else claims
    mask = 0x80 if is_masked else 0
    head = bytes([0x80 * is_final | reserved << 4 | opcode])
    if length < 126:
        head += bytes([mask | length])
    elif length < 2**16:
        head += bytes([mask | 126]) + struct.pack("!H", length)
    else:
        head += bytes([mask | 127]) + struct.pack("!Q", length)
    return head + (b"\0\0\0\0" if is_masked else b"") + payload


def event(name: str, **data: Any) -> bytes:
    """Write the frame of an event."""
    return frame(TEXT, json.dumps({"type": "event", "name": name, "data": data}).encode())


# --- A client ------------------------------------------------------------------------------------


@dataclass
class Client:
    """A socket, and what has been read from it and not yet used."""

    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)

    def send(self, data: bytes) -> None:
        """Send all of it, as far as the server lets us."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def read(self) -> bytes:
        """Read what is there, or wait for it; nothing at the end of the connection."""
        try:
            return self.socket.recv(2**16)
        except ConnectionError:
            return b""

    def read_exactly(self, size: int) -> bytes | None:
        """Read so many bytes; None if the connection ends before."""
        while len(self.received) < size:
            data = self.read()
            if not data:
                return None
            self.received += data
        taken = bytes(self.received[:size])
        del self.received[:size]
        return taken

    def read_status(self) -> int | None:
        """Read the head of a response and give its status; None at the end of the connection."""
        while b"\r\n\r\n" not in self.received:
            data = self.read()
            if not data:
                return None
            self.received += data
        head, _, rest = bytes(self.received).partition(b"\r\n\r\n")
        self.head = head.decode("latin-1")
        self.received = bytearray(rest)
        return int(head.split(b" ", 2)[1])

    def read_frame(self) -> tuple[int, bytes] | None:
        """Read a frame: opcode and payload; None at the end of the connection."""
        head = self.read_exactly(2)
        if head is None:
            return None
        length = head[1]
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(self.read_exactly(size) or b"", "big")
        payload = self.read_exactly(length)
        return None if payload is None else (head[0] & 0x0F, payload)

    def read_message(self) -> dict[str, Any]:
        """Read the next text, as JSON."""
        while (got := self.read_frame()) is not None:
            if got[0] == PING:
                self.send(frame(PONG, got[1]))
            if got[0] == TEXT:
                message: dict[str, Any] = json.loads(got[1])
                return message
        raise EOFError

    def read_close_code(self) -> int | None:
        """Read until the server closes, and give its code; None without one."""
        while (got := self.read_frame()) is not None:
            if got[0] == CLOSE:
                return int.from_bytes(got[1][:2], "big")
        return None

    def is_ended(self) -> bool:
        """Wait for the end of the connection, throwing away what comes before."""
        try:
            while self.read():
                pass
        except TimeoutError:
            return False
        return True


@contextlib.contextmanager
def connected(server: Server, first: bytes = b"", patience: float = PATIENCE) -> Iterator[Client]:
    """Open a connection and send something."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=patience) as raw:
        client = Client(raw)
        client.send(first)
        yield client


@contextlib.contextmanager
def websocket(server: Server, **headers: str) -> Iterator[Client]:
    """Open a WebSocket that speaks the plain protocol, and read its first message."""
    with connected(server, request(headers={**UPGRADE, **headers})) as client:
        assert client.read_status() == 101
        assert client.read_message()["type"] == "init"
        yield client


@dataclass
class Bystander:
    """A user who was there before, and must not notice."""

    client: Client
    count: int = 0

    def still_counts(self) -> bool:
        """Whether its next event is answered with its own next number."""
        self.client.send(event("increment"))
        self.count += 1
        return bool(self.client.read_message()["changes"] == {"count": self.count})


# --- The server ----------------------------------------------------------------------------------


@dataclass
class Victim:
    """A server, and the bystander whom it serves."""

    server: Server
    bystander: Bystander

    def is_well(self) -> bool:
        """Whether the process lives, its bystander counts, and it has not complained."""
        return (
            self.server.process.poll() is None
            and self.bystander.still_counts()
            and "Traceback" not in self.server.stderr
        )

    def peak(self) -> int:
        """How much memory its processes have ever needed, in MiB."""
        return sum(_peak(pid) for pid in _family(self.server.process.pid))


@contextlib.contextmanager
def victim(worker: str, **env: str) -> Iterator[Victim]:
    """Serve the hostile app, with a bystander in it."""
    with serve(worker, **env) as server, websocket(server) as client:
        yield Victim(server, Bystander(client))


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in _family(int(child)))]


def _peak(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) // 1024 if found else 0
