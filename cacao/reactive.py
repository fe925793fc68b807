"""Signals, computed signals, effects: values per session that follow each other.

How it works. A declaration (`Signal`, `Computed`, `Effect`) is made once; each session's `Store` has
a small node for every declaration it has touched. A node that read another is its consumer: `deps`
points down to what it read, in reading order, `subs` points up to who read it.

1. *Push colours.* A changed signal makes its direct consumers DIRTY and all above them CHECK. No
   user code runs. The watched ones among them (effects, and what a client sees) are queued and the
   store is woken, once.
2. *Pull values.* Whoever reads a CHECK node looks at its dependencies in reading order: the first
   one that really changed makes it run again; if none did, it is clean without running. So values
   are never torn, nothing runs twice for one change, and a branch no longer read is never run.
   (Two colours and pull: Reactively, https://github.com/milomg/reactively, and alien-signals.)
3. *Depth.* Computed signals nest as deep as the author's data. Instead of raising the recursion
   limit (which can crash the process), an evaluation nested DEEPEST levels gives way: it unwinds,
   the deep node is evaluated on an empty stack, and the outer one starts again.
4. *The observer* is one slot of this module, set and restored around each synchronous call. It is
   no ContextVar, for a task spawned inside would inherit it; and not one per store, so that a
   computed signal may read the signals of another store.
5. *Lifetimes.* Nodes know their declaration and their store weakly; a store that dies cuts the
   edges between its nodes, so reference counting alone frees a session.
"""

from __future__ import annotations

import inspect
import traceback
from contextlib import contextmanager
from contextvars import ContextVar
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, Generic, NoReturn, TypeVar, cast, overload
from weakref import ref

from cacao.equality import PLAIN, is_immutable, unchanged
from cacao.errors import (
    CycleError,
    DeclarationError,
    EffectLoopError,
    NoSessionError,
    ReactiveError,
    WriteInComputedError,
)
from cacao.registry import Declaration, Place, Registry, claim_registry, current_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

__all__ = [
    "Computed",
    "Declaration",
    "Effect",
    "Place",
    "Registry",
    "Signal",
    "Store",
    "batch",
    "claim_registry",
    "current_registry",
    "current_session",
    "set_current_session",
    "untracked",
    "use_session",
]

T = TypeVar("T")
R = TypeVar("R")

DEEPEST: Final = 50
"""Evaluations nested deeper than this give way: about 150 frames, and whatever the author's add."""

MAX_ROUNDS: Final = 100
"""Rounds of effects that trigger effects, before that counts as a loop."""

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

_UNSET: Final = object()
_NO_DEPS: Final[list[Any]] = []
_SUBS_AS_LIST: Final = 8  # up to here a list is smaller than a dict, and as fast


# --- The graph ---------------------------------------------------------------------------------


