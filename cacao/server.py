"""`app.run()` and `cacao run`: hypercorn, set up well.

The asyncio worker runs here, with trio as its guest: it needs half the time for a message that the
trio worker does. `cacao.hardening` mends both.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any

from hypercorn.asyncio import serve
from hypercorn.config import Config

from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["run"]

# Seconds that open connections get at the end; a page that is open holds one.
_GRACE = 1


def run(asgi: Callable[..., Any], *, host: str, port: int) -> None:
    """Serve an ASGI application until SIGINT or SIGTERM, in this process.

    Args:
        asgi: From `cacao.hosting.host`.
        host: Address to listen on.
        port: TCP port; 0 picks a free one.

    Raises:
        HostingError: The address cannot be had.
    """
    config = Config()
    config.graceful_timeout = _GRACE
    listener = _listener(host, port)
    name, taken = listener.getsockname()[:2]
    config.bind = [f"fd://{listener.detach()}"]  # hypercorn closes it
    shown = f"[{name}]" if ":" in name else name
    print(f"Cacao serves http://{shown}:{taken} (Ctrl-C ends it)", flush=True)  # noqa: T201
    asyncio.run(serve(asgi, config))


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise HostingError(
                f"port {port} on {host} is taken by another process; "
                "end that one, or pick another: app.run(port=8001)"
            ) from None
        raise HostingError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener
