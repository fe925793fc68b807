"""What time it is, as an app should ask: the real time, or that of the test it runs in.

The functions are those of `time` and `datetime`. In a server they give what those give. In the
run of an app under a test client they give a fixed start and the virtual seconds since then, in
every task and every thread (`trio.to_thread.run_sync`, `thread=True`) that the run has started.
"""

from __future__ import annotations

import time as real
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["follow", "monotonic", "now", "time", "today"]


class _Leader(NamedTuple):
    seconds: Callable[[], float]
    start: datetime


# A ContextVar, because tasks and trio's threads inherit it, and each run of an app has its own.
_leader: ContextVar[_Leader | None] = ContextVar("cacao_clock", default=None)


def time() -> float:
    """Give the seconds since 1970, as `time.time()` does."""
    leader = _leader.get()
    if leader is None:
        return real.time()
    return leader.start.timestamp() + leader.seconds()


def monotonic() -> float:
    """Give seconds that only grow, for measuring how long something takes: `time.monotonic()`."""
    leader = _leader.get()
    return real.monotonic() if leader is None else leader.seconds()


def now(tz: tzinfo | None = None) -> datetime:
    """Give the date and time, as `datetime.now(tz)` does.

    Args:
        tz: The time zone of the answer, such as `datetime.UTC`; None for the local time of this
            machine, without a zone.
    """
    leader = _leader.get()
    if leader is None:
        return datetime.now(tz)
    moment = leader.start + timedelta(seconds=leader.seconds())
    return moment.astimezone().replace(tzinfo=None) if tz is None else moment.astimezone(tz)


def today() -> date:
    """Give the date at this machine, as `date.today()` does."""
    return now().date()


@contextmanager
def follow(seconds: Callable[[], float], start: datetime) -> Iterator[None]:
    """Let the time be another one within a block, and in the tasks and threads started in it.

    Test clients do this for their app; a test may, for what it calls itself.

    Args:
        seconds: Tells how many seconds have passed since `start`. Called in any thread.
        start: The time at the beginning, with its time zone.

    Raises:
        ValueError: `start` has no time zone.
    """
    if start.utcoffset() is None:
        raise ValueError(
            f"the clock cannot start at {start!r}, which has no time zone; "
            "give one, as in datetime(2026, 1, 1, tzinfo=UTC)"
        )
    token = _leader.set(_Leader(seconds, start.astimezone(UTC)))
    try:
        yield
    finally:
        _leader.reset(token)
