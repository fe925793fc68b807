"""The SQLite storage: killed in mid-write, damaged, locked, and shared by processes."""

# ruff: noqa: ASYNC240 - files of a few bytes, in tests that nobody waits for

from __future__ import annotations

import contextlib
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest
import torn_writer
import trio

from cacao.errors import StorageError
from cacao.storage import Entry
from cacao.storage.sqlite import SQLiteStorage, open_sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


async def put(path: Path, **values: bytes) -> None:
    async with open_sqlite(path) as storage:
        await storage.put({key: Entry(value) for key, value in values.items()})


async def got(path: Path, *keys: str) -> dict[str, bytes]:
    async with open_sqlite(path) as storage:
        return await storage.get(keys)


def files_of(path: Path) -> set[str]:
    return {file.name for file in path.parent.iterdir()} - {f"{path.name}.lock"}


# --- What was acknowledged is there ------------------------------------------------------------


async def test_what_was_put_is_there_when_the_file_is_opened_again(path: Path) -> None:
    await put(path, a=b"1")
    assert await got(path, "a") == {"a": b"1"}
    assert files_of(path) == {"app.db"}


async def test_expiry_goes_on_while_the_file_is_closed(path: Path) -> None:
    async with open_sqlite(path) as storage:
        await storage.put({"short": Entry(b"1", 0.05), "long": Entry(b"2", 60)})
    while "short" in await got(path, "short"):  # noqa: ASYNC110 - the wall clock has no event
        await trio.sleep(0.01)
    assert await got(path, "short", "long") == {"long": b"2"}


async def test_what_has_expired_is_deleted_by_the_next_put(path: Path) -> None:
    async with open_sqlite(path) as storage:
        await storage.put({"a": Entry(b"1", 0), "b": Entry(b"2", 60)})
        await storage.put({"c": Entry(b"3")})
    with contextlib.closing(sqlite3.connect(path)) as raw:
        assert raw.execute("SELECT key FROM entries ORDER BY key").fetchall() == [("b",), ("c",)]


