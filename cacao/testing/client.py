"""The synchronous test client: no `with`, no `await`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cacao.peer import Peer
from cacao.protocol import SUBPROTOCOL
from cacao.testing.view import ClientView
from cacao.testing.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cacao.app import App
    from cacao.protocol import Result

__all__ = ["TestClient"]


class TestClient(ClientView):
    """One user of an app, in memory, under a virtual clock.

    Every call returns when the app has come to rest: all its tasks are blocked and nothing is
    due. Clients of one app share a world; each is a user of its own. Time stands still but for
    `advance`. Work in threads and real I/O counts as blocked: use `wait` for it.

    An error in the app's code surfaces from the call that caused it, as it was raised; several
    as an exception group. `raises` expects one.

    Usable wherever plain functions are: pytest, unittest, the REPL, a notebook; not inside a trio
    task, where `AsyncTestClient` belongs. All clients of a world belong to one thread.

    Args:
        app: The app under test.
        subprotocol: None speaks the plain protocol, which has no results.
        headers: Of the handshake, by name: what the app's `authenticate` looks at.
        cookies: The same, by name.
        seed: Decides the order in which ready tasks run, here and in every client of this app.
        max_ticks: Scheduler steps that may pass before everything has come to rest.

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
        seed: int = 0,
        max_ticks: int = 100_000,
    ) -> None:
        self._world = World.of(app, seed=seed, max_ticks=max_ticks)
        self._stage = self._world.stage
        peer = Peer.of(headers or {}, cookies or {})
        self._line = self._world.do(self._stage.open_line, subprotocol, peer)
        if self._line.refusal is not None:
            self.close()
            raise self._line.refusal

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
            How the handler ended; None while it still runs, and always in the plain protocol.

        Raises:
            ConnectionClosed: The session has ended, or this client has closed.
            SpinningError: Some task never came to rest; names it.
            Exception: What a handler raised.
        """
        event_id = self._world.do(self._line.send_event, name, data, fields)
        return None if event_id is None else self.result(event_id)

    def send_text(self, text: str) -> None:
        """Send a text as it is, whatever it is, and let the app come to rest."""
        self._world.do(self._line.send_text, text)

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
        """Leave, as a page does that is closed; twice is nothing.

        The session then waits for `Limits.bye_window` virtual seconds, as for a page that is only
        reloaded. The last client of an app closes its world, and all sessions end at once.

        Raises:
            LeakError: Something outlived the last client.
            Exception: An error of the app's that no call had raised.
        """
        self._world.leave(self._line)
