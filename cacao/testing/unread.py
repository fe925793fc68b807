"""Errors of the author's code, kept until the test has seen them."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cacao.reports import ErrorReport

__all__ = ["Caught", "UnreadErrors"]

E = TypeVar("E", bound=BaseException)


class Caught(Generic[E]):
    """The errors that a `with client.expect_error(...)` block has taken so far.

    Attributes:
        values: The errors, in order.
    """

    def __init__(
        self,
        kinds: type[E] | tuple[type[E], ...],
        match: str | None,
        is_others: Callable[[str], bool],
    ) -> None:
        # Made by `expect_error`. `is_others` tells of a session's id whether it does not count.
        classes = kinds if isinstance(kinds, tuple) else (kinds,)
        for kind in classes:
            if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                raise TypeError(
                    f"expect_error needs an exception class, or several in a tuple, not {kind!r}; "
                    "what its text says goes into match="
                )
        self.values: list[E] = []
        self._kinds = classes
        self._match = match
        self._is_others = is_others

    @property
    def value(self) -> E:
        """The first error.

        Raises:
            AssertionError: There was none yet.
        """
        if not self.values:
            raise AssertionError(f"nothing has raised {self._names()} yet")
        return self.values[0]

    def take(self, report: ErrorReport) -> bool:
        """Keep the error of a report if it is of the kind, the text and a session expected."""
        error = report.error
        if not isinstance(error, self._kinds) or self._is_others(report.session_id):
            return False
        if self._match is not None and not re.search(self._match, str(error)):
            return False
        self.values.append(error)
        return True

    def _names(self) -> str:
        names = " or ".join(kind.__name__ for kind in self._kinds)
        return names if self._match is None else f"{names} matching {self._match!r}"


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
