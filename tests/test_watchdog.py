"""What blocks the loop is named. The blocking itself needs real time: some tenths of a second."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from processes import served
from test_servers import connected, receive, send

from cacao.watchdog import Blockage, _authors_frame, log_blockage, watch_for_blocking

if TYPE_CHECKING:
    from types import FrameType


def block(seconds: float) -> None:
    time.sleep(seconds)


async def watched(threshold: float, *blocks: float) -> list[Blockage]:
    """Block the loop under watch; gives what was reported."""
    reports: list[Blockage] = []
    over = threading.Event()

    def note(blockage: Blockage) -> None:
        reports.append(blockage)
        if blockage.is_over:
            over.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_for_blocking, threshold, note)
        await trio.sleep(threshold)
        for seconds in blocks:
            block(seconds)
            await trio.to_thread.run_sync(over.wait, 2)
            over.clear()
        nursery.cancel_scope.cancel()
    return reports


async def test_code_that_blocks_is_named_when_it_does_and_when_it_is_over() -> None:
    first, last = await watched(0.05, 0.2)
    assert (first.function, first.is_over, last.is_over) == ("block", False, True)
    assert first.file == __file__
    assert first.line == block.__code__.co_firstlineno + 1
    assert "time.sleep(seconds)" in first.stack
    assert 0.02 <= first.seconds < last.seconds
    assert last.seconds >= 0.1


async def test_each_blockage_is_told() -> None:
    reports = await watched(0.05, 0.15, 0.15)
    assert [report.is_over for report in reports] == [False, True, False, True]


async def test_a_loop_that_turns_is_left_in_peace() -> None:
    assert await watched(0.5) == []


async def test_no_thread_is_left_behind() -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    await watched(0.02)
    assert trio.lowlevel.current_statistics().tasks_living == before


def test_where_no_code_is_the_authors_the_innermost_is_named() -> None:
    seen: list[FrameType] = []
    library = compile("seen.append(sys._getframe())", threading.__file__, "exec")
    thread = threading.Thread(target=exec, args=(library, {"seen": seen, "sys": sys}))
    thread.start()
    thread.join()
    assert _authors_frame(seen[0]) is seen[0]


@pytest.mark.parametrize("is_over", [False, True])
def test_the_log_says_who_where_and_what_to_do(
    is_over: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log_blockage(Blockage("app.py", 7, "save", 0.25, is_over=is_over, stack="the stack\n"))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    verb = "blocked" if is_over else "is blocking"
    assert f"save {verb} all users for 0.25 s at app.py:7" in record.getMessage()
    assert ("the stack" in record.getMessage()) is not is_over


BLOCKING_APP = """
import time
from cacao import App

app = App({options})


@app.on("block")
def block():
    time.sleep(0.5)


asgi = app.asgi
"""


@pytest.mark.parametrize(
    ("options", "is_named"),
    [("", False), ("debug=True", True), ("watch_blocking=0.1", True), ("watch_blocking=5", False)],
)
async def test_a_served_app_names_the_handler_that_blocks_it(
    options: str, is_named: bool, tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(BLOCKING_APP.format(options=options))
    command = [str(Path(sys.executable).parent / "hypercorn"), "app:asgi", "-b", "127.0.0.1:{port}"]
    with served(command, cwd=tmp_path) as server:
        async with connected(server) as page:
            await receive(page)
            await send(page, {"type": "event", "name": "block", "id": 1})
            assert (await receive(page))["ok"]
        server.stop(signal.SIGTERM, within=9)
        assert ("block is blocking all users" in server.stderr) is is_named
        assert ("app.py:10" in server.stderr) is is_named
