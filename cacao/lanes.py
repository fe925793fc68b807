"""What happens when an event comes while an earlier one of its kind still runs.

It is plain arithmetic on two lists, knows no clock and no task, and so can be checked against a
model: `tests/test_lanes.py` does. `dispatch.py` drives it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, Protocol, TypeVar

from cacao.protocol import ErrorCode

if TYPE_CHECKING:
    from typing import Final

__all__ = ["CONCURRENCIES", "Concurrency", "Lane", "Runnable"]

Concurrency = Literal["queue", "parallel", "latest", "drop", "keep_latest"]

CONCURRENCIES: Final[dict[Concurrency, float]] = {
    "queue": 1,
    "parallel": math.inf,
    "latest": 1,
    "drop": 1,
    "keep_latest": 1,
}
"""The policies, and how many events of a lane each lets run at once unless told otherwise."""


class Runnable(Protocol):
    """One event in a lane."""

    def start(self) -> None:
        """Run; the lane is told by `leave` when that has ended. Called at most once."""
        ...

    def stop(self, code: str) -> None:
        """Come to an end, if it runs, or do not start; with this error code for the client."""
        ...


T = TypeVar("T", bound=Runnable)


class Lane(Generic[T]):
    """The events of one name (and key) that run or wait.

    Args:
        concurrency: What becomes of an event for which there is no place:
            `queue` and `parallel` let it wait, first come, first served;
            `drop` refuses it, as `dropped`;
            `keep_latest` lets it wait in place of the one that waits, which is `superseded`;
            `latest` does the same and also stops what runs, as `superseded`.
        limit: How many may run at once; None for what the policy is made for.
    """

    __slots__ = ("_concurrency", "_places", "_running", "_waiting")

    def __init__(self, concurrency: Concurrency, limit: int | None = None) -> None:
        self._concurrency = concurrency
        self._places = CONCURRENCIES[concurrency] if limit is None else limit
        self._running: dict[T, None] = {}
        self._waiting: deque[T] = deque()

    def __bool__(self) -> bool:
        """Tell whether anything runs; if nothing does, nothing waits."""
        return bool(self._running)

    def arrive(self, run: T) -> None:
        """Let one more event come: it starts, waits or is refused, at once."""
        if len(self._running) < self._places:
            self._start(run)
        elif self._concurrency == "drop":
            run.stop(ErrorCode.DROPPED)
        else:
            self._wait(run)

    def leave(self, run: T) -> None:
        """Let an event go that has ended, or that waits no longer; its place goes to the next."""
        if run in self._running:
            del self._running[run]
            if self._waiting:
                self._start(self._waiting.popleft())
        elif run in self._waiting:
            self._waiting.remove(run)

    def stop(self, code: str) -> None:
        """Stop all that run and wait."""
        self._stop_waiting(code)
        self._stop_running(code)

    def _start(self, run: T) -> None:
        self._running[run] = None
        run.start()

    def _wait(self, run: T) -> None:
        if self._concurrency in {"latest", "keep_latest"}:
            self._stop_waiting(ErrorCode.SUPERSEDED)
        self._waiting.append(run)
        if self._concurrency == "latest":
            self._stop_running(ErrorCode.SUPERSEDED)

    def _stop_waiting(self, code: str) -> None:
        while self._waiting:
            self._waiting.popleft().stop(code)

    def _stop_running(self, code: str) -> None:
        for run in tuple(self._running):
            run.stop(code)
