"""Who is turned away at the door, before the app is asked: by `Host`, and by `Origin`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from cacao.hosts import AllowedHosts, host_of, is_loopback
from cacao.origins import is_allowed_origin
from cacao.protocol import CloseCode

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["Gate", "Refusal"]

# Anybody can send names without end: after so many the log has said what it can say.
_MAX_NAMED = 100

_log = logging.getLogger("cacao")


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a request is turned away.

    Attributes:
        status: For what speaks HTTP.
        reason: For a person; betrays nothing of the server.
        code: For a WebSocket that has to be opened to be told.
    """

    status: HTTPStatus
    reason: str
    code: CloseCode = CloseCode.POLICY


class Gate:
    """Looks at the headers of each request, and lets it in or not.

    Args:
        allowed_hosts: See `AllowedHosts`.
        allowed_origins: Whose pages may open a WebSocket besides those of this host.

    Raises:
        DeclarationError: A host is no name.
    """

    def __init__(
        self, allowed_hosts: Collection[str] = (), allowed_origins: Collection[str] = ()
    ) -> None:
        self._hosts = AllowedHosts(allowed_hosts)
        self._origins = tuple(allowed_origins)
        self._named: set[str] = set()

    def judge(self, scope: Mapping[str, Any]) -> Refusal | None:
        """Give why an ASGI call is turned away; None lets it in."""
        return self._judge_host(scope) or self._judge_origin(scope)

    def _judge_host(self, scope: Mapping[str, Any]) -> Refusal | None:
        host = host_of(scope["headers"])
        if host is None:
            return Refusal(HTTPStatus.BAD_REQUEST, "the Host header must name one host")
        server = _server_of(scope)
        if self._hosts.allow(host, server):
            return None
        here = f"on loopback ({server}) and " if is_loopback(server) else ""
        self._tell(
            f"refused a request for host {host!r}, which is not {here}on the app's list; "
            f"if it is yours, and a proxy passes it on: App(allowed_hosts=[{host!r}])"
        )
        return Refusal(HTTPStatus.MISDIRECTED_REQUEST, "this server does not answer to that host")

    def _judge_origin(self, scope: Mapping[str, Any]) -> Refusal | None:
        if scope["type"] != "websocket":
            return None
        headers = scope["headers"]
        is_secure = scope.get("scheme") == "wss"
        if is_allowed_origin(headers, is_secure=is_secure, allowed=self._origins):
            return None
        origin, host = (_first(headers, name) for name in (b"origin", b"host"))
        self._tell(
            f"refused a page of origin {origin!r} at host {host!r}; "
            f"if it is yours: App(allowed_origins=[{origin!r}])"
        )
        return Refusal(HTTPStatus.FORBIDDEN, "this server does not know the page's origin")

    def _tell(self, message: str) -> None:
        """Write a message to the log, once."""
        if message not in self._named and len(self._named) < _MAX_NAMED:
            self._named.add(message)
            _log.warning(message)


def _server_of(scope: Mapping[str, Any]) -> str:
    """Give the address of this side; empty for a Unix socket, whose place is no address."""
    server = scope.get("server")
    return str(server[0]) if server and server[1] is not None else ""


def _first(headers: Collection[tuple[bytes, bytes]], wanted: bytes) -> str:
    return next(value.decode("latin-1")[:200] for name, value in headers if name == wanted)
