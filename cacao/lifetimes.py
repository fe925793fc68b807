"""What an author declares to run beside events: tasks, timers, hooks, effects and resources."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from math import floor, isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import trio

from cacao.errors import DeclarationError
from cacao.reactive import takes_session
from cacao.registry import Place
from cacao.resource import Resource

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["Job", "Lifetimes", "Moment", "TimerScope", "keep_time"]

T = TypeVar("T")

Moment = Literal["on_session_start", "on_connect", "on_disconnect", "on_session_end"]
TimerScope = Literal["session", "app"]


@dataclass(frozen=True, slots=True)
class Job:
    """A function of the author's that takes `(session)` or nothing.

    Attributes:
        where: What it is, in words: "timer 'tick'".
        place: Where it was declared.
        function: As the author wrote it.
        takes_session: Whether it takes the session.
        is_async: Whether it is an async function.
    """

    where: str
    place: Place
    function: Callable[..., Any]
    takes_session: bool
    is_async: bool

    async def run(self, session: object = None) -> None:
        """Call it, and wait for it if it is async."""
        result = self.function(session) if self.takes_session else self.function()
        if self.is_async:
            await result


class Lifetimes:
    """The jobs of an app, in the order of their declaration.

    Attributes:
        tasks: Run once in each run of the app.
        app_timers: Run again and again in each run of the app; seconds and job.
        session_timers: The same in each session.
        hooks: By the moment of a session's life at which they run.
        effects: Run in each session when what they read has changed.
        resources: Fetched in each session when what they depend on has changed.
    """

    def __init__(self) -> None:
        self.tasks: list[Job] = []
        self.app_timers: list[tuple[float, Job]] = []
        self.session_timers: list[tuple[float, Job]] = []
        self.hooks: dict[Moment, list[Job]] = {
            "on_session_start": [],
            "on_connect": [],
            "on_disconnect": [],
            "on_session_end": [],
        }
        self.effects: list[Job] = []
        self.resources: list[Resource[Any]] = []

    def declare_task(self, function: Callable[..., object]) -> None:
        """Add a task of the app.

        Raises:
            DeclarationError: It is not async, or takes a parameter.
        """
        job = _job("task", function)
        if not job.is_async:
            raise DeclarationError(
                f"{job.where} at {job.place} is not async; declare it with 'async def', "
                "it is to run beside everything else"
            )
        self.tasks.append(_for_app(job))

    def declare_timer(
        self, seconds: float, scope: TimerScope, function: Callable[..., object]
    ) -> None:
        """Add a timer of each session, or of the app.

        Raises:
            DeclarationError: The interval, the scope or the function cannot be used.
        """
        job = _job("timer", function)
        if seconds <= 0 or not isfinite(seconds):
            raise DeclarationError(
                f"{job.where} at {job.place} runs every {seconds!r} s; give a positive number"
            )
        if scope == "session":
            self.session_timers.append((seconds, job))
        elif scope == "app":
            self.app_timers.append((seconds, _for_app(job)))
        else:
            raise DeclarationError(
                f"{job.where} at {job.place} has scope {scope!r}; give 'session' or 'app'"
            )

    def declare_hook(self, moment: Moment, function: Callable[..., object]) -> None:
        """Add what runs at a moment of each session's life.

        Raises:
            DeclarationError: The function takes other parameters than `(session)` or none.
        """
        self.hooks[moment].append(_job(f"{moment} hook", function))

    def declare_effect(self, function: Callable[..., object]) -> None:
        """Add an effect of each session.

        Raises:
            DeclarationError: The function takes other parameters than `(session)` or none.
        """
        self.effects.append(_job("effect", function))

    def declare_resource(
        self, function: Callable[..., Awaitable[T]], name: str | None, *, client: bool
    ) -> Resource[T]:
        """Add a resource of each session; it joins the current registry.

        Raises:
            DeclarationError: The function or the name cannot be used.
        """
        job = _job("resource", function)
        if not job.is_async:
            raise DeclarationError(
                f"{job.where} at {job.place} is not async; declare it with 'async def', "
                "or make it a Computed, which waits for nothing"
            )
        fetch = function if job.takes_session else lambda _: function()
        resource = Resource(fetch, function.__name__ if name is None else name, client=client)
        self.resources.append(resource)
        return resource


async def keep_time(seconds: float, run: Callable[[], Awaitable[object]]) -> None:
    """Run something at every multiple of an interval from now, for ever.

    A run that takes longer than the interval delays the next one, which then begins at once; what
    else came due meanwhile is left out, and the times stay multiples of the interval.
    """
    # The clock of a test has a faster one: in a day of seconds there are 86,400 ticks.
    sleep_until = getattr(trio.lowlevel.current_clock(), "sleep_until", trio.sleep_until)
    start = trio.current_time()
    ticks = 1
    while True:
        await sleep_until(start + ticks * seconds)
        await run()
        ticks = max(ticks + 1, floor((trio.current_time() - start) / seconds))


def _job(kind: str, function: Callable[..., object]) -> Job:
    where = f"{kind} {getattr(function, '__name__', type(function).__name__)!r}"
    needs_session = takes_session(function, where)
    return Job(
        where, Place.of_caller(), function, needs_session, inspect.iscoroutinefunction(function)
    )


def _for_app(job: Job) -> Job:
    if job.takes_session:
        raise DeclarationError(
            f"{job.where} at {job.place} takes a session; it belongs to the whole app, "
            "so declare it without parameters"
        )
    return job
