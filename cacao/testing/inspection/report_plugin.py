"""How pytest shows a failure in an app: a short traceback, and what the app looked like.

`plugin.py` loads this file only where a test client has been used.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import trio

from cacao.testing.failures import reports_so_far
from cacao.testing.inspection.report import describe_world
from cacao.testing.inspection.tracebacks import core_of, errors_in, is_of_no_line, shortened
from cacao.testing.open_worlds import open_worlds

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

__all__ = ["make_report"]

_HEADING = re.compile(r"[^ │├└]")
_DIFFERS = re.compile(r"  \S+: shows .*, the server has ")


def make_report(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Do as `pytest_runtest_makereport` does, as a wrapper. `--full-trace` shows all frames."""
    if item.config.getoption("fulltrace"):
        report = yield
    else:
        with _shortened(call):
            report = yield
            if report.failed and call.excinfo is not None and is_of_no_line(call.excinfo.value):
                report.longrepr = call.excinfo.getrepr(style="short")
    if report.failed and call.excinfo is not None:
        texts = _describe_apps(call.excinfo.value)
        for number, text in enumerate(texts, 1):
            title = "Cacao" if len(texts) == 1 else f"Cacao, app {number} of {len(texts)}"
            report.sections.append((title, _coloured(item.config, text)))
    return report


@contextmanager
def _shortened(call: pytest.CallInfo[None]) -> Iterator[None]:
    """Within the block, let a call have raised what is worth showing of its error."""
    as_it_was = call.excinfo
    if as_it_was is None:
        yield
        return
    with shortened(as_it_was.value):
        call.excinfo = pytest.ExceptionInfo.from_exception(core_of(as_it_was.value))
        try:
            yield
        finally:
            call.excinfo = as_it_was


def _describe_apps(failure: BaseException) -> list[str]:
    """Describe each app as the failure has left its block; else as it is now, while it is open."""
    errors = {id(error) for error in errors_in(failure)}
    noted = {
        subject: text
        for subject, (error, text) in reports_so_far().items()
        # A timeout of the test's own cancels the block, and raises something else.
        if id(error) in errors or isinstance(error, trio.Cancelled)
    }
    now = [describe_world(world) for world in open_worlds() if world not in noted]
    return [*noted.values(), *now]


def _coloured(config: pytest.Config, text: str) -> str:
    """Let the eye find the clients and what is wrong, on a terminal that has colours."""
    terminal = config.pluginmanager.get_plugin("terminalreporter")  # a worker of xdist has none
    if terminal is None or not terminal.hasmarkup:
        return text
    writer = config.get_terminal_writer()
    return "\n".join(
        writer.markup(line, bold=bool(_HEADING.match(line)), red=bool(_DIFFERS.match(line)))
        for line in text.splitlines()
    )
