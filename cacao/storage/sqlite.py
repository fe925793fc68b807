"""A storage in one SQLite file: what was put is on the disk, also after `kill -9`.

How it works. One connection, in a thread; one task at a time is in it, and is not cancelled there,
so no statement is left half done. Several processes may share the file (write-ahead log).

- *Checked when opened.* The whole file is read through once. One that is damaged is set aside,
  with its log, as `<name>.corrupt-1` (or the next free number), and a new one is begun. So it is
  when the damage shows later.
- *One process at a time opens*, under a lock on `<name>.lock`: two that find the same damage must
  not set aside each other's new file. The lock is SQLite's own, so a killed process lets it go.
- *The file may be set aside under us*, by another process or a person. Each use looks whether the
  path still means the file that is open, and else opens it anew.
- *Expiry is by the wall clock*, for it outlives the process. What has expired is not seen, and is
  deleted by the next `put`.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import trio

from cacao.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from cacao.storage.seam import Entry

__all__ = ["SQLiteStorage", "open_sqlite"]

T = TypeVar("T")

_log = logging.getLogger("cacao")

# Written into the head of the file: that it is ours ("caca" in ASCII), and in which shape.
_APPLICATION_ID = 0x63616361
_SCHEMA_VERSION = 1

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE entries (
  key TEXT PRIMARY KEY, value BLOB NOT NULL CHECK (typeof(value) = 'blob'), expires REAL
);
CREATE INDEX entries_that_expire ON entries (expires) WHERE expires IS NOT NULL;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""

_HEAD = b"SQLite format 3\0"

# What ends the names of the files that are one database.
_PARTS = ("-wal", "-shm", "")

# Its messages may quote what is damaged, and so not be UTF-8.
_FROM_SQLITE = (sqlite3.Error, UnicodeDecodeError)

# SQLite's result codes, in their lowest byte.
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds it; see which one does, and let it end",
    sqlite3.SQLITE_CANTOPEN: "give a file that can be written, in a folder that exists",
    sqlite3.SQLITE_FULL: "make room on the disk",
    sqlite3.SQLITE_READONLY: "let the server's user write the file and its folder",
}


class SQLiteStorage:
    """Values in a file; see `Storage`, and this file's head for how it works.

    A method that is cancelled while its thread works ends when that has ended, and well.

    Args:
        path: The file. It is made if it does not exist, for its owner alone to read, and so is
            the folder that it stands in.
        patience: Seconds to wait for another process that holds the file.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path.absolute()
        self._patience = patience
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    async def get(self, keys: Collection[str]) -> dict[str, bytes]:
        """Read several keys at one moment."""
        return await self._use(lambda connection: _get(connection, keys))

    async def put(self, entries: Mapping[str, Entry]) -> None:
        """Write several keys, all of them or none; they are on the disk when this returns."""
        await self._use(lambda connection: _put(connection, entries))

    async def take(self, key: str) -> bytes | None:
        """Read a key and delete it at once."""
        return await self._use(lambda connection: _take(connection, key))

    async def open(self) -> None:
        """Open the file now, and not at the first use: what is wrong with it shows at the start."""
        await self._use(lambda _: None)

    async def aclose(self) -> None:
        """Close the file, when nobody uses it any more; cancelling does not keep it open."""
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(self._close, limiter=self._one_at_a_time)

    async def _use(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await trio.to_thread.run_sync(self._work, work, limiter=self._one_at_a_time)

    # --- In the thread -------------------------------------------------------------------------

    def _work(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            try:
                return work(self._connected())
            except _FROM_SQLITE as error:
                if not _tells_damage(error):
                    raise
                self._give_up(str(error))
                return work(self._connected())
        except (*_FROM_SQLITE, OSError) as error:
            advice = _ADVICE.get(_code(error), "see that the file and its folder can be written")
            raise StorageError(
                f"storage file {self._path} cannot be used: {error}; {advice}"
            ) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._inode != _inode(self._path):
            self._close()
        if self._connection is None:
            self._path.parent.mkdir(exist_ok=True)
            with self._alone():
                self._connection = self._open()
                self._inode = _inode(self._path)
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from opening the file."""
        with closing(self._connect(self._beside(".lock"))) as lock:
            lock.execute("BEGIN EXCLUSIVE")
            yield

    def _connect(self, path: Path) -> sqlite3.Connection:
        # `to_thread` has many threads, of which one at a time is in here.
        return sqlite3.connect(
            path, timeout=self._patience, isolation_level=None, check_same_thread=False
        )

    def _open(self) -> sqlite3.Connection:
        """Open the file and look at all of it; a damaged one makes room for a new one."""
        if not _may_be_database(self._path):  # SQLite would drop its log
            self._set_aside("it is no database")
        self._path.touch(mode=0o600)
        connection = self._connect(self._path)
        try:
            damage = _damage(connection)
            if damage is None:
                self._prepare(connection)
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        self._set_aside(damage)
        return self._open()

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """See that the file is ours and of our version; an empty one becomes so."""
        application = _number(connection, "PRAGMA application_id")
        version = _number(connection, "PRAGMA user_version")
        is_empty = _number(connection, "SELECT count(*) FROM sqlite_master") == 0
        is_ours = (application, version) == (_APPLICATION_ID, _SCHEMA_VERSION)
        if not is_ours and not (is_empty and application == version == 0):
            raise StorageError(self._refusal(application, version))
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # acknowledged means on the disk
        if is_empty:
            connection.executescript(_SCHEMA)

    def _refusal(self, application: int, version: int) -> str:
        if application == _APPLICATION_ID:
            return (
                f"storage file {self._path} has schema version {version}, "
                f"and this Cacao knows version {_SCHEMA_VERSION}; "
                "run the newer Cacao that wrote it, or name another file"
            )
        return f"storage file {self._path} is another program's database; name another file"

    def _give_up(self, damage: str) -> None:
        """Set the open file aside, unless another process has done that."""
        with self._alone():
            is_still_there = self._inode == _inode(self._path)
            self._close()
            if is_still_there:
                self._set_aside(damage)

    def _set_aside(self, damage: str) -> None:
        """Keep the file and its log under another name; the file last, to be found if killed."""
        backup = next(name for name in map(".corrupt-{}".format, count(1)) if self._is_free(name))
        for part in _PARTS:
            with suppress(FileNotFoundError):
                self._beside(part).rename(self._beside(backup + part))
        _log.error(
            "storage file %s is damaged (%s): it is kept as %s, and an empty one takes its place; "
            "what it held is not there until somebody recovers it (sqlite3 has `.recover`)",
            self._path,
            damage,
            self._path.name + backup,
        )

    def _is_free(self, name: str) -> bool:
        return not any(self._beside(name + part).exists() for part in _PARTS)

    def _beside(self, ending: str) -> Path:
        return self._path.with_name(self._path.name + ending)


@asynccontextmanager
async def open_sqlite(path: Path, patience: float = 5.0) -> AsyncIterator[SQLiteStorage]:
    """Keep a file open for as long as the block lasts.

    Args:
        path: See `SQLiteStorage`.
        patience: See `SQLiteStorage`.

    Raises:
        StorageError: The file cannot be used, is another program's or a newer Cacao's.
    """
    storage = SQLiteStorage(path, patience)
    try:
        await storage.open()
        yield storage
    finally:
        await storage.aclose()


@contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    """Do all of the block or nothing, at one moment.

    IMMEDIATE, for what writes, waits for the other writers at its beginning, when that can wait.
    """
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # some errors have rolled back already
            connection.execute("ROLLBACK")
        raise


def _get(connection: sqlite3.Connection, keys: Collection[str]) -> dict[str, bytes]:
    with _transaction(connection, "DEFERRED"):
        found = {key: _read(connection, key) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def _put(connection: sqlite3.Connection, entries: Mapping[str, Entry]) -> None:
    now = time.time()
    with _transaction(connection, "IMMEDIATE"):
        connection.execute("DELETE FROM entries WHERE expires <= ?", (now,))
        for key, entry in entries.items():
            if entry.value is None:
                _delete(connection, key)
            else:
                expires = None if entry.lasts is None else now + entry.lasts
                connection.execute(
                    "INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, entry.value, expires)
                )


def _take(connection: sqlite3.Connection, key: str) -> bytes | None:
    with _transaction(connection, "IMMEDIATE"):
        value = _read(connection, key)
        _delete(connection, key)
    return value


def _read(connection: sqlite3.Connection, key: str) -> bytes | None:
    row = connection.execute(
        "SELECT value FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)",
        (key, time.time()),
    ).fetchone()
    return None if row is None else row[0]


def _delete(connection: sqlite3.Connection, key: str) -> None:
    connection.execute("DELETE FROM entries WHERE key = ?", (key,))


def _may_be_database(path: Path) -> bool:
    """Tell whether a file begins as SQLite's do; one that is empty, or not there, will."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_HEAD))
    except FileNotFoundError:
        return True
    return head in {b"", _HEAD}


def _damage(connection: sqlite3.Connection) -> str | None:
    """Read the whole file; tell what is wrong with it, None for nothing."""
    try:
        verdict: str = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except _FROM_SQLITE as error:
        if not _tells_damage(error):
            raise
        return str(error)
    return None if verdict == "ok" else verdict


def _number(connection: sqlite3.Connection, query: str) -> int:
    number: int = connection.execute(query).fetchone()[0]
    return number


def _tells_damage(error: Exception) -> bool:
    return isinstance(error, UnicodeDecodeError) or _code(error) in _DAMAGED


def _code(error: Exception) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _inode(path: Path) -> int:
    """Tell which file a path means now; 0 for none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return 0
