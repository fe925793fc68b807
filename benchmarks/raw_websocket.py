"""A WebSocket client that costs next to nothing, so that what is measured is the server."""

from __future__ import annotations

import base64
import os
import socket
import struct

__all__ = ["RawWebSocket"]


class RawWebSocket:
    """One blocking connection to 127.0.0.1; text messages of at most 64 KiB.

    Args:
        port: Where the server listens.
        subprotocol: Asked for, if given.
    """

    def __init__(self, port: int, subprotocol: str | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = b""
        lines = [
            "GET /ws HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        ]
        if subprotocol:
            lines.append(f"Sec-WebSocket-Protocol: {subprotocol}")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        if b" 101" not in head.partition(b"\r\n")[0]:
            raise ConnectionError(f"handshake refused: {head!r}")

    @staticmethod
    def frame(text: bytes) -> bytes:
        """Wrap a text in a frame; masked with zeros, which is a mask like any other."""
        length = len(text)
        if length < 126:
            return struct.pack("!BB4x", 0x81, 0x80 | length) + text
        return struct.pack("!BBH4x", 0x81, 0x80 | 126, length) + text

    def send(self, frame: bytes) -> None:
        """Send a frame made by `frame`."""
        self.socket.sendall(frame)

    def receive(self) -> bytes:
        """Wait for the next text message; a ping is passed over."""
        while True:
            while (end := self._frame_end()) is None:
                self._fill()
            start, stop = end
            is_text = self._buffer[0] == 0x81
            payload, self._buffer = self._buffer[start:stop], self._buffer[stop:]
            if is_text:
                return payload

    def close(self) -> None:
        """Drop the connection."""
        self.socket.close()

    def _frame_end(self) -> tuple[int, int] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        start, length = 2, buffer[1] & 0x7F
        if length == 126:
            if len(buffer) < 4:
                return None
            start, length = 4, int.from_bytes(buffer[2:4], "big")
        stop = start + length
        return (start, stop) if len(buffer) >= stop else None

    def _fill(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data
