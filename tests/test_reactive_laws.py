"""The laws of the reactive graph: each one a small graph, and what must hold in it.

A law is a function that gets a fresh session and asserts; the table below runs them all. The last
part holds the defects of peers that the core must not have.
"""

from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from cacao.equality import is_immutable, unchanged
from cacao.errors import CycleError
from cacao.reactive import Computed, Effect, Signal, Store, batch, untracked
from cacao.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Names of one test are no other test's."""
    with Registry():
        yield


LAWS: list[Callable[[Store], None]] = []


def law(check: Callable[[Store], None]) -> Callable[[Store], None]:
    LAWS.append(check)
    return check


@pytest.mark.parametrize("check", LAWS, ids=lambda check: check.__name__)
def test_law(check: Callable[[Store], None]) -> None:
    check(Store())


class Runs(list[str]):
    """Which computed signals have run, in order."""

    def computed(self, name: str, fn: Callable[[Store], Any]) -> Computed[Any]:
        def counted(session: Store) -> Any:
            self.append(name)
            return fn(session)

        return Computed(counted)

    def take(self) -> list[str]:
        taken = list(self)
        self.clear()
        return taken


# --- Lazy, cached, at most once ----------------------------------------------------------------


@law
def nothing_runs_before_it_is_read(session: Store) -> None:
    runs = Runs()
    a = Signal(1)
    b = runs.computed("b", lambda s: a.get(s))
    a.set(session, 2)
    assert runs.take() == []
    assert (b.get(session), b.get(session), runs) == (2, 2, ["b"])


@law
def a_diamond_runs_each_node_once_and_is_never_torn(session: Store) -> None:
    runs = Runs()
    a = Signal(1)
    left = runs.computed("left", lambda s: a.get(s) + 1)
    right = runs.computed("right", lambda s: a.get(s) * 10)
    bottom = runs.computed("bottom", lambda s: (left.get(s), right.get(s)))
    assert bottom.get(session) == (2, 10)
    runs.take()
    a.set(session, 2)
    assert bottom.get(session) == (3, 20)
    assert sorted(runs) == ["bottom", "left", "right"]


@law
def nothing_runs_when_inputs_came_out_equal(session: Store) -> None:
    runs = Runs()
    a = Signal(1)
    parity = runs.computed("parity", lambda s: a.get(s) % 2)
    label = runs.computed("label", lambda s: "odd" if parity.get(s) else "even")
    shout = runs.computed("shout", lambda s: label.get(s).upper())
    shout.get(session)
    runs.take()
    a.set(session, 3)
    assert (shout.get(session), runs) == ("ODD", ["parity"])


@law
def a_shared_dependency_found_clean_below_still_reaches_the_waiting_top(session: Store) -> None:
    """The top waits on the stack while a deeper node settles what both depend on."""
    a, b = Signal(1), Signal(1)
    shared = Computed(lambda s: a.get(s) * 10)
    middle = Computed(lambda s: shared.get(s) * 0 + b.get(s))
    top = Computed(lambda s: (middle.get(s), shared.get(s)))
    assert top.get(session) == (1, 10)
    a.set(session, 2)
    assert top.get(session) == (1, 20)


@law
def a_thousand_sets_mark_consumers_once(session: Store) -> None:
    runs = Runs()
    a = Signal(0)
    b = runs.computed("b", lambda s: a.get(s))
    b.get(session)
    runs.take()
    for i in range(1000):
        a.set(session, i + 1)
    assert (b.get(session), runs) == (1000, ["b"])


# --- Dynamic dependencies ----------------------------------------------------------------------


@law
def a_branch_no_longer_read_is_not_run(session: Store) -> None:
    rows: Signal[tuple[str, ...]] = Signal(("a", "b"))
    runs = Runs()
    last = runs.computed("last", lambda s: rows.get(s)[1])
    shown = Computed(lambda s: last.get(s) if len(rows.get(s)) > 1 else "none")
    assert shown.get(session) == "b"
    runs.take()
    rows.set(session, ("a",))
    assert (shown.get(session), runs) == ("none", [])


