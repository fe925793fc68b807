"""One session's store: what is current, batches, what its owner is told, and how it ends."""

from __future__ import annotations

import contextvars
import gc
import weakref
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cacao.errors import (
    NoSessionError,
)
from cacao.reactive import (
    Computed,
    Effect,
    Signal,
    Store,
    batch,
    current_session,
    set_current_session,
    use_session,
)
from cacao.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cacao.registry import Declaration


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Names of one test are no other test's."""
    with Registry():
        yield


@pytest.fixture
def session() -> Store:
    return Store()


class BrokenError(Exception):
    """What the tests' own code raises."""


@contextmanager
def failing_batch() -> Iterator[None]:
    """A batch whose block raises at its end."""
    with pytest.raises(BrokenError), batch():  # noqa: PT012 - a batch has a block
        yield
        raise BrokenError


# --- The current session -----------------------------------------------------------------------


def test_value_reads_and_writes_in_the_current_session(session: Store) -> None:
    count = Signal(1)
    double = Computed(lambda: count.value * 2)
    with use_session(session):
        count.value += 1
        assert (count.value, double.value) == (2, 4)
    assert count.get(session) == 2


def test_use_session_nests_and_is_left_again(session: Store) -> None:
    other = Store()
    with use_session(session):
        with use_session(other):
            assert current_session() is other
        assert current_session() is session


def test_without_a_session_value_says_what_to_do() -> None:
    count = Signal(1)
    with pytest.raises(NoSessionError, match=r"use get\(session\)"):
        _ = count.value


def test_the_session_set_for_a_task_stays_in_its_context(session: Store) -> None:
    def task() -> Store:
        set_current_session(session)
        return current_session()

    assert contextvars.copy_context().run(task) is session
    with pytest.raises(NoSessionError):
        current_session()


def test_inside_a_computed_the_session_is_the_one_being_evaluated(session: Store) -> None:
    count = Signal(0)
    here = Computed(lambda: count.value)
    count.set(session, 7)
    with use_session(Store()):
        assert here.get(session) == 7


# --- Batches -----------------------------------------------------------------------------------


def test_a_batch_runs_effects_once_and_over_several_sessions() -> None:
    seen: list[int] = []
    mine, yours = Store(), Store()
    a, b = Signal(0), Signal(0)
    total = Computed(lambda s: a.get(s) + b.get(s))
    for session in (mine, yours):
        Effect(lambda s: seen.append(total.get(s)), session)
    with batch():
        a.set(mine, 1)
        b.set(mine, 2)
        a.set(yours, 5)
        assert total.get(mine) == 3
        assert seen == [0, 0]
    assert seen == [0, 0, 3, 5]


def test_a_batch_that_raises_sets_everything_back_and_tells_nobody() -> None:
    seen: list[int] = []
    mine, yours = Store(), Store()
    a = Signal(1)
    fresh: Signal[list[int]] = Signal([])
    double = Computed(lambda s: a.get(s) * 2)
    first_read = Computed(lambda s: a.get(s) + 1)
    a.subscribe(lambda _, value: seen.append(value))
    Effect(lambda s: seen.append(double.get(s)), mine)
    with failing_batch():
        a.set(mine, 5)
        a.set(yours, 6)
        fresh.set(mine, [1])
        assert (double.get(mine), first_read.get(mine)) == (10, 6)
    assert seen == [2]
    assert (a.get(mine), a.get(yours), fresh.get(mine)) == (1, 1, [])
    assert (double.get(mine), first_read.get(mine)) == (2, 2)
    a.set(mine, 4)
    assert (seen, double.get(mine)) == ([2, 4, 8], 8)


def test_an_inner_batch_joins_the_outer_one(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0)
    Effect(lambda s: seen.append(count.get(s)), session)
    with batch():
        with batch():
            count.set(session, 1)
        assert seen == [0]
        count.set(session, 2)
    assert seen == [0, 2]


def test_an_effect_created_in_a_batch_that_raises_runs_again_with_the_old_values(
    session: Store,
) -> None:
    seen: list[int] = []
    count = Signal(0)
    with failing_batch():
        count.set(session, 1)
        Effect(lambda s: seen.append(count.get(s)), session)
        Effect(lambda s: seen.append(-count.get(s)), session).dispose()
    assert seen == [1, -1, 0]
    count.set(session, 2)
    assert seen == [1, -1, 0, 2]


