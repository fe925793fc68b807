"""HTTP: no upgrade to `h2c`, and which silent client owes a sign of life."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

import h11
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H11Protocol

from cacao.hardening.websockets import WebSocket

if TYPE_CHECKING:
    from typing import Any, Protocol

    from h2.events import RequestReceived
    from hypercorn.events import Event
    from hypercorn.protocol.events import Event as StreamEvent

    class Probed(Protocol):
        """A protocol that can ask a silent client for a sign of life."""

        async def probe(self) -> bool:
            """Ask, and tell whether to wait on; False ends the connection."""


__all__ = ["Http1", "Http2", "Probed"]

_PING = bytes(8)
_VERSIONS = (b"1.0", b"1.1")


class Http1(H11Protocol):
    """HTTP/1.1, and the WebSockets that begin with it; what can be read in two ways gets 400."""

    async def probe(self) -> bool:
        """Ask a WebSocket for a pong; give up, with 408, on a request that does not go on.

        A client that waits for its response owes nothing.
        """
        if isinstance(self.stream, WebSocket):
            return await self.stream.probe()
        if self.stream is not None and self.connection.their_state is not h11.SEND_BODY:
            return True
        if self.connection.our_state is h11.SEND_RESPONSE:
            await self._send_error_response(HTTPStatus.REQUEST_TIMEOUT)
        return False

    async def _check_protocol(self, event: h11.Request) -> None:
        """Find out whether the client speaks HTTP/2 without TLS, from its first bytes.

        An `Upgrade: h2c` is answered in HTTP/1.1, as any server may: no browser sends it, RFC 9113
        gives it up, and hypercorn trusts the settings in it.
        """
        if (b"upgrade", b"h2c") not in ((name, value.lower()) for name, value in event.headers):
            await super()._check_protocol(event)

    async def _create_stream(self, request: h11.Request) -> None:
        if _is_clear(request):
            await super()._create_stream(request)
        else:
            await self._send_error_response(HTTPStatus.BAD_REQUEST)
            await self.send(Closed())

    async def _send_error_response(self, status_code: int) -> None:
        # A transfer coding that nobody knows, for which h11 has 501, is the client's fault, too.
        is_ours = status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        await super()._send_error_response(HTTPStatus.BAD_REQUEST if is_ours else status_code)


def _is_clear(request: h11.Request) -> bool:
    """Whether all who read this request will agree where it ends."""
    names = {name for name, _ in request.headers}
    has_one_length = not {b"content-length", b"transfer-encoding"} <= names
    return has_one_length and request.http_version in _VERSIONS


class Http2(H2Protocol):
    """HTTP/2, without WebSockets in it: a browser opens a connection of its own for each then.

    They would share one socket, and a session that is not read for a while would hold up the
    others and the pages.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._was_asked = False
        del self.connection.local_settings[SettingCodes.ENABLE_CONNECT_PROTOCOL]

    async def handle(self, event: Event) -> None:
        """Take what came, which is a sign of life, or the end."""
        if isinstance(event, RawData):
            self._was_asked = False
        await super().handle(event)
        if isinstance(event, Closed):
            for buffer in self.stream_buffers.values():
                await buffer.close()  # an app may wait for it to be sent

    async def stream_send(self, event: StreamEvent) -> None:
        """Take what a stream sends; nothing after the end, when nobody would send it on."""
        if not self.closed:
            await super().stream_send(event)

    async def probe(self) -> bool:
        """Ask by a PING frame, once, who waits for a response; give up on the others."""
        if self._was_asked or self.idle:
            return False
        self._was_asked = True
        self.connection.ping(_PING)
        await self._flush()
        return True

    async def _create_stream(self, request: RequestReceived) -> None:
        if (b":method", b"CONNECT") in request.headers:
            self.connection.reset_stream(request.stream_id, ErrorCodes.REFUSED_STREAM)
        else:
            await super()._create_stream(request)
