"""The shared store of a run: its revisions, what is written once for all, and who is told when."""

from __future__ import annotations

import contextvars
import gc
import weakref
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from trio.testing import wait_all_tasks_blocked

from cacao import ListSignal, NotSerializableError, Registry
from cacao.reactive import Effect, Signal, Store, batch
from cacao.shared import SharedStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Names of one test are no other test's."""
    with Registry():
        yield


@pytest.fixture
def run() -> SharedStore:
    return SharedStore()


def news(run: SharedStore, revision: int = 0) -> dict[str, Any]:
    """What a session that has seen a revision gets next."""
    run.flush()
    return {value.name: orjson.loads(value.text()) for value in run.since(revision)}


# --- Revisions ---------------------------------------------------------------------------------


def test_a_session_gets_what_it_has_not_seen_the_last_value_of_each(run: SharedStore) -> None:
    a, b = Signal(0, name="a", scope="app"), Signal(0, name="b", scope="app")
    assert (run.revision, news(run)) == (0, {})
    a.set(run, 1)
    assert news(run) == {"a": 1}
    seen = run.revision
    b.set(run, 1)
    b.set(run, 2)
    assert news(run, seen) == {"b": 2}
    a.set(run, 3)
    assert list(news(run)) == ["b", "a"]
    assert news(run, run.revision) == {}


def test_a_value_is_written_once_and_is_one_object_for_all(run: SharedStore) -> None:
    rows: Signal[list[int]] = Signal([], name="rows", scope="app")
    rows.set(run, [1, 2])
    run.flush()
    (first,), (second,) = run.since(0), run.since(0)
    assert first.fragment() is second.fragment()
    assert first.text() is run.latest(rows).text()


def test_what_a_client_could_not_tell_apart_is_no_news(run: SharedStore) -> None:
    rows: Signal[list[int]] = Signal([], name="rows", scope="app")
    assert run.latest(rows).text() == b"[]"
    rows.set(run, [])
    assert news(run) == {}
    rows.set(run, [1])
    assert news(run) == {"rows": [1]}
    seen = run.revision
    rows.update(run, lambda known: known)
    assert news(run, seen) == {}
    rows.get(run).append(2)
    rows.set(run, rows.get(run))
    assert news(run, seen) == {"rows": [1, 2]}


def test_a_growing_list_is_written_only_when_a_whole_one_is_asked_for(run: SharedStore) -> None:
    lines: ListSignal[object] = ListSignal(name="lines", scope="app")
    line = {"text": "first"}
    lines.append(run, line)
    run.flush()
    (value,) = run.since(0)
    line["text"] = "changed"
    assert orjson.loads(value.text()) == [{"text": "changed"}]


def test_what_json_cannot_carry_any_more_raises_where_it_is_to_be_written(
    run: SharedStore,
) -> None:
    rows: Signal[list[object]] = Signal([], name="rows", scope="app")
    rows.set(run, [1])
    assert news(run) == {"rows": [1]}
    rows.get(run).append(object())
    with pytest.raises(NotSerializableError):
        rows.set(run, rows.get(run))
    rows.set(run, [1, 2])
    rows.get(run).append(object())
    seen = run.revision
    run.flush()
    (value,) = run.since(seen)
    with pytest.raises(NotSerializableError, match="'rows'"):
        value.fragment()


def test_a_client_is_greeted_with_what_holds_now(run: SharedStore) -> None:
    count = Signal(5, name="count", scope="app")
    default = run.latest(count)
    assert (default.text(), default.revision) == (b"5", 0)
    assert run.latest(count) is default
    count.set(run, 6)
    assert (run.latest(count).text(), run.latest(count).revision) == (b"6", 1)


def test_a_name_declared_anew_begins_with_its_own_default(run: SharedStore) -> None:
    old = Signal(1, name="count", scope="app")
    assert run.latest(old).text() == b"1"
    old.set(run, 2)
    run.flush()
    with Registry():
        new = Signal(10, name="count", scope="app")
    assert run.latest(new).text() == b"10"
    new.set(run, 11)
    assert news(run) == {"count": 11}


def test_what_a_client_was_greeted_with_is_not_set_back(run: SharedStore) -> None:
    greeted: list[bytes] = []
    count = Signal(0, name="count", scope="app")

    def greet_another() -> None:
        greeted.append(run.latest(count).text())

    with pytest.raises(ZeroDivisionError), batch():  # noqa: PT012 - a batch has a block
        count.set(run, 1)
        contextvars.Context().run(greet_another)
        _ = 1 / 0
    assert greeted == [run.latest(count).text()] == [b"1"]


def test_effects_of_the_run_are_no_news_by_themselves(run: SharedStore) -> None:
    seen: list[int] = []
    count = Signal(0, scope="app")
    Effect(lambda s: seen.append(count.get(s)), run)
    count.set(run, 1)
    run.flush()
    assert (seen, run.revision) == ([0, 1], 0)


# --- Telling -----------------------------------------------------------------------------------


async def test_waiting_for_news_ends_with_the_first_change_since(
    run: SharedStore, nursery: trio.Nursery
) -> None:
    heard: list[int] = []
    count = Signal(0, name="count", scope="app")

    async def listen() -> None:
        while True:
            await run.wait_for_news()
            run.flush()
            heard.append(run.revision)

    nursery.start_soon(listen)
    await wait_all_tasks_blocked()
    assert heard == []
    for number in (1, 2, 3):
        count.set(Store(run), number)
    await wait_all_tasks_blocked()
    count.set(run, 4)
    await wait_all_tasks_blocked()
    assert heard == [1, 2]


def test_a_run_that_is_closed_is_gone_at_once() -> None:
    gc.disable()
    try:
        run = SharedStore()
        count = Signal(0, name="count", scope="app")
        count.set(run, 1)
        run.close()
        gone = weakref.ref(run)
        del run
        assert gone() is None
    finally:
        gc.enable()
