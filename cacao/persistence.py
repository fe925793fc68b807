"""Signals with `persist=`: their values are loaded when a session or a run begins, then saved.

Under `app:<signal>` is the one value of an app-wide signal, under `user:<user>:<signal>` one for
each user; the user's key is quoted, so that no user's key runs into a signal's name.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from cacao.protocol import encode_value
from cacao.reactive import Signal
from cacao.storage import Entry
from cacao.stored import load_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cacao.reactive import Persist
    from cacao.registry import Declaration, Registry
    from cacao.storage.write_behind import WriteBehind
    from cacao.store import Store

__all__ = ["Persistence", "open_persistence", "stored_signals"]

_log = logging.getLogger("cacao")


def stored_signals(registry: Registry) -> list[Signal[Any]]:
    """List the signals of a registry that have `persist=`."""
    return [
        declaration
        for declaration in registry.declarations
        if isinstance(declaration, Signal) and declaration.persist is not None
    ]


class Persistence:
    """The persistent signals of one run; made by `open_persistence`.

    It knows the stores weakly: of a session that has ended nothing is left here.
    """

    def __init__(self, registry: Registry, behind: WriteBehind) -> None:
        self._registry = registry
        self._behind = behind
        self._prefixes: WeakKeyDictionary[Store, str] = WeakKeyDictionary()
        self._unsubscribe: list[Callable[[], None]] = []

    async def load_run(self, run: Store) -> None:
        """Load the app-wide values, and save each change of them from then on.

        Args:
            run: What stands for the run; nothing has used it yet.

        Raises:
            StorageError: They cannot be read. All have their defaults, and no change is saved.
        """
        await self._load(run, "app", "app:")

    async def load_user(self, session: Store, user: str) -> None:
        """Load a user's values into a session of theirs, and save each change from then on.

        Args:
            session: Nothing has run in it yet.
            user: The key by which the app knows the user.

        Raises:
            StorageError: As `load_run`.
        """
        await self._load(session, "user", f"user:{quote(user, safe='')}:")

    async def _load(self, store: Store, persist: Persist, prefix: str) -> None:
        signals = {
            f"{prefix}{signal.name}": signal
            for signal in stored_signals(self._registry)
            if signal.persist == persist
        }
        found = await self._behind.get(signals)
        for key, text in found.items():
            load_value(signals[key], store, text)
        self._prefixes[store] = prefix

    def watch(self, declaration: Declaration) -> None:
        """Save the changes of a signal, if it is a persistent one."""
        if isinstance(declaration, Signal) and declaration.persist is not None:
            # By its name: it must not hold itself, as one of its own subscribers.
            save = partial(self._save, declaration.name or "")
            self._unsubscribe.append(declaration.subscribe(save))

    def unwatch(self) -> None:
        """Save no more changes."""
        while self._unsubscribe:
            self._unsubscribe.pop()()

    def _save(self, name: str, store: Store, value: Any) -> None:
        prefix = self._prefixes.get(store)
        if prefix is not None:
            self._behind.later(f"{prefix}{name}", partial(_entry, name, value))


@contextmanager
def open_persistence(registry: Registry, behind: WriteBehind) -> Iterator[Persistence]:
    """Save what changes of a registry's persistent signals, for as long as the block lasts.

    Args:
        registry: Signals that are declared later count as well.
        behind: Where values are read and written; open for longer than the block.
    """
    persistence = Persistence(registry, behind)
    for declaration in registry.declarations:
        persistence.watch(declaration)
    stop = registry.subscribe(persistence.watch)
    try:
        yield persistence
    finally:
        stop()
        persistence.unwatch()


def _entry(name: str, value: object) -> Entry | None:
    """Write a value when its turn has come; a stream has changed many times by then."""
    try:
        return Entry(encode_value(name, value))
    except Exception:  # noqa: BLE001 - a model's serializers are the author's code
        _log.exception(
            "signal %r keeps the value that was stored before: JSON cannot carry its new one, %s",
            name,
            type(value).__name__,
        )
        return None
