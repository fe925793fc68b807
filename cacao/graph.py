"""The reactive graph: nodes, who read whom, and when a node has to run again.

It knows no values' meaning and no public API; `reactive.py` tells how it works.
"""

# ruff: noqa: SLF001 - it evaluates declarations and tells their stores, all of one house

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, cast, overload
from weakref import ref

from cacao.equality import PLAIN, unchanged
from cacao.errors import CycleError
from cacao.registry import Declaration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

R = TypeVar("R")

DEEPEST: Final = 50
"""Evaluations nested deeper than this give way: about 150 frames, and whatever the author's add."""

# States of a node. All up to CLEAN need no work; of a signal only the first and CLEAN are used.
FIRED: Final = -2  # a signal that nobody has read since its consumers were marked
FAILED: Final = -1  # as CLEAN, but the outcome is an error
CLEAN: Final = 0
CHECK: Final = 1  # something further down may have changed
DIRTY: Final = 2  # a direct dependency has changed, or it never ran
RUNNING: Final = 3
RUNNING_STALE: Final = 4  # an effect that changed what it had read
CHECKING: Final = 5
CHECKING_DIRTY: Final = 6  # being checked, and a dependency did change

# Who waits for a node besides its consumers.
NOBODY: Final = 0
CLIENT: Final = 1
EFFECT: Final = 2
DISPOSED: Final = 3  # an effect no longer

UNSET: Final = object()
_NO_DEPS: Final[list[Any]] = []
_SUBS_AS_LIST: Final = 8  # up to here a list is smaller than a dict, and as fast


