"""Hypercorn 0.18, mended: no client can end it, hold it, or fill its memory.

How it works. Hypercorn names the classes of its parts in a few modules, and looks them up when a
connection comes. `harden` puts subclasses of ours in these places, for the whole process, so that
the plain commands (`hypercorn app:asgi`, also with `-k trio` or `-k uvloop`) get them. Another
release of hypercorn is left as it is; then all of this is to be read again.

- `connections`: one TCP connection. What goes wrong in it ends it alone; writes have a deadline, a
  silent client is asked for a sign of life, and a shutdown ends it in time.
- `inbox`: what waits for an app, in less memory.
- `requests`: HTTP. No upgrade to `h2c`, which two requests end the process by; who owes a sign of
  life.
- `websockets`: the handshake refused with 400 where it cannot be read, no compression, a close
  code for every fault, and the size of a message counted while it comes.
- `shutdown`: who is told that the server begins to end.

What hypercorn does by itself in each case, and what belongs there, is in `docs/servers.md`.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import hypercorn.asyncio.run
import hypercorn.asyncio.tcp_server
import hypercorn.protocol
import hypercorn.protocol.h2
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run

from cacao.hardening.connections import AsyncioConnection, TrioConnection
from cacao.hardening.inbox import AppTasks
from cacao.hardening.requests import Http1, Http2
from cacao.hardening.shutdown import AsyncioWorker, TrioWorker, hear_of_shutdown
from cacao.hardening.websockets import MAX_MESSAGE_BYTES, LegibleHandshake, WebSocket

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["MAX_MESSAGE_BYTES", "harden", "hear_of_shutdown"]

_KNOWN = "0.18."

# Where hypercorn looks a class up, and which of ours stands there.
_PLACES: tuple[tuple[ModuleType, str, type], ...] = (
    (hypercorn.asyncio.run, "TCPServer", AsyncioConnection),
    (hypercorn.asyncio.run, "WorkerContext", AsyncioWorker),
    (hypercorn.asyncio.tcp_server, "TaskGroup", AppTasks),
    (hypercorn.trio.run, "TCPServer", TrioConnection),
    (hypercorn.trio.run, "WorkerContext", TrioWorker),
    (hypercorn.protocol, "H11Protocol", Http1),
    (hypercorn.protocol, "H2Protocol", Http2),
    (hypercorn.protocol.h11, "WSStream", WebSocket),
    (hypercorn.protocol.h2, "WSStream", WebSocket),
    (hypercorn.protocol.ws_stream, "Handshake", LegibleHandshake),
)


def harden() -> None:
    """Mend hypercorn 0.18 in this process, for the workers and connections that start from now on.

    Calling it again changes nothing; under another release of hypercorn it does nothing.
    """
    if version("hypercorn").startswith(_KNOWN):
        for module, name, ours in _PLACES:
            setattr(module, name, ours)
