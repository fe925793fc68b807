"""Tracebacks that show the author's lines, and none of Cacao's in between."""

from __future__ import annotations

from contextlib import contextmanager
from dis import opmap
from os import sep
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import trio

from cacao.testing.inspection.frames import authors

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["core_of", "errors_in", "is_of_no_line", "shortened"]

_CACAO = str(Path(__file__).parents[2]) + sep
_TESTING = str(Path(__file__).parents[1]) + sep
_TRIO = str(Path(trio.__file__).parent) + sep
_RAISE = opmap["RAISE_VARARGS"]


def errors_in(error: BaseException) -> list[BaseException]:
    """List an error, those in its group, its causes and contexts, and theirs."""
    found: dict[int, BaseException] = {}
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if id(each) not in found:
            found[id(each)] = each
            parts = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
            waiting += [part for part in (*parts, each.__cause__, each.__context__) if part]
    return list(found.values())


def core_of(error: BaseException) -> BaseException:
    """Unwrap a group of one that has no line of the author's: the nursery of a test makes such."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        (inner,) = error.exceptions
        if not isinstance(inner, Exception) or any(map(_is_authors, _entries(error))):
            break
        error = inner
    return error


def is_of_no_line(error: BaseException) -> bool:
    """Tell what Cacao has raised for no line of the author's: a leak at the end of a test."""
    entries = _entries(error)
    return any(map(_is_ours, entries)) and not any(map(_is_authors, entries))


@contextmanager
def shortened(error: BaseException) -> Iterator[None]:
    """Within the block, leave out what Cacao and trio do between the author's lines.

    Left out, too, is what they do after the last of them, if they then raise of their own accord:
    what that says is about that line. An error that only happens in them is shown in full. Of what
    a timeout has cancelled remains what is not of the app, such as the test.
    """
    contexts = [(each, each.__context__) for each in errors_in(error)]
    for each, context in contexts:
        if isinstance(context, BaseExceptionGroup):
            each.__context__ = _without_the_cancelled(context)
    tracebacks = [(each, each.__traceback__) for each in errors_in(error)]
    for each, _ in tracebacks:
        each.__traceback__ = _joined(_worth_showing(_entries(each)))
    try:
        yield
    finally:
        for each, traceback in tracebacks:
            each.__traceback__ = traceback
        for each, context in contexts:
            each.__context__ = context


def _without_the_cancelled(group: BaseExceptionGroup[Any]) -> BaseException | None:
    rest: BaseException | None = group.subgroup(
        lambda each: not isinstance(each, BaseExceptionGroup) and not _is_cancelled_task(each)
    )
    while isinstance(rest, BaseExceptionGroup) and len(rest.exceptions) == 1:
        (rest,) = rest.exceptions
    return rest


def _is_cancelled_task(error: BaseException) -> bool:
    """Tell a task of an app, or of trio's own, that was cancelled."""
    entries = _entries(error)
    is_apps = any(_is_in(each, _CACAO) and not _is_in(each, _TESTING) for each in entries)
    return isinstance(error, trio.Cancelled) and (is_apps or not any(map(_is_authors, entries)))


def _entries(error: BaseException) -> list[TracebackType]:
    entries = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    return entries


def _joined(entries: list[TracebackType]) -> TracebackType | None:
    joined = None
    for entry in reversed(entries):
        joined = TracebackType(joined, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return joined


def _worth_showing(entries: list[TracebackType]) -> list[TracebackType]:
    shown: list[TracebackType] = []
    between: list[TracebackType] = []
    for entry in entries:
        between.append(entry)
        if _is_authors(entry):
            shown += between[-1:] if any(map(_is_ours, between)) else between
            between = []
    if any(map(_is_ours, between)) and _is_raise(between[-1]):
        return shown or between[-1:]
    return shown + between


def _is_authors(entry: TracebackType) -> bool:
    return authors(entry.tb_frame.f_code)


def _is_ours(entry: TracebackType) -> bool:
    return _is_in(entry, _CACAO, _TRIO)


def _is_in(entry: TracebackType, *folders: str) -> bool:
    return entry.tb_frame.f_code.co_filename.startswith(folders)


def _is_raise(entry: TracebackType) -> bool:
    """Tell a `raise` from a line in which something goes wrong."""
    return entry.tb_frame.f_code.co_code[entry.tb_lasti] == _RAISE
