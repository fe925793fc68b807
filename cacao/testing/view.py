"""What a test sees of one client, whichever way the test waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from cacao.errors import ConnectionClosed
from cacao.testing.unread import Caught

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from cacao.protocol import Result
    from cacao.session import Session
    from cacao.testing.line import Line
    from cacao.testing.stage import Stage

__all__ = ["ClientView"]

E = TypeVar("E", bound=BaseException)


class ClientView:
    """The part that `TestClient` and `AsyncTestClient` share: everything that need not wait."""

    _stage: Stage
    _line: Line

    @property
    def state(self) -> dict[str, Any]:
        """The JSON values by name as this client saw them last: a copy, which stays as it is."""
        return dict(self._line.mirror.state)

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message this client got so far, decoded, in order: a copy."""
        return list(self._line.mirror.messages)

    @property
    def session_id(self) -> str:
        """What the server calls this client's session."""
        return self._line.mirror.session_id

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

    def raises(self, kinds: type[E] | tuple[type[E], ...]) -> AbstractContextManager[Caught[E]]:
        """Expect this client's handlers to raise, inside a `with` block.

        The error then does not surface from `send`, so its result can be looked at.

        Args:
            kinds: The exception class, or several.

        Returns:
            A context manager giving a `Caught`, with `value` and `values`.

        Raises:
            AssertionError: At the end of the block, if there was no such error.
        """
        return self._stage.unread.expect(Caught(kinds, self.session_id))

    def result(self, event_id: int) -> Result | None:
        """Tell how a numbered event ended; None while its handler runs.

        Args:
            event_id: This client's first event is 1, the next 2, and so on.
        """
        return self._line.mirror.results.get(event_id)
