"""Signals, computed signals, effects: values per session or per run that follow each other.

How it works. A declaration (`Signal`, `Computed`, `Effect`) is made once; each session's `Store`
has a small node for every declaration it has touched. A node that read another is its consumer:
`deps` points down to what it read, in reading order, `subs` points up to who read it.

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
4. *The observer* is one slot of `graph.py`, set and restored around each synchronous call. It is
   no ContextVar, for a task spawned inside would inherit it; and not one per store, so that a
   computed signal may read the signals of another store. (So sessions are for one thread.)
5. *An app-wide signal* has one cell, in the store that the sessions of a run share. A session that
   touches it keeps that same cell among its own nodes, so finding it costs what any other does.
6. *Lifetimes.* Nodes know their declaration and their store weakly; a store that dies cuts the
   edges between its nodes, so reference counting alone frees a session. (A kept error holds the
   frames that raised it, and so the session, until the next run or `close()`.)
"""

# ruff: noqa: SLF001 - stores, declarations and nodes are one graph

from __future__ import annotations

import inspect
import sys
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast, get_args, overload

from cacao import graph
from cacao.equality import is_immutable
from cacao.errors import DeclarationError, ReactiveError, WriteInComputedError
from cacao.graph import (
    CLEAN,
    DEEPEST,
    DIRTY,
    DISPOSED,
    EFFECT,
    FIRED,
    RUNNING,
    RUNNING_STALE,
    UNSET,
    Cell,
    Derived,
    Node,
    Valued,
    computed_above,
    forget,
    is_same,
    leave,
    link,
    mark,
    name_of,
    new_key,
    recompute,
    settle,
    untracked,
)
from cacao.registry import Declaration, current_registry
from cacao.store import (
    Store,
    batch,
    current_run,
    current_session,
    keep_old_value,
    publish,
    set_current_run,
    set_current_session,
    use_session,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.registry import Place

__all__ = [
    "Becomes",
    "Computed",
    "Effect",
    "Persist",
    "Scope",
    "Signal",
    "Store",
    "batch",
    "current_run",
    "current_session",
    "set_current_run",
    "set_current_session",
    "untracked",
    "use_session",
]

T = TypeVar("T")
R = TypeVar("R")

Scope = Literal["session", "app"]
Persist = Literal["app", "user"]


class Signal(Valued, Generic[T]):
    """A value that each session has for itself, or that all sessions of a run have together.

    Example:
        count = Signal(0, name="count")
        count.set(session, count.get(session) + 1)

        visitors = Signal(0, name="visitors", scope="app")
        visitors.update(session, lambda n: n + 1)

    Setting what is there already is no change: values of exactly the same immutable type that
    look the same. Any other value counts as changed, also a list that was mutated and set again.

    Args:
        default: Every session's first value. A mutable one is copied for each session.
        default_factory: Makes a session's first value instead, without arguments.
        name: The name on the wire, unique within a registry. Without one, no client sees it.
        client: False keeps a named signal on the server.
        equal: Decides in place of the rule above whether a new value is no change: `equal(old,
            new)`. What it raises reaches the caller of `set`.
        scope: "app" makes it app-wide: one value for all sessions of a run of the app. Any of
            them, or `current_run()`, then stands for the run in `get`, `set` and the others.
        persist: Whose value outlives the process, where the app has a storage: "user" keeps one
            for each user, "app" the one of an app-wide signal. It is found again by its name.

    Raises:
        DeclarationError: For a name that is taken or not allowed, neither or both of the
            defaults, a default that cannot be copied, or a `persist` that goes with no name or
            another scope.

    Attributes:
        persist: As given.
    """

    __slots__ = (
        "_default",
        "_is_app_wide",
        "_is_mutable",
        "_make_default",
        "_needs_cell",
        "persist",
    )

    @overload
    def __init__(
        self,
        default: T,
        *,
        name: str | None = None,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
        scope: Scope = "session",
        persist: Persist | None = None,
    ) -> None: ...

    @overload
    def __init__(
        self,
        *,
        default_factory: Callable[[], T],
        name: str | None = None,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
        scope: Scope = "session",
        persist: Persist | None = None,
    ) -> None: ...

    def __init__(
        self,
        default: Any = UNSET,
        *,
        default_factory: Callable[[], T] | None = None,
        name: str | None = None,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
        scope: Scope = "session",
        persist: Persist | None = None,
    ) -> None:
        super().__init__(name, client=client, equal=equal)
        _check_scope(self, scope, persist)
        self.persist = persist
        self._is_app_wide = scope == "app"
        if (default is UNSET) is (default_factory is None):
            raise DeclarationError(
                f"{self.label} needs a default or a default_factory, and not both; "
                "for no value write Signal(None)"
            )
        self._is_mutable = default_factory is not None or not is_immutable(default)
        is_copied = self._is_mutable and default_factory is None
        self._default: T = self._own_copy(default) if is_copied else default
        self._make_default = default_factory
        # Whether reading it makes a cell: the default may be mutated, or is the run's to keep.
        self._needs_cell = self._is_mutable or self._is_app_wide
        if name is not None:
            current_registry().add(self)

    @property
    def scope(self) -> Scope:
        """Whose value it is: each session's own, or the one of all sessions of a run."""
        return "app" if self._is_app_wide else "session"

    @property
    def default(self) -> T:
        """A new session's value, or a new run's; a copy of its own where it can be mutated."""
        if self._make_default is not None:
            return self._make_default()
        return deepcopy(self._default) if self._is_mutable else self._default

    @property
    def value(self) -> T:
        """The value in the session known here: a handler's, an effect's, a computed signal's.

        An app-wide signal has one wherever the run is known, so in the app's tasks, too.

        Raises:
            NoSessionError: On reading or setting it where no session is known.
        """
        return self.get(current_run() if self._is_app_wide else current_session())

    @value.setter
    def value(self, value: T) -> None:
        self.set(current_run() if self._is_app_wide else current_session(), value)

    def get(self, session: Store) -> T:
        """Return the session's value; inside a Computed or an Effect it becomes a dependency."""
        cell = session._nodes.get(self._key)
        if cell is None:
            if graph.observer is None and not self._needs_cell and not session.is_run:
                return self._default
            cell = self._settle_in(session)
        if graph.observer is not None:
            cell.state = CLEAN
            graph.observer.deps.append(cell)
        value: T = cell.value
        return value

    def peek(self, session: Store) -> T:
        """Return the session's value without depending on it."""
        cell = session._nodes.get(self._key)
        if cell is None:
            if not self._needs_cell and not session.is_run:
                return self._default
            cell = self._settle_in(session)
        value: T = cell.value
        return value

    def set(self, session: Store, value: T) -> None:
        """Give the session a new value. Costs the same however many sessions there are.

        Subscribers are called, and a bare store's effects run, before this returns; inside a
        `batch()` that is put off to its end.

        Raises:
            WriteInComputedError: If a computed signal is being evaluated.
        """
        if graph.observer is not None:
            refuse_in_computed(self)
        cell = session._nodes.get(self._key)
        if cell is None:
            cell = self._settle_in(session)
        if is_same(self, cell.value, value):
            return
        if session.guard is not None and self.is_synced:
            session.guard(self, value)
        if self._is_app_wide:
            session = session.shared
            session.note_operation(self, Becomes(value))
        self._put(session, cell, value)

    def _put(self, session: Store, cell: Cell, value: T) -> None:
        """Store a value that is new and allowed, and tell all who wait for it.

        Args:
            session: The store that has the cell for its own: the run's, if it is app-wide.
            cell: Where the value is kept.
            value: The new one.
        """
        if graph.journal is not None:
            keep_old_value(cell)
        cell.value = value
        watchers: list[Node] = []
        if cell.state == CLEAN and cell.subs:
            cell.state = FIRED
            watchers = mark(cell.subs)
        if graph.journal is not None:
            graph.journal.changed[self, session] = None
            graph.journal.watchers.update(dict.fromkeys(watchers))
        elif watchers or self._subscribers:
            publish([(self, session)], watchers)
        elif self.is_synced:
            session._changed[self._key] = None
            session._stir()

    def update(self, session: Store, fn: Callable[[T], T]) -> None:
        """Set what `fn` makes of the present value, which is read without depending on it.

        Of an app-wide signal that several processes share, this is the atomic way to change it:
        `fn` is called again if another process was faster, so it must do nothing else.
        """
        if self._is_app_wide:
            self._update_run(session, fn)
        else:
            self.set(session, fn(self.peek(session)))

    def _update_run(self, session: Store, fn: Callable[[T], T]) -> None:
        if graph.observer is not None:
            refuse_in_computed(self)
        cell = self._cell(session)
        value = fn(cell.value)
        is_news = not is_same(self, cell.value, value)
        if is_news and session.guard is not None and self.is_synced:
            session.guard(self, value)
        run = session.shared
        run.note_operation(self, fn)  # no news here may be news where another was faster
        if is_news:
            self._put(run, cell, value)

    def follow(self, run: Store, value: T) -> None:
        """Take an app-wide value over from another process: no operation of this one.

        Args:
            run: What stands for the run.
            value: The new one; everyone in this process hears of it.
        """
        cell = self._cell(run)
        if not is_same(self, cell.value, value):
            self._put(run, cell, value)

    def subscribe(self, callback: Callable[[Any, T], object]) -> Callable[[], None]:
        """Call `callback(session, value)` after every change in any session.

        It is called synchronously, at the end of the outermost `batch()` once with the last
        value, and kept alive until unsubscribed. What it raises goes to the store's `on_error`,
        else to the caller of `set`. For an app-wide signal, `session` is what stands for the run.

        Returns:
            A function that ends it; calling it again does nothing.
        """
        token = object()
        subscribers = self._subscribers = self._subscribers or {}
        subscribers[token] = callback
        sys.audit("cacao.subscribe", self, token)  # tests look for those that are never ended
        return lambda: subscribers.pop(token, None) and None

    def _own_copy(self, default: T) -> T:
        try:
            return deepcopy(default)
        except Exception as error:
            raise DeclarationError(
                f"the default of {self.label} cannot be copied for each session: {error}; "
                "pass default_factory= instead"
            ) from error

    def _cell(self, session: Store) -> Cell:
        return session._nodes.get(self._key) or self._settle_in(session)

    def _settle_in(self, session: Store) -> Cell:
        if self._is_app_wide:
            return self._settle_in_run(session)
        if session.is_run:
            raise ReactiveError(
                f"{self.label} has a value in each session, and none in the run of the app, which "
                "was given here; give a session, or declare the signal with scope='app'"
            )
        cell = Cell(self.default)
        session._add(self._key, cell)
        return cell

    def _settle_in_run(self, session: Store) -> Cell:
        """Let the session keep the run's cell among its own: it is found there from now on."""
        run = session.shared
        cell: Cell | None = run._nodes.get(self._key)
        if cell is None:
            cell = Cell(self.default)
            run._add(self._key, cell)
        if session is not run:
            session._add(self._key, cell)
        return cell


class Becomes(Generic[T]):
    """What a `set` did to an app-wide signal, as a function from any value before."""

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __call__(self, _before: object) -> T:
        """Give the value that was set, whatever there was before."""
        return self.value


class Computed(Derived, Generic[T]):
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

    __slots__ = ()

    _fn: Callable[..., T]

    def __init__(
        self,
        fn: Callable[[Any], T] | Callable[[], T] | None = None,
        name: str | None = None,
        *,
        client: bool = True,
        equal: Callable[[T, T], bool] | None = None,
    ) -> None:
        super().__init__(name, client=client, equal=equal)
        self._fn, self._takes_session = _no_function_yet, True
        if fn is not None:
            self(fn)

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
        _refuse_async(fn, self.label)
        computed._takes_session = takes_session(fn, self.label)
        computed._fn = fn
        if self.name is not None:
            current_registry().add(self)
        return computed

    @property
    def label(self) -> str:
        """What error messages call it: its name, else its function's."""
        return (
            self.name
            or f"{getattr(self._fn, '__qualname__', type(self._fn).__name__)} at {self.place}"
        )

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
            node = session._node_of(self)
        if graph.observer is not None:
            # Before evaluating: an error is a dependency too.
            graph.observer.deps.append(node)
            if node.state == DIRTY and 0 < graph.observer.depth < DEEPEST:
                recompute(node)  # what settle would do, three frames later
        if node.state != CLEAN:
            settle(node)
            if node.failure is not None:
                error, trace = node.failure
                raise error.with_traceback(trace)
        value: T = node.value
        return value

    def peek(self, session: Store) -> T:
        """Return the up-to-date value without depending on it; raises what `get` does."""
        if graph.observer is None:
            return self.get(session)
        with untracked():
            return self.get(session)


class Effect(Declaration):
    """Something to be done now, and again whenever what it read has changed, in one session.

    It lives until `dispose()` or until the session ends. Changes that it makes itself count: an
    effect that sets what it read runs again. What it raises goes to the session's `on_error`;
    without one, the first run's exception reaches the caller (and there is no effect).

    Args:
        fn: `fn(session)` or `fn()`; not async.
        session: The session whose values it reads.
        place: Where the author declared it, if not here.

    Raises:
        ReactiveError: If a computed signal is being evaluated, which must not have effects.
    """

    __slots__ = ("_fn", "_key", "_node", "_takes_session")

    def __init__(
        self,
        fn: Callable[[Any], object] | Callable[[], object],
        session: Store,
        *,
        place: Place | None = None,
    ) -> None:
        super().__init__(None, client=False, place=place)
        self._fn: Callable[..., object] = fn
        if (reader := computed_above()) is not None:
            raise ReactiveError(
                f"computed signal {name_of(reader)!r} creates the effect {self.label!r} "
                f"at {self.place}; "
                "a computed signal must be pure, create the effect outside of it"
            )
        _refuse_async(fn, self.label)
        self._takes_session = takes_session(fn, self.label)
        self._key = new_key(self)
        self._node = Node(self._key, session._home, EFFECT)
        session._add(self._key, self._node)
        session._effects[self._node] = self
        self._run_first(session)

    @property
    def label(self) -> str:
        """What error messages call it: its function's name. A client may be told."""
        return getattr(self._fn, "__qualname__", type(self._fn).__name__)

    def dispose(self) -> None:
        """End it; a run that is under way goes to its end. Doing it again does nothing."""
        node = self._node
        node.watch = DISPOSED
        if node.state < RUNNING:
            leave(node, set(node.deps))
            forget(node)
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
        node = self._node
        old_deps = node.deps
        caller = node.caller = graph.observer
        node.state = RUNNING
        node.deps = _LiveReads(node)
        graph.observer = node
        try:
            if self._takes_session:
                self._fn(session)
            else:
                self._fn()
        finally:
            graph.observer = caller
            node.caller = None
            self._settle_down(session, old_deps)

    def _settle_down(self, session: Store, old_deps: list[Cell]) -> None:
        node = self._node
        reads = list(node.deps)
        if node.watch == DISPOSED:  # while it ran
            leave(node, {*old_deps, *reads})
            forget(node)
            return
        node.deps = reads
        leave(node, set(old_deps).difference(reads))
        stale = node.state == RUNNING_STALE
        node.state = DIRTY if stale else CLEAN
        if stale:
            session._due[node] = None
        if graph.journal is not None:
            graph.journal.nodes.pop(node, None)
            graph.journal.ran[node] = None


class _LiveReads(list[Cell]):
    """What a running effect has read: linked at once, so that its own writes reach it."""

    __slots__ = ("_node",)

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node

    def append(self, cell: Cell) -> None:
        super().append(cell)
        if self._node not in (cell.subs or ()):
            link(cell, self._node)


def _check_scope(signal: Signal[Any], scope: object, persist: object) -> None:
    """Refuse what does not go together.

    Raises:
        DeclarationError: It does not, or is unknown.
    """
    if scope not in get_args(Scope):
        raise DeclarationError(f"{signal.label} has scope {scope!r}; give 'session' or 'app'")
    if persist is None:
        return
    if persist not in get_args(Persist):
        raise DeclarationError(f"{signal.label} has persist {persist!r}; give 'app' or 'user'")
    if signal.name is None:
        raise DeclarationError(
            f"{signal.label} has persist={persist!r} and no name, by which its value would be "
            "found again; give it one (with client=False no page sees it)"
        )
    needed = "app" if persist == "app" else "session"
    if scope != needed:
        raise DeclarationError(
            f"{signal.label} has persist={persist!r} and scope={scope!r}; expected "
            f"scope={needed!r}, for persist='app' keeps the one value of an app-wide signal, and "
            "persist='user' one for each user"
        )


def _no_function_yet(_session: object) -> NoReturn:
    raise DeclarationError(
        "a Computed was declared without a function; write it below @Computed(name=...)"
    )


def _refuse_async(fn: object, label: str) -> None:
    if inspect.iscoroutinefunction(fn):
        raise DeclarationError(
            f"{label} got {fn!r}; expected a plain function, fn(session) or fn(), "
            "for values are computed without waiting"
        )


def takes_session(fn: Callable[..., object], label: str) -> bool:
    """Tell `fn(session)` from `fn()`: by its parameters without a default.

    Args:
        fn: The author's function.
        label: What it is called in the error.

    Raises:
        DeclarationError: It is no function of that kind.
    """
    if not callable(fn):
        raise DeclarationError(f"{label} got {fn!r}; expected a function, fn(session) or fn()")
    try:
        parameters = inspect.signature(fn).parameters.values()
    except ValueError:  # a builtin that tells nothing
        return True
    needed = [p for p in parameters if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    if len(needed) > 1 or any(p.kind is p.KEYWORD_ONLY for p in needed):
        raise DeclarationError(
            f"{label} got a function of {len(needed)} parameters; expected fn(session) or fn()"
        )
    return bool(needed)


def refuse_in_computed(signal: Signal[Any]) -> None:
    """Raise `WriteInComputedError` if a computed signal is being evaluated."""
    reader = computed_above()
    if reader is not None:
        raise WriteInComputedError(
            f"computed signal {name_of(reader)!r} sets signal {signal.label!r}; "
            "a computed signal must be pure, set signals in a handler or an effect"
        )
