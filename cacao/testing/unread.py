"""Errors of the author's code, kept until the test has seen them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cacao.reports import ErrorReport

__all__ = ["Caught", "UnreadErrors"]

E = TypeVar("E", bound=BaseException)


class Caught(Generic[E]):
    """The errors that a `with client.raises(...)` block has taken so far.

    Attributes:
        values: The errors, in order.
    """

    def __init__(self, kinds: type[E] | tuple[type[E], ...], session_id: str) -> None:
        self.values: list[E] = []
        self._kinds = kinds
        self._session_id = session_id

    @property
    def value(self) -> E:
        """The first error.

        Raises:
            AssertionError: There was none yet.
        """
        if not self.values:
            raise AssertionError(f"no handler has raised {self._names()} yet")
        return self.values[0]

    def take(self, report: ErrorReport) -> bool:
        """Keep the error of a report if it is of the kind and session expected."""
        if report.session_id != self._session_id or not isinstance(report.error, self._kinds):
            return False
        self.values.append(report.error)
        return True

    def _names(self) -> str:
        kinds = self._kinds if isinstance(self._kinds, tuple) else (self._kinds,)
        return " or ".join(kind.__name__ for kind in kinds)


class UnreadErrors:
    """All errors of one world that no test has seen yet."""

    def __init__(self) -> None:
        self._errors: list[BaseException] = []
        self._expected: list[Caught[Any]] = []

    def report(self, report: ErrorReport) -> None:
        """Take an error from the runtime: for the innermost block that expects it, or unread."""
        if not any(caught.take(report) for caught in reversed(self._expected)):
            self._errors.append(report.error)

    def add(self, error: BaseException) -> None:
        """Take an error that no block can expect."""
        self._errors.append(error)

    @contextmanager
    def expect(self, caught: Caught[E]) -> Iterator[Caught[E]]:
        """Let `caught` take errors within the block.

        Raises:
            AssertionError: The block has ended, and there was none.
        """
        self._expected.append(caught)
        try:
            yield caught
        finally:
            self._expected.remove(caught)
        caught.value  # noqa: B018 -- raises if there is none

    def raise_unread(self) -> None:
        """Raise what has gathered: one error as it is, several as a group."""
        if not self._errors:
            return
        errors, self._errors = self._errors, []
        try:
            if len(errors) == 1:
                raise errors[0]
            raise BaseExceptionGroup("several errors in the app", errors)
        finally:
            # The error's traceback holds this frame: a cycle would keep the world alive.
            del errors
