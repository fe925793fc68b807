"""An error in the author's code, and how all are told of it."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["ErrorReport", "report_error", "report_outside"]

_log = logging.getLogger("cacao")


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error in the author's code, as `App.on_error` gets it.

    Attributes:
        error: What was raised.
        where: The place in words: "handler of event 'save'", "computed 'total'".
        session_id: Whose session it was; empty for what belongs to the app.
        event: Name of the event being answered, if one was.
        error_id: What the client was told, so that the two can be brought together.
    """

    error: Exception
    where: str
    session_id: str
    event: str | None
    error_id: str


def report_error(report: ErrorReport, sinks: Iterable[Callable[[ErrorReport], None]]) -> None:
    """Write an error of the author's code to the log, and tell the sinks; never raises."""
    _log.error(
        "%s failed (error %s, session %s)",
        report.where,
        report.error_id,
        report.session_id or "none",
        exc_info=report.error,
        extra={
            "session_id": report.session_id,
            "event": report.event,
            "error_id": report.error_id,
        },
    )
    for sink in sinks:
        try:
            sink(report)
        except Exception:  # noqa: BLE001 - logged; the other sinks must hear of the error
            _log.exception("%r, told of error %s, failed", sink, report.error_id)


def report_outside(
    where: str, error: Exception, sinks: Iterable[Callable[[ErrorReport], None]]
) -> None:
    """Report what was raised by the author's code outside of every session; never raises."""
    report_error(ErrorReport(error, where, "", None, secrets.token_hex(6)), sinks)
