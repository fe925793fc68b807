"""A process to be killed while it writes: for each line on stdin it forks one writer.

Each writer puts numbered flushes into the storage, as fast as it can, and writes the number of each
one to stdout when the storage has acknowledged it. Forked, it starts in a hundredth of the time.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import trio

from cacao.storage import Entry
from cacao.storage.sqlite import open_sqlite

KEYS = [f"key {number}" for number in range(8)]


async def write(path: Path) -> None:
    async with open_sqlite(path) as storage:
        found = await storage.get(KEYS[:1])
        number = int(found.get(KEYS[0], b"0"))
        while True:
            number += 1
            await storage.put(dict.fromkeys(KEYS, Entry(b"%d" % number)))
            os.write(1, b"%d\n" % number)


def main(path: Path) -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if pid == 0:
            trio.run(write, path)
        os.write(1, b"pid %d\n" % pid)
        os.waitpid(pid, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