def test_a_batch_that_raises_sets_dependencies_back_too(session: Store) -> None:
    runs: list[str] = []
    is_left, left, right = Signal(1), Signal("left"), Signal("right")

    @Computed
    def picked(s: Store) -> str:
        runs.append("picked")
        return left.get(s) if is_left.get(s) else right.get(s)

    picked.get(session)
    with failing_batch():
        is_left.set(session, 0)
        assert picked.get(session) == "right"
    runs.clear()
    right.set(session, "right 2")
    assert (picked.get(session), runs) == ("left", [])
    left.set(session, "left 2")
    assert picked.get(session) == "left 2"


def test_after_a_batch_that_raised_the_next_set_is_noticed(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0)
    Effect(lambda s: seen.append(count.get(s)), session)
    with failing_batch():
        count.set(session, 1)
    count.set(session, 2)
    assert seen == [0, 2]


def test_an_effect_disposed_of_in_a_batch_that_raises_stays_disposed(session: Store) -> None:
    count = Signal(0)
    effect = Effect(lambda s: count.get(s), session)
    with failing_batch():
        count.set(session, 1)
        effect.dispose()
    assert not session._nodes[count._key].subs


def test_a_failed_batch_within_an_effect_does_not_trigger_it(session: Store) -> None:
    runs: list[int] = []
    count = Signal(0)

    def effect(s: Store) -> None:
        runs.append(count.get(s))
        with failing_batch():
            count.set(s, 5)

    Effect(effect, session)
    assert runs == [0]


def test_a_watched_computed_that_changed_only_within_a_failed_batch_is_not_reported(
    session: Store,
) -> None:
    count = Signal(1)
    double = Computed(lambda s: count.get(s) * 2, name="double")
    session.watch(double)
    session.take_changes()
    with failing_batch():
        count.set(session, 5)
        double.get(session)
    assert session.take_changes() == {}
    with batch():
        count.set(session, 5)
        double.get(session)
    assert session.take_changes() == {double: 10}


def _in_another_task(fn: Callable[[], object]) -> None:
    contextvars.Context().run(fn)


def test_a_batch_left_open_over_an_await_is_published_by_the_next_writer(session: Store) -> None:
    seen: list[str] = []
    a, b = Signal(0), Signal(0)
    Effect(lambda s: seen.append(f"a {a.get(s)}"), session)
    with failing_batch():
        a.set(session, 1)
        _in_another_task(lambda: b.set(session, 2))
        assert seen == ["a 0", "a 1"]
        a.set(session, 3)
        assert seen == ["a 0", "a 1", "a 3"]
    assert (a.get(session), b.get(session)) == (3, 2)


def test_another_tasks_batch_is_one_of_its_own(session: Store) -> None:
    a, b = Signal(0, name="a"), Signal(0)

    def other() -> None:
        with failing_batch():
            b.set(session, 2)

    with batch():
        a.set(session, 1)
        _in_another_task(other)
    assert (a.get(session), b.get(session)) == (1, 0)
    assert session.take_changes() == {a: 1}


def test_closing_a_session_within_a_failing_batch_is_safe(session: Store) -> None:
    count = Signal(0)
    double = Computed(lambda s: count.get(s) * 2)
    double.get(session)
    with failing_batch():
        count.set(session, 1)
        session.close()
    assert double.get(session) == 0


# --- What a session's owner is told ------------------------------------------------------------


def test_the_owner_is_woken_once_until_it_takes_the_changes(session: Store) -> None:
    wakes: list[str] = []
    session.wake = lambda: wakes.append("wake")
    a, b = Signal(0, name="a"), Signal(0, name="b")
    b.set(session, 1)
    a.set(session, 1)
    a.set(session, 2)
    assert wakes == ["wake"]
    assert list(session.take_changes().items()) == [(b, 1), (a, 2)]
    assert session.take_changes() == {}
    a.set(session, 3)
    assert wakes == ["wake"] * 2


