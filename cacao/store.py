"""One session's values: what is pending in it, batches over several, and which one is current."""

# ruff: noqa: SLF001 - stores, declarations and nodes are one graph

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from cacao import graph
from cacao.errors import EffectLoopError, NoSessionError
from cacao.graph import (
    CHECK,
    CLEAN,
    CLIENT,
    DIRTY,
    EFFECT,
    NOBODY,
    Cell,
    Derived,
    Home,
    Journal,
    Key,
    Node,
    Valued,
    computed_above,
    forget,
    leave,
    pull,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator

    from cacao.registry import Declaration

    Operation = Callable[[Any], Any]

MAX_ROUNDS: Final = 100
"""Rounds of effects that trigger effects, before that counts as a loop."""

_own_journal: ContextVar[Journal | None] = ContextVar("cacao_batch", default=None)
_session: ContextVar[Store | None] = ContextVar("cacao_session", default=None)
_run: ContextVar[Store | None] = ContextVar("cacao_run", default=None)


class Store:
    """The values of one session, and what of them changed.

    By itself it is its own flusher: effects run at the end of the outermost `set` or `batch()`.
    With `wake` set it only says, once, that there is something to flush.

    Args:
        shared: Where app-wide signals have their values; by default here.

    Attributes:
        wake: Called without arguments when something becomes pending after nothing was; never
            inside a batch. Then somebody is to call `take_changes` or `run_effects`.
        guard: Called with a signal that clients see and its new value (of a stream: with what is
            added), before that is stored; gives its size in bytes on the wire. What it raises
            reaches the caller of `set`, and nothing has changed.
        on_error: Gets what effects, subscribers and watched computed signals raise, with the
            declaration. None lets it reach the caller, when all others have had their turn.
        on_operation: Called with an app-wide signal and what was done to it, as a function from
            the value before to the value after; a batch's at its end. Of the shared store alone.
        is_run: Whether this is what the sessions of a run share, and no session.
    """

    is_run = False

    __slots__ = (
        "__weakref__",
        "_changed",
        "_due",
        "_effects",
        "_home",
        "_is_flushing",
        "_is_pending",
        "_nodes",
        "_shared",
        "_stale",
        "_sweep_at",
        "guard",
        "on_error",
        "on_operation",
        "wake",
    )

    def __init__(self, shared: Store | None = None) -> None:
        self.wake: Callable[[], object] | None = None
        self.guard: Callable[[Any, object], int] | None = None
        self.on_error: Callable[[Exception, Declaration], None] | None = None
        self.on_operation: Callable[[Valued, Operation], None] | None = None
        self._shared = shared
        self._home = Home(self, _dissolve)
        self._home.dead = []
        self._nodes: dict[Key, Any] = {}
        self._home.nodes = self._nodes
        self._changed: dict[Key, None] = {}
        self._stale: dict[Node, None] = {}
        self._due: dict[Node, None] = {}
        self._effects: dict[Node, Any] = {}
        self._is_flushing = False
        self._is_pending = False
        self._sweep_at = 64

    @property
    def shared(self) -> Store:
        """The store that has the values of app-wide signals: the run's, or this one alone."""
        return self if self._shared is None else self._shared

    def note_operation(self, signal: Valued, operation: Operation) -> None:
        """Tell `on_operation`, now or at the end of the batch; before the value is stored."""
        if self.on_operation is None:
            return
        publish_of_others()
        if graph.journal is None:
            self.on_operation(signal, operation)
        else:
            graph.journal.operations.append((self, signal, operation))

    def watch(self, computed: Derived) -> None:
        """Report `computed` in `take_changes` from now on; without a value yet, in the next one."""
        node = self._node_of(computed)
        node.watch = CLIENT
        if node.state > CLEAN:
            self._queue(node)
            self._stir()

    def unwatch(self, computed: Derived) -> None:
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
        self._is_pending = bool(self._due)  # the next change must wake them again
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
        undecided = self._pull_stale(errors)
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
        self._stale.update(undecided)
        return changed

    def owe(self, items: int, size: int) -> Awaitable[None]:  # noqa: ARG002 - for live sessions
        """Note what was added to a stream.

        Args:
            items: How many pieces.
            size: Their bytes on the wire.

        Returns:
            Awaited, it waits while a client is too far behind; there is none here.
        """
        return _nobody_waits

    def close(self) -> None:
        """Dispose of the effects and drop all values; at once, without the garbage collector."""
        for effect in tuple(self._effects.values()):
            effect.dispose()
        self.wake = self.guard = self.on_error = self.on_operation = None
        self._changed.clear()
        self._stale.clear()
        _dissolve(self._home)

    def _node_of(self, computed: Derived) -> Node:
        """Return the node of a computed signal, a new one if it was never read here."""
        node: Node | None = self._nodes.get(computed._key)
        if node is None:
            node = Node(computed._key, self._home)
            self._add(computed._key, node)
        return node

    def _add(self, key: Key, node: Cell) -> None:
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
            if isinstance(node, Node):
                self._stale.pop(node, None)
                if not node.subs:
                    leave(node, set(node.deps))
                    forget(node)

    def _note(self, declaration: Valued) -> None:
        """Remember a change that clients must hear of."""
        if graph.journal is None:
            self._changed[declaration._key] = None
        else:
            graph.journal.changed[declaration, self] = None

    def _queue(self, node: Node) -> None:
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
                node.state = DIRTY  # a cancellation, or Ctrl+C: nothing of the queue is lost
                self._due = dict.fromkeys([*round_[position:], *self._due])
                raise

    def _run_if_changed(self, node: Node, errors: list[Exception]) -> None:
        if node.state == CHECK:
            try:
                pull(node)
            except Exception:  # noqa: BLE001 - it meets the error itself, when it reads
                node.state = DIRTY
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
                    f"{effect.label} at {effect.place} still triggers itself "
                    f"after {MAX_ROUNDS} rounds; "
                    "read what it writes with peek(), or write it only when it differs"
                ),
                effect,
                errors,
            )
        self._due.clear()

    def _pull_stale(self, errors: list[Exception]) -> dict[Node, None]:
        """Bring what clients watch up to date.

        Returns:
            What failed without an outcome to keep; to be tried again when something changes.
        """
        stale = list(self._stale)
        self._stale.clear()
        undecided: dict[Node, None] = {}
        for position, node in enumerate(stale):
            computed = node.key()
            if computed is None:
                continue
            try:
                pull(node)
            except Exception as error:  # noqa: BLE001 - reported, and the queue goes on
                undecided[node] = None
                self._report(error, computed, errors)
            except BaseException:
                self._stale = dict.fromkeys([*stale[position:], *self._stale])
                raise
            else:
                if node.failure is not None:
                    self._report(node.failure[0], computed, errors)
        return undecided

    def _report(self, error: Exception, source: Declaration, errors: list[Exception]) -> None:
        if self.on_error is None:
            errors.append(error)
        else:
            self.on_error(error, source)

    def _has_failed(self, key: Key) -> bool:
        node = self._nodes[key]
        return isinstance(node, Node) and node.failure is not None


