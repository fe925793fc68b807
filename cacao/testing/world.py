"""The world of one app under synchronous test: its run, stepped by hand, and its clients."""

from __future__ import annotations

import time
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import trio

from cacao.errors import ConnectionClosed, HostingError
from cacao.testing.hand_pump import HandPump
from cacao.testing.open_worlds import enter_world, find_world, forget_world
from cacao.testing.settings import current_settings, take_seed
from cacao.testing.stage import ROUNDS, Stage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from cacao.app import App
    from cacao.testing.line import Line
    from cacao.testing.settings import Via

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
        max_ticks: Scheduler steps that one moment of virtual time may take.
        now: The time at its beginning; see `Stage`.
        via: How its clients reach it.

    Raises:
        TypeError: `app` is no App.
        HostingError: A trio task is running here.
    """

    def __init__(
        self,
        app: App,
        *,
        seed: int,
        max_ticks: int,
        now: datetime | None = None,
        via: Via = "memory",
    ) -> None:
        self.stage = Stage(app, now, via)
        self.seed = seed
        self.max_ticks = max_ticks
        self._app = app
        self._pump = HandPump(
            self.stage.run, seed=seed, max_ticks=max_ticks, is_busy=self.stage.is_busy
        )
        self._end = weakref.finalize(self, self._pump.abandon, self.stage.end)
        self._pump.settle()
        self._pump.call(self.stage.mark_start)
        self.stage.do = _weakly(self)
        enter_world(app, self)

    @classmethod
    def of(
        cls,
        app: App,
        *,
        seed: int | None,
        max_ticks: int,
        now: datetime | None = None,
        via: Via | None = None,
    ) -> World:
        """Find the open world of an app, or make one.

        Args:
            app: The app under test.
            seed: As in the constructor; None for that of the open world, else the test run's.
            max_ticks: As in the constructor.
            now: The same; None for that of the open world, else the usual one.
            via: The same; None for that of the open world, else the test run's.

        Raises:
            ValueError: The open world has another seed or limit.
            Exception: As the constructor.
        """
        refuse_inside_trio()
        world = find_world(app)
        if world is None or world.is_broken:
            seed = take_seed() if seed is None else seed
            via = via or current_settings().via
            return cls(app, seed=seed, max_ticks=max_ticks, now=now, via=via)
        is_same = (
            seed in {None, world.seed}
            and now in {None, world.stage.start}
            and via in {None, world.stage.via}
        )
        if world.max_ticks != max_ticks or not is_same:
            raise ValueError(
                f"this app's world is open with seed={world.seed}, max_ticks={world.max_ticks}, "
                f"now={world.stage.start!r}, via={world.stage.via!r}; "
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
        """Do something inside the run, settle unless in `together`, and raise what is unread.

        Returns:
            What `action` gave.
        """
        refuse_inside_trio()
        if self.stage.is_together:
            return self._pump.call(action, *args)
        value = self._pump.do(action, *args)
        self._come_to_rest()
        return value

    def _come_to_rest(self) -> None:
        """Let changes go out that gather for a moment; then raise what no test has seen."""
        for _ in range(ROUNDS):
            if self._pump.has_ended or not self._pump.call(self.stage.send_gathered):
                break
            self._pump.settle()
        self.stage.unread.raise_unread()

    def advance(self, seconds: float) -> None:
        """Let virtual time pass; then raise what no test has seen."""
        refuse_inside_trio()
        self.stage.refuse_together()
        self._pump.advance(seconds)
        self._come_to_rest()

    def settle(self) -> None:
        """Let the app come to rest, threads included; then raise what no test has seen.

        Raises:
            UnsettledError: A thread does not end.
        """
        refuse_inside_trio()
        self.stage.refuse_together()
        self._drive(self.stage.wait_for_threads())
        self._come_to_rest()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let nothing of the app run within the block; at its end all of it settles."""
        with self.stage.together() as earlier:
            yield
        self.do(_nothing)
        self.stage.raise_refusals(earlier)

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

    def leave(self, lines: Iterable[Line]) -> None:
        """Let clients go; the last ones close the world."""
        refuse_inside_trio()
        if self._pump.call(self.stage.leave, lines):
            self.close()
        elif not self.is_broken:
            self.do(_nothing)

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
            self._drive(self.stage.close())
        finally:
            self._pump.put_away()

    def _drive(self, steps: Iterator[float]) -> None:
        """Let the stage take its steps inside the run, and the time pass that each asks for."""
        while not self.is_broken and (seconds := self._pump.call(next, steps, None)) is not None:
            if not self._pump.has_ended:
                self._pump.advance(seconds)


def _weakly(world: World) -> Callable[[Callable[[], object]], object]:
    """Give `world.do` without holding the world: only its clients do."""
    reference = weakref.ref(world)

    def do(act: Callable[[], object]) -> object:
        found = reference()
        if found is None:
            raise ConnectionClosed(1001, "the test client is gone; keep it, not its network alone")
        return found.do(act)

    return do


def _nothing() -> None:
    """Only let the app come to rest."""


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
