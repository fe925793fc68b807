"""Random graphs and random histories, against an oracle that recomputes everything each time.

The oracle is a page of plain recursion over the same formulas. Besides values it knows which nodes
a reader needs at all, and what each node saw when it last ran; so it can tell a run too many.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from cacao.reactive import Computed, Effect, Signal, Store, batch
from cacao.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIGNALS = 3
STORES = 3  # the first one is read by the others too
SHARED = 0

Kind = Literal["add", "pick", "half", "fail", "catch", "shared"]
Outcome = int | str  # a str is the name of an error
Spot = tuple[int, int]  # store, source


class FormulaError(Exception):
    """What a failing formula raises."""


@dataclass(frozen=True)
class Formula:
    """How a computed follows from three earlier sources: signals first, then computeds."""

    kind: Kind
    a: int
    b: int
    c: int

    def apply(self, store: int, read: Callable[[int, int], int]) -> int:
        match self.kind:
            case "add":
                return read(store, self.a) + read(store, self.b)
            case "pick":
                return read(store, self.b if read(store, self.a) % 2 else self.c)
            case "half":
                return read(store, self.a) // 2
            case "fail":
                if read(store, self.a) % 3 == 0:
                    raise FormulaError
                return read(store, self.b)
            case "catch":
                try:
                    return read(store, self.a)
                except FormulaError:
                    return -1
            case "shared":
                return read(SHARED, self.a) + read(store, self.b)


@dataclass
class Oracle:
    formulas: list[Formula]
    values: dict[Spot, int] = field(
        default_factory=lambda: {(t, s): 0 for t in range(STORES) for s in range(SIGNALS)}
    )
    sets: Counter[Spot] = field(default_factory=Counter)  # that changed something

    def value(self, store: int, source: int, seen: set[Spot] | None = None) -> int:
        if seen is not None:
            seen.add((store, source))
        if source < SIGNALS:
            return self.values[store, source]
        formula = self.formulas[source - SIGNALS]
        return formula.apply(store, lambda t, s: self.value(t, s, seen))

    def outcome(self, spot: Spot) -> Outcome:
        try:
            return self.value(*spot)
        except FormulaError:
            return "error"

    def mark(self, spot: Spot) -> Outcome:
        """Return what tells a reader that a source has changed; a signal set back has changed."""
        return self.outcome(spot) if spot[1] >= SIGNALS else self.sets[spot]

    def needed(self, spot: Spot) -> set[Spot]:
        seen: set[Spot] = set()
        with suppress(FormulaError):
            self.value(*spot, seen)
        return seen


class World:
    """The real graph, each of its steps checked against the oracle."""

    def __init__(self, formulas: list[Formula]) -> None:
        self.oracle = Oracle(formulas)
        self.stores = [Store() for _ in range(STORES)]
        self.numbers = {store: number for number, store in enumerate(self.stores)}
        self.saw: dict[Spot, dict[Spot, Outcome]] = {}  # at the last run
        self.ran: list[Spot] = []
        self.sources: list[Any] = [Signal(0, name=f"s{i}") for i in range(SIGNALS)]
        for formula in formulas:
            self._declare(formula)
        self.watched: dict[Spot, Outcome] = {}
        self.sent = dict(self.oracle.values)
        self.touched: set[Spot] = set()
        self.effects: list[tuple[Effect, Spot, list[Outcome]]] = []
        self.is_in_batch = False

    def _declare(self, formula: Formula) -> None:
        source = len(self.sources)

        def run(store: Store) -> int:
            here = self.numbers[store]
            self._check_run((here, source))
            saw = self.saw[here, source] = {}

            def read(t: int, s: int) -> int:
                saw[t, s] = "error"
                value: int = self.sources[s].get(self.stores[t])
                saw[t, s] = self.oracle.mark((t, s))
                return value

            return formula.apply(here, read)

        self.sources.append(Computed(run, name=f"c{source}"))

    def _check_run(self, spot: Spot) -> None:
        """A node may run again only if something that it saw has changed, or had failed."""
        self.ran.append(spot)
        before = self.saw.get(spot)
        assert before is None or any(
            was == "error" or was != self.oracle.mark(dep) for dep, was in before.items()
        ), f"{spot} ran without need"

    @contextmanager
    def step(self, *readers: Spot) -> Iterator[None]:
        """Something happens, and nobody but `readers` and those who wait may have nodes run."""
        self.ran = []
        yield
        waiting = [*readers, *self.watched, *(spot for _, spot, _ in self.effects)]
        allowed = set().union(*map(self.oracle.needed, waiting))
        assert set(self.ran) <= allowed, "a branch was run that nobody reads"
        assert len(self.ran) == len(set(self.ran)), "a node ran twice for one change"
        if not self.is_in_batch:
            self._check_effects()

    def _check_effects(self) -> None:
        for _, spot, log in self.effects:
            assert log[-1] == self.oracle.outcome(spot)
            assert all(a != b or a == "error" for a, b in pairwise(log))

    def set(self, spot: Spot, value: int) -> None:
        store, source = spot
        if self.oracle.values[spot] != value:
            self.touched.add(spot)
            self.oracle.sets[spot] += 1
        self.oracle.values[spot] = value
        with self.step():
            self.sources[source].set(self.stores[store], value)

    def read(self, spot: Spot) -> Outcome:
        store, source = spot
        with self.step(spot):
            outcome = self.real(store, source)
        assert outcome == self.oracle.outcome(spot)
        return outcome

    def real(self, store: int, source: int) -> Outcome:
        try:
            value: int = self.sources[source].get(self.stores[store])
        except FormulaError:
            return "error"
        return value

    def batch(self, steps: list[Step], *, fails: bool) -> None:
        values, sets = dict(self.oracle.values), self.oracle.sets.copy()
        saw = {spot: dict(seen) for spot, seen in self.saw.items()}
        touched = set(self.touched)
        lengths = self._log_lengths()
        with self.step():
            try:
                with batch():
                    self._take_in_batch(steps)
                    assert self._log_lengths() == lengths
                    fail_if(fails)
            except FormulaError:
                self.oracle.values, self.oracle.sets = values, sets
                self.saw, self.touched = saw, touched
                assert self._log_lengths() == lengths

    def _take_in_batch(self, steps: list[Step]) -> None:
        self.is_in_batch = True
        for step in steps:
            step.take(self)
        self.is_in_batch = False
        self.ran = []  # from here on: what the end of the batch runs

    def _log_lengths(self) -> list[int]:
        return [len(log) for *_, log in self.effects]

    def add_effect(self, spot: Spot) -> None:
        store, source = spot
        log: list[Outcome] = []
        with self.step(spot):
            effect = Effect(lambda: log.append(self.real(store, source)), self.stores[store])
            self.effects.append((effect, spot, log))

    def dispose(self, index: int) -> None:
        if self.effects:
            self.effects.pop(index % len(self.effects))[0].dispose()

    def watch(self, spot: Spot) -> None:
        """Watch as a greeted client does: it has been told the value."""
        self.watched.setdefault(spot, self.read(spot))
        self.stores[spot[0]].watch(self.sources[spot[1]])

    def unwatch(self, spot: Spot) -> None:
        self.watched.pop(spot, None)
        self.stores[spot[0]].unwatch(self.sources[spot[1]])

    def take(self, store: int) -> None:
        errors: list[object] = []
        self.stores[store].on_error = lambda error, _: errors.append(error)
        with self.step():
            changes = self.stores[store].take_changes()
        self.stores[store].on_error = None
        assert all(isinstance(error, FormulaError) for error in errors)
        for source, declaration in enumerate(self.sources):
            self._check_sent((store, source), changes.pop(declaration, None))
        assert changes == {}

    def _check_sent(self, spot: Spot, sent: Outcome | None) -> None:
        now = self.oracle.outcome(spot)
        known = self.watched.get(spot) if spot[1] >= SIGNALS else self.sent[spot]
        if sent is not None:
            assert sent == now
            assert spot in self.watched or spot in self.touched
        elif spot in self.watched or spot[1] < SIGNALS:
            assert now in {known, "error"}
        if spot[1] < SIGNALS:
            self.sent[spot] = self.oracle.values[spot]
            self.touched.discard(spot)
        elif spot in self.watched and now != "error":
            self.watched[spot] = now


def fail_if(fails: bool) -> None:
    if fails:
        raise FormulaError


@dataclass(frozen=True)
class Step:
    action: Literal["set", "read"]
    store: int
    signal: int
    source: int
    value: int

    def take(self, world: World) -> None:
        if self.action == "set":
            world.set((self.store, self.signal), self.value)
        else:
            world.read((self.store, self.source))


@dataclass(frozen=True)
class Act:
    action: Literal[
        "step", "batch", "failing batch", "effect", "dispose", "watch", "unwatch", "take"
    ]
    steps: tuple[Step, ...]
    store: int
    source: int

    def take(self, world: World) -> None:
        spot = self.store, self.source
        match self.action:
            case "step":
                self.steps[0].take(world)
            case "batch" | "failing batch":
                world.batch(list(self.steps), fails=self.action == "failing batch")
            case "effect":
                world.add_effect(spot)
            case "dispose":
                world.dispose(self.source)
            case "watch":
                world.watch(spot)
            case "unwatch":
                world.unwatch(spot)
            case "take":
                world.take(self.store)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Formula], list[Act]]:
    formulas = []
    for i in range(draw(st.integers(1, 7))):
        earlier = st.integers(0, SIGNALS + i - 1)
        kind = st.sampled_from(["add", "pick", "half", "fail", "catch", "shared"])
        formulas.append(draw(st.builds(Formula, kind, earlier, earlier, earlier)))
    store = st.integers(0, STORES - 1)
    source = st.integers(SIGNALS, SIGNALS + len(formulas) - 1)
    signal = st.integers(0, SIGNALS - 1)
    step = st.builds(
        Step, st.sampled_from(["set", "set", "read"]), store, signal, source, st.integers(0, 3)
    )
    action = st.sampled_from(
        ["step"] * 6
        + ["batch", "failing batch", "effect", "dispose", "watch", "unwatch", "take", "take"]
    )
    steps = st.lists(step, min_size=1, max_size=4).map(tuple)
    acts = st.lists(st.builds(Act, action, steps, store, source), max_size=30)
    return formulas, draw(acts)


@settings(max_examples=200, deadline=None)
@given(histories())
def test_every_history_agrees_with_the_oracle(history: tuple[list[Formula], list[Act]]) -> None:
    formulas, acts = history
    with Registry():
        world = World(formulas)
        for act in acts:
            act.take(world)
        for store in range(STORES):
            world.take(store)
            for source in range(len(world.sources)):
                world.read((store, source))
