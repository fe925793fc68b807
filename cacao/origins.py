"""Which pages may open a WebSocket: those of this host, and those on the author's list.

A browser lets any page of the world open a WebSocket to any host, with the user's cookies; only the
`Origin` header tells whose page it is (cross-site WebSocket hijacking). What is no browser sends
none, and could send any: it is let through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["is_allowed_origin"]

_DEFAULT_PORTS = {"http": 80, "https": 443}


def is_allowed_origin(
    headers: Sequence[tuple[bytes, bytes]], *, is_secure: bool, allowed: Collection[str]
) -> bool:
    """Tell whether the page behind a handshake may connect.

    Its origin must be that of the `Host` header: same host, same port. A page that came without TLS
    may not connect with it; the other way round is what a proxy that ends TLS makes of it.

    Args:
        headers: Of the handshake, names in lower case.
        is_secure: Whether the handshake came over TLS.
        allowed: Origins that may connect besides, such as "https://example.com"; "*" for all.
    """
    origins = [value.decode("latin-1") for name, value in headers if name == b"origin"]
    hosts = [value.decode("latin-1") for name, value in headers if name == b"host"]
    if not origins or "*" in allowed:
        return True
    if len(origins) > 1 or len(hosts) != 1:
        return False
    return origins[0] in allowed or _is_own(origins[0], hosts[0], is_secure=is_secure)


def _is_own(origin: str, host: str, *, is_secure: bool) -> bool:
    try:
        parts = urlsplit(origin)
        own = urlsplit(f"{parts.scheme}://{host}")
        default = _DEFAULT_PORTS[parts.scheme]
        same_port = (parts.port or default) == (own.port or default)
    except (ValueError, KeyError):  # malformed, or "null", or of an extension
        return False
    if is_secure and parts.scheme != "https":
        return False
    return parts.hostname is not None and parts.hostname == own.hostname and same_port
