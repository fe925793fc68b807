"""What stands around the answer to an event: the type of a middleware, and the useful ones.

A middleware is an async function of `(session, event, call_next)`. It may look, change the event,
refuse it by a `MessageError`, or bound it in time; `await call_next(event)` lets it go on, returns
what the handler returned, and raises what became of it: also `superseded`, `dropped`, `timeout` and
`cancelled` come by as `MessageError`s.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import trio

from cacao.errors import DeclarationError, MessageError
from cacao.protocol import ErrorCode, Event

__all__ = [
    "CallNext",
    "Event",
    "Middleware",
    "log",
    "rate_limit",
    "require",
    "timeout",
    "transform",
]

CallNext = Callable[[Event], Awaitable[object]]
Middleware = Callable[[Any, Event, CallNext], Awaitable[object]]


def chain(middleware: list[Middleware], session: object, last: CallNext) -> CallNext:
    """Put functions around `last`, the first one outermost."""
    for function in reversed(middleware):
        last = _around(function, session, last)
    return last


def _around(function: Middleware, session: object, call_next: CallNext) -> CallNext:
    def call(event: Event) -> Awaitable[object]:
        return function(session, event, call_next)

    return call


def rate_limit(per_second: float, burst: int = 1) -> Middleware:
    """Refuse what comes too fast, as `rate_limited`; each session has a token bucket of its own.

    Args:
        per_second: Events allowed in the long run.
        burst: Events allowed at once, after a quiet time.

    Raises:
        DeclarationError: A number is not positive.
    """
    if per_second <= 0 or burst < 1:
        raise DeclarationError(
            f"rate_limit({per_second!r}, burst={burst!r}) lets nothing through; "
            "give events per second, more than 0, and a burst of at least 1"
        )
    buckets: WeakKeyDictionary[Any, tuple[float, float]] = WeakKeyDictionary()

    async def limit(session: Any, event: Event, call_next: CallNext) -> object:
        now = trio.current_time()
        tokens, since = buckets.get(session, (float(burst), now))
        tokens = min(float(burst), tokens + (now - since) * per_second)
        has_token = tokens > 1 - 1e-9  # ten times a tenth of a second is a second
        buckets[session] = (tokens - has_token, now)
        if not has_token:
            raise MessageError(
                ErrorCode.RATE_LIMITED, f"more than {per_second:g} events per second"
            )
        return await call_next(event)

    return limit


def require(
    check: Callable[[Any, Event], object], message: str = "this session may not do that"
) -> Middleware:
    """Refuse, as `unauthorized`, what does not pass a check.

    Args:
        check: `check(session, event)`, plain or async; true lets the event through.
        message: What the client is told.
    """

    async def guard(session: Any, event: Event, call_next: CallNext) -> object:
        verdict = check(session, event)
        if inspect.isawaitable(verdict):
            verdict = await verdict
        if not verdict:
            raise MessageError(ErrorCode.UNAUTHORIZED, message)
        return await call_next(event)

    return guard


def timeout(seconds: float) -> Middleware:
    """Cancel, as `timeout`, what has not ended in time: waiting for its turn counts, too.

    Args:
        seconds: From when the event gets here.

    Raises:
        DeclarationError: It is not positive.
    """
    if seconds <= 0:
        raise DeclarationError(f"timeout({seconds!r}) ends everything; give seconds, more than 0")

    async def bound(_: Any, event: Event, call_next: CallNext) -> object:
        with trio.move_on_after(seconds):
            return await call_next(event)
        raise MessageError(ErrorCode.TIMEOUT, f"event {event.name!r} took more than {seconds:g} s")

    return bound


def log(logger: logging.Logger | None = None, level: int = logging.INFO) -> Middleware:
    """Write a line for each event: its name, how it ended, and the milliseconds that it took.

    Args:
        logger: Where to; `cacao.events` by default.
        level: Of each line.
    """
    target = logger or logging.getLogger("cacao.events")

    async def write(session: Any, event: Event, call_next: CallNext) -> object:
        start, outcome = trio.current_time(), "ok"
        try:
            return await call_next(event)
        except BaseException as error:
            outcome = error.code if isinstance(error, MessageError) else type(error).__name__
            raise
        finally:
            took = (trio.current_time() - start) * 1000
            fields = {"event": event.name, "session_id": session.id, "outcome": outcome}
            target.log(level, "%s: %s, %.1f ms", event.name, outcome, took, extra=fields)

    return write


def transform(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Middleware:
    """Change the data of events before it is checked.

    Args:
        change: Takes an event's data, as the page sent it, and returns the data to go on with.
    """

    async def pass_changed(_: Any, event: Event, call_next: CallNext) -> object:
        return await call_next(replace(event, data=change(event.data)))

    return pass_changed
