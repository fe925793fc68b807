"""Name the code that blocks the loop, and with it every user of this process.

How it works. A thread asks the trio run for a sign of life, in the way that threads may
(`run_sync_soon`), and looks for the answer half the threshold later. So a blockage that lasts for
the threshold cannot slip through, and a shorter one of half of it may be noticed. Then the thread
looks at what the loop's thread is doing: the innermost line that is not of trio, of Cacao or of
Python's library is the author's. It is told once when it is noticed, and once more when it is over.
The loop itself pays for a callback now and then.
"""

from __future__ import annotations

import logging
import sys
import sysconfig
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["Blockage", "watch_for_blocking"]

_log = logging.getLogger("cacao")

# Seconds between two looks at whether a blockage is over.
_POLL = 0.005

_NOT_THE_AUTHORS = tuple(
    str(Path(path).resolve())
    for path in (
        Path(__file__).parent,
        Path(trio.__file__).parent,
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("purelib"),
    )
)


@dataclass(frozen=True, slots=True)
class Blockage:
    """Code that kept the loop from turning.

    Attributes:
        file: Where it was seen.
        line: From 1.
        function: The function's qualified name.
        seconds: For how long, so far.
        is_over: Whether the loop turns again.
        stack: All of the loop's thread at that moment, as a traceback is printed.
    """

    file: str
    line: int
    function: str
    seconds: float
    is_over: bool
    stack: str

    def __str__(self) -> str:
        verb = "blocked" if self.is_over else "is blocking"
        return (
            f"{self.function} {verb} all users for {self.seconds:.2f} s "
            f"at {self.file}:{self.line}; await what it waits for, "
            "or move it to a thread: thread=True on a plain handler"
        )


def log_blockage(blockage: Blockage) -> None:
    """Write a blockage to the log, with the stack where it was first seen."""
    if blockage.is_over:
        _log.warning("%s", blockage)
    else:
        _log.warning("%s\n%s", blockage, blockage.stack)


async def watch_for_blocking(
    threshold: float, report: Callable[[Blockage], None] = log_blockage
) -> None:
    """Watch the trio run that this is called in, until cancelled.

    Args:
        threshold: Seconds for which the loop may not stand still unnoticed; from half of it
            on it may be noticed.
        report: Called in the watching thread.
    """
    watch = _Watch(threshold, report)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch_in_thread, watch)
        try:
            await trio.sleep_forever()
        finally:
            watch.stop.set()


async def _watch_in_thread(watch: _Watch) -> None:
    # Shielded, because the thread ends by itself when told to. A limiter of its own, because the
    # thread lasts as long as the run and would take one of the app's for good.
    with trio.CancelScope(shield=True):
        await trio.to_thread.run_sync(watch.run, limiter=trio.CapacityLimiter(1))


class _Watch:
    """The watching thread's side."""

    def __init__(self, threshold: float, report: Callable[[Blockage], None]) -> None:
        self.stop = threading.Event()
        self._threshold = threshold
        self._report = report
        self._thread = threading.get_ident()
        self._ask_soon = trio.lowlevel.current_trio_token().run_sync_soon
        self._is_answered = True
        self._asked_at = 0.0

    def run(self) -> None:
        """Ask, and look for the answer; seldom, for each look costs the loop some time, too."""
        while not self.stop.wait(self._threshold / 2):
            if self._is_answered:
                self._ask()
            else:
                self._tell()

    def _ask(self) -> None:
        self._is_answered = False
        self._asked_at = time.monotonic()
        self._ask_soon(self._answer)

    def _answer(self) -> None:
        self._is_answered = True

    def _tell(self) -> None:
        seen = sys._current_frames()[self._thread]  # noqa: SLF001 - the one way to look
        frame = _authors_frame(seen)
        place = (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_qualname)
        stack = "".join(traceback.format_stack(seen))
        self._report(Blockage(*place, self._seconds(), is_over=False, stack=stack))
        while not self._is_answered:
            time.sleep(_POLL)
        self._report(Blockage(*place, self._seconds(), is_over=True, stack=stack))

    def _seconds(self) -> float:
        return time.monotonic() - self._asked_at


def _authors_frame(innermost: FrameType) -> FrameType:
    """Find the innermost frame of the author's code; if there is none, the innermost of all."""
    frame: FrameType | None = innermost
    while frame is not None:
        if not str(Path(frame.f_code.co_filename).resolve()).startswith(_NOT_THE_AUTHORS):
            return frame
        frame = frame.f_back
    return innermost
