"""The first message of a `cacao.v1` client: who it is, and what it can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from cacao.errors import ConnectionClosed, MessageError
from cacao.protocol import (
    CloseCode,
    Error,
    ErrorCode,
    Hello,
    byte_length_exceeds,
    decode,
    encode,
)

if TYPE_CHECKING:
    from cacao.connection import Connection
    from cacao.limits import Limits

__all__ = ["wait_for_hello"]


async def wait_for_hello(connection: Connection, limits: Limits) -> Hello:
    """Wait for `hello`, answering all else with an error.

    Raises:
        ConnectionClosed: It did not come within `hello_timeout`, or was too big; with the code and
            the reason to close with. Or the client has gone.
    """
    with trio.move_on_after(limits.hello_timeout):
        while True:
            text = await connection.receive()
            if byte_length_exceeds(text, limits.max_message_bytes):
                raise ConnectionClosed(CloseCode.TOO_BIG, "the first message is 'hello'")
            try:
                message = decode(text, limits)
                if isinstance(message, Hello):
                    return message
                answer = Error(ErrorCode.INVALID_MESSAGE, "the first message is 'hello'")
            except MessageError as error:
                answer = Error(error.code, str(error), error.event_id)
            await connection.send(encode(answer))
    raise ConnectionClosed(CloseCode.POLICY, "no 'hello' came in time")
