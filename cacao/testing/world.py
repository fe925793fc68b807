"""The world of one app under synchronous test: its run, stepped by hand, and its clients."""

from __future__ import annotations

import time
import weakref
from typing import TYPE_CHECKING, TypeVar

import trio

from cacao.errors import HostingError
from cacao.testing.hand_pump import HandPump
from cacao.testing.open_worlds import enter_world, find_world, forget_world
from cacao.testing.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.app import App
    from cacao.testing.line import Line

__all__ = ["World"]

T = TypeVar("T")

# Real seconds between two looks at work that threads or sockets do.
_POLL = 0.001


class World:
    """One run of an app, and the clients in it.

    Only clients hold a world, and it is found by its app: the second client of an app joins the
    first one's. A world that nobody holds any more ends silently.

    Args:
        app: The app under test.
        seed: Decides the order in which ready tasks run.
        max_ticks: Scheduler steps that may pass before everything has come to rest.

    Raises:
        TypeError: `app` is no App.
        HostingError: A trio task is running here.
    """

    def __init__(self, app: App, *, seed: int, max_ticks: int) -> None:
        self.stage = Stage(app)
        self.seed = seed
        self.max_ticks = max_ticks
        self._app = app
        self._pump = HandPump(self.stage.run, seed=seed, max_ticks=max_ticks)
        self._end = weakref.finalize(self, self._pump.abandon, self.stage.end)
        self._pump.settle()
        self._pump.call(self.stage.mark_start)
        enter_world(app, self)

    @classmethod
    def of(cls, app: App, *, seed: int, max_ticks: int) -> World:
        """Find the open world of an app, or make one.

        Raises:
            ValueError: The open world has another seed or limit.
            Exception: As the constructor.
        """
        refuse_inside_trio()
        world = find_world(app)
        if world is None or world.is_broken:
            return cls(app, seed=seed, max_ticks=max_ticks)
        if (world.seed, world.max_ticks) != (seed, max_ticks):
            raise ValueError(
                f"this app's world is open with seed={world.seed}, max_ticks={world.max_ticks}; "
                "give every client of it the same, or close the others first"
            )
        return world

    @property
    def is_broken(self) -> bool:
        """Whether nothing more can happen in it."""
        return self._pump.broken is not None

    @property
    def time(self) -> float:
        """Virtual seconds since the world began."""
        return self._pump.time

    def do(self, action: Callable[..., T], *args: object) -> T:
        """Do something inside the run, settle, and raise what no test has seen.

        Returns:
            What `action` gave.
        """
        refuse_inside_trio()
        value = self._pump.do(action, *args)
        if self._pump.call(self.stage.spread_news):
            self._pump.settle()
        self.stage.unread.raise_unread()
        return value

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; then raise what no test has seen."""
        refuse_inside_trio()
        self._pump.advance(seconds)
        self.stage.unread.raise_unread()

    def wait(self, predicate: Callable[[], object], timeout: float) -> None:
        """Let real time pass, for threads and sockets, until the predicate holds.

        Raises:
            TimeoutError: It did not hold within so many real seconds.
        """
        give_up = time.monotonic() + timeout
        while True:
            self.advance(0)
            if predicate():
                return
            if time.monotonic() > give_up:
                raise TimeoutError(f"{predicate!r} was not true within {timeout} s of real time")
            time.sleep(_POLL)

    def leave(self, line: Line) -> None:
        """Let a client go; the last one closes the world."""
        refuse_inside_trio()
        if self._pump.call(self.stage.leave, line):
            self.close()
        elif not self.is_broken:
            self.advance(0)

    def close(self) -> None:
        """Close every client and stop the app, checking that nothing is left.

        A broken world is only forgotten; closing twice is nothing.

        Raises:
            LeakError: A task outlived the last client.
            Exception: An error of the app's that no test has seen.
        """
        forget_world(self._app, self)
        if self._end.detach() is None:
            return
        try:
            self._end_well()
        finally:
            self._pump.put_away()

    def _end_well(self) -> None:
        steps = self.stage.close()
        while not self.is_broken and (seconds := self._pump.call(next, steps, None)) is not None:
            self._pump.advance(seconds)


def refuse_inside_trio() -> None:
    """Refuse to step a run from inside another one's task.

    Raises:
        HostingError: A trio task is running here.
    """
    if trio.lowlevel.in_trio_task():
        raise HostingError(
            "TestClient cannot be used inside a trio task, where it would stop all others; "
            "use 'async with AsyncTestClient(app) as client' and 'await client.send(...)'"
        )