@contextlib.contextmanager
def forking_writer(path: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    process = subprocess.Popen(
        [sys.executable, torn_writer.__file__, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process.stdin, process.stdout
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


def killed_after(acknowledged: int, stdin: IO[bytes], stdout: IO[bytes]) -> int:
    """Let a writer write, kill it, and give the last number that it had acknowledged."""
    stdin.write(b"\n")
    stdin.flush()
    pid = last = 0
    is_killed = False
    for line in stdout:
        if line.startswith(b"pid"):
            pid = int(line.split()[1])
        elif line == b"dead\n" and is_killed:
            return last
        elif line == b"dead\n":
            break
        else:
            last = int(line)
            acknowledged -= 1
        if acknowledged == 0 and not is_killed:
            os.kill(pid, signal.SIGKILL)
            is_killed = True
    pytest.fail("the writer has ended by itself")


async def test_killed_in_mid_write_a_hundred_times_it_holds_what_was_acknowledged(
    path: Path,
) -> None:
    choice = random.Random(7)  # noqa: S311 - when to kill is no secret
    with forking_writer(path) as (stdin, stdout):
        for _ in range(KILLS):
            last = killed_after(choice.randint(1, 20), stdin, stdout)
            values = await got(path, *torn_writer.KEYS)
            assert len(values) == len(torn_writer.KEYS)
            (number,) = set(values.values())  # a flush is whole
            assert int(number) >= last
    assert files_of(path) == {"app.db"}


async def test_two_processes_share_a_file(path: Path) -> None:
    with forking_writer(path) as (stdin, stdout):
        stdin.write(b"\n")
        stdin.flush()
        async with open_sqlite(path) as storage:
            for number in range(50):
                await storage.put({"ours": Entry(b"%d" % number)})
                values = await storage.get(torn_writer.KEYS)
                assert len(set(values.values())) <= 1
            assert [stdout.readline() for _ in range(50)]
            assert await storage.get(["ours"]) == {"ours": b"49"}


async def test_of_two_connections_that_take_a_key_one_gets_it(path: Path) -> None:
    got: list[str] = []

    async def take_all(storage: SQLiteStorage) -> None:
        for key in map(str, range(30)):
            got.extend([key] if await storage.take(key) is not None else [])

    async with open_sqlite(path) as first, open_sqlite(path) as second:
        await first.put({str(number): Entry(b"x") for number in range(30)})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_all, first)
            nursery.start_soon(take_all, second)
    assert sorted(got, key=int) == [str(number) for number in range(30)]


# --- A damaged file ----------------------------------------------------------------------------


async def filled(path: Path) -> None:
    await put(path, **{f"key{number}": b"x" * 5000 for number in range(40)})


def is_no_database(path: Path) -> None:
    path.write_bytes(b"This is a letter to my aunt, and no database. " * 100)


def is_truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def has_a_torn_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 8192)


def has_a_torn_head(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 64)


def has_a_torn_schema(path: Path) -> None:
    """Of which SQLite tells in a message that is not UTF-8."""
    path.write_bytes(path.read_bytes().replace(b"CREATE INDEX", b"CREATE \x91NDEX"))


@pytest.mark.parametrize(
    "damage",
    [is_no_database, is_truncated, has_a_torn_page, has_a_torn_head, has_a_torn_schema],
)
async def test_a_damaged_file_is_kept_beside_a_new_one(
    path: Path, damage: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(damage)
    await filled(path)
    damage(path)
    before = path.read_bytes()
    await put(path, a=b"1")
    assert await got(path, "a", "key1") == {"a": b"1"}
    assert path.with_name("app.db.corrupt-1").read_bytes() == before
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "app.db is damaged" in record.message
    assert "kept as app.db.corrupt-1" in record.message


@pytest.mark.parametrize("seed", range(40))
async def test_whatever_is_damaged_it_works_or_says_why_not(path: Path, seed: int) -> None:
    choice = random.Random(seed)  # noqa: S311 - where a disk fails is no secret
    await filled(path)
    data = bytearray(path.read_bytes())
    if seed % 4 == 0:
        del data[choice.randrange(len(data)) :]
    for _ in range(choice.choice([1, 1, 10, 1000])):
        if data:
            data[choice.randrange(len(data) if seed % 2 else min(200, len(data)))] ^= 1 << seed % 8
    path.write_bytes(data)
    try:
        values = await got(path, *(f"key{number}" for number in range(40)))
        await put(path, a=b"1")
        assert await got(path, "a") == {"a": b"1"}
    except StorageError:
        assert path.read_bytes() == data  # another program's, to all appearances
    else:
        assert all(type(value) is bytes for value in values.values())


async def test_a_backup_is_never_overwritten(path: Path) -> None:
    for content in (b"first " * 100, b"second " * 100):
        path.write_bytes(content)
        await put(path, a=b"1")
    path.with_name("app.db.corrupt-3-wal").touch()  # a half of one that was killed
    path.write_bytes(b"third " * 100)
    await put(path, a=b"1")
    kept = {number: path.with_name(f"app.db.corrupt-{number}") for number in (1, 2, 4)}
    assert [file.read_bytes()[:5] for file in kept.values()] == [b"first", b"secon", b"third"]


async def test_the_log_of_a_damaged_file_is_kept_with_it(path: Path) -> None:
    is_no_database(path)
    path.with_name("app.db-wal").write_bytes(b"the log")
    await put(path, a=b"1")
    assert path.with_name("app.db.corrupt-1-wal").read_bytes() == b"the log"


def is_damaged_in_use(path: Path) -> None:
    raw(path, "INSERT INTO entries VALUES ('new', x'00', NULL)")  # so that others read anew
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


async def test_a_file_that_is_damaged_in_use_is_replaced_and_the_work_is_done(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await filled(path)
    async with open_sqlite(path) as storage:
        is_damaged_in_use(path)
        await storage.put({"key1": Entry(b"1"), "a": Entry(b"2")})
        assert await storage.get(["key1", "a", "key2"]) == {"key1": b"1", "a": b"2"}
    assert path.with_name("app.db.corrupt-1").exists()
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


async def test_two_that_find_the_same_damage_set_aside_one_file(path: Path) -> None:
    await filled(path)
    async with open_sqlite(path) as first, open_sqlite(path) as second:
        is_damaged_in_use(path)
        await first.put({"key1": Entry(b"1")})
        await second.put({"key2": Entry(b"2")})
        for storage in (first, second):
            assert await storage.get(["key1", "key2"]) == {"key1": b"1", "key2": b"2"}
    assert path.with_name("app.db.corrupt-1").exists()
    assert not any("corrupt-2" in name for name in files_of(path))


async def test_damage_in_a_file_that_is_gone_already_sets_nothing_aside(path: Path) -> None:
    calls: list[sqlite3.Connection] = []

    def work(connection: sqlite3.Connection) -> None:
        calls.append(connection)
        if len(calls) == 1:
            for part in ("", "-wal", "-shm"):  # another process is faster
                path.with_name(f"app.db{part}").rename(path.with_name(f"away.db{part}"))
            error = sqlite3.DatabaseError("database disk image is malformed")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

    async with open_sqlite(path) as storage:
        await storage.put({"a": Entry(b"1")})
        await storage._use(work)
        assert len(calls) == 2
    assert not any("corrupt" in name for name in files_of(path))


async def test_many_that_open_a_damaged_file_at_once_set_aside_one_file(path: Path) -> None:
    is_no_database(path)

    async def use(number: int) -> None:
        await put(path, **{f"key{number}": b"1"})

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(use, number)
    assert len(await got(path, *(f"key{number}" for number in range(8)))) == 8
    assert files_of(path) == {"app.db", "app.db.corrupt-1"}


@pytest.mark.parametrize("is_replaced", [False, True])
async def test_a_file_that_is_taken_away_in_use_is_opened_anew(
    path: Path, *, is_replaced: bool
) -> None:
    other = path.with_name("other.db")
    await put(other, a=b"other")
    async with open_sqlite(path) as storage:
        await storage.put({"a": Entry(b"1")})
        for part in ("", "-wal", "-shm"):
            path.with_name(f"app.db{part}").rename(path.with_name(f"away.db{part}"))
        if is_replaced:
            other.rename(path)
        assert await storage.get(["a"]) == ({"a": b"other"} if is_replaced else {})
        await storage.put({"b": Entry(b"2")})
    assert await got(path, "b") == {"b": b"2"}


# --- A file that is not for us -----------------------------------------------------------------


def raw(path: Path, script: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)


async def test_a_file_of_a_newer_version_is_refused_and_untouched(path: Path) -> None:
    await put(path, a=b"1")
    raw(path, "PRAGMA user_version = 2")
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"app\.db has schema version 2.* knows version 1"):
        await put(path, a=b"2")
    assert path.read_bytes() == before
    assert files_of(path) == {"app.db"}


@pytest.mark.parametrize("script", ["CREATE TABLE t (x)", "PRAGMA user_version = 1"])
async def test_another_programs_database_is_refused_and_untouched(path: Path, script: str) -> None:
    raw(path, script)
    before = path.read_bytes()
    with pytest.raises(StorageError, match=r"app\.db is another program's database"):
        await put(path, a=b"2")
    assert path.read_bytes() == before


async def test_an_empty_file_is_taken(path: Path) -> None:
    path.touch()
    await put(path, a=b"1")
    assert await got(path, "a") == {"a": b"1"}


async def test_a_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(StorageError, match=r"folder cannot be used: .*Is a directory"):
        await put(folder, a=b"1")


async def test_the_folder_of_the_file_is_made_but_none_above_it(tmp_path: Path) -> None:
    await put(tmp_path / ".cacao" / "app.db", a=b"1")
    assert await got(tmp_path / ".cacao" / "app.db", "a") == {"a": b"1"}
    with pytest.raises(StorageError, match=r"a/b/app\.db cannot be used: .*No such file"):
        await put(tmp_path / "a" / "b" / "app.db", a=b"1")


async def test_a_new_file_is_for_its_owner_alone(path: Path) -> None:
    async with open_sqlite(path) as storage:
        await storage.put({"a": Entry(b"1")})
        modes = {path.with_name(f"app.db{part}").stat().st_mode & 0o777 for part in ("", "-wal")}
    assert modes == {0o600}
    path.chmod(0o640)
    await put(path, a=b"2")
    assert path.stat().st_mode & 0o777 == 0o640


async def test_a_file_that_is_held_for_long_is_an_error_and_then_used_again(path: Path) -> None:
    async with open_sqlite(path, patience=0.05) as storage:
        await storage.put({"a": Entry(b"1")})
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StorageError, match=r"locked; another process holds it"):
                await storage.put({"a": Entry(b"2")})
            assert await storage.get(["a"]) == {"a": b"1"}
        await storage.put({"a": Entry(b"3")})
        assert await storage.get(["a"]) == {"a": b"3"}


async def test_a_table_that_is_missing_is_an_error_of_its_own(path: Path) -> None:
    await put(path, a=b"1")
    raw(path, "ALTER TABLE entries RENAME TO elsewhere")
    with pytest.raises(StorageError, match="no such table"):
        await got(path, "a")
    raw(path, "ALTER TABLE elsewhere RENAME TO entries")
    assert await got(path, "a") == {"a": b"1"}


async def test_a_full_disk_is_an_error_and_leaves_what_was_there(path: Path) -> None:
    async with open_sqlite(path) as storage:
        await storage.put({"a": Entry(b"1")})
        assert storage._connection is not None
        storage._connection.execute("PRAGMA max_page_count = 20")
        with pytest.raises(StorageError, match="make room on the disk"):
            await storage.put({"a": Entry(b"2"), "large": Entry(b"x" * 500_000)})
        assert await storage.get(["a", "large"]) == {"a": b"1"}


async def test_a_file_that_is_held_when_it_is_opened_is_an_error(path: Path) -> None:
    raw(path, "CREATE TABLE t (x)")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="another process holds it"):
            async with open_sqlite(path, patience=0.05):
                pass


async def test_a_lock_that_another_process_holds_for_long_is_an_error(path: Path) -> None:
    lock = path.with_name("app.db.lock")
    with contextlib.closing(sqlite3.connect(lock, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StorageError, match="another process holds it"):
            async with open_sqlite(path, patience=0.05):
                pass


async def test_a_cancelled_put_that_has_begun_is_done(path: Path) -> None:
    async with open_sqlite(path) as storage:
        with trio.CancelScope() as scope:
            scope.cancel()
            await storage.put({"a": Entry(b"1")})
        assert scope.cancelled_caught
        assert await storage.get(["a"]) == {}
