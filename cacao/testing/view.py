"""What a test sees of one client and of those that came through it, without waiting."""

# ruff: noqa: SLF001 -- the clients that came through one are of this very class

from __future__ import annotations

from abc import abstractmethod
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from cacao.errors import ConnectionClosed, HostingError
from cacao.testing.sight import saw_text, saw_values
from cacao.testing.unread import Caught

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime
    from weakref import ref

    from cacao.protocol import Result
    from cacao.session import Session
    from cacao.testing.browser.page import Page
    from cacao.testing.line import Frame, Line
    from cacao.testing.network import Network
    from cacao.testing.runs import Delivery
    from cacao.testing.stage import Stage

__all__ = ["ClientView", "check_tabs"]

E = TypeVar("E", bound=BaseException)


class ClientView:
    """The part that `TestClient` and `AsyncTestClient` share.

    A client speaks for itself and for those that came through it, by `user` and `tab`: so do
    `runs`, `delivered_once`, `never_saw`, `expect_error` and `close`.
    """

    _stage: Stage
    _line: Line
    _came_through: list[Self]
    _tabs: list[ref[Self]]  # weak, or a client would hold itself, and its world

    def __repr__(self) -> str:
        """Name this client, as pytest shows it where an assertion has failed."""
        line = getattr(self, "_line", None)  # there is none before the client has come in
        return f"<{type(self).__name__}{'' if line is None else f' {line.name!r}'}>"

    @property
    def name(self) -> str:
        """What reports call this client."""
        return self._line.name

    @property
    def tabs(self) -> tuple[Self, ...]:
        """All pages of this client's user, in the order in which they were opened."""
        return tuple(tab for reference in self._tabs if (tab := reference()) is not None)

    @property
    def network(self) -> Network:
        """What lies between this client and the app, and may fail."""
        return self._line.network

    @property
    @abstractmethod
    def time(self) -> float:
        """Seconds on the test's clock since the app was started."""

    @property
    def now(self) -> datetime:
        """What `cacao.clock` gives in the app now, where it follows the test's clock."""
        return self._stage.start + timedelta(seconds=self.time)

    @property
    def page(self) -> Page:
        """What a user of this client can do and see; there is one via="browser" alone.

        Raises:
            HostingError: This client is no page.
        """
        page: Page | None = getattr(self._line, "page", None)
        if page is None:
            raise HostingError(
                "this client has no page to look at, only the messages that a page would get; "
                "run the test with --cacao-via browser, or make the client with via='browser'"
            )
        return page

    # --- What it has ---------------------------------------------------------------------------

    @property
    def state(self) -> dict[str, Any]:
        """The JSON values by name as this client saw them last: a copy, which stays as it is."""
        return dict(self._line.half.state)

    @property
    def frames(self) -> list[Frame]:
        """Every message that this client has sent and received, in order: a copy."""
        return list(self._line.frames)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message this client got so far, decoded, in order: a copy."""
        return [frame.message for frame in self._line.frames if frame.direction == "received"]

    @property
    def outcome(self) -> str | None:
        """What became of the session when the connection was last lost; None before that.

        "resumed": it was found as it was. "rebuilt": it was found, and the whole state was sent
        again, as something was missed. "fresh": it was gone, and this is a new one.
        """
        return self._line.half.outcome

    @property
    def closing(self) -> ConnectionClosed | None:
        """How the connection was closed, by code and reason; None while there may be one."""
        return self._line.closing

    @property
    def resumed(self) -> bool:
        """Whether this client has lost its connection, and then found its session as it was."""
        return self.outcome == "resumed"

    def result(self, number: int) -> Result | None:
        """Tell how an event ended; None while its handler runs, and always in the plain protocol.

        Args:
            number: This client's first event is 1, the next 2, and so on.
        """
        events = self._line.half.events
        return events[number - 1].result if 0 < number <= len(events) else None

    def never_saw(self, text: str | None = None, /, **values: object) -> bool:
        """Tell whether something was in no message to this client, or those that came through it.

        All that ever came counts, not only what is there now. Ids and tokens do not count, as they
        are random.

        Args:
            text: In no text of a state, a result or an error; nor as their type or code.
            values: No state had all these values of signals at once.

        Raises:
            TypeError: Nothing was asked for.
            ValueError: No client here was ever shown a signal of such a name.
        """
        if not isinstance(text, str | None) or (text is None and not values):
            raise TypeError(
                f"never_saw needs a text, or values as in never_saw(count=3), not {text!r}"
            )
        shown = sorted({name for client in self._family() for name in client._line.half.state})
        for name in values:
            if name not in shown:
                raise ValueError(
                    f"never_saw asks for {name!r}, and no client here was shown a signal of that "
                    f"name; there are: {', '.join(shown) or 'none'}"
                )
        return not any(
            (text is not None and saw_text(client.messages, text))
            or (values and saw_values(client.messages, values))
            for client in self._family()
        )

    # --- What the app made of it ---------------------------------------------------------------

    @property
    def session_id(self) -> str:
        """What the server calls this client's session."""
        return self._line.half.session_id

    @property
    def session(self) -> Session:
        """The live session on the server, as in `signal.get(client.session)`.

        Raises:
            ConnectionClosed: The session has ended.
        """
        session = self._stage.runtime.sessions.get(self.session_id)
        if session is None:
            raise ConnectionClosed(1000, f"session {self.session_id!r} has ended")
        return session

    @property
    def server_state(self) -> dict[str, Any]:
        """The JSON values by name as the server has them: `state`, if nothing is on its way.

        Raises:
            ConnectionClosed: The session has ended.
            Exception: What a computed signal raised.
        """
        return self._stage.state_of(self.session)

    def runs(self, name: str) -> list[tuple[Any, str]]:
        """List what became of the events of one name, in the order in which the app took them.

        Args:
            name: Of the events, sent by this client or one that came through it.

        Returns:
            For each what it carried, and "running", "done" or the code of its failure, such as
            "superseded". An event with one field carries the value of that, else a dict of all.

        Raises:
            ValueError: The app answers no event of that name.
        """
        answered = self._stage.event_names
        if name not in answered:
            raise ValueError(
                f"the app answers no event {name!r}; it answers: {', '.join(answered) or 'none'}"
            )
        return self._stage.runs.of(name, self._session_ids(), self._stage.runtime.sessions)

    def delivered_once(self, name: str) -> Delivery:
        """Tell whether every event of one name was accepted exactly once, whatever the network did.

        Args:
            name: Of the events, sent by this client or one that came through it.

        Returns:
            The numbers; true if something was sent, nothing is missing, and nothing came twice.
        """
        sent = [event for client in self._family() for event in client._line.half.events]
        return self._stage.runs.delivery(name, sent, self._session_ids())

    def expect_error(
        self, kinds: type[E] | tuple[type[E], ...], match: str | None = None
    ) -> AbstractContextManager[Caught[E]]:
        """Expect the app to raise, inside a `with` block.

        The error then does not surface from `send`, so its result can be looked at.

        Args:
            kinds: The exception class, or several. What is raised in the session of a client that
                neither is this one nor came through it does not count; what is raised outside of
                all sessions, or as a session begins, does.
            match: A regular expression that is found in the error's text.

        Returns:
            A context manager giving a `Caught`, with `value` and `values`.

        Raises:
            TypeError: `kinds` is something else.
            AssertionError: At the end of the block, if there was no such error.
        """
        return self._stage.unread.expect(Caught(kinds, match, self._is_others))

    # --- Who belongs together ------------------------------------------------------------------

    @property
    def _next_tab(self) -> str:
        return f"{self.tabs[0].name}, tab {len(self._tabs) + 1}"

    def _family(self) -> Iterator[Self]:
        yield self
        for client in self._came_through:
            yield from client._family()

    def _session_ids(self) -> set[str]:
        return {id_ for client in self._family() for id_ in client._line.half.session_ids}

    def _is_others(self, session_id: str) -> bool:
        """Tell whether a session is known to be that of a client outside of this family."""
        ours, all_lines = self._session_ids(), self._stage.lines
        return session_id not in ours and any(
            session_id in line.half.session_ids for line in all_lines
        )

    def _lines(self) -> list[Line]:
        return [client._line for client in self._family()]


def check_tabs(tabs: int) -> None:
    """Refuse a number of tabs that a user cannot have.

    Raises:
        ValueError: It is less than 1.
    """
    if tabs < 1:
        raise ValueError(f"a user has 1 tab or more, not {tabs}")
