"""What runs in one session beside its events: background tasks, timers, effects, hooks.

How it works. A task runs in the session's nursery. When the user leaves, it is cancelled, or, if it
was started to `finish`, it has some seconds left. All that the author has declared for every
session is of the first kind.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import TYPE_CHECKING, TypeVarTuple

import trio

from cacao.async_effect import run_async_effect
from cacao.errors import DeclarationError
from cacao.lifetimes import keep_time
from cacao.options import check_on_leave
from cacao.reactive import Effect, set_current_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cacao.lifetimes import Job, Lifetimes, Moment
    from cacao.options import OnLeave, StartSoon
    from cacao.store import Store

__all__ = ["Background"]

Arguments = TypeVarTuple("Arguments")


class Background:
    """The jobs of one session.

    Args:
        session: What they get.
        starter: Gives what starts a task, by what becomes of it when the user leaves.
        lifetimes: What the author has declared.
        hook_timeout: Seconds that the hooks of an end may take together.
        failed: Told where, and what was raised; gives the error's id.
    """

    __slots__ = ("_failed", "_hook_timeout", "_lifetimes", "_session", "_starter")

    def __init__(
        self,
        session: Store,
        starter: Callable[[OnLeave], StartSoon],
        lifetimes: Lifetimes,
        hook_timeout: float,
        failed: Callable[[str, Exception], str],
    ) -> None:
        self._session = session
        self._starter = starter
        self._lifetimes = lifetimes
        self._hook_timeout = hook_timeout
        self._failed = failed

    def start_soon(
        self,
        function: Callable[[*Arguments], Awaitable[object]],
        args: tuple[*Arguments],
        on_leave: OnLeave,
        name: str | None,
    ) -> None:
        """Run an async function; see `Session.start_soon`."""
        label = name or getattr(function, "__name__", type(function).__name__)
        where = f"background task {label!r}"
        check_on_leave(on_leave, where)
        start_soon = self._starter(on_leave)
        coroutine = function(*args)
        if not inspect.isawaitable(coroutine):
            raise DeclarationError(f"{where} is {function!r}; give an async function")
        start_soon(self._run, coroutine, where, name=where)

    def start_declared(self) -> None:
        """Start the timers, effects and resources that every session has."""
        for seconds, job in self._lifetimes.session_timers:
            self._start(job.where, keep_time, seconds, partial(self._run_job, job))
        for job in self._lifetimes.effects:
            if job.is_async:
                begin, failed = partial(job.run, self._session), partial(self._failed, job.where)
                self._start(job.where, run_async_effect, begin, self._session, failed)
            else:
                Effect(job.function, self._session, place=job.place)
        for resource in self._lifetimes.resources:
            where = f"resource {resource.name!r}"
            self._start(where, resource.keep_fetched, self._session, partial(self._failed, where))

    async def run_hooks(self, moment: Moment) -> None:
        """Run the hooks of a moment, one after the other."""
        for hook in self._lifetimes.hooks[moment]:
            await self._run_job(hook)

    async def run_last_hooks(self, moment: Moment) -> None:
        """Run the hooks of an end: also when that is a cancellation, but not for ever."""
        if not self._lifetimes.hooks[moment]:
            return
        with trio.move_on_after(self._hook_timeout, shield=True) as scope:
            await self.run_hooks(moment)
        if scope.cancelled_caught:
            self.was_cut(f"{moment} hooks", self._hook_timeout)

    def was_cut(self, where: str, seconds: float) -> None:
        """Tell that something had to be cancelled, as it took too long."""
        self._failed(where, TimeoutError(f"{where} took more than {seconds:g} s and was cut off"))

    def _start(self, name: str, function: Callable[..., Awaitable[object]], *args: object) -> None:
        self._starter("cancel")(function, *args, name=name)

    async def _run(self, coroutine: Awaitable[object], where: str) -> None:
        set_current_session(self._session)  # it may have been started by another one's task
        try:
            await coroutine
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            self._failed(where, error)

    async def _run_job(self, job: Job) -> None:
        try:
            await job.run(self._session)
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            self._failed(job.where, error)
