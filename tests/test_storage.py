"""The laws of a storage, which all three keep."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_server import running_redis

from cacao.errors import DeclarationError
from cacao.storage import Entry, Storage, open_storage, opening
from cacao.storage.memory import MemoryStorage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator
    from pathlib import Path

ENGINES = ["memory", "sqlite", "redis"]


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "redis":
            return str(request.getfixturevalue("redis_server").url)
        case "sqlite":
            return f"sqlite:{tmp_path / 'app.db'}"
        case _:
            return "memory:"


@pytest.fixture
async def storage(url: str) -> AsyncIterator[Storage]:
    async with open_storage(url) as storage:
        yield storage


async def until_gone(storage: Storage, *keys: str) -> None:
    deadline = time.monotonic() + 10
    while await storage.get(keys):
        assert time.monotonic() < deadline, "it does not expire"
        await trio.sleep(0.01)


async def test_what_was_put_is_got(storage: Storage) -> None:
    await storage.put({"a": Entry(b"1"), "b": Entry(b"")})
    assert await storage.get(["a", "b", "c"]) == {"a": b"1", "b": b""}
    assert await storage.get([]) == {}


async def test_the_last_put_wins(storage: Storage) -> None:
    await storage.put({"a": Entry(b"1")})
    await storage.put({"a": Entry(b"2")})
    assert await storage.get(["a"]) == {"a": b"2"}


async def test_a_value_of_none_deletes(storage: Storage) -> None:
    await storage.put({"a": Entry(b"1"), "b": Entry(b"2")})
    await storage.put({"a": Entry(None), "never": Entry(None)})
    assert await storage.get(["a", "b", "never"]) == {"b": b"2"}


async def test_nothing_can_be_put(storage: Storage) -> None:
    await storage.put({})


async def test_take_gives_a_value_once(storage: Storage) -> None:
    await storage.put({"a": Entry(b"1")})
    assert await storage.take("a") == b"1"
    assert await storage.take("a") is None
    assert await storage.get(["a"]) == {}
    assert await storage.take("never") is None


async def test_of_many_tasks_that_take_one_gets_it(storage: Storage) -> None:
    got: list[bytes] = []

    async def take() -> None:
        value = await storage.take("a")
        if value is not None:
            got.append(value)

    await storage.put({"a": Entry(b"1")})
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(take)
    assert got == [b"1"]


async def test_an_entry_expires(storage: Storage) -> None:
    await storage.put({"short": Entry(b"1", 0.05), "long": Entry(b"2", 60), "ever": Entry(b"3")})
    await until_gone(storage, "short")
    assert await storage.take("short") is None
    assert await storage.get(["long", "ever"]) == {"long": b"2", "ever": b"3"}


async def test_what_expires_at_once_is_gone(storage: Storage) -> None:
    await storage.put({"a": Entry(b"1")})
    await storage.put({"a": Entry(b"2", 0)})
    assert await storage.get(["a"]) == {}


async def test_a_later_put_decides_when_it_expires(storage: Storage) -> None:
    await storage.put({"a": Entry(b"1", 0.05), "b": Entry(b"1", 0.05)})
    await storage.put({"a": Entry(b"2")})
    await until_gone(storage, "b")
    assert await storage.get(["a"]) == {"a": b"2"}


async def test_a_reader_sees_all_of_a_put_or_nothing(storage: Storage) -> None:
    keys = [f"key {number}" for number in range(20)]

    async def write(nursery: trio.Nursery) -> None:
        for version in range(20):
            await storage.put(dict.fromkeys(keys, Entry(b"%d" % version)))
        nursery.cancel_scope.cancel()

    async def read() -> None:
        while True:
            found = await storage.get(keys)
            assert len(found) in {0, len(keys)}
            assert len(set(found.values())) <= 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(write, nursery)


@pytest.mark.parametrize(
    "key", ["", "a:b:c", "ключ 鍵 🍫", "nul\0inside", "%_'\"\\\n", "k" * 5000], ids=repr
)
async def test_any_text_is_a_key(storage: Storage, key: str) -> None:
    await storage.put({key: Entry(b"1"), f"{key}x": Entry(b"2")})
    assert await storage.get([key]) == {key: b"1"}
    assert await storage.take(key) == b"1"


async def test_a_value_may_be_large_and_any_bytes(storage: Storage) -> None:
    value = bytes(range(256)) * 4096 * 4  # 4 MiB
    await storage.put({"large": Entry(value)})
    assert await storage.take("large") == value


async def test_a_cancelled_task_harms_no_other(storage: Storage) -> None:
    async def use(number: int) -> None:
        with trio.move_on_after(0.001 * number):
            while True:
                await storage.put({"a": Entry(b"1")})
                await storage.get(["a"])
                await storage.take("a")

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(use, number)
    await storage.put({"a": Entry(b"2")})
    assert await storage.get(["a"]) == {"a": b"2"}


async def test_what_the_block_raises_comes_out_as_it_is(url: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_storage(url):
            _ = 1 / 0


async def test_the_block_can_be_cancelled(url: str) -> None:
    with trio.move_on_after(5) as scope:
        async with open_storage(url) as storage:
            await storage.put({"a": Entry(b"1")})
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_memory_lets_go_of_what_has_expired(autojump_clock: object) -> None:
    storage = MemoryStorage()
    await storage.put({"ever": Entry(b"1")})
    for number in range(1000):
        await storage.put({str(number): Entry(b"x", 10)})
        await trio.sleep(1)
    assert len(storage._kept) < 200
    assert await storage.get(["ever"]) == {"ever": b"1"}


# --- Against a dict ----------------------------------------------------------------------------

KEYS = st.sampled_from(["", "a", "b", "c:d", "é"])
ENTRIES = st.builds(Entry, st.none() | st.binary(max_size=8), st.sampled_from([None, 0, 1000]))


@dataclass
class Get:
    keys: list[str]

    async def check(self, storage: Storage, model: dict[str, bytes]) -> None:
        expected = {key: model[key] for key in self.keys if key in model}
        assert await storage.get(self.keys) == expected


@dataclass
class Put:
    entries: dict[str, Entry]

    async def check(self, storage: Storage, model: dict[str, bytes]) -> None:
        await storage.put(self.entries)
        for key, entry in self.entries.items():
            model.pop(key, None)
            if entry.value is not None and entry.lasts != 0:
                model[key] = entry.value


@dataclass
class Take:
    key: str

    async def check(self, storage: Storage, model: dict[str, bytes]) -> None:
        assert await storage.take(self.key) == model.pop(self.key, None)


STEPS = st.lists(
    st.builds(Get, st.lists(KEYS))
    | st.builds(Put, st.dictionaries(KEYS, ENTRIES))
    | st.builds(Take, KEYS),
    max_size=20,
)
SERIAL = count()


@pytest.fixture(scope="module", params=ENGINES)
def fresh_urls(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Iterator[tuple[str, str]]]:
    """Give URL and prefix of ever new empty storages."""
    folder = tmp_path_factory.mktemp("storages")
    if request.param == "redis":
        with running_redis() as server:
            yield ((server.url, f"{number}:") for number in count())
    elif request.param == "sqlite":
        yield ((f"sqlite:{folder / str(number)}", "") for number in count())
    else:
        yield (("memory:", "") for _ in count())


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_a_storage_is_a_dict_that_lasts(
    fresh_urls: Iterator[tuple[str, str]], steps: list[Get | Put | Take]
) -> None:
    url, prefix = next(fresh_urls)

    async def run(steps: Collection[Get | Put | Take], model: dict[str, bytes]) -> None:
        async with open_storage(url, prefix=prefix) as storage:
            for step in steps:
                await step.check(storage, model)

    model: dict[str, bytes] = {}
    trio.run(run, steps, model)
    if url != "memory:":
        trio.run(run, [Get(list(model))], model)


# --- URLs --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "postgres://db",
        "app.db",
        "sqlite:",
        "sqlite:///app.db",
        "memory:x",
        "redis:",
        "SQLITE:x",
    ],
)
def test_a_url_that_is_none_of_the_three_is_refused(url: str) -> None:
    with pytest.raises(
        DeclarationError, match=r"'memory:', 'sqlite:path/to/file' or 'redis://host:6379/0'"
    ):
        open_storage(url)


def test_a_refused_url_does_not_show_its_password() -> None:
    with pytest.raises(DeclarationError) as caught:
        open_storage("postgres://user:secret@db/0")
    assert "postgres" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_without_its_client_redis_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(_: str) -> Any:
        raise ModuleNotFoundError("No module named 'coredis'", name="coredis")

    monkeypatch.setattr(opening, "import_module", fail)
    with pytest.raises(DeclarationError, match=r"needs coredis.*pip install 'cacao\[redis\]'"):
        open_storage("redis://127.0.0.1")


def test_a_path_is_meant_from_where_the_process_stood_when_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with open_storage("sqlite:app.db") as storage:
            monkeypatch.chdir("/")
            await storage.put({"a": Entry(b"1")})

    monkeypatch.chdir(tmp_path)
    trio.run(main)
    assert (tmp_path / "app.db").exists()
