"""Which worlds are open, for clients that look for theirs and for the pytest plugin.

This file imports nothing of Cacao: the plugin loads it in every project that has Cacao
installed, whether or not it uses it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cacao.testing.world import World

__all__ = ["enter_world", "find_world", "forget_world", "keep_worlds", "open_worlds"]

# A world holds its app, so an id in here is never that of another app.
_by_app: WeakValueDictionary[int, World] = WeakValueDictionary()
_keepers: list[list[World]] = []


def find_world(app: object) -> World | None:
    """Find the open world of an app."""
    return _by_app.get(id(app))


def open_worlds() -> list[World]:
    """List the open worlds of all apps, the oldest first."""
    return list(_by_app.values())


def enter_world(app: object, world: World) -> None:
    """Make a world findable, for as long as somebody holds it."""
    _by_app[id(app)] = world
    if _keepers:
        _keepers[-1].append(world)


def forget_world(app: object, world: World) -> None:
    """Make a world findable no more; another one of the same app stays findable."""
    if _by_app.get(id(app)) is world:
        del _by_app[id(app)]


@contextmanager
def keep_worlds() -> Iterator[list[World]]:
    """Hold every world that opens within the block, so that it can be closed and checked."""
    kept: list[World] = []
    _keepers.append(kept)
    try:
        yield kept
    finally:
        _keepers.pop()
