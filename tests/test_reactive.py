"""Signals, computed signals and effects, as an author meets them."""

from __future__ import annotations

import operator
import traceback
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cacao.errors import (
    CycleError,
    DeclarationError,
    EffectLoopError,
    ReactiveError,
    WriteInComputedError,
)
from cacao.reactive import (
    Computed,
    Effect,
    Signal,
    Store,
    batch,
    untracked,
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


# --- Signals -----------------------------------------------------------------------------------


def test_a_signal_has_a_value_per_session() -> None:
    count = Signal(0)
    mine, yours = Store(), Store()
    count.set(mine, 1)
    assert (count.get(mine), count.get(yours)) == (1, 0)


def test_reading_an_untouched_signal_leaves_nothing_in_the_session(session: Store) -> None:
    count = Signal(0)
    assert (count.get(session), count.peek(session)) == (0, 0)
    assert session._nodes == {}


def test_update_makes_the_new_value_from_the_present_one(session: Store) -> None:
    count = Signal(3)
    count.update(session, lambda n: n * 2)
    assert count.get(session) == 6


def test_none_is_a_value(session: Store) -> None:
    chosen: Signal[str | None] = Signal("tea")
    chosen.set(session, None)
    shown = Computed(lambda s: chosen.get(s))
    assert shown.get(session) is None
    assert shown.get(session) is None


def test_a_mutable_default_is_copied_for_each_session() -> None:
    items: list[int] = []
    signal = Signal(items)
    mine, yours = Store(), Store()
    signal.get(mine).append(1)
    signal.peek(yours).append(2)
    items.append(3)
    assert (signal.get(mine), signal.get(yours), signal.default) == ([1], [2], [])


def test_a_default_factory_makes_a_value_per_session() -> None:
    signal: Signal[list[int]] = Signal(default_factory=list)
    mine, yours = Store(), Store()
    signal.get(mine).append(1)
    assert (signal.get(mine), signal.get(yours), signal.default) == ([1], [], [])


@pytest.mark.parametrize("options", [{}, {"default": 0, "default_factory": int}])
def test_a_signal_needs_a_default_or_a_factory(options: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError, match="needs a default or a default_factory"):
        Signal(**options)


def test_a_default_that_cannot_be_copied_is_refused() -> None:
    with pytest.raises(DeclarationError, match=r"cannot be copied .* default_factory="):
        Signal(n for n in [1])


def test_equal_decides_what_is_no_change(session: Store) -> None:
    runs: list[list[int]] = []
    items = Signal([1], equal=operator.eq)
    Effect(lambda s: runs.append(items.get(s)), session)
    items.set(session, [1])
    items.set(session, [2])
    assert runs == [[1], [2]]


def test_an_equal_that_raises_leaves_the_old_value(session: Store) -> None:
    signal = Signal(1, equal=lambda old, new: new == 1 // 0)
    with pytest.raises(ZeroDivisionError):
        signal.set(session, 2)
    assert signal.get(session) == 1


def fail(session: Store, value: object) -> None:
    raise IndexError(value)


# --- Subscribers -------------------------------------------------------------------------------


def test_a_subscriber_hears_of_changes_in_every_session_until_it_unsubscribes() -> None:
    heard: list[tuple[Store, int]] = []
    count = Signal(0)
    mine, yours = Store(), Store()
    unsubscribe = count.subscribe(lambda session, value: heard.append((session, value)))
    count.set(mine, 1)
    count.set(mine, 1)
    count.set(yours, 2)
    unsubscribe()
    unsubscribe()
    count.set(mine, 3)
    assert heard == [(mine, 1), (yours, 2)]


def test_a_batch_tells_a_subscriber_once_with_the_last_value(session: Store) -> None:
    heard: list[int] = []
    count = Signal(0)
    count.subscribe(lambda _, value: heard.append(value))
    with batch():
        count.set(session, 1)
        count.set(session, 2)
        assert heard == []
    assert heard == [2]


def test_one_failing_subscriber_does_not_silence_the_others(session: Store) -> None:
    heard: list[int] = []
    count = Signal(0)
    count.subscribe(fail)
    count.subscribe(lambda _, value: heard.append(value))
    with pytest.raises(IndexError):
        count.set(session, 1)
    assert (heard, count.get(session)) == ([1], 1)


def test_a_subscribers_error_goes_to_on_error(session: Store) -> None:
    errors: list[tuple[str, Declaration]] = []
    session.on_error = lambda error, source: errors.append((type(error).__name__, source))
    count = Signal(0)
    count.subscribe(fail)
    count.set(session, 1)
    assert errors == [("IndexError", count)]


def test_a_subscriber_may_unsubscribe_another_or_close_the_session(session: Store) -> None:
    heard: list[str] = []
    count = Signal(0)
    count.subscribe(lambda *_: unsubscribe())
    unsubscribe = count.subscribe(lambda *_: heard.append("second"))
    count.subscribe(lambda *_: session.close())
    count.subscribe(lambda *_: heard.append("fourth"))
    count.set(session, 1)
    assert heard == []


def test_what_a_subscriber_reads_is_no_dependency_of_the_effect_that_set(session: Store) -> None:
    runs: list[int] = []
    trigger, target, read = Signal(0), Signal(0), Signal(0)
    target.subscribe(lambda s, _: read.get(s))

    @partial(Effect, session=session)
    def effect(s: Store) -> None:
        runs.append(trigger.get(s))
        target.set(s, len(runs))

    read.set(session, 1)
    assert runs == [0]
    effect.dispose()


# --- Computed signals --------------------------------------------------------------------------


def test_computed_can_be_declared_in_four_ways(session: Store) -> None:
    count = Signal(2)

    @Computed
    def double(s: Store) -> int:
        return count.get(s) * 2

    @Computed(name="triple", client=False)
    def triple() -> int:
        return count.value * 3

    plain = Computed(lambda s: count.get(s) + 1)
    named = Computed(lambda: count.value, "named")
    assert [c.get(session) for c in (double, triple, plain, named)] == [4, 6, 3, 2]
    assert (triple.name, triple.client, named.name) == ("triple", False, "named")


def test_a_parameter_with_a_default_is_the_authors_own(session: Store) -> None:
    doubles = [Computed(lambda s, n=n: n * 2) for n in range(3)]
    constant = Computed(lambda n=7: n)
    assert [double.get(session) for double in doubles] == [0, 2, 4]
    assert constant.get(session) == 7


def test_a_builtin_without_a_signature_gets_the_session(session: Store) -> None:
    assert Computed(type).get(session) is Store


async def _async_function() -> int:
    return 1


@pytest.mark.parametrize(
    "fn", [_async_function, lambda a, b: 1, lambda *, a: 1, "text"], ids=["async", "2", "kw", "str"]
)
def test_a_function_of_another_kind_is_refused(fn: Any) -> None:
    with pytest.raises(DeclarationError, match=r"expected .*fn\(session\) or fn\(\)"):
        Computed(fn)


def test_a_computed_without_its_function_says_so(session: Store) -> None:
    empty: Computed[int] = Computed(name="empty")
    with pytest.raises(DeclarationError, match="declared without a function"):
        empty.get(session)


def test_a_computed_cannot_be_called() -> None:
    total = Computed(lambda: 1, name="total")
    with pytest.raises(DeclarationError, match=r"total has a function already.* get\(session\)"):
        total(lambda: 2)


def test_setting_a_signal_in_a_computed_raises_and_names_both(session: Store) -> None:
    count = Signal(0, name="count")
    bad = Computed(lambda s: count.set(s, 1), name="bad")
    worse = Computed(lambda s: untracked(lambda: count.set(s, 1)), name="worse")
    for computed in (bad, worse):
        with pytest.raises(WriteInComputedError, match=f"'{computed.name}' sets signal 'count'"):
            computed.get(session)
    assert count.get(session) == 0


def test_a_batch_in_a_computed_changes_nothing(session: Store) -> None:
    count = Signal(1)

    @Computed
    def guarded(s: Store) -> int:
        with batch():
            return count.get(s)

    assert guarded.get(session) == 1


def test_a_custom_equal_that_raises_is_the_computeds_error(session: Store) -> None:
    count = Signal(1)
    computed = Computed(lambda s: count.get(s), equal=lambda old, new: old // 0 == new)
    assert computed.get(session) == 1
    count.set(session, 2)
    with pytest.raises(ZeroDivisionError):
        computed.get(session)


def test_a_cached_traceback_does_not_grow(session: Store) -> None:
    broken: Computed[int] = Computed(lambda s: [][0])
    lengths = []
    for _ in range(3):
        with pytest.raises(IndexError) as caught:
            broken.get(session)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1
    assert traceback.extract_tb(caught.value.__traceback__)[-1].name == "<lambda>"


def test_declarations_say_what_they_are() -> None:
    named, unnamed = Signal(0, name="count"), Signal(0)
    assert repr(named) == "<Signal 'count'>"
    assert repr(unnamed).startswith("<Signal 'signal at ")
    assert "<lambda> at " in repr(Computed(lambda: 1))
    assert "partial at " in repr(Computed(partial(int, 1)))


def test_a_cycle_names_its_path(session: Store) -> None:
    a: Computed[int] = Computed(lambda s: b.get(s), name="a")
    b: Computed[int] = Computed(lambda s: a.get(s), name="b")
    with pytest.raises(CycleError) as caught:
        a.get(session)
    assert caught.value.path == ("a", "b", "a")


# --- Effects -----------------------------------------------------------------------------------


def test_an_effect_runs_at_once_and_after_every_change(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0)
    Effect(lambda: seen.append(count.value), session)
    count.set(session, 1)
    count.set(session, 1)
    assert seen == [0, 1]


def test_a_disposed_effect_runs_no_more(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0)
    effect = Effect(lambda s: seen.append(count.get(s)), session)
    effect.dispose()
    effect.dispose()
    count.set(session, 1)
    assert seen == [0]
    assert not session._effects


def test_an_effect_does_not_wait_for_what_it_no_longer_reads(session: Store) -> None:
    seen: list[str] = []
    is_left, left, right = Signal(1), Signal("left"), Signal("right")
    Effect(lambda s: seen.append((left if is_left.get(s) else right).get(s)), session)
    is_left.set(session, 0)
    left.set(session, "left 2")
    right.set(session, "right 2")
    assert seen == ["left", "right", "right 2"]


def test_an_effect_may_dispose_of_itself(session: Store) -> None:
    seen: list[int] = []
    count = Signal(0)
    effects: list[Effect] = []

    def once(s: Store) -> None:
        seen.append(count.get(s))
        for effect in effects:
            effect.dispose()
            seen.append(count.get(s))
            count.set(s, 9)

    effects.append(Effect(once, session))
    count.set(session, 1)
    count.set(session, 2)
    assert seen == [0, 1, 1]
    assert not session._nodes[count._key].subs


def test_effects_disposed_of_by_an_earlier_one_are_skipped(session: Store) -> None:
    seen: list[str] = []
    count = Signal(0)
    effects: list[Effect] = []
    Effect(lambda s: effects[0].dispose() if count.get(s) else None, session)
    effects.append(Effect(lambda s: seen.append(f"later {count.get(s)}"), session))
    count.set(session, 1)
    assert seen == ["later 0"]


def test_an_effect_that_sets_what_it_read_runs_again(session: Store) -> None:
    count = Signal(0)
    double = Computed(lambda s: count.get(s) * 2)

    def settle(s: Store) -> None:
        if count.get(s) < 5 or double.get(s) < 10:
            count.update(s, lambda n: n + 1)

    Effect(settle, session)
    assert count.get(session) == 5
    count.set(session, 0)
    assert count.get(session) == 5


def test_an_effect_through_a_computed_that_it_changes_runs_again(session: Store) -> None:
    count = Signal(0)
    double = Computed(lambda s: count.get(s) * 2)
    seen: list[int] = []

    def effect(s: Store) -> None:
        seen.append(double.get(s))
        count.set(s, 3)

    Effect(effect, session)
    assert seen == [0, 6]


def test_endless_effects_end_in_an_error_that_names_them(session: Store) -> None:
    count = Signal(0)

    def runaway(s: Store) -> None:
        count.set(s, count.get(s) + 1)

    with pytest.raises(EffectLoopError, match=r"runaway at .*test_reactive.py:\d+ still triggers"):
        Effect(runaway, session)


def test_after_a_loop_the_next_change_starts_the_effect_again(session: Store) -> None:
    errors: list[Exception] = []
    session.on_error = lambda error, _: errors.append(error)
    count, is_wild = Signal(0), Signal(1)

    def effect(s: Store) -> None:
        if is_wild.get(s):
            count.set(s, count.get(s) + 1)

    Effect(effect, session)
    is_wild.set(session, 0)
    ended = count.get(session)
    is_wild.set(session, 1)
    assert [type(error) for error in errors] == [EffectLoopError, EffectLoopError]
    assert count.get(session) > ended


def test_the_first_runs_error_reaches_the_caller_and_there_is_no_effect(session: Store) -> None:
    count = Signal(0)
    with pytest.raises(ZeroDivisionError):
        Effect(lambda s: 1 // count.get(s), session)
    count.set(session, 1)
    assert not session._effects


def test_with_on_error_a_failing_effect_lives_on(session: Store) -> None:
    errors: list[tuple[str, Declaration]] = []
    seen: list[int] = []
    session.on_error = lambda error, source: errors.append((type(error).__name__, source))
    count = Signal(0)
    effect = Effect(lambda s: seen.append(1 // count.get(s)), session)
    count.set(session, 1)
    assert (errors, seen) == ([("ZeroDivisionError", effect)], [1])


def test_failing_effects_do_not_stop_the_others_and_are_raised_together(session: Store) -> None:
    seen: list[int] = []
    count = Signal(1)
    Effect(lambda s: 1 // count.get(s), session)
    Effect(lambda s: [1][-count.get(s)], session)
    Effect(lambda s: 2 // count.get(s), session)
    Effect(lambda s: seen.append(count.get(s)), session)
    with pytest.raises(ExceptionGroup) as caught:
        count.set(session, 0)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError] * 2
    assert seen == [1, 0]


def test_an_interrupted_flush_loses_nothing(session: Store) -> None:
    seen: list[str] = []
    is_interrupted = [False]
    count = Signal(0)
    session.wake = lambda: None

    def interrupted(s: Store) -> None:
        count.get(s)
        if is_interrupted.pop():
            raise KeyboardInterrupt
        seen.append("first")

    Effect(interrupted, session)
    Effect(lambda s: seen.append(f"second {count.get(s)}"), session)
    is_interrupted += [False, True]
    count.set(session, 1)
    with pytest.raises(KeyboardInterrupt):
        session.run_effects()
    session.run_effects()
    assert seen == ["first", "second 0", "first", "second 1"]


def test_an_interrupted_first_run_leaves_no_effect(session: Store) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Effect(interrupted, session)
    assert not session._effects


def test_an_effect_cannot_be_created_in_a_computed(session: Store) -> None:
    bad = Computed(lambda s: Effect(print, s), name="bad")
    with pytest.raises(ReactiveError, match="'bad' creates the effect 'print' at "):
        bad.get(session)


def test_effects_nest(session: Store) -> None:
    seen: list[str] = []
    count = Signal(0)

    def outer(s: Store) -> None:
        Effect(lambda s: seen.append(f"inner {count.get(s)}"), s)
        seen.append("outer")

    Effect(outer, session)
    count.set(session, 1)
    assert seen == ["inner 0", "outer", "inner 1"]


def test_an_effect_depends_on_other_sessions_signals_too() -> None:
    seen: list[int] = []
    shared, session = Store(), Store()
    count = Signal(0)
    double = Computed(lambda s: count.get(shared) * 2)
    Effect(lambda s: seen.append(double.get(s)), session)
    count.set(shared, 1)
    assert seen == [0, 2]


# --- Untracked ---------------------------------------------------------------------------------


def test_untracked_reads_are_no_dependencies(session: Store) -> None:
    runs: list[int] = []
    a, b, c = Signal(0), Signal(0), Signal(0)
    seen_b = Computed(lambda s: b.get(s))

    @Computed
    def mixed(s: Store) -> int:
        runs.append(a.get(s))
        with untracked():
            b.get(s)
        return untracked(lambda: c.get(s)) + a.peek(s) + seen_b.peek(s)

    mixed.get(session)
    for ignored in (b, c):
        ignored.set(session, 5)
        mixed.get(session)
    assert runs == [0]
    a.set(session, 1)
    assert mixed.get(session) == 11


def test_untracked_outside_of_everything_just_calls(session: Store) -> None:
    assert untracked(lambda: Signal(4).get(session)) == 4


def test_peek_outside_of_everything_reads(session: Store) -> None:
    assert Computed(lambda: 3).peek(session) == 3


# --- A batch that fails, over what was in doubt before ----------------------------------------


def undone(*acts: Callable[[], object]) -> None:
    """Do all of it in a batch, which then fails."""
    with suppress(ZeroDivisionError), batch():
        for act in acts:
            act()
        raise ZeroDivisionError


def test_what_a_failed_batch_found_unchanged_is_in_doubt_again(session: Store) -> None:
    source = Signal(0)
    middle = Computed(source.get)
    outer = Computed(lambda s: middle.get(s) * 10)
    outermost = Computed(lambda s: outer.get(s) + 1)
    assert outermost.get(session) == 1
    source.set(session, 1)
    undone(lambda: source.set(session, 0), lambda: outermost.get(session))
    assert (outer.get(session), outermost.get(session)) == (10, 11)


def test_what_only_a_failed_batch_has_changed_needs_no_run(session: Store) -> None:
    source, other = Signal(0), Signal(0)
    runs: list[int] = []
    parity = Computed(lambda s: source.get(s) % 2)

    @Computed
    def outer(s: Store) -> None:
        runs.append(parity.get(s) + other.get(s))

    outer.get(session)
    source.set(session, 2)  # `outer` is in doubt
    undone(lambda: other.set(session, 1))
    undone(lambda: source.set(session, 1), lambda: parity.get(session))
    outer.get(session)
    assert runs == [0]
