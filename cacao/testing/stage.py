"""One run of an app with all its clients, inside whatever trio run surrounds it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from cacao.app import App
from cacao.peer import Peer
from cacao.testing.leaks import LeakError, find_leaked_tasks, tasks_of_app
from cacao.testing.line import Line
from cacao.testing.tasks import needs_real_time, tasks_below
from cacao.testing.unread import UnreadErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cacao.runtime import Runtime

__all__ = ["Stage"]

# Virtual seconds that the work of users who have left may take to end.
_PATIENCE = 150.0
# Real seconds that threads may take to notice that they are to end, and between two looks at them.
_REAL_PATIENCE = 5.0
_POLL = 0.001


class Stage:
    """The app's runtime, its clients' lines and the errors that no test has seen.

    It never waits by itself: whoever owns it settles the run after each call.

    Args:
        app: The app under test.

    Attributes:
        unread: Where the app's errors gather.

    Raises:
        TypeError: `app` is no App.
    """

    def __init__(self, app: App) -> None:
        if not isinstance(app, App):
            raise TypeError(
                f"a test client needs a cacao.App, not {type(app).__name__} {app!r}; "
                "pass the object made by App() (if this is app.asgi, pass app)"
            )
        self._app = app
        self.unread = UnreadErrors()
        self._lines: list[Line] = []
        self._at_the_door = 0  # clients that `authenticate` looks at
        self._is_over = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the app until `end`; when this returns, nothing of it is left."""
        self._task = trio.lowlevel.current_task()
        self._is_running = True
        try:
            async with (
                self._app.runtime(self.unread.report, storage="memory:") as self._runtime,
                trio.open_nursery() as self._nursery,
            ):
                task_status.started()
                await self._is_over.wait()
                self._nursery.cancel_scope.cancel()
        finally:
            self._is_running = False

    @property
    def runtime(self) -> Runtime:
        """The run of the app, once it has started."""
        return self._runtime

    def mark_start(self) -> None:
        """Take what runs now for the app's own; later tasks must end with their users."""
        self._baseline = tasks_of_app(self._task)

    def open_line(self, subprotocol: str | None, peer: Peer) -> Line:
        """Connect one more client."""
        line = Line(subprotocol, peer)
        self._lines.append(line)
        self._nursery.start_soon(self._serve, line)
        return line

    async def _serve(self, line: Line) -> None:
        connection = line.connection
        try:
            if await self._admit(line):
                await self._runtime.serve(connection)
        except Exception as error:  # noqa: BLE001 -- the test is told, by the next raise_unread
            self.unread.add(error)
        finally:
            connection.hang_up(1006, "the server has let go of the connection")

    async def _admit(self, line: Line) -> bool:
        self._at_the_door += 1
        try:
            admitted = await self._app.admit(line.connection.peer, self.unread.report)
        finally:
            self._at_the_door -= 1
        if isinstance(admitted, Peer):
            line.connection.peer = admitted
            return True
        line.refuse(admitted.code, admitted.reason)
        return False

    def leave(self, line: Line) -> bool:
        """Close a client's line; tells whether it was the last one open."""
        line.leave()
        return all(other.connection.closed for other in self._lines)

    def spread_news(self) -> bool:
        """Let app-wide changes go out that wait for time to pass; tells whether there are any."""
        return self._runtime.announce()

    def end(self) -> None:
        """Stop the app."""
        self._is_over.set()

    def close(self) -> Iterator[float]:
        """Close every line and stop the app, checking that nothing is left.

        Yields:
            Seconds that the owner must let pass, settling, before it goes on with the next.

        Raises:
            LeakError: A task outlived the last client.
            Exception: An error of the app's that no test has seen.
        """
        for line in self._lines:
            line.leave()
        yield 0
        self._runtime.end_waiting()  # nobody can come back
        yield from self._wait_while(lambda: bool(self._runtime.sessions or self._at_the_door))
        leaks = find_leaked_tasks(self._task, self._baseline)
        self.end()
        yield from self._wait_while(lambda: self._is_running)
        if self._is_running:
            leaks |= find_leaked_tasks(self._task, self._baseline)
        if leaks:
            self.unread.add(LeakError(leaks.values()))
        self.unread.raise_unread()

    def _wait_while(self, condition: Callable[[], bool]) -> Iterator[float]:
        """Let virtual time pass while something holds; real time as well, for threads to end."""
        yield 0
        waited, give_up = 0.0, time.monotonic() + _REAL_PATIENCE
        while condition() and waited < _PATIENCE:
            if time.monotonic() < give_up and any(map(needs_real_time, tasks_below(self._task))):
                time.sleep(_POLL)
                yield 0
            else:
                waited += 1.0
                yield 1.0
