"""The tasks of an app under test as a tree: who lives, at which line, and for how long.

Cacao's own machinery is left out; what is below it moves up.
"""

# ruff: noqa: SLF001 -- it looks at what others keep for themselves, and changes nothing

from __future__ import annotations

import linecache
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from cacao.dispatch import Dispatch
from cacao.lifetimes import keep_time
from cacao.testing.inspection.difference import brief
from cacao.testing.inspection.frames import authors, innermost, near
from cacao.testing.inspection.waits import describe_wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import FrameType

    from cacao.session import Session
    from cacao.testing.stage import Stage

    Frames = list[tuple[FrameType, int]]

__all__ = ["Branch", "draw", "grow"]

_SESSION = "session "
# What Cacao calls the tasks in which the author's code runs.
_KINDS = "event ", "timer ", "effect ", "resource ", "background task ", "task "
_AGAIN = "effect ", "resource "
_TIMER = keep_time.__code__
_DISPATCH = "cacao.dispatch"


@dataclass
class Branch:
    """Something that lives, and what lives below it.

    Attributes:
        lines: What it is; then where it stands, if that is known.
        below: What lives in its nurseries, in the order to be shown.
        rank: Where it is shown among others: by this, then by its lines.
    """

    lines: list[str]
    below: list[Branch] = field(default_factory=list)
    rank: int = 0


def draw(branch: Branch) -> Iterator[str]:
    """Draw a tree, line by line."""
    first, *others = branch.lines
    yield first
    yield from (f"{'│' if branch.below else ' '}  {line}" for line in others)
    for each in branch.below:
        begin, go_on = ("└─ ", "   ") if each is branch.below[-1] else ("├─ ", "│  ")
        for number, line in enumerate(draw(each)):
            yield (go_on if number else begin) + line


def grow(stage: Stage) -> Branch:
    """Look at all tasks of an app. Must be called in its run."""
    return Branch(["app"], _Look(stage).below(stage._task, is_authors=False))


class _Look:
    """One look at an app."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sessions = stage.runtime.sessions
        self._clients: dict[str, tuple[int, str]] = {}
        for rank, line in enumerate(stage.lines, 1):
            *earlier, latest = line.half.session_ids or [""]
            self._clients |= dict.fromkeys(earlier, (rank, f"{line.name}, an earlier session"))
            self._clients[latest] = rank, line.name

    def below(self, task: trio.lowlevel.Task, *, is_authors: bool) -> list[Branch]:
        """Look at what lives below a task."""
        children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
        found = [self._branches(child, is_authors=is_authors) for child in children]
        # Trio has no order of them.
        return sorted((each for part in found for each in part), key=_place_among_others)

    def _branches(self, task: trio.lowlevel.Task, *, is_authors: bool) -> list[Branch]:
        """Give the branch of a task, or what is below one that is only Cacao's."""
        frames = list(task.iter_await_frames())
        is_authors = is_authors or any(authors(frame.f_code) for frame, _ in frames)
        below = self.below(task, is_authors=is_authors)
        session = self._sessions.get(task.name.removeprefix(_SESSION))
        if session is not None and task.name.startswith(_SESSION):
            return [self._session(session, frames, below)]
        if is_authors or task.name.startswith(_KINDS):
            return [Branch(_describe(task, frames), below)]
        return below

    def _session(self, session: Session, frames: Frames, below: list[Branch]) -> Branch:
        rank, name = self._clients.get(
            session.id, (len(self._clients) + 1, f"session {session.id}")
        )
        facts = [] if session.is_attached else [_how_it_waits(session)]
        below = sorted([*below, *_waiting(session)], key=_place_among_others)
        return Branch([_sentence(name, facts), *_place(frames)], below, rank)  # of a hook


def _place_among_others(branch: Branch) -> tuple[int, list[str]]:
    return branch.rank, branch.lines


def _how_it_waits(session: Session) -> str:
    deadline = math.inf if session._nursery is None else session._nursery.cancel_scope.deadline
    if deadline == math.inf:
        return "without a connection"
    return f"without a connection, ends in {deadline - trio.current_time():g} s"


def _waiting(session: Session) -> list[Branch]:
    """List the events that have no task, as others are before them."""
    if session._dispatch is None:
        return []
    lanes = session._dispatch._lanes.values()
    waiting = [run for lane in lanes for run in lane._waiting]
    return [Branch([f"event {run._name} (waits for its turn)"]) for run in waiting]


def _describe(task: trio.lowlevel.Task, frames: Frames) -> list[str]:
    """Say what a task is and what limits it; then where it stands and what it waits for."""
    place, wait = _place(frames), _wait(frames)
    facts = [*_facts(task, frames), *([] if place else wait)]
    return [_sentence(_name(task, frames), facts), *place]


def _name(task: trio.lowlevel.Task, frames: Frames) -> str:
    event = _in_dispatch(frames).get("event")
    if event is not None:
        return f"{task.name} {brief(event.data)}"
    return task.name if " " in task.name else task.name.rpartition(".")[2]


def _facts(task: trio.lowlevel.Task, frames: Frames) -> Iterator[str]:
    if task.name.startswith(_AGAIN) and not any(authors(frame.f_code) for frame, _ in frames):
        yield "waits for a change"
    for frame, _ in frames:
        if frame.f_code is _TIMER:
            yield f"every {frame.f_locals['seconds']:g} s"
    inside = _in_dispatch(frames)
    if "event" not in inside:
        return
    options = getattr(inside["dispatch"]._events.get(inside["event"].name), "options", None)
    if options is not None:
        yield options.concurrency
    run = inside.get("run")
    if run is None:
        yield "not through the middleware yet"
        return
    if run._code is not None:
        yield f"{run._code}, but still running"
    if run._scope.deadline < math.inf:
        yield f"must end in {run._scope.deadline - trio.current_time():g} s"


def _in_dispatch(frames: Frames) -> dict[str, Any]:
    """Give what the dispatch of an event has in its hands: itself, the event, the run."""
    found: dict[str, Any] = {}
    for frame, _ in frames:
        if frame.f_globals["__name__"] == _DISPATCH:
            names = frame.f_locals
            found |= {name: names[name] for name in ("event", "run") if name in names}
            if isinstance(names.get("self"), Dispatch):
                found["dispatch"] = names["self"]
    return found


def _place(frames: Frames) -> list[str]:
    """Give the author's line at which a task stands, and for how long; nothing if there is none."""
    spot = innermost(frames)
    if spot is None or not authors(spot[0]):
        return []
    code, number = spot
    source = linecache.getline(code.co_filename, number).strip()
    place = _sentence(f"{near(code.co_filename)}:{number} in {code.co_name}", _wait(frames))
    return [f"{place}: {source}" if source else place]


def _wait(frames: Frames) -> list[str]:
    wait = describe_wait(frames)
    return [] if wait is None else [wait.removeprefix("timer ").removesuffix(" (virtual)")]


def _sentence(what: str, facts: Iterable[str]) -> str:
    """Put facts behind what they are about."""
    known = ", ".join(facts)
    return f"{what} ({known})" if known else what
