"""Recordings for tests: an app served in memory by a recorder, under the test's own clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio
from live import Served

from cacao.recording.recorder import Recorder, open_recorder
from cacao.recording.replay import Played, play
from cacao.recording.tape import MAX_BYTES, Header, Tape, read_tape

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cacao import App

HEADER = Header(app="app.py:app", seed=3, started="2026-11-24T12:00:00+00:00", version="0.0")


class Recording(Served):
    """A recorder at work, and the pages that it serves."""

    def __init__(self, recorder: Recorder, nursery: trio.Nursery) -> None:
        super().__init__(recorder.serve, nursery)
        self.recorder = recorder


@asynccontextmanager
async def recording(
    app: App, path: Path, header: Header = HEADER, max_bytes: int = MAX_BYTES
) -> AsyncIterator[Recording]:
    """Serve an app, and write down what happens."""
    with Tape(path, header, max_bytes) as tape:
        async with open_recorder(app, tape) as recorder, trio.open_nursery() as nursery:
            yield Recording(recorder, nursery)
            nursery.cancel_scope.cancel()


def replayed(app: App, path: Path, **told: str) -> Played:
    header, entries = read_tape(path)
    return play(app, header, entries, {name.replace("__", "."): told[name] for name in told})