@contextmanager
def batch() -> Iterator[None]:
    """Make several sets one change: one notification at the end, and none if the block raises.

    If it raises, also by cancellation, the values written inside are set back, in all sessions.
    Inner batches join the outermost. Reads inside see the new values.

    Keep `await` out of it: when another task sets a signal meanwhile, what was written so far is
    published then, and the rest of the block is no batch any more.
    """
    is_inner = graph.journal is not None and _own_journal.get() is graph.journal
    if is_inner or computed_above() is not None:  # which sets nothing
        yield
        return
    publish_of_others()
    mine = graph.journal = Journal()
    _own_journal.set(mine)
    try:
        yield
    except BaseException:
        if _close_batch(mine):
            publish([], mine.undo())
        raise
    if _close_batch(mine):
        _tell_operations(mine)
        publish(mine.changed, mine.watchers)


def _close_batch(mine: Journal) -> bool:
    """Close a batch at the end of its block; False if another task has published it before."""
    _own_journal.set(None)
    if graph.journal is not mine:
        return False
    graph.journal = None
    return True


def publish_of_others() -> None:
    """Publish a batch that another task left open over an await."""
    if graph.journal is not None and _own_journal.get() is not graph.journal:
        left_open, graph.journal = graph.journal, None
        _tell_operations(left_open)
        publish(left_open.changed, left_open.watchers)


