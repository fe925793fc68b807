"""App-wide signals: one value for all sessions of a run, and nothing left of those that went."""

from __future__ import annotations

import contextvars
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import pytest

from cacao import (
    DeclarationError,
    ListSignal,
    NoSessionError,
    NotSerializableError,
    ReactiveError,
    Registry,
    Session,
    TextSignal,
    WriteInComputedError,
)
from cacao.reactive import (
    Computed,
    Effect,
    Signal,
    Store,
    batch,
    current_run,
    set_current_run,
    untracked,
    use_session,
)
from cacao.shared import SharedStore
from cacao.threads import ThreadSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Names of one test are no other test's."""
    with Registry():
        yield


@pytest.fixture
def run() -> SharedStore:
    return SharedStore()


@pytest.fixture
def ada(run: SharedStore) -> Store:
    return Store(run)


@pytest.fixture
def bob(run: SharedStore) -> Store:
    return Store(run)


class BrokenError(Exception):
    """What the tests' own code raises."""


@contextmanager
def failing_batch() -> Iterator[None]:
    """A batch whose block raises at its end."""
    with pytest.raises(BrokenError), batch():  # noqa: PT012 - a batch has a block
        yield
        raise BrokenError


# --- Declaring ---------------------------------------------------------------------------------


def test_scope_and_persist_are_readable() -> None:
    assert (Signal(0).scope, Signal(0).persist) == ("session", None)
    assert Signal(0, scope="app").scope == "app"
    assert Signal(0, name="a", scope="app", persist="app").persist == "app"
    assert Signal(0, name="b", persist="user").persist == "user"
    assert ListSignal[int](name="c", scope="app", persist="app").scope == "app"
    assert TextSignal(name="d", persist="user").persist == "user"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scope": "world"}, "count has scope 'world'; give 'session' or 'app'"),
        ({"persist": "ever"}, "count has persist 'ever'; give 'app' or 'user'"),
        ({"persist": "app"}, "count has persist='app' and scope='session'; expected scope='app'"),
        ({"persist": "user", "scope": "app"}, "expected scope='session'"),
        ({"persist": "user", "name": None}, "and no name, by which its value would be found"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        Signal(0, **{"name": "count", **options})


# --- One value ---------------------------------------------------------------------------------


def test_all_sessions_of_a_run_have_one_value(run: SharedStore, ada: Store, bob: Store) -> None:
    count = Signal(1, scope="app")
    count.set(ada, 2)
    count.update(bob, lambda n: n + 1)
    assert [count.get(store) for store in (ada, bob, run, Store(run))] == [3, 3, 3, 3]
    assert count.peek(Store(run)) == 3


def test_two_runs_share_nothing(ada: Store) -> None:
    names: Signal[list[str]] = Signal([], scope="app")
    names.update(ada, lambda known: [*known, "Ada"])
    stranger = Store(SharedStore())
    names.get(stranger).append("Eve")
    assert (names.get(ada), names.get(stranger)) == (["Ada"], ["Eve"])


def test_a_mutable_default_is_one_object_for_the_run(ada: Store, bob: Store) -> None:
    names: Signal[list[str]] = Signal([], scope="app")
    assert names.get(ada) is names.get(bob)


def test_a_session_alone_is_a_run_of_its_own() -> None:
    count = Signal(0, name="count", scope="app")
    double = Computed(lambda s: count.get(s) * 2)
    alone, other = Session(), Session()
    count.update(alone, lambda n: n + 1)
    assert (count.get(alone), double.get(alone), count.get(other)) == (1, 2, 0)
    assert alone.take_changes() == {count: 1}


def test_a_stream_grows_for_all(ada: Store, bob: Store) -> None:
    lines: ListSignal[str] = ListSignal(["first"], scope="app")
    text = TextSignal("a", scope="app")
    lines.append(ada, "second")
    lines.update(bob, lambda items: [*items, "third"])
    lines.extend(ada, [])
    text.append(bob, "b")
    assert list(lines.get(ada)) == list(lines.get(bob)) == ["first", "second", "third"]
    assert text.get(ada) == "ab"
    lines.clear(bob)
    assert list(lines.get(ada)) == []


async def test_awaiting_an_append_waits_for_no_client(ada: Store) -> None:
    lines: ListSignal[str] = ListSignal(scope="app")
    await lines.append(ada, "line")


def test_what_json_cannot_carry_is_refused_and_nothing_changes(run: SharedStore) -> None:
    value: Signal[Any] = Signal(1, name="value", scope="app")
    for session in (run, Session()):
        with pytest.raises(NotSerializableError, match="'value'"):
            value.set(session, object())
        with pytest.raises(NotSerializableError, match="'value'"):
            value.update(session, lambda _: object())
        assert value.get(session) == 1


def test_a_computed_signal_must_not_change_it(ada: Store) -> None:
    count = Signal(0, scope="app")
    changes: list[Callable[[Store], object]] = [
        lambda s: count.set(s, 1),
        lambda s: count.update(s, lambda n: n + 1),
    ]
    for change in changes:
        with pytest.raises(WriteInComputedError):
            Computed(change).get(ada)


# --- What follows ------------------------------------------------------------------------------


def test_computed_signals_and_effects_of_every_session_follow(ada: Store, bob: Store) -> None:
    seen: list[tuple[str, int]] = []
    price, pieces = Signal(10, scope="app"), Signal(1)
    total = Computed(lambda s: price.get(s) * pieces.get(s))
    pieces.set(bob, 3)
    for name, store in {"ada": ada, "bob": bob}.items():
        Effect(lambda s, name=name: seen.append((name, total.get(s))), store)
    price.set(ada, 11)
    assert seen[:2] == [("ada", 10), ("bob", 30)]
    assert sorted(seen[2:]) == [("ada", 11), ("bob", 33)]
    with untracked():
        assert total.get(bob) == 33


def test_a_computed_signal_of_app_wide_ones_has_a_value_in_the_run(run: SharedStore) -> None:
    price = Signal(10, scope="app")
    dear = Computed(lambda: price.value * 2)
    assert dear.get(run) == 20
    price.set(Store(run), 11)
    assert dear.get(run) == 22


def test_subscribers_are_given_the_run(run: SharedStore, ada: Store) -> None:
    seen: list[tuple[Store, int]] = []
    count = Signal(0, scope="app")
    end = count.subscribe(lambda store, value: seen.append((store, value)))
    count.set(ada, 1)
    end()
    count.set(ada, 2)
    assert seen == [(run, 1)]


def test_a_batch_covers_both_scopes(ada: Store, bob: Store) -> None:
    seen: list[int] = []
    mine, ours = Signal(0), Signal(0, scope="app")
    Effect(lambda s: seen.append(mine.get(s) + ours.get(s)), ada)
    with batch():
        mine.set(ada, 1)
        ours.set(bob, 10)
        ours.update(ada, lambda n: n + 10)
        assert seen == [0]
    assert seen == [0, 21]


def test_a_batch_that_raises_sets_back_both_scopes(run: SharedStore, ada: Store) -> None:
    mine, ours = Signal(0), Signal(0, name="ours", scope="app")
    double = Computed(lambda s: ours.get(s) * 2)
    with failing_batch():
        mine.set(ada, 1)
        ours.set(ada, 1)
        assert double.get(ada) == 2
    assert (mine.get(ada), ours.get(ada), double.get(ada), ours.get(run)) == (0, 0, 0, 0)
    run.flush()
    assert run.revision == 0


def test_a_thousand_sessions_that_come_and_go_leave_no_edge_behind(run: SharedStore) -> None:
    seen: list[int] = []
    count = Signal(0, scope="app")
    double = Computed(lambda s: count.get(s) * 2)
    count.set(run, 1)
    cell = run._nodes[count._key]
    gc.collect()
    gc.disable()
    try:
        for number in range(1000):
            session = Store(run)
            Effect(lambda s: seen.append(double.get(s)), session)
            assert cell.subs
            if number % 2:
                session.close()
            del session
    finally:
        gc.enable()
    assert not cell.subs
    assert len(run._nodes) == 1
    count.set(run, 5)
    assert seen == [2] * 1000


def test_a_session_that_has_ended_still_reaches_the_run(run: SharedStore, ada: Store) -> None:
    count = Signal(0, scope="app")
    count.set(ada, 1)
    ada.close()
    count.update(ada, lambda n: n + 1)
    assert count.get(run) == 2


# --- What stands for the run -------------------------------------------------------------------


def test_value_is_the_runs_wherever_the_run_is_known(run: SharedStore, ada: Store) -> None:
    count = Signal(0, scope="app")
    with use_session(ada):
        count.value += 1
        assert current_run() is run
    assert Computed(lambda: count.value).get(ada) == 1


async def test_a_task_of_the_app_has_the_run_and_no_session(run: SharedStore, ada: Store) -> None:
    count, own = Signal(0, scope="app"), Signal(0)
    set_current_run(run)
    count.value += 1
    count.update(current_run(), lambda n: n + 1)
    assert count.get(ada) == 2
    with pytest.raises(NoSessionError):
        own.value += 1
    with use_session(Session()):
        assert count.value == 0


def test_without_a_run_value_says_what_to_do() -> None:
    count = Signal(0, scope="app")
    with pytest.raises(NoSessionError, match=r"neither a session nor a run .* use get\(session\)"):
        _ = count.value


@pytest.mark.parametrize("default", [0, []])
@pytest.mark.parametrize("way", ["get", "peek", "set"])
def test_a_signal_of_each_session_has_no_value_in_the_run(
    run: SharedStore, default: object, way: Literal["get", "peek", "set"]
) -> None:
    own = Signal(default, name="own")
    with pytest.raises(ReactiveError, match="own has a value in each session, and none in the run"):
        own.set(run, 1) if way == "set" else getattr(own, way)(run)


def test_a_thread_cannot_reach_the_run_by_its_session(ada: Store) -> None:
    count = Signal(0, scope="app")
    thread: Any = ThreadSession(ada, "handler")
    for touch in (lambda: count.get(thread), lambda: count.update(thread, lambda n: n + 1)):
        with pytest.raises(ReactiveError, match="runs in a thread"):
            touch()
    with use_session(thread), pytest.raises(ReactiveError, match="runs in a thread"):
        _ = count.value


# --- Operations, as replication hears of them ---------------------------------------------------


class Heard(list[tuple[str, Any]]):
    """What was done, each applied to what it is asked for."""

    def __init__(self, run: Store) -> None:
        run.on_operation = lambda signal, operation: self.append((signal.label, operation(100)))


def test_operations_are_heard_in_order_also_where_they_change_nothing(
    run: SharedStore, ada: Store
) -> None:
    heard = Heard(run)
    count, own = Signal(0, name="count", scope="app"), Signal(0)
    count.set(ada, 1)
    count.set(ada, 1)
    count.update(ada, lambda n: n + 1)
    count.update(ada, lambda n: max(n, 1))
    own.set(ada, 1)
    assert heard == [("count", 1), ("count", 101), ("count", 100)]


def test_a_stream_tells_what_was_added(run: SharedStore, ada: Store) -> None:
    text = TextSignal("a", name="text", scope="app")
    grown: list[str] = []
    run.on_operation = lambda _, operation: grown.append(operation("other "))
    text.append(ada, "b")
    assert grown == ["other b"]


def test_the_operations_of_a_batch_are_heard_at_its_end_or_not_at_all(
    run: SharedStore, ada: Store
) -> None:
    heard = Heard(run)
    count = Signal(0, name="count", scope="app")
    with failing_batch():
        count.set(ada, 1)
    with batch():
        count.set(ada, 2)
        count.update(ada, lambda n: n + 1)
        assert heard == []
    assert heard == [("count", 2), ("count", 101)]


def test_operations_made_by_subscribers_come_after_what_caused_them(
    run: SharedStore, ada: Store
) -> None:
    heard = Heard(run)
    count, copy = Signal(0, name="count", scope="app"), Signal(0, name="copy", scope="app")
    count.subscribe(lambda store, value: copy.set(store, value))
    with batch():
        count.set(ada, 1)
    count.set(ada, 2)
    assert heard == [("count", 1), ("copy", 1), ("count", 2), ("copy", 2)]


async def test_a_batch_left_open_is_heard_before_what_another_task_does(
    run: SharedStore, ada: Store
) -> None:
    heard = Heard(run)
    count = Signal(0, name="count", scope="app")

    def other() -> None:
        count.set(ada, 2)

    with batch():
        count.set(ada, 1)
        contextvars.Context().run(other)
        assert heard == [("count", 1), ("count", 2)]


def test_a_batch_that_outlives_its_run_is_heard_by_nobody(run: SharedStore, ada: Store) -> None:
    heard = Heard(run)
    count = Signal(0, name="count", scope="app")
    with batch():
        count.set(ada, 1)
        run.close()
    assert heard == []