@law
def dependencies_are_checked_in_reading_order(session: Store) -> None:
    """The first one changed, so the second, which would fail now, must not be evaluated."""
    rows: Signal[tuple[str, ...]] = Signal(("a", "b"))
    runs = Runs()
    size = runs.computed("size", lambda s: len(rows.get(s)))
    last = runs.computed("last", lambda s: rows.get(s)[1])
    deep = Computed(lambda s: last.get(s))
    shown = Computed(lambda s: deep.get(s) if size.get(s) > 1 else "none")
    reordered = Computed(lambda s: "none" if size.get(s) < 2 else deep.get(s))
    assert (shown.get(session), reordered.get(session)) == ("b", "b")
    runs.take()
    rows.set(session, ("a",))
    assert reordered.get(session) == "none"
    assert runs == ["size"]


@law
def what_a_dirty_node_read_before_is_not_brought_up_to_date_first(session: Store) -> None:
    runs = Runs()
    a, is_on = Signal(1), Signal(1)
    half = runs.computed("half", lambda s: a.get(s) // 2)
    shown = Computed(lambda s: half.get(s) if is_on.get(s) else -1)
    shown.get(session)
    runs.take()
    a.set(session, 8)
    is_on.set(session, 0)
    assert (shown.get(session), runs) == (-1, [])


@law
def a_dependency_dropped_does_not_wake_and_one_taken_up_does(session: Store) -> None:
    runs = Runs()
    chooser, a, b = Signal(True), Signal("a"), Signal("b")  # noqa: FBT003
    picked = runs.computed("picked", lambda s: a.get(s) if chooser.get(s) else b.get(s))
    picked.get(session)
    chooser.set(session, False)  # noqa: FBT003
    assert picked.get(session) == "b"
    runs.take()
    a.set(session, "a2")
    assert (picked.get(session), runs) == ("b", [])
    b.set(session, "b2")
    assert picked.get(session) == "b2"


@law
def more_consumers_than_fit_a_list_come_and_go(session: Store) -> None:
    is_on, a = Signal(1), Signal(0)
    readers = [Computed(lambda s, i=i: a.get(s) + i if is_on.get(s) else -1) for i in range(20)]
    for value in (5, 6):
        a.set(session, value)
        assert [r.get(session) for r in readers] == [value + i for i in range(20)]
    is_on.set(session, 0)
    assert [r.get(session) for r in readers] == [-1] * 20
    assert not session._nodes[a._key].subs


# --- Errors ------------------------------------------------------------------------------------


@law
def an_error_is_kept_and_raised_to_each_reader(session: Store) -> None:
    runs = Runs()
    a = Signal(0)
    ratio = runs.computed("ratio", lambda s: 6 // a.get(s))
    above = Computed(lambda s: ratio.get(s) + 1)
    raised = []
    for node in (ratio, above, ratio, above):
        with pytest.raises(ZeroDivisionError) as caught:
            node.get(session)
        raised.append(caught.value)
    assert runs == ["ratio"]
    assert len({id(error) for error in raised}) == 1
    a.set(session, 3)
    assert (ratio.get(session), above.get(session)) == (2, 3)


@law
def after_an_error_the_same_value_as_before_still_propagates(session: Store) -> None:
    a = Signal(2)
    ratio = Computed(lambda s: 6 // a.get(s))
    above = Computed(lambda s: ratio.get(s))
    assert above.get(session) == 3
    a.set(session, 0)
    with pytest.raises(ZeroDivisionError):
        above.get(session)
    a.set(session, 2)
    assert above.get(session) == 3


@law
def an_error_that_another_handled_is_a_dependency(session: Store) -> None:
    a = Signal(0)
    ratio = Computed(lambda s: 6 // a.get(s))

    @Computed
    def safe(s: Store) -> int:
        try:
            return ratio.get(s)
        except ZeroDivisionError:
            return -1

    assert safe.get(session) == -1
    a.set(session, 2)
    assert safe.get(session) == 3


@law
def a_failing_input_found_unchanged_stays_an_error(session: Store) -> None:
    a, b = Signal(0), Signal(0)
    ratio = Computed(lambda s: 6 // a.get(s) + b.get(s) * 0)
    above = Computed(lambda s: ratio.get(s))
    even = Computed(lambda s: b.get(s) // 2)
    both = Computed(lambda s: (even.get(s), above.get(s)))
    with pytest.raises(ZeroDivisionError):
        both.get(session)
    b.set(session, 1)
    with pytest.raises(ZeroDivisionError):
        both.get(session)


@law
def a_checked_node_that_need_not_run_keeps_its_error(session: Store) -> None:
    runs = Runs()
    a = Signal(0)
    half = Computed(lambda s: a.get(s) // 2)
    broken = runs.computed("broken", lambda s: [][half.get(s)])
    for value in (0, 1, 1):
        a.set(session, value)
        with pytest.raises(IndexError):
            broken.get(session)
    assert runs == ["broken"]


@law
def what_is_no_exception_is_never_kept(session: Store) -> None:
    interrupts = [KeyboardInterrupt, SystemExit]
    a = Signal(0)

    @Computed
    def interrupted(s: Store) -> int:
        a.get(s)
        if interrupts:
            raise interrupts.pop()
        return 1

    above = Computed(lambda s: interrupted.get(s))
    for expected in (SystemExit, KeyboardInterrupt):
        with pytest.raises(expected):
            above.get(session)
    assert above.get(session) == 1


@law
def an_interrupted_check_can_be_taken_up_again(session: Store) -> None:
    a = Signal(0)
    is_interrupted: list[bool] = []
    slow = Computed(lambda s: a.get(s) // 10)

    @Computed
    def shaky(s: Store) -> int:
        if is_interrupted:
            is_interrupted.clear()
            raise KeyboardInterrupt
        return a.get(s)

    middle = Computed(lambda s: shaky.get(s))
    top = Computed(lambda s: (slow.get(s), middle.get(s), slow.get(s)))
    assert top.get(session) == (0, 0, 0)
    a.set(session, 11)
    is_interrupted.append(True)
    with pytest.raises(KeyboardInterrupt):
        top.get(session)
    assert top.get(session) == (1, 11, 1)


@law
def what_has_run_remembers_no_caller(session: Store) -> None:
    inner = Computed(lambda: 1)
    outer = Computed(lambda s: inner.get(s))
    outer.get(session)
    assert [session._nodes[c._key].caller for c in (inner, outer)] == [None, None]


@law
def the_observer_is_restored_after_an_error(session: Store) -> None:
    runs = Runs()
    a, b = Signal(0), Signal(0)
    broken = Computed(lambda s: 1 // a.get(s))
    with pytest.raises(ZeroDivisionError):
        broken.get(session)
    reader = runs.computed("reader", lambda s: a.get(s))
    reader.get(session)
    b.get(session)
    runs.take()
    b.set(session, 1)
    reader.get(session)
    assert runs == []


# --- Depth -------------------------------------------------------------------------------------

DEPTH = 5000


def chain(length: int, link: Callable[[Callable[[Store], int], Store], int]) -> tuple[Any, Any]:
    first = node = Signal(1)
    below: Any = node
    for _ in range(length):
        below = Computed(lambda s, below=below: link(below.get, s))
    return first, below


@law
def a_chain_of_5000_computes_cold_and_warm(session: Store) -> None:
    limit = sys.getrecursionlimit()
    first, last = chain(DEPTH, lambda get, s: get(s) + 1)
    assert last.get(session) == DEPTH + 1
    first.set(session, 2)
    assert last.get(session) == DEPTH + 2
    assert sys.getrecursionlimit() == limit


@law
def a_chain_of_5000_through_sorted_keys_computes(session: Store) -> None:
    first, last = chain(DEPTH, lambda get, s: len(sorted([1], key=lambda _: get(s))) + get(s))
    assert last.get(session) == DEPTH + 1
    first.set(session, 2)
    assert last.get(session) == DEPTH + 2


@law
def a_deep_chain_under_a_checked_node_computes(session: Store) -> None:
    a = Signal(1)
    is_deep = Computed(lambda s: a.get(s) > 1)
    _, last = chain(500, lambda get, s: get(s) + 1)
    top = Computed(lambda s: last.get(s) if is_deep.get(s) else 0)
    above = Computed(lambda s: top.get(s))
    assert above.get(session) == 0
    a.set(session, 2)
    assert above.get(session) == 501


@law
def a_bare_except_does_not_swallow_the_unwinding(session: Store) -> None:
    def swallow(get: Callable[[Store], int], s: Store) -> int:
        try:
            return get(s) + 1
        except BaseException:  # noqa: BLE001 - just that
            return -1

    def wrap(get: Callable[[Store], int], s: Store) -> int:
        try:
            return get(s) + 1
        except BaseException as error:
            raise ValueError from error

    for link in (swallow, wrap):
        _, last = chain(500, link)
        assert last.get(session) == 501


@law
def an_unwinding_swallowed_by_an_interrupt_leaves_no_trace(session: Store) -> None:
    entered: list[Store] = []

    def interrupt(get: Callable[[Store], int], s: Store) -> int:
        entered.append(s)
        try:
            return get(s) + 1
        except BaseException as error:
            raise KeyboardInterrupt from error

    _, last = chain(60, interrupt)
    with pytest.raises(KeyboardInterrupt):
        last.get(session)
    entered.clear()
    assert (Computed(lambda: 3).get(session), entered) == (3, [])


@law
def a_deep_chain_runs_an_effect_once(session: Store) -> None:
    seen: list[int] = []
    first, last = chain(500, lambda get, s: get(s) + 1)
    Effect(lambda s: seen.append(last.get(s)), session)
    first.set(session, 2)
    assert seen == [501, 502]


@law
def a_recursion_error_is_never_kept(session: Store) -> None:
    is_endless = [True]

    def endless() -> int:
        return endless() if is_endless else 1

    computed = Computed(endless)
    with pytest.raises(RecursionError):
        computed.get(session)
    is_endless.clear()
    assert computed.get(session) == 1


@law
def an_effect_meets_an_error_that_is_not_kept_when_it_reads(session: Store) -> None:
    errors: list[str] = []
    is_endless = [True]
    a = Signal(0)

    def endless() -> int:
        return endless() if is_endless else 1

    half = Computed(lambda s: a.get(s) // 2)
    shaky = Computed(lambda s: endless() if half.get(s) == 1 else 0)
    Effect(lambda s: shaky.get(s), session)
    session.on_error = lambda error, _: errors.append(type(error).__name__)
    a.set(session, 2)
    assert errors == ["RecursionError"]
    is_endless.clear()
    a.set(session, 4)
    assert errors == ["RecursionError"]


# --- Cycles ------------------------------------------------------------------------------------


def ring(length: int) -> list[Computed[int]]:
    nodes: list[Computed[int]] = []
    for i in range(length):
        nodes.append(
            Computed(lambda s, i=i: nodes[(i + 1) % length].get(s), name=f"r{i}", client=False)
        )
    return nodes


@law
def a_computed_that_reads_itself_is_a_cycle(session: Store) -> None:
    (lonely,) = ring(1)
    with pytest.raises(CycleError) as caught:
        lonely.get(session)
    assert caught.value.path == ("r0", "r0")


@law
def a_cycle_longer_than_the_nesting_is_found_and_named(session: Store) -> None:
    nodes = ring(130)
    for _ in range(2):
        with pytest.raises(CycleError) as caught:
            nodes[0].get(session)
        path = caught.value.path
        assert (path[0], len(set(path)), len(path)) == (path[-1], 130, 131)


@law
def a_cycle_through_an_untracked_read_is_found(session: Store) -> None:
    a: Computed[int] = Computed(lambda s: b.get(s), name="a")
    b: Computed[int] = Computed(lambda s: untracked(lambda: c.get(s)), name="b")
    c: Computed[int] = Computed(lambda s: a.get(s), name="c")
    with pytest.raises(CycleError) as caught:
        a.get(session)
    assert caught.value.path == ("a", "b", "c", "a")


@law
def a_cycle_that_opens_and_closes_again_is_followed(session: Store) -> None:
    is_closed = Signal(0)
    a: Computed[int] = Computed(lambda s: b.get(s) if is_closed.get(s) else 0, name="a")
    b: Computed[int] = Computed(lambda s: a.get(s) + 1, name="b")
    assert b.get(session) == 1
    is_closed.set(session, 1)
    with pytest.raises(CycleError):
        b.get(session)
    is_closed.set(session, 0)
    assert (a.get(session), b.get(session)) == (0, 1)


@law
def a_cycle_that_closes_while_it_is_being_checked_names_all_its_nodes(session: Store) -> None:
    is_closed = Signal(0)
    gate = Computed(lambda s: is_closed.get(s))
    a: Computed[int] = Computed(lambda s: c.get(s) if gate.get(s) else 0, name="a")
    b: Computed[int] = Computed(lambda s: a.get(s), name="b")
    c: Computed[int] = Computed(lambda s: b.get(s), name="c")
    assert c.get(session) == 0
    is_closed.set(session, 1)
    with pytest.raises(CycleError) as caught:
        c.get(session)
    assert set(caught.value.path) == {"a", "b", "c"}
    assert caught.value.path[0] == caught.value.path[-1]


@law
def a_closed_cycle_is_found_again_from_every_side(session: Store) -> None:
    extra = Signal(0)
    a: Computed[int] = Computed(lambda s: b.get(s) + extra.get(s), name="a")
    b: Computed[int] = Computed(lambda s: extra.get(s) + a.get(s), name="b")
    for value in range(3):
        extra.set(session, value)
        for node in (b, a, b):
            with pytest.raises(CycleError):
                node.get(session)


# --- Equality ----------------------------------------------------------------------------------


class Foreign:
    """Compares like a numpy array: not to a bool."""

    def __eq__(self, other: object) -> Any:
        message = "truth value is ambiguous"
        raise ValueError(message)

    __hash__ = None  # type: ignore[assignment]


class Colour(Enum):
    RED = 1
    CRIMSON = "red"

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class Text(str):
    __slots__ = ()


NAN = float("nan")
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SAME: list[tuple[object, object]] = [
    (1, 1),
    ("a", "a"),
    (None, None),
    (b"a", b"a"),
    (1.5, 1.5),
    (NAN, float("nan")),
    (Decimal("1.0"), Decimal("1.0")),
    (Decimal("sNaN"), Decimal("sNaN")),
    (NOON, datetime(2026, 11, 24, 12, tzinfo=UTC)),
    (date(2026, 1, 1), date(2026, 1, 1)),
    (time(1, 2), time(1, 2)),
    (timedelta(1), timedelta(hours=24)),
    (UUID(int=1), UUID(int=1)),
    (Colour.RED, Colour.RED),
    ((1, (NAN, "x")), (1, (float("nan"), "x"))),
    (frozenset({1, "a"}), frozenset({"a", 1})),
]
DIFFERENT: list[tuple[object, object]] = [
    (1, True),
    (1, 1.0),
    (0.0, -0.0),
    (1, 2),
    ("a", Text("a")),
    (Decimal("1.0"), Decimal("1.00")),
    (NOON, NOON.astimezone(timezone(timedelta(hours=1)))),
    (NOON, NOON.replace(tzinfo=timezone(timedelta(hours=1)))),
    (NOON, NOON.replace(fold=1)),
    (Colour.RED, Colour.CRIMSON),
    ((1,), (True,)),
    ((1, (2,)), (1, (2.0,))),
    (frozenset({1}), frozenset({True})),
    (frozenset({0.0}), frozenset({-0.0})),
    ((1,), [1]),
]


@pytest.mark.parametrize(("old", "new"), SAME, ids=repr)
def test_these_look_the_same_and_are_no_change(old: object, new: object) -> None:
    assert unchanged(old, new)
    assert is_immutable(old)


@pytest.mark.parametrize(("old", "new"), DIFFERENT, ids=repr)
def test_these_look_different_and_are_a_change(old: object, new: object) -> None:
    assert not unchanged(old, new)
    assert not unchanged(new, old)


@pytest.mark.parametrize(
    "value", [[1], {"a": 1}, {1}, Foreign(), (1, [2]), Text("a"), lambda: 1], ids=type
)
def test_what_may_change_in_place_always_counts_as_changed(value: object) -> None:
    assert not unchanged(value, value)
    assert not is_immutable(value)


@law
def a_list_mutated_in_place_and_set_again_travels(session: Store) -> None:
    rows: Signal[list[list[int]]] = Signal([[1]], name="rows")
    total = Computed(lambda s: sum(map(sum, rows.get(s))))
    assert total.get(session) == 1
    value = rows.get(session)
    value[0].append(2)
    rows.set(session, value)
    assert total.get(session) == 3
    value[0].append(3)
    rows.set(session, [list(row) for row in value])
    assert total.get(session) == 6
    assert list(session.take_changes()) == [rows]


# --- Defects of peers, as listed in the field study --------------------------------------------


@law
def peer_defect_1_a_computed_is_not_stale_for_ever(session: Store) -> None:
    a = Signal(1)
    double = Computed(lambda s: a.get(s) * 2)
    assert double.get(session) == 2
    a.set(session, 10)
    assert double.get(session) == 20


@law
def peer_defect_2_a_subscriber_that_nobody_else_holds_is_called(session: Store) -> None:
    heard: list[int] = []
    a = Signal(1)
    a.subscribe(lambda _, value: heard.append(value))
    a.set(session, 2)
    assert heard == [2]


@law
def peer_defect_3_a_set_does_the_same_work_at_any_number_of_sessions(session: Store) -> None:
    a = Signal(0, name="a")
    other = Signal(0)
    other.subscribe(lambda *_: None)
    double = Computed(lambda s: a.get(s) * 2)

    def steps_of_a_set(value: int) -> int:
        steps = 0

        def count_step(*_: object) -> Any:
            nonlocal steps
            steps += 1
            return count_step

        sys.settrace(count_step)
        try:
            a.set(session, value)
        finally:
            sys.settrace(before)
        return steps

    before = sys.gettrace()
    double.get(session)
    session.take_changes()
    alone = steps_of_a_set(1)
    crowd = [Store() for _ in range(1000)]
    for one in crowd:
        a.set(one, 5)
        double.get(one)
    double.get(session)
    session.take_changes()
    assert alone > 0
    assert steps_of_a_set(2) == alone


@law
def peer_defect_15_an_effect_runs(session: Store) -> None:
    seen: list[int] = []
    a = Signal(1)
    Effect(lambda s: seen.append(a.get(s)), session)
    a.set(session, 2)
    assert seen == [1, 2]


@law
def peer_defect_16_none_can_be_set_over_a_value(session: Store) -> None:
    field: Signal[str | None] = Signal("text", name="field")
    field.set(session, None)
    assert (field.get(session), session.take_changes()) == (None, {field: None})


@law
def peer_defect_17_values_with_an_eq_of_their_own_are_not_compared(session: Store) -> None:
    frame: Signal[Any] = Signal(None)
    derived = Computed(lambda s: frame.get(s))
    first, second = Foreign(), Foreign()
    for value in (first, second, second):
        frame.set(session, value)
        assert derived.get(session) is value


@law
def peer_defect_18_a_mutable_default_is_not_shared(session: Store) -> None:
    items: Signal[list[int]] = Signal([])
    other = Store()
    items.update(session, lambda rows: [*rows, 1])
    items.get(other).append(9)
    assert (items.get(session), items.get(Store())) == ([1], [])


@law
def peer_defect_19_signals_without_a_name_are_not_sent(session: Store) -> None:
    with batch():
        Signal(0).set(session, 1)
    assert session.take_changes() == {}


@law
def peer_defect_22_no_work_survives_its_session(session: Store) -> None:
    seen: list[int] = []
    shared = Store()
    a = Signal(0)
    Effect(lambda s: seen.append(a.get(shared)), session)
    session.close()
    a.set(shared, 1)
    assert seen == [0]