def _tell_operations(journal: Journal) -> None:
    for store, signal, operation in journal.operations:
        if store.on_operation is not None:
            store.on_operation(signal, operation)


def keep_old_value(cell: Cell) -> None:
    """Enter a signal about to be set into the open batch, if that is this task's."""
    publish_of_others()
    if graph.journal is not None:
        graph.journal.values.setdefault(cell, cell.value)


def publish(changed: Iterable[tuple[Valued, Store]], watchers: Iterable[Node]) -> None:
    """Tell all who wait: queue the watchers, call the subscribers, then stir each store once.

    Raises:
        Exception: What subscribers and effects raised where the store has no `on_error`, after
            all have had their turn; several as ExceptionGroup.
    """
    stores: dict[Store, None] = {}
    told: list[tuple[Valued, Store]] = []
    for declaration, session in changed:
        if declaration.is_synced:
            session._changed[declaration._key] = None
            stores[session] = None
        if declaration._subscribers:
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


def _call_subscribers(signal: Valued, session: Store, errors: list[Exception]) -> None:
    observer, graph.observer = graph.observer, None  # what they read is no dependency of an effect
    try:
        subscribers = signal._subscribers or {}
        for token, callback in tuple(subscribers.items()):
            cell = session._nodes.get(signal._key)
            if token in subscribers and cell is not None:  # an earlier one may end all
                try:
                    callback(session, cell.value)
                except Exception as error:  # noqa: BLE001 - reported, and the others go on
                    session._report(error, signal, errors)
    finally:
        graph.observer = observer


class _Ready:
    """An awaitable that never waits; unlike a coroutine it may be left unawaited."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_nobody_waits = _Ready()


def _dissolve(home: Home) -> None:
    """Cut the edges of a store that is closed or gone, for they are cycles."""
    nodes = list(home.nodes.values())
    home.nodes.clear()
    for node in nodes:
        if isinstance(node, Node):
            leave(node, set(node.deps))
            forget(node)


def _raise_all(errors: list[Exception]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ExceptionGroup("several effects or computed signals failed", errors)


def current_session() -> Store:
    """Return the session that `.value` means here.

    Raises:
        NoSessionError: If no session is known.
    """
    session = _session.get()
    # A thread must not take what trio's thread evaluates just now for its own.
    if graph.observer is not None and (session is None or isinstance(session, Store)):
        session = graph.observer.home()
    if session is None:
        raise NoSessionError(
            "`.value` was used where no session is known; use get(session) and "
            "set(session, value), or enter use_session(session)"
        )
    return session


def current_run() -> Store:
    """Return what stands for the run of the app here: in a session, and in a task of the app.

    App-wide signals take it in place of a session.

    Raises:
        NoSessionError: Neither a session nor a run is known.
    """
    if graph.observer is not None or _session.get() is not None:
        return current_session().shared
    run = _run.get()
    if run is None:
        raise NoSessionError(
            "an app-wide signal was used where neither a session nor a run of the app is known; "
            "use get(session) and set(session, value) with any session of the run"
        )
    return run


def set_current_run(run: Store) -> None:
    """Make `run` what `current_run()` gives where there is no session, in this task and below."""
    _run.set(run)


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
