"""A slow database: some thousand made-up bars of chocolate in SQLite, with a pause for each row.

It knows nothing of trio or Cacao. What it asks of its caller is a `checkpoint`: a function that is
called every few milliseconds, and ends the query by raising.
"""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import product
from typing import TypedDict

KINDS = ["Dark", "Milk", "White", "Ruby", "Raw", "Smoked", "Aged", "Roasted"]
ORIGINS = ["Belize", "Bolivia", "Brazil", "Ecuador", "Ghana", "Grenada", "Java", "Peru", "Uganda"]
FLAVOURS = ["Almond", "Chilli", "Coffee", "Fig", "Honey", "Lime", "Mint", "Rum", "Sea Salt", "Tea"]
TOPPINGS = ["Nibs", "Oats", "Petals", "Sesame", "Walnut"]

SECONDS_PER_ROW = 0.0005  # 3,600 rows: two seconds a query

# In memory, but one database for all connections of this process, which read it side by side.
_URI = "file:/bars?vfs=memdb"
_INSTRUCTIONS_BETWEEN_CHECKPOINTS = 100  # about ten rows, five milliseconds

_log = logging.getLogger("database")

running: list[str] = []
"""What is searched for now, by whomever."""


class Bar(TypedDict):
    """One row."""

    name: str
    cocoa: int
    rating: float


def search(text: str, checkpoint: Callable[[], None] = lambda: None) -> list[Bar]:
    """Find the best twelve bars whose name contains a text; takes two seconds.

    Args:
        text: Any letters, upper or lower case.
        checkpoint: Called in this thread; what it raises ends the query and comes out of here.
    """
    running.append(text)
    _log.info("started %s", text)
    try:
        bars = _query(text, checkpoint)
    except BaseException:
        _log.info("stopped %s", text)
        raise
    else:
        _log.info("finished %s", text)
        return bars
    finally:
        running.remove(text)


def _query(text: str, checkpoint: Callable[[], None]) -> list[Bar]:
    with closing(sqlite3.connect(_URI, uri=True)) as connection:
        connection.create_function("read_slowly", 1, _read_slowly)
        # What a progress handler raises interrupts the query, and is lost: hence the second call.
        connection.set_progress_handler(checkpoint, _INSTRUCTIONS_BETWEEN_CHECKPOINTS)
        try:
            rows = connection.execute(
                "SELECT name, cocoa, rating FROM bars WHERE instr(read_slowly(lower(name)), ?) "
                "ORDER BY rating DESC, name LIMIT 12",
                [text.lower()],
            ).fetchall()
        except sqlite3.OperationalError:
            checkpoint()
            raise
    return [Bar(name=name, cocoa=cocoa, rating=rating) for name, cocoa, rating in rows]


def _read_slowly(value: str) -> str:
    time.sleep(SECONDS_PER_ROW)
    return value


def _fill() -> sqlite3.Connection:
    connection = sqlite3.connect(_URI, uri=True)
    connection.execute("CREATE TABLE bars (name TEXT, cocoa INTEGER, rating REAL)")
    connection.executemany("INSERT INTO bars VALUES (?, ?, ?)", _made_up())
    connection.commit()
    return connection


def _made_up() -> Iterator[tuple[str, int, float]]:
    parts = product(KINDS, ORIGINS, FLAVOURS, TOPPINGS)
    for number, (kind, origin, flavour, topping) in enumerate(parts):
        name = f"{kind} {origin} with {flavour} and {topping}"
        yield name, 30 + number * 7 % 66, (20 + number * 37 % 31) / 10


_keeper = _fill()  # the database lasts as long as one connection to it is open