def test_the_owner_is_not_woken_for_what_no_client_sees(session: Store) -> None:
    wakes: list[str] = []
    session.wake = lambda: wakes.append("wake")
    unnamed, private = Signal(0), Signal(0, name="private", client=False)
    unnamed.set(session, 1)
    private.set(session, 1)
    assert (wakes, session.take_changes()) == ([], {})


def test_a_batch_wakes_the_owner_at_its_end(session: Store) -> None:
    wakes: list[str] = []
    session.wake = lambda: wakes.append("wake")
    a = Signal(0, name="a")
    with batch():
        a.set(session, 1)
        assert (wakes, session.take_changes()) == ([], {})
    assert (wakes, session.take_changes()) == (["wake"], {a: 1})


def test_with_a_waker_effects_wait_for_the_owner(session: Store) -> None:
    wakes: list[str] = []
    seen: list[int] = []
    session.wake = lambda: wakes.append("wake")
    count = Signal(0)
    Effect(lambda s: seen.append(count.get(s)), session)
    count.set(session, 1)
    assert (seen, wakes) == ([0], ["wake"])
    session.run_effects()
    assert seen == [0, 1]
    count.set(session, 2)
    assert wakes == ["wake"] * 2


def test_an_effect_may_call_for_a_flush(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0)

    def effect(s: Store) -> None:
        seen.append(count.get(s))
        s.run_effects()

    Effect(effect, session)
    count.set(session, 1)
    assert seen == [0, 1]


def test_a_watched_computed_is_reported_when_its_value_changed(session: Store) -> None:
    count = Signal(0)
    parity = Computed(lambda s: count.get(s) % 2, name="parity")
    session.watch(parity)
    assert session.take_changes() == {parity: 0}
    count.set(session, 2)
    assert session.take_changes() == {}
    count.set(session, 3)
    assert session.take_changes() == {parity: 1}
    count.set(session, 4)
    session.unwatch(parity)
    assert session.take_changes() == {}


def test_after_unwatch_nothing_is_evaluated_or_reported(session: Store) -> None:
    runs: list[int] = []
    count = Signal(0)

    def counted(s: Store) -> int:
        runs.append(count.get(s))
        return count.get(s)

    read, unread = Computed(counted, "read"), Computed(counted, "unread")
    session.watch(read)
    session.watch(unread)
    session.take_changes()
    count.set(session, 1)
    read.get(session)
    runs.clear()
    session.unwatch(read)
    session.unwatch(unread)
    assert (session.take_changes(), runs) == ({}, [])


def test_watching_what_is_up_to_date_reports_nothing(session: Store) -> None:
    double = Computed(lambda: 2, name="double")
    double.get(session)
    session.watch(double)
    assert session.take_changes() == {}


def test_a_watched_computed_that_no_client_sees_is_not_reported(session: Store) -> None:
    runs: list[int] = []
    count = Signal(0)
    kept_warm = Computed(lambda s: runs.append(count.get(s)))
    session.watch(kept_warm)
    assert (session.take_changes(), runs) == ({}, [0])