class Cell:
    """A signal's value in one store."""

    __slots__ = ("state", "subs", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.state = CLEAN
        self.subs: list[Node] | dict[Node, None] | None = None


class Node(Cell):
    """A computed signal's value in one store, or an effect; while it runs, the observer."""

    __slots__ = ("caller", "deps", "depth", "failure", "home", "key", "watch")

    def __init__(self, key: Key, home: Home, watch: int = NOBODY) -> None:
        self.value = UNSET
        self.state = DIRTY
        self.subs = None
        self.key = key
        self.home = home
        self.watch = watch
        self.deps: list[Cell] = _NO_DEPS
        self.failure: tuple[Exception, TracebackType | None] | None = None
        self.caller: Node | None = None
        self.depth = 0


class Key(ref[Any]):
    """A declaration as stores know it: what its nodes are found by, without keeping it alive."""

    __slots__ = ("home", "is_shared")

    home: Home | None
    is_shared: bool


class Home(ref[Any]):
    """A store as its nodes know it; `dead` are keys whose declarations are gone."""

    __slots__ = ("dead", "nodes")

    nodes: dict[Key, Any]
    dead: list[Key]


class Journal:
    """What an open batch has done, so that it can be told at once, or undone."""

    __slots__ = ("changed", "nodes", "operations", "ran", "values", "watchers")

    def __init__(self) -> None:
        self.values: dict[Cell, Any] = {}  # of signals, before
        self.nodes: dict[Node, Saved] = {}  # of what was marked or evaluated, before
        self.changed: dict[tuple[Any, Any], None] = {}  # declarations and their stores
        self.watchers: dict[Node, None] = {}  # that were clean until now
        self.ran: dict[Node, None] = {}  # effects
        self.operations: list[tuple[Any, Any, Callable[[Any], Any]]] = []  # on app-wide signals

    def undo(self) -> list[Node]:
        """Set everything back.

        Returns:
            The effects that have to run again, for they have seen values that never were.
        """
        for cell, value in self.values.items():
            cell.value = value
            cell.state = CLEAN
        for node, (state, value, failure, deps) in self.nodes.items():
            relink(node, node.deps, deps)
            node.state, node.value, node.failure, node.deps = state, value, failure, deps
        rerun = [node for node in self.ran if node.watch == EFFECT]
        for node in rerun:
            node.state = DIRTY
        return rerun


Saved = tuple[int, Any, tuple[Exception, "TracebackType | None"] | None, list[Cell]]

observer: Node | None = None
"""What runs now, and so depends on what is read."""

journal: Journal | None = None
"""Of the open batch."""

_too_deep: Node | None = None


class _Deep(BaseException):
    """Unwinds an evaluation that is nested too deep; no `except Exception` may stop it."""


def _released(key: Key) -> None:
    """Report a dead declaration; it may die anywhere, so the store sees to it later."""
    if key.home is not None:
        key.home.dead.append(key)


def new_key(declaration: Declaration) -> Key:
    """Make the key that stores find a declaration's nodes by."""
    key = Key(declaration, _released)
    key.home = None
    key.is_shared = False
    return key


class Valued(Declaration):
    """A declaration with a value in each store: a signal or a computed signal."""

    __slots__ = ("_equal", "_key", "_subscribers")

    def __init__(
        self, name: str | None, *, client: bool, equal: Callable[[Any, Any], bool] | None
    ) -> None:
        super().__init__(name, client=client)
        self._equal = equal
        self._key = new_key(self)
        self._subscribers: dict[object, Callable[[Any, Any], object]] | None = None


class Derived(Valued):
    """A declaration whose value a function makes."""

    __slots__ = ("_fn", "_takes_session")

    _fn: Callable[..., Any]
    _takes_session: bool


def _keep(node: Node, in_journal: Journal) -> None:
    """Let an open batch keep what a node is, before it is anything else for the first time."""
    in_journal.nodes.setdefault(node, (node.state, node.value, node.failure, node.deps))


def link(cell: Cell, node: Node) -> None:
    """Make `node` a consumer of `cell`; it must be none yet."""
    subs = cell.subs
    if subs is None:
        cell.subs = [node]
    elif isinstance(subs, dict):
        subs[node] = None
    elif len(subs) < _SUBS_AS_LIST:
        subs.append(node)
    else:
        cell.subs = dict.fromkeys([*subs, node])


def _unlink(cell: Cell, node: Node) -> None:
    subs = cell.subs
    if isinstance(subs, dict):
        subs.pop(node, None)
    elif subs is not None and node in subs:
        subs.remove(node)


def relink(node: Node, old: Collection[Cell], new: Collection[Cell]) -> None:
    """Change `node` from a consumer of `old` to one of `new`, touching only the difference."""
    before = set(old)
    after = set(new)
    for cell in after - before:
        link(cell, node)
    leave(node, before - after)


def leave(node: Node, cells: Iterable[Cell]) -> None:
    """Take `node` out of what it read; what is dead and has no consumer left goes too."""
    left = [(cell, node) for cell in cells]
    while left:
        cell, reader = left.pop()
        _unlink(cell, reader)
        if not cell.subs and isinstance(cell, Node) and cell.key() is None:
            left += [(dep, cell) for dep in set(cell.deps)]
            forget(cell)


def forget(node: Node) -> None:
    """Drop what a node has read, for good: also an open batch shall not bring it back."""
    node.deps = []
    if journal is not None:
        journal.nodes.pop(node, None)


def mark(subs: Iterable[Node]) -> list[Node]:
    """Colour all that may follow from a change; runs no user code, costs what is affected.

    Returns:
        The watched nodes that were clean until now.
    """
    watchers: list[Node] = []
    todo = [subs]
    colour = DIRTY
    while todo:
        for sub in todo.pop():
            state = sub.state
            if state <= CLEAN:
                if journal is not None:
                    _keep(sub, journal)
                sub.state = colour
                if sub.watch:
                    watchers.append(sub)
                if sub.subs:
                    todo.append(sub.subs)
            elif state < colour:
                if journal is not None:
                    _keep(sub, journal)
                sub.state = colour
            elif state == RUNNING:
                _mark_running(sub)
        colour = CHECK  # only the first round were direct consumers
    return watchers


def _mark_running(effect: Node) -> None:
    if journal is not None:
        _keep(effect, journal)
    effect.state = RUNNING_STALE


def _tell_consumers(node: Node) -> None:
    """Make consumers that only were in doubt run again: `node` did change."""
    for sub in node.subs or ():
        if sub.state == CHECK:
            if journal is not None:
                _keep(sub, journal)
            sub.state = DIRTY
        elif sub.state == CHECKING:
            sub.state = CHECKING_DIRTY


def recompute(node: Node) -> None:
    """Run a DIRTY node's function; keep what it returns or raises, tell consumers if that is new.

    An error is kept as an outcome, unless it says nothing about the function: a RecursionError
    depends on who asked, and what is no Exception (a cancellation) belongs to the caller.
    """
    global observer
    computed = node.key()
    session = node.home()
    if computed is None or session is None:
        # Its readers hold no way to read it again: they find out by running.
        _tell_consumers(node)
        return
    if journal is not None:
        _keep(node, journal)
    old, old_deps = node.value, node.deps
    caller = node.caller = observer
    node.depth = 1 if caller is None else caller.depth + 1
    node.state = RUNNING
    reads: list[Cell] = []
    node.deps = reads
    observer = node
    failure = None
    try:
        value = computed._fn(session) if computed._takes_session else computed._fn()
        same = is_same(computed, old, value)
    except BaseException as error:
        if not isinstance(error, Exception) or isinstance(error, RecursionError):
            _abandon(node, old_deps)
            raise
        # The traceback as it is now: each raise to a reader would lengthen it.
        value, failure, same = UNSET, (error, error.__traceback__), False
    finally:
        observer = caller
        node.caller = None
    if _too_deep is not None:  # the author's code has swallowed it
        _abandon(node, old_deps)
        raise _Deep
    if reads == old_deps:
        node.deps = old_deps
    else:
        relink(node, old_deps, reads)
    node.state = CLEAN if failure is None else FAILED
    if not same:
        node.value = value
        node.failure = failure
        _tell_consumers(node)
        if node.watch and computed.is_synced:
            session._note(computed)


def is_same(declaration: Valued, old: Any, new: Any) -> bool:
    """Tell whether `new` is no change, by the declaration's `equal` or the general rule."""
    if declaration._equal is not None:
        return old is not UNSET and bool(declaration._equal(old, new))
    kind = type(new)
    if kind in PLAIN:
        return kind is type(old) and bool(new == old)
    return unchanged(old, new)


def _abandon(node: Node, old_deps: list[Cell]) -> None:
    node.state = DIRTY
    node.deps = old_deps


def _check(node: Node) -> None:
    """Find out whether a CHECK node has to run again, and run it if so (an effect is left DIRTY).

    The walk has a stack of its own, so a chain that was evaluated before never recurses.
    """
    stack: list[tuple[Node, Iterator[Any]]] = []
    _begin_check(node)
    deps: Iterator[Any] = iter(node.deps)
    try:
        while True:
            below = _first_in_doubt(node, deps) if node.state == CHECKING else None
            if below is not None:
                stack.append((node, deps))
                node, deps = below, iter(below.deps)
                _begin_check(node)
                continue
            if node.state == CHECKING:
                node.state = CLEAN if node.failure is None else FAILED
            else:
                node.state = DIRTY
                if node.watch < EFFECT:
                    recompute(node)
            if not stack:
                return
            node, deps = stack.pop()
    except BaseException:
        for checked, _ in [*stack, (node, deps)]:
            if checked.state >= CHECKING:
                checked.state = CHECK if checked.state == CHECKING else DIRTY
        raise


def _begin_check(node: Node) -> None:
    if journal is not None:
        _keep(node, journal)
    node.state = CHECKING


def _first_in_doubt(node: Node, deps: Iterator[Any]) -> Node | None:
    """Go through the next dependencies, running the DIRTY ones, until one has to be checked."""
    for dep in deps:
        if dep.state > CLEAN:
            if dep.state == CHECK:
                below: Node = dep
                return below
            if dep.state == DIRTY:
                recompute(dep)
            else:
                # A cycle: running `node` finds it again, and raises it to whom it concerns.
                node.state = CHECKING_DIRTY
            if node.state == CHECKING_DIRTY:
                break
    return None


def _refresh(node: Node) -> None:
    if node.state == DIRTY:
        recompute(node)
    elif node.state == CHECK:
        _check(node)


def pull(node: Node) -> None:
    """Refresh a node on a Python stack of its own: what proves too deep is evaluated first."""
    global _too_deep
    todo = [node]
    trail: list[Node] = []
    while todo:
        try:
            _refresh(todo[-1])
            todo.pop()
        except _Deep as unwound:
            deep = cast("Node", _too_deep)
            _too_deep = None
            trail += unwound.args[0] if unwound.args else ()
            if deep in todo:
                raise CycleError(_loop_in([*trail, deep])) from None
            todo.append(deep)
        except BaseException:
            _too_deep = None  # the author's code has swallowed it, and then failed in its own way
            raise


def _give_way(node: Node) -> NoReturn:
    global _too_deep
    _too_deep = node
    raise _Deep(_callers())


def settle(node: Node) -> None:
    """Bring a computed signal up to date for whoever reads it now."""
    if node.state >= RUNNING:
        raise CycleError(_cycle_through(node))
    if node.state > CLEAN:
        if observer is None or observer.depth == 0:
            pull(node)
        elif observer.depth >= DEEPEST:
            _give_way(node)
        else:
            _refresh(node)


def _callers() -> list[Node]:
    """Return the running nodes, the outermost first."""
    chain: list[Node] = []
    node = observer
    while node is not None:
        chain.append(node)
        node = node.caller
    return chain[::-1]


def _cycle_through(node: Node) -> tuple[str, ...]:
    """Name the cycle from a node that is being evaluated to the one that reads it now."""
    running = {(each.key, each.home): each for each in _callers()}  # the innermost of untracked()
    path = [node]
    while True:
        here = running.get((path[-1].key, path[-1].home), path[-1])
        deps = cast("list[Node]", here.deps)
        # A running node is busy with what it read last, a checked one with what is not clean.
        after = deps[-1] if here.state == RUNNING else next(d for d in deps if d.state >= RUNNING)
        path.append(after)
        if after is node:
            return tuple(map(name_of, path))


def _loop_in(trail: list[Node]) -> tuple[str, ...]:
    """Name the part of a trail between its last node and the one before that is the same."""
    names = [name_of(node) for node in trail]
    start = max((i for i, node in enumerate(trail[:-1]) if node is trail[-1]), default=0)
    return tuple(names[start:])


def name_of(node: Node) -> str:
    """Return what error messages call a node's declaration."""
    declaration = node.key()
    return "a computed signal that is gone" if declaration is None else str(declaration.label)


def computed_above() -> Node | None:
    """Return the computed signal being evaluated, if that is what runs."""
    return observer if observer is not None and observer.watch < EFFECT else None


@overload
def untracked() -> AbstractContextManager[None]: ...


@overload
def untracked(fn: Callable[[], R]) -> R: ...


def untracked(fn: Callable[[], R] | None = None) -> AbstractContextManager[None] | R:
    """Keep what is read from becoming a dependency.

    Used as a block, `with untracked():`, or as a call that returns what `fn` returns.
    """
    if fn is None:
        return _blindly()
    with _blindly():
        return fn()


@contextmanager
def _blindly() -> Iterator[None]:
    """Let a stand-in of the observer do the reading; writes and cycles are still noticed."""
    global observer
    seeing = observer
    if seeing is None:
        yield
        return
    blind = Node(seeing.key, seeing.home, seeing.watch)
    blind.state = RUNNING
    blind.deps = []
    blind.depth = seeing.depth
    blind.caller = seeing
    observer = blind
    try:
        yield
    finally:
        observer = seeing
