"""Effects that wait: a coroutine that begins anew when what it read in its first step has changed.

How it works. A coroutine's first step goes from its beginning to its first real wait. An `Effect`
of its own makes that step, so the reactive core notes what is read in it, as for any effect. What
comes later runs when the task is resumed, and nobody watches. When the effect is due for a second
time, something it read has changed: the run is cancelled, its end waited for, and the next begins.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import trio

from cacao.reactive import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from types import FrameType

    from cacao.store import Store

    Run = Coroutine[Any, Any, object]

__all__ = ["run_async_effect"]


async def run_async_effect(
    begin: Callable[[], Run], session: Store, failed: Callable[[Exception], object]
) -> None:
    """Run a coroutine, and a new one whenever what the last one read has changed; for ever.

    Two runs never overlap: the older one is cancelled, and has ended when the newer one begins.

    Args:
        begin: Makes the coroutine.
        session: A live session, whose flusher notices changes.
        failed: Told of what a run raises; the next change begins a new one all the same.
    """
    while True:
        change = trio.Event()
        scope = trio.CancelScope()

        def restart(change: trio.Event = change, scope: trio.CancelScope = scope) -> None:
            change.set()
            scope.cancel()

        run = _Watched(begin(), session, restart)
        try:
            with scope:
                await run
        except Exception as error:  # noqa: BLE001 - the author's code: reported, never swallowed
            failed(error)
        await change.wait()
        run.forget()


class _Watched(Generator[Any, Any, object]):
    """Awaits a coroutine, watching its first step.

    Args:
        coroutine: Not begun yet.
        session: Whose values it reads.
        changed: Called once, by the session's flusher.
    """

    def __init__(self, coroutine: Run, session: Store, changed: Callable[[], None]) -> None:
        self._coroutine: Any = coroutine
        self._session = session
        self._changed = changed
        self._effect: Effect
        self._has_begun = False
        self._trap: object = None
        self._raised: BaseException | None = None

    def forget(self) -> None:
        """Watch no longer."""
        self._effect.dispose()

    def __await__(self) -> Generator[Any, Any, object]:
        return self

    def send(self, value: object) -> object:
        """Go on to the next wait, with what the last one gave; first under the effect's eyes."""
        if self._has_begun:
            return self._coroutine.send(value)
        self._effect = Effect(self._step, self._session)
        raised, self._raised = self._raised, None
        if raised is not None:
            raise raised
        return self._trap

    def throw(self, *error: Any) -> object:
        """Go on with what the wait has raised."""
        return self._coroutine.throw(*error)

    def _step(self) -> None:
        if self._has_begun:
            self._changed()
            return
        self._has_begun = True
        try:
            self._trap = self._coroutine.send(None)
        except BaseException as error:  # noqa: BLE001 - the task's own, also its StopIteration
            self._raised = error

    # What trio looks for to tell at which line a task waits.

    @property
    def cr_frame(self) -> FrameType | None:
        """The coroutine's frame."""
        frame: FrameType | None = self._coroutine.cr_frame
        return frame

    @property
    def cr_await(self) -> object:
        """What the coroutine waits for."""
        return self._coroutine.cr_await