def test_a_failing_watched_computed_goes_to_on_error_and_is_left_out(session: Store) -> None:
    errors: list[tuple[str, Declaration]] = []
    session.on_error = lambda error, source: errors.append((type(error).__name__, source))
    count = Signal(0, name="count")
    ratio = Computed(lambda s: 6 // count.get(s), name="ratio")
    session.watch(ratio)
    assert (session.take_changes(), errors) == ({}, [("ZeroDivisionError", ratio)])
    count.set(session, 2)
    assert session.take_changes() == {count: 2, ratio: 3}
    count.set(session, 3)
    ratio.get(session)
    count.set(session, 0)
    assert session.take_changes() == {count: 0}
    assert len(errors) == 2


def test_without_on_error_a_failing_watched_computed_raises_and_keeps_the_changes(
    session: Store,
) -> None:
    count = Signal(1, name="count")
    ratio = Computed(lambda s: 6 // count.get(s), name="ratio")
    session.watch(ratio)
    session.take_changes()
    count.set(session, 0)
    with pytest.raises(ZeroDivisionError):
        session.take_changes()
    assert session.take_changes() == {count: 0}


def test_what_on_error_sets_wakes_the_owner_again(session: Store) -> None:
    wakes: list[str] = []
    message = Signal("", name="message")
    shout = Computed(lambda s: message.get(s).upper(), name="shout")
    session.wake = lambda: wakes.append("wake")
    session.on_error = lambda error, _: message.set(session, "broken")
    count = Signal(1)
    ratio = Computed(lambda s: 6 // count.get(s), name="ratio")
    session.watch(shout)
    session.watch(ratio)
    session.take_changes()
    wakes.clear()
    count.set(session, 0)
    assert session.take_changes() == {message: "broken"}
    assert wakes == ["wake"] * 2
    assert session.take_changes() == {shout: "BROKEN"}


def test_an_interrupted_take_loses_no_watched_computed(session: Store) -> None:
    def interrupt() -> int:
        if is_interrupted.pop():
            raise KeyboardInterrupt
        return 1

    is_interrupted = [False, True]
    shaky = Computed(interrupt, name="shaky")
    session.watch(shaky)
    with pytest.raises(KeyboardInterrupt):
        session.take_changes()
    assert session.take_changes() == {shaky: 1}


def test_a_recursion_error_is_tried_again_at_the_next_change(session: Store) -> None:
    errors: list[str] = []
    session.on_error = lambda error, _: errors.append(type(error).__name__)
    depth, other = Signal(0), Signal(0, name="other")

    def endless() -> int:
        return endless()

    deep = Computed(lambda s: endless() if depth.peek(s) == 0 else 1, name="deep")
    session.watch(deep)
    assert (session.take_changes(), errors) == ({}, ["RecursionError"])
    depth.set(session, 1)
    other.set(session, 1)
    assert session.take_changes() == {other: 1, deep: 1}


def test_the_guard_sees_what_clients_would_and_may_refuse_it(session: Store) -> None:
    guarded: list[object] = []

    def guard(signal: Signal[Any], value: object) -> int:
        guarded.append((signal, value))
        if value == 13:
            message = "not thirteen"
            raise ValueError(message)
        return len(str(value))

    session.guard = guard
    count, private = Signal(0, name="count"), Signal(0)
    private.set(session, 13)
    count.set(session, 1)
    with pytest.raises(ValueError, match="not thirteen"):
        count.update(session, lambda n: n + 12)
    assert guarded == [(count, 1), (count, 13)]
    assert count.get(session) == 1


# --- Release -----------------------------------------------------------------------------------


def test_a_closed_session_keeps_nothing_and_still_answers(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0, name="count")
    double = Computed(lambda s: count.get(s) * 2, name="double")
    Effect(lambda s: seen.append(double.get(s)), session)
    session.watch(double)
    count.set(session, 1)
    session.close()
    assert (session.take_changes(), session._nodes, session._effects) == ({}, {}, {})
    assert double.get(session) == 0
    count.set(session, 5)
    assert seen == [0, 2]


def test_a_session_may_be_closed_while_a_computed_or_an_effect_runs(session: Store) -> None:
    count, more = Signal(0), Signal(0)

    def close_and_read(s: Store) -> int:
        count.get(s)
        s.close()
        return more.get(s)

    assert Computed(close_and_read).get(session) == 0
    Effect(close_and_read, session)
    more.set(session, 1)
    assert not session._effects


@contextmanager
def no_garbage_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Heavy:
    """A value whose end can be watched."""


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_session_and_its_values_die_by_reference_counting_alone(is_closed: bool) -> None:
    value = Signal[Any](None, name="value")
    same = Computed(lambda s: value.get(s), name="same")
    broken = Computed(lambda s: same.get(s) // 0)
    session = Store()
    Effect(lambda s: same.get(s), session)
    session.watch(same)
    value.set(session, heavy := Heavy())
    session.take_changes()
    if is_closed:
        with pytest.raises(TypeError):
            broken.get(session)
        session.close()
    session_left, value_left = weakref.ref(session), weakref.ref(heavy)
    with no_garbage_collector():
        del session, heavy
        assert (session_left(), value_left()) == (None, None)


def test_a_dead_session_leaves_the_signals_of_others() -> None:
    shared, session = Store(), Store()
    count = Signal(0)
    double = Computed(lambda s: count.get(shared) * 2)
    double.get(session)
    assert len(shared._nodes[count._key].subs) == 1
    del session
    assert not shared._nodes[count._key].subs
    count.set(shared, 1)


def test_an_effect_of_a_dead_session_is_skipped() -> None:
    shared, session = Store(), Store()
    count = Signal(0)
    seen: list[int] = []
    Effect(lambda s: seen.append(count.get(shared)), session)
    with batch():
        count.set(shared, 1)
        del session
    assert seen == [0]


def test_a_node_whose_session_is_gone_counts_as_changed() -> None:
    shared, session = Store(), Store()
    count = Signal(0)
    double = Computed(lambda s: count.get(s) * 2)
    source: list[Store] = [shared]
    reader = Computed(lambda s: double.get(source[0]) if source else -1)
    assert reader.get(session) == 0
    count.set(shared, 1)
    source.clear()
    del shared
    assert reader.get(session) in {-1, 0}


def test_a_computed_that_nobody_holds_is_released(session: Store) -> None:
    count = Signal(0)
    for _ in range(5):
        Computed(lambda s: count.get(s)).get(session)
    session.run_effects()
    assert list(session._nodes) == [count._key]
    assert not session._nodes[count._key].subs


def test_a_chain_that_nobody_holds_is_released_as_a_whole(session: Store) -> None:
    count = Signal(0)
    node: Signal[int] | Computed[int] = count
    for _ in range(50):
        node = Computed(lambda s, below=node: below.get(s) + 1)
    assert node.get(session) == 50
    del node
    session.run_effects()
    assert list(session._nodes) == [count._key]
    assert not session._nodes[count._key].subs


def test_a_computed_used_by_several_sessions_is_released_when_each_has_grown() -> None:
    stores = [Store(), Store()]
    count = Signal(0)
    shared = Computed(lambda s: count.get(s))
    for store in stores:
        shared.get(store)
    del shared
    kept = [Signal(i) for i in range(80)]
    for store in stores:
        for signal in kept:
            signal.set(store, -1)
        assert not store._nodes[count._key].subs


def test_a_declaration_that_outlives_its_first_session_is_released_by_the_next() -> None:
    count = Signal(0)
    computed = Computed(lambda s: count.get(s))
    computed.get(Store())
    session = Store()
    computed.get(session)
    del computed
    session.run_effects()
    assert list(session._nodes) == [count._key]


def test_a_computed_made_within_another_stays_while_it_is_needed(session: Store) -> None:
    runs: list[int] = []
    count = Signal(0)

    @Computed
    def outer(s: Store) -> int:
        runs.append(1)
        return Computed(lambda s: count.get(s) + 1).get(s)

    assert outer.get(session) == 1
    session.run_effects()
    count.set(session, 5)
    assert outer.get(session) == 6
    assert len(runs) == 2


def test_a_watched_computed_that_nobody_holds_is_forgotten(session: Store) -> None:
    errors: list[Exception] = []
    session.on_error = lambda error, _: errors.append(error)
    count = Signal(0)
    watched = Computed(lambda s: 1 // count.get(s), name="watched")
    session.watch(watched)
    del watched
    assert (session.take_changes(), errors) == ({}, [])


def test_a_watched_computed_that_goes_during_a_flush_is_forgotten(session: Store) -> None:
    session.wake = lambda: None
    count = Signal(0)
    held = [Computed(lambda s: 1 // count.get(s), name="watched")]
    Effect(lambda s: held.clear() if count.get(s) else None, session)
    session.watch(held[0])
    count.set(session, 1)
    assert session.take_changes() == {}


def test_an_effect_may_be_disposed_of_after_its_session_is_gone() -> None:
    session = Store()
    effect = Effect(lambda: None, session)
    del session
    effect.dispose()


def test_a_session_may_be_a_subclass_with_slots() -> None:
    class Session(Store):
        __slots__ = ("user",)
        user: str

    session = Session()
    session.user = "ada"
    greeting = Computed(lambda s: f"hello {s.user}")
    assert greeting.get(session) == "hello ada"
    assert weakref.ref(session)() is session
