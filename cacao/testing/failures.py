"""What runs of apps looked like when an error left their block, kept until pytest asks.

This file imports nothing of Cacao: the plugin loads it in every project that has Cacao
installed, whether or not it uses it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["keep_reports", "note_failure", "reports_so_far"]

# For each block, by what the report is of: the error, and the text.
_kept: list[dict[object, tuple[BaseException, str]]] = []


def note_failure(subject: object, error: BaseException, describe: Callable[[], str]) -> None:
    """Describe something that an error is about to end; nothing where nobody would read it.

    Args:
        subject: What is described. Of one error only the first description counts.
        error: Why it ends.
        describe: Gives the text; must not raise.
    """
    if _kept and _kept[-1].get(subject, (None,))[0] is not error:
        _kept[-1][subject] = error, describe()


def reports_so_far() -> dict[object, tuple[BaseException, str]]:
    """Give what was noted in the innermost block: by its subject the error, and the text."""
    return dict(_kept[-1]) if _kept else {}


@contextmanager
def keep_reports() -> Iterator[None]:
    """Keep what is noted within the block, to its end."""
    _kept.append({})
    try:
        yield
    finally:
        _kept.pop()
