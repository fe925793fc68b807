"""The counter for `soak.py`, with a route that tells how the process is."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections import Counter
from typing import Any

import trio

from cacao import App, Limits, ListSignal, Session, Signal

app = App(limits=Limits(resume_window=5, bye_window=1, max_sessions=50_000))
count = Signal(0, name="count")
lines: ListSignal[str] = ListSignal(name="lines")
sessions = 0


@app.on("increment")
async def increment(session: Session) -> None:
    """Count one up."""
    count.update(session, lambda n: n + 1)


@app.on("work")
async def work(session: Session) -> None:
    """Take a while, and write a few lines meanwhile."""
    for n in range(5):
        await lines.append(session, f"line {n} of some work")
        await trio.sleep(0.05)


@app.on_session_start
def _begins() -> None:
    global sessions
    sessions += 1


@app.on_session_end
def _ends() -> None:
    global sessions
    sessions -= 1


class Pauses:
    """How long garbage collections take that nobody asked for.

    Attributes:
        longest: In seconds, since it was last looked at.
    """

    def __init__(self) -> None:
        self.longest = self._began = 0.0

    def note(self, phase: str, _: object) -> None:
        """Be called by `gc` at the beginning and the end of each collection."""
        now = time.perf_counter()
        if phase == "start":
            self._began = now
        else:
            self.longest = max(self.longest, now - self._began)

    def take(self) -> float:
        """Give the longest since the last time."""
        longest, self.longest = self.longest, 0.0
        return longest


pauses = Pauses()
gc.callbacks.append(pauses.note)


@app.quart.get("/vitals")
async def vitals() -> dict[str, Any]:
    """Count everything, after a garbage collection: this stops the server for a moment."""
    pause = pauses.take()
    gc.collect()
    pauses.take()
    objects = gc.get_objects()
    return {
        "pause": pause,
        "sessions": sessions,
        "tasks": trio.lowlevel.current_statistics().tasks_living,
        "objects": len(objects),
        "types": Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in objects),
        "heap": tracemalloc.get_traced_memory()[0],
    }


asgi = app.asgi
