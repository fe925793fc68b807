"""Signals with `persist=`: loaded when a session or a run begins, saved when they change."""

from __future__ import annotations

import gc
import logging
import weakref
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
import trio
from storages import FlakyStorage

from cacao import Computed, ListSignal, Registry, Session, Signal, StorageError, batch
from cacao.persistence import Persistence, open_persistence
from cacao.shared import SharedStore
from cacao.storage import Entry
from cacao.storage.write_behind import WriteBehind, open_write_behind

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator


@pytest.fixture
def registry() -> Iterator[Registry]:
    with Registry() as registry:
        yield registry


@pytest.fixture
def storage() -> FlakyStorage:
    return FlakyStorage()


@asynccontextmanager
async def opened(
    registry: Registry, storage: FlakyStorage
) -> AsyncIterator[tuple[Persistence, WriteBehind]]:
    errors: list[StorageError] = []
    async with open_write_behind(storage, errors.append) as behind:
        with open_persistence(registry, behind) as persistence:
            yield persistence, behind
    assert errors == []


async def test_a_users_values_outlive_the_run(registry: Registry, storage: FlakyStorage) -> None:
    theme = Signal("light", name="theme", persist="user")
    draft = ListSignal[str](name="draft", persist="user")
    other = Signal(0, name="other")
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        await persistence.load_user(session, "ada")
        assert theme.get(session) == "light"
        theme.set(session, "dark")
        await draft.append(session, "Dear")
        other.set(session, 1)
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        await persistence.load_user(session, "ada")
        assert (theme.get(session), list(draft.get(session))) == ("dark", ["Dear"])
        assert other.get(session) == 0
        stranger = Session()
        await persistence.load_user(stranger, "bob")
        assert theme.get(stranger) == "light"


async def test_an_app_wide_value_outlives_the_run(
    registry: Registry, storage: FlakyStorage
) -> None:
    visitors = Signal(0, name="visitors", scope="app", persist="app")
    for expected in range(3):
        async with opened(registry, storage) as (persistence, _):
            run = SharedStore()
            await persistence.load_run(run)
            assert visitors.get(run) == expected
            visitors.update(run, lambda n: n + 1)
    assert storage.puts == [{"app:visitors": b"%d" % number} for number in (1, 2, 3)]


async def test_loading_is_no_change(registry: Registry, storage: FlakyStorage) -> None:
    theme = Signal("light", name="theme", persist="user")
    loud = Computed(lambda s: theme.get(s).upper(), name="loud")
    await storage.put({"user:ada:theme": Entry(b'"dark"')})
    storage.puts.clear()
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        await persistence.load_user(session, "ada")
        assert session.take_changes() == {}
        assert loud.get(session) == "DARK"
    assert storage.puts == []


async def test_a_second_session_sees_what_the_first_has_just_changed(
    registry: Registry, storage: FlakyStorage, autojump_clock: object
) -> None:
    theme = Signal("light", name="theme", persist="user")
    storage.seconds = 1  # so the second begins before that is written
    async with opened(registry, storage) as (persistence, _):
        first, second = Session(), Session()
        await persistence.load_user(first, "ada")
        theme.set(first, "dark")
        await persistence.load_user(second, "ada")
        assert theme.get(second) == "dark"


async def test_many_changes_are_one_write_and_a_batch_that_raises_is_none(
    registry: Registry, storage: FlakyStorage
) -> None:
    theme = Signal("light", name="theme", persist="user")
    async with opened(registry, storage) as (persistence, behind):
        session = Session()
        await persistence.load_user(session, "ada")
        for number in range(100):
            theme.set(session, str(number))
        await behind.flush()
        with suppress(ZeroDivisionError), batch():
            theme.set(session, "gone")
            _ = 1 / 0
    assert storage.puts == [{"user:ada:theme": b'"99"'}]


async def test_a_session_without_a_user_is_not_saved(
    registry: Registry, storage: FlakyStorage
) -> None:
    theme = Signal("light", name="theme", persist="user")
    async with opened(registry, storage):
        theme.set(Session(), "dark")
    assert storage.puts == []


@pytest.mark.parametrize("user", ["", "a:b", "ada%3A", "grüezi 🍫", "a/b\n"])
async def test_no_users_key_runs_into_a_signals_name(
    registry: Registry, storage: FlakyStorage, user: str
) -> None:
    plain = Signal(0, name="c", persist="user")
    odd = Signal(0, name="b:c", persist="user")
    async with opened(registry, storage) as (persistence, _):
        for number, key in enumerate(("a", "a:b", user)):
            session = Session()
            await persistence.load_user(session, key)
            plain.set(session, number + 1)
            odd.set(session, number + 101)
        again = Session()
        await persistence.load_user(again, user)
        assert (plain.get(again), odd.get(again)) == (3, 103)
        first = Session()
        await persistence.load_user(first, "a")
        assert (plain.get(first), odd.get(first)) == (1, 101)


async def test_a_signal_that_is_declared_later_is_saved_and_loaded(
    registry: Registry, storage: FlakyStorage
) -> None:
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        await persistence.load_user(session, "ada")
        theme = Signal("light", name="theme", persist="user")
        theme.set(session, "dark")
        again = Session()
        await persistence.load_user(again, "ada")
        assert theme.get(again) == "dark"


async def test_a_value_that_cannot_be_read_is_no_reason_to_overwrite_it(
    registry: Registry, storage: FlakyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(keys: Collection[str]) -> dict[str, bytes]:
        raise StorageError("out of order")

    theme = Signal("light", name="theme", persist="user")
    monkeypatch.setattr(storage, "get", fail)
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        with pytest.raises(StorageError):
            await persistence.load_user(session, "ada")
        theme.set(session, "dark")
    assert storage.puts == []


async def test_a_value_that_json_cannot_carry_is_logged_and_the_others_are_saved(
    registry: Registry, storage: FlakyStorage, caplog: pytest.LogCaptureFixture
) -> None:
    odd: Signal[object] = Signal(None, name="odd", client=False, persist="user")
    theme = Signal("light", name="theme", persist="user")
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        await persistence.load_user(session, "ada")
        odd.set(session, {1, 2})
        theme.set(session, "dark")
    assert storage.puts == [{"user:ada:theme": b'"dark"'}]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "signal 'odd' keeps the value that was stored before" in record.message
    assert record.message.endswith("new one, set")


async def test_a_closed_session_leaves_nothing_behind(
    registry: Registry, storage: FlakyStorage
) -> None:
    theme = Signal("light", name="theme", persist="user")
    async with opened(registry, storage) as (persistence, _):
        session = Session()
        await persistence.load_user(session, "ada")
        theme.set(session, "dark")
        session.close()
        gone = weakref.ref(session)
        del session
        gc.collect()
        await trio.lowlevel.checkpoint()
        assert gone() is None
        assert len(persistence._prefixes) == 0
    assert storage.puts == [{"user:ada:theme": b'"dark"'}]


async def test_after_the_block_nothing_is_saved_and_no_subscriber_is_left(
    registry: Registry, storage: FlakyStorage
) -> None:
    theme = Signal("light", name="theme", persist="user")
    session = Session()
    async with opened(registry, storage) as (persistence, _):
        await persistence.load_user(session, "ada")
    theme.set(session, "dark")
    assert not theme._subscribers
    later = Signal("", name="later", persist="user")
    assert not later._subscribers
    assert storage.puts == []
