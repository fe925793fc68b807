"""The synchronous test client: no `await`."""

# ruff: noqa: SLF001 -- the clients that came through one are of this very class

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cacao.protocol import SUBPROTOCOL
from cacao.testing.failures import note_failure
from cacao.testing.inspection.report import describe_world
from cacao.testing.view import ClientView, check_tabs
from cacao.testing.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime
    from types import TracebackType

    from cacao.app import App
    from cacao.peer import Peer
    from cacao.protocol import Result
    from cacao.testing.settings import Via

__all__ = ["TestClient"]

T = TypeVar("T")


class TestClient(ClientView):
    """One page of an app, in memory, under a virtual clock.

    Every call returns when the app has come to rest: all its tasks are blocked and nothing is
    due. Time stands still but for `advance`. Work in threads and real I/O counts as blocked:
    `settle` waits for threads, `wait` for whatever one can look at.

    `user` brings further users, and `tab` further pages of one: they live in the same run of the
    app. So do those that another `TestClient(app)` makes, while one is open.

    An error in the app's code surfaces from the call that caused it, as it was raised; several
    as an exception group. `expect_error` expects one.

    Usable wherever plain functions are: pytest, unittest, the REPL, a notebook; not inside a trio
    task, where `AsyncTestClient` belongs. All clients of a world belong to one thread. As a
    context manager it closes at the end of the block.

    Args:
        app: The app under test.
        subprotocol: None speaks the plain protocol, which has no results.
        headers: Of the handshake, by name: what the app's `authenticate` looks at.
        cookies: The same, by name.
        user: Whom the app is to take for its user, as in `user()`.
        seed: Decides the order in which ready tasks run, here and in every client of this app; by
            default that of the test run (`--cacao-seed`), else 0.
        max_ticks: Scheduler steps that one moment of virtual time may take.
        now: What `cacao.clock` gives in the app at the beginning, with a time zone; by default
            the first moment of 2026, in UTC.
        via: "memory"; "socket": over a port of this machine, through the real server; "browser":
            in the app's page, in a real browser. By default as the test run says (`--cacao-via`).

    Raises:
        TypeError: `app` is no App.
        ValueError: The app has a client with another seed or limit.
        HostingError: A trio task is running here.
        ConnectionClosed: The app's `authenticate` has refused this client, with code 4401.
    """

    __test__ = False  # it is no test case, whatever pytest makes of its name

    def __init__(
        self,
        app: App,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
        user: object = None,
        seed: int | None = None,
        max_ticks: int = 100_000,
        now: datetime | None = None,
        via: Via | None = None,
    ) -> None:
        self._world = World.of(app, seed=seed, max_ticks=max_ticks, now=now, via=via)
        self._stage = self._world.stage
        self._tabs = []
        name, peer = self._stage.introduce(user, headers, cookies)
        self._open(name, subprotocol, peer, [])

    def _open(
        self: Self, name: str, subprotocol: str | None, peer: Peer, through: list[Self]
    ) -> None:
        self._came_through = []
        self._tabs.append(weakref.ref(self))
        self._subprotocol = subprotocol
        self._peer = peer
        self._world.do(self._connect, name, through)
        if self._line.refusal is not None:
            self.close()
            raise self._line.refusal

    def _connect(self: Self, name: str, through: list[Self]) -> None:
        self._line = self._stage.open_line(name, self._subprotocol, self._peer)
        through.append(self)  # now, as the app may raise: it is to close with who brought it

    def _bring(
        self, tabs: list[weakref.ref[Self]], name: str, subprotocol: str | None, peer: Peer
    ) -> Self:
        client = type(self).__new__(type(self))
        client._world, client._stage, client._tabs = self._world, self._stage, tabs
        client._open(name, subprotocol, peer, self._came_through)
        return client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            note_failure(self._world, error, partial(describe_world, self._world))
        try:
            self.close()
        except Exception as late:
            if error is None:
                raise
            error.add_note(f"and as the test client closed: {late!r}")

    def user(
        self,
        who: object = None,
        *,
        tabs: int = 1,
        subprotocol: str | None = SUBPROTOCOL,
        headers: Mapping[str, str] | None = None,
        cookies: Mapping[str, str] | None = None,
    ) -> Self:
        """Bring one more user to the same run of the app.

        Args:
            who: Their name, for reports. Where the app has `authenticate`, and neither headers nor
                cookies are given, it is not asked, and `session.user` is `who`: give what it
                would give.
            tabs: How many pages they open; `tabs` of what is returned lists them.
            subprotocol: As for `TestClient`.
            headers: The same; what `authenticate` looks at.
            cookies: The same.

        Returns:
            The first of their pages.

        Raises:
            ValueError: `tabs` is less than 1.
            ConnectionClosed: `authenticate` has refused them, with code 4401.
        """
        check_tabs(tabs)
        name, peer = self._stage.introduce(who, headers, cookies)
        first = self._bring([], name, subprotocol, peer)
        for _ in range(tabs - 1):
            first.tab()
        return first

    def tab(self) -> Self:
        """Open one more page of this client's user: a session of its own."""
        return self._bring(self._tabs, self._next_tab, self._subprotocol, self._peer)

    @property
    def time(self) -> float:
        """Virtual seconds since the first client of this app."""
        return self._world.time

    def send(
        self, name: str, data: dict[str, Any] | None = None, /, **fields: Any
    ) -> Result | None:
        """Send an event and let the app come to rest.

        Args:
            name: The event's name.
            data: The event's fields.
            fields: More of them.

        Returns:
            How the handler ended; None while it still runs or the network has it, and always in
            the plain protocol.

        Raises:
            ConnectionClosed: The session has ended, or this client has closed.
            SpinningError: Some task never came to rest; names it.
            Exception: What a handler raised.
        """
        return self.result(self._world.do(self._line.send_event, name, data, fields))

    def send_text(self, text: str) -> None:
        """Send a text as it is, whatever it is, and let the app come to rest."""
        self._world.do(self._line.send_text, text)

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Call a plain function as the app's own code would, and let the app come to rest.

        In it `.value` means this session's, as in `client.call(count.set, client.session, 5)`.

        Args:
            function: Not async.
            args: Passed on.

        Returns:
            What it returned.

        Raises:
            ConnectionClosed: The session has ended.
            Exception: What the function raised.
        """
        value: T = self._world.do(self._stage.call, self.session, function, *args)
        return value

    def together(self) -> AbstractContextManager[None]:
        """Let what is sent within the block reach the app in one moment: it settles at the end.

        For races: which of two events is first is then for the scheduler, and so for the seed.
        Within the block `send` gives None.
        """
        return self._world.together()

    def settle(self) -> None:
        """Let the app come to rest, and wait for what it does in threads.

        Afterwards every task is blocked and nothing is due before time passes: what did not
        happen will not. Real I/O counts as blocked.

        Raises:
            UnsettledError: A thread did not end within 5 real seconds; names its task and line.
            SpinningError: Some task never came to rest; names it.
        """
        self._world.settle()

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, from deadline to deadline.

        Args:
            seconds: How long, at least 0; 0 lets the app come to rest.
        """
        self._world.advance(seconds)

    def wait(self, predicate: Callable[[], object], timeout: float = 5.0) -> None:
        """Let real time pass until something holds: for threads and real I/O.

        Args:
            predicate: Asked about every millisecond, with the app at rest.
            timeout: Real seconds.

        Raises:
            TimeoutError: It did not hold in that time.
        """
        self._world.wait(predicate, timeout)

    def close(self) -> None:
        """Leave, as a page does that is closed; so do those that came through it.

        Twice is nothing. The session then waits for `Limits.bye_window` virtual seconds, as for a
        page that is only reloaded. The last client of an app closes its world, and all sessions
        end at once.

        Raises:
            LeakError: Something outlived the last client.
            Exception: An error of the app's that no call had raised.
        """
        self._world.leave(self._lines())
