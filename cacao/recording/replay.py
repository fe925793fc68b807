"""A recording played again: the same run, fed from the file, and the first frame that differs."""

from __future__ import annotations

import difflib
import time
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import TYPE_CHECKING

from cacao.peer import Peer
from cacao.recording.disguise import Disguise
from cacao.recording.sealed import SealedRun
from cacao.recording.tape import ENDS, INPUTS, OUTPUTS, Entry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cacao.app import App
    from cacao.recording.tape import Header
    from cacao.reports import ErrorReport

__all__ = ["Difference", "Played", "play"]

# As in the recorder: what goes out is written down with its microsecond.
_DIGITS = 6
# Real seconds for which work in a thread is waited for, and between two looks at it.
_PATIENCE = 60.0
_POLL = 0.001
# Before these, all that went out is in the file; one that was cut off may lack the last frames.
_WHOLE = (*INPUTS, "end")
# Characters of one line in a difference.
_LONGEST = 2000


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a run first did not do what was recorded.

    Attributes:
        expected: What the file has; None if nothing more was to come.
        got: What came; None if nothing did.
        cause: What had come in last.
    """

    expected: Entry | None
    got: Entry | None
    cause: Entry | None

    def describe(self) -> str:
        """Tell it in some lines, for a person."""
        at = (self.got or self.expected or Entry(0, "end")).at
        client = (self.got or self.expected or Entry(0, "end")).client
        after = "" if self.cause is None else f", after {_shortened(self.cause.line())}"
        lines = [f"at {at} s, to client {client}{after}:"]
        before = [] if self.expected is None else _pieces(self.expected)
        now = [] if self.got is None else _pieces(self.got)
        if not before or not now:
            lines += [f"- {_told(self.expected)}", f"+ {_told(self.got)}"]
        else:
            lines += [line for line in difflib.ndiff(before, now) if not line.startswith("?")]
        return "\n".join(_shortened(line) for line in lines)


@dataclass(frozen=True, slots=True)
class Played:
    """How a replay went.

    Attributes:
        events: How many clients sent.
        frames: How many the server sent that were the same.
        difference: The first; None if there was none.
        is_whole: Whether the recording ends where its server did.
    """

    events: int
    frames: int
    difference: Difference | None
    is_whole: bool


class _Replay:
    """One run that is fed with a recording's inputs."""

    def __init__(self, app: App, header: Header, told: Mapping[str, str]) -> None:
        self._disguise = Disguise(app, told)
        self.outputs: list[Entry] = []
        self._since: tuple[float, float] | None = None
        self._run = SealedRun(app, header.seed, header.start, self._deliver)

    def _deliver(self, client: int, kind: str, said: str | tuple[int, str] | ErrorReport) -> None:
        shown = self._disguise.of_app(said, self._run.sessions)
        self.outputs.append(Entry(round(self._run.time, _DIGITS), kind, shown, client))

    def pass_time(self, until: float) -> None:
        """Let the deadlines pass; no faster than it did, while work in threads is under way."""
        while (due := self._run.next_deadline) <= until:
            self._keep_pace(due)
            self._run.pass_one(until)
        self._keep_pace(until)

    def _keep_pace(self, moment: float) -> None:
        if not self._run.waits_for_outside:
            self._since = None
            return
        if self._since is None:
            self._since = time.monotonic(), self._run.time
        real, virtual = self._since
        while self._run.waits_for_io and time.monotonic() < real + moment - virtual:
            time.sleep(_POLL)
            self._run.settle()
        time.sleep(max(0.0, real + moment - virtual - time.monotonic()))

    def take(self, entry: Entry) -> bool:
        """Let something come in; tells whether it did: work in a thread may not come back."""
        if entry.kind == "outside" and not self._wait_for(entry.value):
            return False
        self._run.advance_to(entry.at)
        match entry.kind:
            case "open":
                peer = Peer(query=entry.value["query"], user=entry.value["user"])
                self._run.open(entry.client, entry.value["subprotocol"], peer)
            case "in":
                self._run.put(entry.client, self._disguise.undo(entry.value, entry.secrets))
            case "close":
                self._run.hang_up(entry.client, *entry.value)
            case "outside":
                self._run.let_in(entry.value)
            case "drain":
                self._run.drain()
        return True

    def _wait_for(self, tasks: Sequence[int]) -> bool:
        give_up = time.monotonic() + _PATIENCE
        while not self._run.door.has(tasks):
            if time.monotonic() > give_up or not self._run.waits_for_outside:
                return False
            time.sleep(_POLL)
        return True

    def close(self) -> None:
        self._run.close()


def play(
    app: App, header: Header, entries: Sequence[Entry], told: Mapping[str, str] | None = None
) -> Played:
    """Play a recording, up to the first difference.

    As fast as it goes, but for work in threads and real I/O, which takes the time that it took.

    Args:
        app: The app, in which nothing has run yet.
        header: Of the recording.
        entries: Of the recording.
        told: What was masked, by its name such as `login.password`.
    """
    replay = _Replay(app, header, told or {})
    try:
        return _compare(replay, entries)
    finally:
        replay.close()


def _compare(replay: _Replay, entries: Sequence[Entry]) -> Played:
    events = frames = 0
    cause: Entry | None = None
    wanted: list[Entry] = []
    is_whole = bool(entries) and entries[-1].kind == "end"
    for entry in entries if is_whole else _with_end(entries):
        if entry.kind in OUTPUTS:
            wanted.append(entry)
            continue
        replay.pass_time(entry.at)
        got, replay.outputs = replay.outputs, []
        difference = _first_difference(wanted, got, cause)
        if difference is not None and (difference.expected is not None or entry.kind in _WHOLE):
            return Played(events, frames, difference, is_whole=is_whole)
        if not replay.take(entry):
            return Played(events, frames, Difference(entry, None, cause), is_whole=is_whole)
        frames += len(wanted)
        events += entry.kind == "in" and '"type":"event"' in entry.value
        wanted, cause = [], entry
    return Played(events, frames, None, is_whole=is_whole)


def _with_end(entries: Sequence[Entry]) -> list[Entry]:
    """Complete a recording that was cut off, so that its last deadline is met."""
    kept = [entry for entry in entries if entry.kind not in ENDS]
    return [*kept, Entry(kept[-1].at + 10**-_DIGITS if kept else 0.0, "full")]


def _first_difference(
    wanted: Sequence[Entry], got: Sequence[Entry], cause: Entry | None
) -> Difference | None:
    """Compare what went out; not the moments, which real I/O makes a little others each time."""
    for expected, came in zip_longest(wanted, got):
        if expected is None or came is None or replace(came, at=expected.at) != expected:
            return Difference(expected, came, cause)
    return None


def _pieces(entry: Entry) -> list[str]:
    """Cut a frame where a reader would: a line for each of its fields."""
    return entry.line().replace(',"', ',\n"').split("\n")


def _told(entry: Entry | None) -> str:
    return "nothing" if entry is None else entry.line()


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