class _Cell:
    """A signal's value in one store."""

    __slots__ = ("state", "subs", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.state = CLEAN
        self.subs: list[_Node] | dict[_Node, None] | None = None


class _Node(_Cell):
    """A computed signal's value in one store, or an effect; while it runs, the observer."""

    __slots__ = ("caller", "depth", "deps", "failure", "home", "key", "watch")

    def __init__(self, key: _Key, home: _Home, watch: int = NOBODY) -> None:
        self.value = _UNSET
        self.state = DIRTY
        self.subs = None
        self.key = key
        self.home = home
        self.watch = watch
        self.deps: list[_Cell] = _NO_DEPS
        self.failure: tuple[Exception, TracebackType | None] | None = None
        self.caller: _Node | None = None
        self.depth = 0


class _Key(ref[Declaration]):
    """A declaration as stores know it: what its nodes are found by, without keeping it alive."""

    __slots__ = ("home", "is_shared")

    home: _Home | None
    is_shared: bool


class _Home(ref["Store"]):
    """A store as its nodes know it; `dead` are keys whose declarations are gone."""

    __slots__ = ("dead", "nodes")

    nodes: dict[_Key, Any]
    dead: list[_Key]


class _Deep(BaseException):
    """Unwinds an evaluation that is nested too deep; no `except Exception` may stop it."""


_observer: _Node | None = None
_too_deep: _Node | None = None
_batch: _Batch | None = None


def _link(cell: _Cell, node: _Node) -> None:
    subs = cell.subs
    if subs is None:
        cell.subs = [node]
    elif isinstance(subs, dict):
        subs[node] = None
    elif len(subs) < _SUBS_AS_LIST:
        subs.append(node)
    else:
        cell.subs = dict.fromkeys([*subs, node])


def _unlink(cell: _Cell, node: _Node) -> None:
    subs = cell.subs
    if isinstance(subs, dict):
        subs.pop(node, None)
    elif subs is not None and node in subs:
        subs.remove(node)


def _relink(node: _Node, old: Collection[_Cell], new: Collection[_Cell]) -> None:
    """Change `node` from a consumer of `old` to one of `new`, touching only the difference."""
    before = set(old)
    after = set(new)
    for cell in after - before:
        _link(cell, node)
    _leave(node, before - after)


def _leave(node: _Node, cells: Iterable[_Cell]) -> None:
    """Take `node` out of what it read; what is dead and has no consumer left goes too."""
    left = [(cell, node) for cell in cells]
    while left:
        cell, reader = left.pop()
        _unlink(cell, reader)
        if not cell.subs and isinstance(cell, _Node) and cell.key() is None:
            left += [(dep, cell) for dep in set(cell.deps)]
            _forget(cell)


def _forget(node: _Node) -> None:
    node.deps = _NO_DEPS
    if _batch is not None:
        _batch.nodes.pop(node, None)


def _mark(subs: Iterable[_Node]) -> list[_Node]:
    """Colour all that may follow from a change; runs no user code, costs what is affected.

    Returns:
        The watched nodes that were clean until now.
    """
    journal = None if _batch is None else _batch.nodes
    watchers: list[_Node] = []
    below: list[Iterable[_Node]] = []
    for sub in subs:
        if sub.state <= CLEAN:
            if journal is not None:
                journal.setdefault(sub, _saved(sub))
            sub.state = DIRTY
            if sub.watch:
                watchers.append(sub)
            if sub.subs:
                below.append(sub.subs)
        elif sub.state == CHECK:
            sub.state = DIRTY
        elif sub.state == RUNNING:
            sub.state = RUNNING_STALE
    while below:
        for sub in below.pop():
            if sub.state <= CLEAN:
                if journal is not None:
                    journal.setdefault(sub, _saved(sub))
                sub.state = CHECK
                if sub.watch:
                    watchers.append(sub)
                if sub.subs:
                    below.append(sub.subs)
            elif sub.state == RUNNING:
                sub.state = RUNNING_STALE
    return watchers


def _tell_consumers(node: _Node) -> None:
    """Make consumers that only were in doubt run again: `node` did change."""
    for sub in node.subs or ():
        if sub.state == CHECK:
            sub.state = DIRTY
        elif sub.state == CHECKING:
            sub.state = CHECKING_DIRTY


def _recompute(node: _Node) -> None:
    """Run a DIRTY node's function; keep what it returns or raises, tell consumers if that is new.

    An error is kept as an outcome, unless it says nothing about the function: a RecursionError
    depends on who asked, and what is no Exception (a cancellation) belongs to the caller.
    """
    global _observer
    computed = cast("Computed[Any] | None", node.key())
    session = node.home()
    if computed is None or session is None:
        # Its readers hold no way to read it again: they find out by running.
        _tell_consumers(node)
        return
    if _batch is not None:
        _batch.nodes.setdefault(node, _saved(node))
    old_deps = node.deps
    caller = node.caller = _observer
    node.depth = 1 if caller is None else caller.depth + 1
    node.state = RUNNING
    node.deps = reads = []
    _observer = node
    failure = None
    value: Any = _UNSET
    try:
        value = computed._fn(session) if computed._takes_session else computed._fn()
        same = node.failure is None and _is_same(computed, node.value, value)
    except RecursionError:
        _abandon(node, old_deps)
        raise
    except Exception as error:  # noqa: BLE001 - kept, and raised to every reader
        failure = _kept(error)
        same = False
    except BaseException:
        _abandon(node, old_deps)
        raise
    finally:
        _observer = caller
        node.caller = None
    if _too_deep is not None:  # the author's code has swallowed it
        _abandon(node, old_deps)
        raise _Deep
    if reads == old_deps:
        node.deps = old_deps
    else:
        _relink(node, old_deps, reads)
    node.state = CLEAN if failure is None else FAILED
    if same:
        return
    node.value = value
    node.failure = failure
    if node.subs:
        _tell_consumers(node)
    if node.watch and computed.is_synced:
        session._note(computed)


def _is_same(declaration: Signal[Any] | Computed[Any], old: Any, new: Any) -> bool:
    if declaration._equal is not None:
        return old is not _UNSET and bool(declaration._equal(old, new))
    kind = type(new)
    if kind in PLAIN:
        return kind is type(old) and bool(new == old)
    return unchanged(old, new)


def _abandon(node: _Node, old_deps: list[_Cell]) -> None:
    node.state = DIRTY
    node.deps = old_deps


def _kept(error: Exception) -> tuple[Exception, TracebackType | None]:
    """Return an error to keep, with its traceback as it is now: each raise would lengthen it."""
    trace = error.__traceback__
    # The frames stay for their line numbers; their locals would keep the session alive.
    traceback.clear_frames(trace)
    return error, trace


def _check(node: _Node) -> None:
    """Find out whether a CHECK node has to run again, and run it if so (an effect is left DIRTY).

    The walk has a stack of its own, so a chain that was evaluated before never recurses.
    """
    node.state = CHECKING
    stack = [(node, iter(node.deps))]
    try:
        while stack:
            node, deps = stack[-1]
            below = _first_in_doubt(node, deps)
            if below is not None:
                below.state = CHECKING
                stack.append((below, iter(below.deps)))
                continue
            stack.pop()
            if node.state == CHECKING:
                node.state = CLEAN if node.failure is None else FAILED
            else:
                node.state = DIRTY
                if node.watch != EFFECT:
                    _recompute(node)
    except BaseException:
        for node, _ in stack:
            node.state = CHECK if node.state == CHECKING else DIRTY
        raise


def _first_in_doubt(node: _Node, deps: Iterator[_Cell]) -> _Node | None:
    """Go through the next dependencies, running the DIRTY ones, until one has to be checked."""
    for dep in deps:
        if node.state == CHECKING_DIRTY:
            return None
        if dep.state > CLEAN:
            dep = cast("_Node", dep)
            if dep.state == CHECK:
                return dep
            if dep.state == DIRTY:
                _recompute(dep)
            else:
                # A cycle: running `node` finds it again, and raises it to whom it concerns.
                node.state = CHECKING_DIRTY
    return None


def _refresh(node: _Node) -> None:
    if node.state == DIRTY:
        _recompute(node)
    elif node.state == CHECK:
        _check(node)


def _pull(node: _Node) -> None:
    """Refresh a node on a Python stack of its own: what proves too deep is evaluated first."""
    global _too_deep
    todo = [node]
    trail: list[_Node] = []
    while todo:
        try:
            _refresh(todo[-1])
            todo.pop()
        except _Deep as unwound:
            deep = cast("_Node", _too_deep)
            _too_deep = None
            trail += unwound.args[0] if unwound.args else ()
            if deep in todo:
                raise CycleError(_loop_in([*trail, deep])) from None
            todo.append(deep)


def _give_way(node: _Node) -> NoReturn:
    global _too_deep
    _too_deep = node
    raise _Deep(_callers())


def _settle(node: _Node) -> None:
    """Bring a computed signal up to date for whoever reads it now."""
    if node.state >= RUNNING:
        raise CycleError(_cycle_through(node))
    if node.state > CLEAN:
        if _observer is None or _observer.depth == 0:
            _pull(node)
        elif _observer.depth >= DEEPEST:
            _give_way(node)
        else:
            _refresh(node)


def _callers() -> list[_Node]:
    """Return the running nodes, the outermost first."""
    chain: list[_Node] = []
    node = _observer
    while node is not None:
        chain.append(node)
        node = node.caller
    return chain[::-1]


def _cycle_through(node: _Node) -> tuple[str, ...]:
    """Name the cycle from a node that is being evaluated to the one that reads it now."""
    blinds = {each.key: each for each in _callers()}
    path = [node]
    while True:
        here = blinds.get(path[-1].key, path[-1])
        deps = cast("list[_Node]", here.deps)
        # A running node is busy with what it read last, a checked one with what is not clean.
        after = deps[-1] if here.state == RUNNING else next(d for d in deps if d.state >= RUNNING)
        path.append(after)
        if after is node:
            return tuple(map(_name_of, path))


def _loop_in(trail: list[_Node]) -> tuple[str, ...]:
    """Name the part of a trail between its last node and the one before that is the same."""
    names = [_name_of(node) for node in trail]
    start = max(i for i, node in enumerate(trail[:-1]) if node is trail[-1])
    return tuple(names[start:])


def _name_of(node: _Node) -> str:
    declaration = node.key()
    return "a computed that is gone" if declaration is None else declaration.label


def _raise_all(errors: list[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("several effects or computed signals failed", errors)


# --- Stores ------------------------------------------------------------------------------------


class Store:
    """The values of one session, and what of them changed.

    By itself it is its own flusher: effects run at the end of the outermost `set` or `batch()`.
    With `wake` set it only says, once, that there is something to flush.

    Attributes:
        wake: Called without arguments when something becomes pending after nothing was; never
            inside a batch. Then somebody is to call `take_changes` or `run_effects`.
        guard: Called with a signal that clients see and its new value, before that is stored;
            what it raises reaches the caller of `set`, and nothing has changed.
        on_error: Gets what effects, subscribers and watched computed signals raise, with the
            declaration. None lets it reach the caller, when all others have had their turn.
    """

    __slots__ = (
        "__weakref__",
        "_changed",
        "_due",
        "_effects",
        "_home",
        "_is_flushing",
        "_is_pending",
        "_nodes",
        "_stale",
        "_sweep_at",
        "guard",
        "on_error",
        "wake",
    )

    def __init__(self) -> None:
        self.wake: Callable[[], object] | None = None
        self.guard: Callable[[Signal[Any], object], None] | None = None
        self.on_error: Callable[[Exception, Declaration], None] | None = None
        self._home = _Home(self, _dissolve)
        self._home.dead = []
        self._home.nodes = self._nodes = {}
        self._changed: dict[_Key, None] = {}
        self._stale: dict[_Node, None] = {}
        self._due: dict[_Node, None] = {}
        self._effects: dict[_Node, Effect] = {}
        self._is_flushing = False
        self._is_pending = False
        self._sweep_at = 64

    def watch(self, computed: Computed[Any]) -> None:
        """Report `computed` in `take_changes` from now on; without a value yet, in the next one."""
        node = self._node_of(computed)
        node.watch = CLIENT
        if node.state > CLEAN:
            self._queue(node)
            self._stir()

    def unwatch(self, computed: Computed[Any]) -> None:
        """Stop reporting `computed`; it is evaluated only when read."""
        node = self._node_of(computed)
        node.watch = NOBODY
        self._stale.pop(node, None)
        self._changed.pop(computed._key, None)

    def run_effects(self) -> None:
        """Run the effects whose dependencies changed, and those that they trigger in turn.

        Raises:
            EffectLoopError: After 100 rounds, unless `on_error` takes it.
            Exception: What effects raised, unless `on_error` takes it; several as ExceptionGroup.
        """
        errors: list[Exception] = []
        self._run_due(errors)
        self._is_pending = bool(self._changed or self._stale or self._due)
        _raise_all(errors)

    def take_changes(self) -> dict[Declaration, Any]:
        """Run effects, bring watched computed signals up to date, hand over what clients must know.

        A computed signal that fails goes to `on_error` and is left out. Where there is no
        `on_error`, its exception is raised and the changes stay for the next call.

        Returns:
            The current value of each named, client-visible declaration that changed since the
            last call, in order of first change.
        """
        errors: list[Exception] = []
        self._run_due(errors)
        self._pull_stale(errors)
        self._is_pending = False
        _raise_all(errors)
        changed = {
            declaration: self._nodes[key].value
            for key in self._changed
            if (declaration := key()) is not None and not self._has_failed(key)
        }
        self._changed.clear()
        if self._due or self._stale:  # `on_error` has set signals
            self._stir()
        return changed

    def close(self) -> None:
        """Dispose of the effects and drop all values; at once, without the garbage collector."""
        for effect in tuple(self._effects.values()):
            effect.dispose()
        self.wake = self.guard = self.on_error = None
        self._changed.clear()
        self._stale.clear()
        _dissolve(self._home)

    def _node_of(self, computed: Computed[Any]) -> _Node:
        node: _Node | None = self._nodes.get(computed._key)
        return computed._settle_in(self) if node is None else node

    def _add(self, key: _Key, node: _Cell) -> None:
        self._bury()
        if not key.is_shared:
            if key.home is None or key.home() is None:
                key.home = self._home
            elif key.home is not self._home:
                key.home, key.is_shared = None, True
        self._nodes[key] = node

    def _bury(self) -> None:
        """Release nodes of dead declarations.

        A declaration that only this store has used reports its death; one used by several does
        not (it would have to know them all), so those are looked for whenever the store has
        doubled.
        """
        dead = self._home.dead
        if len(self._nodes) >= self._sweep_at:
            dead += [key for key in self._nodes if key() is None]
            self._sweep_at = max(64, 2 * (len(self._nodes) - len(dead)))
        while dead:
            node = self._nodes.pop(dead.pop(), None)
            if isinstance(node, _Node):
                self._stale.pop(node, None)
                if not node.subs:
                    _leave(node, set(node.deps))
                    _forget(node)

    def _note(self, declaration: Signal[Any] | Computed[Any]) -> None:
        """Remember a change that clients must hear of."""
        if _batch is None:
            self._changed[declaration._key] = None
        else:
            _batch.changed[declaration, self] = None

    def _queue(self, node: _Node) -> None:
        if node.watch == EFFECT:
            self._due[node] = None
        else:
            self._stale[node] = None

    def _stir(self) -> None:
        """See to it that what is pending gets flushed."""
        if self.wake is None:
            if self._due and not self._is_flushing:
                self.run_effects()
        elif not self._is_pending:
            self._is_pending = True
            self.wake()

    def _run_due(self, errors: list[Exception]) -> None:
        self._bury()
        if self._is_flushing:
            return
        self._is_flushing = True
        try:
            for _ in range(MAX_ROUNDS):
                if not self._due:
                    return
                self._run_round(errors)
            self._break_loop(errors)
        finally:
            self._is_flushing = False

    def _run_round(self, errors: list[Exception]) -> None:
        round_ = list(self._due)
        self._due.clear()
        for position, node in enumerate(round_):
            try:
                self._run_if_changed(node, errors)
            except BaseException:
                # A cancellation, or Ctrl+C: nothing of the queue is lost.
                self._due = dict.fromkeys([*round_[position:], *self._due])
                raise

    def _run_if_changed(self, node: _Node, errors: list[Exception]) -> None:
        if node.state == CHECK:
            _pull(node)
        if node.state == DIRTY and (effect := self._effects.get(node)) is not None:
            try:
                effect._run(self)
            except Exception as error:  # noqa: BLE001 - reported, and the queue goes on
                self._report(error, effect, errors)

    def _break_loop(self, errors: list[Exception]) -> None:
        looping = [effect for node, effect in self._effects.items() if node in self._due]
        for effect in looping:
            effect._node.state = CLEAN  # the next change from outside may start it again
            self._report(
                EffectLoopError(
                    f"{effect.label} still triggers itself after {MAX_ROUNDS} rounds; "
                    "read what it writes with peek(), or write it only when it differs"
                ),
                effect,
                errors,
            )
        self._due.clear()

    def _pull_stale(self, errors: list[Exception]) -> None:
        stale = list(self._stale)
        self._stale.clear()
        for position, node in enumerate(stale):
            try:
                _pull(node)
            except Exception as error:  # noqa: BLE001 - reported, and the queue goes on
                self._report_stale(node, error, errors)
            except BaseException:
                self._stale = dict.fromkeys([*stale[position:], *self._stale])
                raise
            else:
                if node.failure is not None:
                    self._report_stale(node, node.failure[0], errors)

    def _report_stale(self, node: _Node, error: Exception, errors: list[Exception]) -> None:
        computed = node.key()
        if computed is not None:
            self._report(error, computed, errors)

    def _report(self, error: Exception, source: Declaration, errors: list[Exception]) -> None:
        if self.on_error is None:
            errors.append(error)
        else:
            self.on_error(error, source)

    def _has_failed(self, key: _Key) -> bool:
        node = self._nodes[key]
        return isinstance(node, _Node) and node.failure is not None


def _dissolve(home: _Home) -> None:
    """Cut the edges of a store that is closed or gone, for they are cycles."""
    nodes = list(home.nodes.values())
    home.nodes.clear()
    for node in nodes:
        node.subs = None
    for node in nodes:
        if isinstance(node, _Node):
            _leave(node, set(node.deps))
            _forget(node)


def _released(key: ref[Declaration]) -> None:
    """Report a dead declaration; it may die anywhere, so the store sees to it later."""
    home = cast("_Key", key).home
    if home is not None:
        home.dead.append(cast("_Key", key))


def _new_key(declaration: Declaration) -> _Key:
    key = _Key(declaration, _released)
    key.home = None
    key.is_shared = False
    return key


# --- Declarations ------------------------------------------------------------------------------


class Signal(Declaration, Generic[T]):
    """A value that each session has for itself.

    Example:
        count = Signal(0, name="count")
        count.set(session, count.get(session) + 1)

    Setting what is there already is no change: values of exactly the same immutable type that
    look the same. Any other value counts as changed, also a list that was mutated and set again.

    Args:
        default: Every session's first value. A mutable one is copied for each session.
        default_factory: Makes a session's first value instead, without arguments.
        name: The name on the wire, unique within a registry. Without one, no client sees it.
        client: False keeps a named signal on the server.
        equal: Decides in place of the rule above whether a new value is no change: `equal(old,
            new)`. What it raises reaches the caller of `set`.

    Raises:
        DeclarationError: For a name that is taken or not allowed, neither or both of the
            defaults, or a default that cannot be copied.
    """

    __slots__ = ("_default", "_equal", "_is_mutable", "_key", "_make_default", "_subscribers")

    @overload
    def __init__(
        self,
        default: T,
        *,
        name: str | None = None,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        default_factory: Callable[[], T],
        name: str | None = None,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
    ) -> None: ...

    def __init__(
        self,
        default: Any = _UNSET,
        *,
        default_factory: Callable[[], T] | None = None,
        name: str | None = None,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
    ) -> None:
        super().__init__(name, client=client)
        if (default is _UNSET) is (default_factory is None):
            raise DeclarationError(
                f"{self.label} needs a default or a default_factory, and not both; "
                "for no value write Signal(None)"
            )
        self._is_mutable = default_factory is not None or not is_immutable(default)
        self._default = self._own_copy(default) if self._is_mutable else default
        self._make_default = default_factory
        self._equal = equal
        self._key = _new_key(self)
        self._subscribers: dict[object, Callable[[Any, T], None]] = {}
        if name is not None:
            current_registry().add(self)

    @property
    def default(self) -> T:
        """A new session's value; a copy of its own where it can be mutated."""
        if self._make_default is not None:
            return self._make_default()
        return cast("T", deepcopy(self._default) if self._is_mutable else self._default)

    @property
    def value(self) -> T:
        """The value in the session known here: a handler's, an effect's, a computed signal's.

        Raises:
            NoSessionError: On reading or setting it where no session is known.
        """
        return self.get(current_session())

    @value.setter
    def value(self, value: T) -> None:
        self.set(current_session(), value)

    def get(self, session: Store) -> T:
        """Return the session's value; inside a Computed or an Effect it becomes a dependency."""
        cell = session._nodes.get(self._key)
        if cell is None:
            if _observer is None and not self._is_mutable:
                return cast("T", self._default)
            cell = self._settle_in(session)
        if _observer is not None:
            cell.state = CLEAN
            _observer.deps.append(cell)
        return cast("T", cell.value)

    def peek(self, session: Store) -> T:
        """Return the session's value without depending on it."""
        cell = session._nodes.get(self._key)
        if cell is None:
            if not self._is_mutable:
                return cast("T", self._default)
            cell = self._settle_in(session)
        return cast("T", cell.value)

    def set(self, session: Store, value: T) -> None:
        """Give the session a new value. Costs the same however many sessions there are.

        Subscribers are called, and a bare store's effects run, before this returns; inside a
        `batch()` that is put off to its end.

        Raises:
            WriteInComputedError: If a computed signal is being evaluated.
        """
        if _observer is not None:
            _refuse_in_computed(self)
        cell = session._nodes.get(self._key)
        if cell is None:
            cell = self._settle_in(session)
        if _is_same(self, cell.value, value):
            return
        if session.guard is not None and self.is_synced:
            session.guard(self, value)
        if _batch is not None:
            _keep_old_value(cell)
        cell.value = value
        watchers: list[_Node] = []
        if cell.state == CLEAN and cell.subs:
            cell.state = FIRED
            watchers = _mark(cell.subs)
        if _batch is not None:
            _batch.add(self, session, watchers)
        elif watchers or self._subscribers:
            _publish([(self, session)], watchers)
        elif self.is_synced:
            session._changed[self._key] = None
            session._stir()

    def update(self, session: Store, fn: Callable[[T], T]) -> None:
        """Set what `fn` makes of the present value, which is read without depending on it."""
        self.set(session, fn(self.peek(session)))

    def subscribe(self, callback: Callable[[Any, T], None]) -> Callable[[], None]:
        """Call `callback(session, value)` after every change in any session.

        It is called synchronously, at the end of the outermost `batch()` once with the last
        value, and kept alive until unsubscribed. What it raises goes to the store's `on_error`,
        else to the caller of `set`.

        Returns:
            A function that ends it; calling it again does nothing.
        """
        token = object()
        self._subscribers[token] = callback
        return lambda: self._subscribers.pop(token, None) and None

    def _own_copy(self, default: T) -> T:
        try:
            return deepcopy(default)
        except Exception as error:
            raise DeclarationError(
                f"the default of {self.label} cannot be copied for each session: {error}; "
                "pass default_factory= instead"
            ) from error

    def _settle_in(self, session: Store) -> _Cell:
        cell = _Cell(self.default)
        session._add(self._key, cell)
        return cell


class Computed(Declaration, Generic[T]):
    """A value that follows from others, in each session.

    `fn` runs when somebody reads it and something it read has changed, once, and not otherwise.
    It must be pure: it may be entered again after being broken off, and setting a signal in it
    raises. What it raises is kept, and raised to every reader until an input changes.

    Example:
        total = Computed(lambda s: price.get(s) * count.get(s), name="total")

        @Computed
        def label():
            return f"{count.value} pieces"

        @Computed(name="label")
        def named_label(session): ...

    Args:
        fn: `fn(session)` or `fn()`; not async.
        name: The name on the wire, unique within a registry. Without one, no client sees it.
        client: False keeps a named one on the server.
        equal: Decides whether a new result is no change, as for `Signal`.

    Raises:
        DeclarationError: For a name that is taken or not allowed, or an `fn` of another kind.
    """

    __slots__ = ("_equal", "_fn", "_key", "_takes_session")

    _fn: Callable[..., T]

    def __init__(
        self,
        fn: Callable[[Any], T] | Callable[[], T] | None = None,
        name: str | None = None,
        *,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
    ) -> None:
        super().__init__(name, client=client)
        self._equal = equal
        self._key = _new_key(self)
        self._fn, self._takes_session = _no_function_yet, True
        if fn is not None:
            self(fn)
        if name is not None:
            current_registry().add(self)

    def __call__(self, fn: Callable[[Any], R] | Callable[[], R]) -> Computed[R]:
        """Take the function of a `@Computed(name=...)`; not for calling otherwise.

        Raises:
            DeclarationError: If there is a function already.
        """
        if self._fn is not _no_function_yet:
            raise DeclarationError(
                f"{self.label} has a function already; to read its value call get(session)"
            )
        computed = cast("Computed[R]", self)
        computed._takes_session = _takes_session(fn, self)
        computed._fn = fn
        return computed

    @property
    def label(self) -> str:
        """What error messages call it: its name, else its function's."""
        return self.name or getattr(self._fn, "__qualname__", super().label)

    @property
    def value(self) -> T:
        """The value in the session known here: a handler's, an effect's, a computed signal's.

        Raises:
            NoSessionError: If no session is known.
        """
        return self.get(current_session())

    def get(self, session: Store) -> T:
        """Return the up-to-date value; inside another Computed or Effect it is a dependency.

        Raises:
            CycleError: If it depends on itself.
            Exception: What its function raised.
        """
        node = session._nodes.get(self._key)
        if node is None:
            node = self._settle_in(session)
        if _observer is not None:
            # Before evaluating: an error is a dependency too.
            _observer.deps.append(node)
            if node.state == DIRTY and 0 < _observer.depth < DEEPEST:
                _recompute(node)  # what _settle would do, three frames later
        if node.state != CLEAN:
            _settle(node)
            if node.failure is not None:
                error, trace = node.failure
                raise error.with_traceback(trace)
        return cast("T", node.value)

    def peek(self, session: Store) -> T:
        """Return the up-to-date value without depending on it; raises what `get` does."""
        with untracked():
            return self.get(session)

    def _settle_in(self, session: Store) -> _Node:
        node = _Node(self._key, session._home)
        session._add(self._key, node)
        return node


class Effect(Declaration):
    """Something to be done now, and again whenever what it read has changed, in one session.

    It lives until `dispose()` or until the session ends. Changes that it makes itself count: an
    effect that sets what it read runs again. What it raises goes to the session's `on_error`;
    without one, the first run's exception reaches the caller (and there is no effect).

    Args:
        fn: `fn(session)` or `fn()`; not async.
        session: The session whose values it reads.

    Raises:
        ReactiveError: If a computed signal is being evaluated, which must not have effects.
    """

    __slots__ = ("_fn", "_key", "_node", "_takes_session")

    def __init__(self, fn: Callable[[Any], object] | Callable[[], object], session: Store) -> None:
        super().__init__(None, client=False)
        self._fn: Callable[..., object] = fn
        if (reader := _computed_above()) is not None:
            raise ReactiveError(
                f"computed signal {_name_of(reader)!r} creates the effect {self.label!r}; "
                "a computed signal must be pure, create the effect outside of it"
            )
        self._takes_session = _takes_session(fn, self)
        self._key = _new_key(self)
        self._node = _Node(self._key, session._home, EFFECT)
        session._add(self._key, self._node)
        session._effects[self._node] = self
        self._run_first(session)

    @property
    def label(self) -> str:
        """What error messages call it: its function's name."""
        return getattr(self._fn, "__qualname__", super().label)

    def dispose(self) -> None:
        """End it; a run that is under way goes to its end. Doing it again does nothing."""
        node = self._node
        node.watch = NOBODY
        _leave(node, set(node.deps))
        _forget(node)
        session = node.home()
        if session is not None:
            session._nodes.pop(self._key, None)
            session._effects.pop(node, None)
            session._due.pop(node, None)

    def _run_first(self, session: Store) -> None:
        was_flushing, session._is_flushing = session._is_flushing, True
        try:
            self._run(session)
        except Exception as error:
            if session.on_error is None:
                self.dispose()
                raise
            session.on_error(error, self)
        except BaseException:
            self.dispose()
            raise
        finally:
            session._is_flushing = was_flushing
        if session._due:
            session._stir()

    def _run(self, session: Store) -> None:
        """Run once, as the observer; read the new dependencies, and queue it if it set one."""
        global _observer
        node = self._node
        old_deps = node.deps
        caller = node.caller = _observer
        node.state = RUNNING
        node.deps = _LiveReads(node)
        _observer = node
        try:
            if self._takes_session:
                self._fn(session)
            else:
                self._fn()
        except Exception:
            self._settle_down(session, old_deps)
            raise
        except BaseException:
            self._settle_down(session, old_deps)
            node.state = DIRTY
            raise
        else:
            self._settle_down(session, old_deps)
        finally:
            _observer = caller
            node.caller = None

    def _settle_down(self, session: Store, old_deps: list[_Cell]) -> None:
        node = self._node
        reads = list(node.deps)
        if node.watch == NOBODY:  # disposed of while it ran
            _leave(node, {*old_deps, *reads})
            _forget(node)
            return
        node.deps = reads
        _leave(node, set(old_deps).difference(reads))
        stale = node.state == RUNNING_STALE
        node.state = DIRTY if stale else CLEAN
        if stale:
            session._due[node] = None
        if _batch is not None:
            _batch.nodes.pop(node, None)
            _batch.ran[node] = None


class _LiveReads(list[_Cell]):
    """What a running effect has read: linked at once, so that its own writes reach it."""

    __slots__ = ("_node",)

    def __init__(self, node: _Node) -> None:
        super().__init__()
        self._node = node

    def append(self, cell: _Cell) -> None:
        super().append(cell)
        if self._node not in (cell.subs or ()):
            _link(cell, self._node)


def _no_function_yet(session: object) -> NoReturn:
    raise DeclarationError(
        "a Computed was declared without a function; write it below @Computed(name=...)"
    )


def _takes_session(fn: Callable[..., object], declaration: Declaration) -> bool:
    """Tell `fn(session)` from `fn()`: by its parameters without a default."""
    if inspect.iscoroutinefunction(fn):
        raise DeclarationError(
            f"{declaration.label} got an async function; expected a plain one, "
            "fn(session) or fn(): values are computed without waiting"
        )
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # a builtin that tells nothing
        return True
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise DeclarationError(
            f"{declaration.label} got a function of {len(needed)} parameters; "
            "expected fn(session) or fn()"
        )
    return bool(needed)


def _computed_above() -> _Node | None:
    """Return the computed signal being evaluated, if that is what runs."""
    return _observer if _observer is not None and _observer.watch != EFFECT else None


def _refuse_in_computed(signal: Signal[Any]) -> None:
    reader = _computed_above()
    if reader is not None:
        raise WriteInComputedError(
            f"computed signal {_name_of(reader)!r} sets signal {signal.label!r}; "
            "a computed signal must be pure, set signals in a handler or an effect"
        )


# --- Sessions known from the context -----------------------------------------------------------

_session: ContextVar[Store | None] = ContextVar("cacao_session", default=None)


def current_session() -> Store:
    """Return the session that `.value` means here.

    Raises:
        NoSessionError: If no session is known.
    """
    session = _session.get() if _observer is None else _observer.home()
    if session is None:
        raise NoSessionError(
            "`.value` was used where no session is known; use get(session) and "
            "set(session, value), or enter use_session(session)"
        )
    return session


def set_current_session(session: Store | None) -> None:
    """Make `session` what `.value` means for the rest of this task, and for tasks it starts."""
    _session.set(session)


@contextmanager
def use_session(session: Store) -> Iterator[None]:
    """Make `session` what `.value` means within the block."""
    before = _session.get()
    _session.set(session)
    try:
        yield
    finally:
        _session.set(before)


@overload
def untracked() -> AbstractContextManager[None]: ...


@overload
def untracked(fn: Callable[[], R]) -> R: ...


def untracked(fn: Callable[[], R] | None = None) -> AbstractContextManager[None] | R:
    """Read without depending on it: `with untracked():`, or `untracked(fn)` for fn's result."""
    if fn is None:
        return _blindly()
    with _blindly():
        return fn()


@contextmanager
def _blindly() -> Iterator[None]:
    """Let a stand-in of the observer do the reading; writes and cycles are still noticed."""
    global _observer
    observer = _observer
    if observer is None:
        yield
        return
    blind = _Node(observer.key, observer.home, observer.watch)
    blind.state = RUNNING
    blind.deps = []
    blind.depth = observer.depth
    blind.caller = observer
    _observer = blind
    try:
        yield
    finally:
        _observer = observer


# --- Batches -----------------------------------------------------------------------------------


class _Batch:
    """What an open batch has done, so that it can be told at once, or undone."""

    __slots__ = ("changed", "nodes", "ran", "values", "watchers")

    def __init__(self) -> None:
        self.values: dict[_Cell, Any] = {}  # of signals, before
        self.nodes: dict[_Node, _Saved] = {}  # of what was marked or evaluated, before
        self.changed: dict[tuple[Signal[Any] | Computed[Any], Store], None] = {}
        self.watchers: dict[_Node, None] = {}
        self.ran: dict[_Node, None] = {}  # effects

    def add(self, signal: Signal[Any], session: Store, watchers: list[_Node]) -> None:
        self.changed[signal, session] = None
        self.watchers.update(dict.fromkeys(watchers))

    def roll_back(self) -> None:
        for cell, value in self.values.items():
            cell.value = value
            cell.state = CLEAN
        for node, (state, value, failure, deps) in self.nodes.items():
            _relink(node, node.deps, deps)
            node.state, node.value, node.failure, node.deps = state, value, failure, deps
        rerun = [node for node in self.ran if node.watch == EFFECT]
        for node in rerun:  # they have seen values that never were
            node.state = DIRTY
        _publish([], rerun)


_Saved = tuple[int, Any, tuple[Exception, "TracebackType | None"] | None, list[_Cell]]
_own_batch: ContextVar[_Batch | None] = ContextVar("cacao_batch", default=None)


def _saved(node: _Node) -> _Saved:
    return node.state, node.value, node.failure, node.deps


@contextmanager
def batch() -> Iterator[None]:
    """Make several sets one change: one notification at the end, and none if the block raises.

    If it raises, also by cancellation, the values written inside are set back, in all sessions.
    Inner batches join the outermost. Reads inside see the new values.

    Keep `await` out of it: when another task sets a signal meanwhile, what was written so far is
    published then, and the rest of the block is no batch any more.
    """
    global _batch
    if _batch is not None and _own_batch.get() is _batch:
        yield
        return
    _publish_of_others()
    mine = _batch = _Batch()
    _own_batch.set(mine)
    try:
        yield
    except BaseException:
        if _close_batch(mine):
            mine.roll_back()
        raise
    if _close_batch(mine):
        _publish(mine.changed, mine.watchers)


def _close_batch(mine: _Batch) -> bool:
    """Close a batch at the end of its block; False if another task has published it before."""
    global _batch
    _own_batch.set(None)
    if _batch is not mine:
        return False
    _batch = None
    return True


def _publish_of_others() -> None:
    """Publish a batch that another task left open over an await."""
    global _batch
    if _batch is not None and _own_batch.get() is not _batch:
        left_open, _batch = _batch, None
        _publish(left_open.changed, left_open.watchers)


def _keep_old_value(cell: _Cell) -> None:
    _publish_of_others()
    if _batch is not None:
        _batch.values.setdefault(cell, cell.value)


def _publish(
    changed: Iterable[tuple[Signal[Any] | Computed[Any], Store]], watchers: Iterable[_Node]
) -> None:
    """Tell all who wait: queue the watchers, call the subscribers, then stir each store once.

    Raises:
        Exception: What subscribers and effects raised where the store has no `on_error`, after
            all have had their turn; several as ExceptionGroup.
    """
    stores: dict[Store, None] = {}
    told: list[tuple[Signal[Any], Store]] = []
    for declaration, session in changed:
        if declaration.is_synced:
            session._changed[declaration._key] = None
            stores[session] = None
        if isinstance(declaration, Signal) and declaration._subscribers:
            told.append((declaration, session))
    for node in watchers:
        if (home := node.home()) is not None:
            home._queue(node)
            stores[home] = None
    errors: list[Exception] = []
    for signal, session in told:
        _call_subscribers(signal, session, errors)
    for session in stores:
        try:
            session._stir()
        except Exception as error:  # noqa: BLE001 - raised below, when all stores are stirred
            errors.append(error)
    _raise_all(errors)


def _call_subscribers(signal: Signal[Any], session: Store, errors: list[Exception]) -> None:
    global _observer
    observer, _observer = _observer, None  # what they read is no dependency of an effect
    try:
        for token, callback in tuple(signal._subscribers.items()):
            if token in signal._subscribers:
                try:
                    callback(session, signal.peek(session))
                except Exception as error:  # noqa: BLE001 - reported, and the others go on
                    session._report(error, signal, errors)
    finally:
        _observer = observer
