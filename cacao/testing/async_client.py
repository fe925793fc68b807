"""The test client for tests that are trio tasks themselves."""

# ruff: noqa: SLF001 -- the clients that came through one are of this very class

from __future__ import annotations

import time
import weakref
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio
import trio.testing

from cacao.errors import HostingError
from cacao.protocol import SUBPROTOCOL
from cacao.testing.clock import pass_time
from cacao.testing.failures import note_failure
from cacao.testing.inspection.report import describe_stage
from cacao.testing.settings import current_settings
from cacao.testing.stage import ROUNDS, Stage
from cacao.testing.view import ClientView, check_tabs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from datetime import datetime
    from types import TracebackType

    from cacao.app import App
    from cacao.peer import Peer
    from cacao.protocol import Result
    from cacao.testing.settings import Via

__all__ = ["AsyncTestClient"]

T = TypeVar("T")

# Real seconds between two looks at work that threads or sockets do.
_POLL = 0.001


class AsyncTestClient(ClientView):
    """One page of an app, in memory, inside a running trio test.

    `TestClient` word for word, with `await`. Used as `async with AsyncTestClient(app) as client`,
    which is a run of the app of its own. Leaving the block closes all clients in it, stops the app
    and checks for leaks. If the block is cancelled, so is the app.
    Like any nursery, the block waits for what cannot be cancelled, if need be for ever.

    Time is the test's: under trio's MockClock `advance` moves it, under an autojumping or a real
    clock `advance` sleeps.

    Args:
        app: The app under test.
        subprotocol: None speaks the plain protocol, which has no results.
        headers: Of the handshake, by name: what the app's `authenticate` looks at.
        cookies: The same, by name.
        user: Whom the app is to take for its user, as in `user()`.
        now: As for `TestClient`; where the test's clock is trio's own, the time is the real one.
        via: As for `TestClient`.

    Raises:
        TypeError: `app` is no App.
        ConnectionClosed: On entering: the app's `authenticate` has refused this client, with 4401.
    """

    def __init__(
        self,
        app: App,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        user: object = None,
        now: datetime | None = None,
        via: Via | None = None,
    ) -> None:
        self._stage = Stage(app, now, via or current_settings().via)
        self._subprotocol = subprotocol
        self._first_name, self._peer = self._stage.introduce(user, headers, cookies)
        self._tabs = []

    async def __aenter__(self) -> Self:
        if not trio.lowlevel.in_trio_task():
            raise HostingError(
                "AsyncTestClient runs inside a trio test only; use TestClient here, without await"
            )
        self._block = self._running()
        await self._block.__aenter__()
        self._app_scope.shield = True  # the block is cancelled first, and tells what the app does
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if error is not None:
            note_failure(self._stage, error, partial(describe_stage, self._stage))
        self._app_scope.shield = False
        return await self._block.__aexit__(kind, error, traceback)

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[None]:
        failure: Exception | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run_app)
            try:
                await trio.testing.wait_all_tasks_blocked()
                self._stage.mark_start()
                await self._open(self._first_name, self._subprotocol, self._peer, [])
                yield
            except Exception as error:  # noqa: BLE001 -- raised below, where no group wraps it
                failure = error
            try:
                await self._leave()
            except Exception as late:  # noqa: BLE001 -- the same
                if failure is None:
                    failure = late
                else:
                    failure.add_note(f"and as the test client closed: {late!r}")
            self._stage.end()
        if failure is not None:
            raise failure

    async def _run_app(self, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.CancelScope() as self._app_scope:
            await self._stage.run(task_status=task_status)

    async def _open(
        self: Self, name: str, subprotocol: str | None, peer: Peer, through: list[Self]
    ) -> None:
        self._came_through = []
        self._tabs.append(weakref.ref(self))
        self._subprotocol = subprotocol
        self._peer = peer
        self._line = self._stage.open_line(name, subprotocol, peer)
        through.append(self)
        await self._settle()
        if self._line.refusal is not None:
            raise self._line.refusal

    async def _bring(
        self, tabs: list[weakref.ref[Self]], name: str, subprotocol: str | None, peer: Peer
    ) -> Self:
        client = type(self).__new__(type(self))
        client._stage, client._tabs = self._stage, tabs
        await client._open(name, subprotocol, peer, self._came_through)
        return client

    async def _leave(self) -> None:
        for seconds in self._stage.close():
            await self._pass_time(seconds)

    async def user(
        self,
        who: object = None,
        *,
        tabs: int = 1,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> Self:
        """Bring one more user to the same run of the app; see `TestClient.user`."""
        check_tabs(tabs)
        name, peer = self._stage.introduce(who, headers, cookies)
        first = await self._bring([], name, subprotocol, peer)
        for _ in range(tabs - 1):
            await first.tab()
        return first

    async def tab(self) -> Self:
        """Open one more page of this client's user; see `TestClient.tab`."""
        return await self._bring(self._tabs, self._next_tab, self._subprotocol, self._peer)

    @property
    def time(self) -> float:
        """Seconds on the test's clock since the app was started."""
        return self._stage.time

    async def send(
        self, name: str, data: dict[str, Any] | None = None, /, **fields: Any
    ) -> Result | None:
        """Send an event and let everything come to rest; see `TestClient.send`."""
        number = self._line.send_event(name, data, fields)
        await self._settle()
        return self.result(number)

    async def send_text(self, text: str) -> None:
        """Send a text as it is, whatever it is, and let everything come to rest."""
        self._line.send_text(text)
        await self._settle()

    async def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a plain function as the app's own code would; see `TestClient.call`."""
        value = self._stage.call(self.session, function, *args)
        await self._settle()
        return value

    @asynccontextmanager
    async def together(self) -> AsyncIterator[None]:
        """Let what is sent within the block reach the app in one moment; see `TestClient.together`.

        Nothing else may be awaited within the block.
        """
        with self._stage.together() as earlier:
            yield
        await self._settle()
        self._stage.raise_refusals(earlier)

    async def settle(self) -> None:
        """Let the app come to rest, threads included; see `TestClient.settle`."""
        self._stage.refuse_together()
        for _ in self._stage.wait_for_threads():
            await self._settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass on the test's clock; see `TestClient.advance`."""
        self._stage.refuse_together()
        await self._pass_time(seconds)
        await self._come_to_rest()

    async def wait(self, predicate: Callable[[], object], timeout: float = 5.0) -> None:  # noqa: ASYNC109 -- real seconds: trio's deadlines are on the virtual clock
        """Let real time pass until something holds; see `TestClient.wait`."""
        self._stage.refuse_together()
        give_up = time.monotonic() + timeout
        await self._settle()
        while not predicate():
            if time.monotonic() > give_up:
                raise TimeoutError(f"{predicate!r} was not true within {timeout} s of real time")
            # The cushion is real time even under a virtual clock, and holds off the autojump.
            await trio.testing.wait_all_tasks_blocked(_POLL)
            self._stage.unread.raise_unread()

    async def close(self) -> None:
        """Leave, before the block ends; see `TestClient.close`."""
        self._stage.leave(self._lines())
        await self._settle()

    async def _settle(self) -> None:
        if self._stage.is_together:
            return
        await self._stage.rest()
        await self._come_to_rest()

    async def _come_to_rest(self) -> None:
        for _ in range(ROUNDS):
            if not self._stage.send_gathered():
                break
            await self._stage.rest()
        self._stage.unread.raise_unread()

    async def _pass_time(self, seconds: float) -> None:
        stage = self._stage
        await pass_time(seconds, stage.rest, is_in_memory=stage.via == "memory")
