"""The values that all sessions of a run have together, written as JSON once for all of them.

How it works. Every change of app-wide values that clients see gets a *revision* here. A session
remembers one number, the revision that its client has been sent, and asks for what is newer when
it writes; so a client that takes nothing costs nothing, and gets the last value of each. One task
tells the sessions that there is news, of the first change at once. A session that writes for
another reason, for an event of its own has ended, asks as well: an answer never overtakes a change.
"""

# ruff: noqa: SLF001 - stores, declarations and nodes are one graph

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import trio
from orjson import Fragment

from cacao.errors import NotSerializableError
from cacao.items import Items
from cacao.protocol import encode_value
from cacao.store import Store, publish_of_others

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.graph import Valued
    from cacao.reactive import Signal
    from cacao.registry import Declaration

    Failed = Callable[[Exception, Declaration], None]

__all__ = ["SharedStore", "SharedValue"]

# Values that the store compares exactly; and lists of which mostly the new part alone is written.
_SURELY_NEWS: Final = frozenset({int, float, str, bool, type(None), Items})


class SharedValue:
    """An app-wide value as it was at one moment, and what is sent of it.

    Args:
        signal: Whose value it is.
        value: As the author has set it.
        revision: The change that made it; 0 for a default.

    Attributes:
        name: The signal's.
        value: As given.
        revision: As given.
    """

    __slots__ = ("_fragment", "_key", "_text", "name", "revision", "value")

    def __init__(self, signal: Valued, value: object, revision: int) -> None:
        self.name = signal.name or ""
        self.value = value
        self.revision = revision
        self._key = signal._key
        self._text: bytes | None = None
        self._fragment: Fragment | None = None

    @property
    def signal(self) -> Declaration | None:
        """Whose value it is; None if that is gone."""
        signal: Declaration | None = self._key()
        return signal

    def is_of(self, signal: Valued) -> bool:
        """Tell whether this is a value of `signal`, and not of an older one of its name."""
        return self._key is signal._key

    def text(self) -> bytes:
        """Return the value as JSON, which is written when it is first asked for.

        Raises:
            NotSerializableError: JSON cannot carry it, as it was mutated after it was set.
        """
        if self._text is None:
            self._text = encode_value(self.name, self.value)
        return self._text

    def fragment(self) -> Fragment:
        """Return the same as a part of a message, one object for all of them.

        Raises:
            NotSerializableError: As `text`.
        """
        if self._fragment is None:
            self._fragment = Fragment(self.text())
        return self._fragment


class SharedStore(Store):
    """The app-wide values of one run; what its sessions have as `shared`.

    Args:
        failed: Told of what effects and subscribers raise here, with the declaration; None lets
            it reach the caller.

    Attributes:
        revision: The number of the last change; 0 before any.
    """

    is_run = True

    __slots__ = ("_defaults", "_has_news", "_latest", "revision")

    def __init__(self, failed: Failed | None = None) -> None:
        super().__init__()
        self.on_error = failed
        self.guard = _size_on_the_wire
        self.wake = self._note_news
        self.revision = 0
        self._latest: dict[str, SharedValue] = {}  # in order of revision
        self._defaults: dict[str, SharedValue] = {}
        self._has_news = trio.Event()

    def _note_news(self) -> None:
        self._has_news.set()

    async def wait_for_news(self) -> None:
        """Wait until something has changed since this was last called; for one task alone."""
        await self._has_news.wait()
        self._has_news = trio.Event()

    def flush(self) -> None:
        """Give what has changed a revision of its own."""
        if not self._is_pending:
            return
        changes = self.take_changes()
        if changes:
            self.revision += 1
        for signal, value in changes.items():
            self._keep(cast("Valued", signal), value)

    def since(self, revision: int) -> list[SharedValue]:
        """Return the values newer than a revision: the last one of each name, oldest first."""
        found: list[SharedValue] = []
        for value in reversed(self._latest.values()):
            if value.revision <= revision:
                break
            found.append(value)
        return found[::-1]

    def latest(self, signal: Signal[Any]) -> SharedValue:
        """Return the value that a client is greeted with; what is pending counts."""
        publish_of_others()  # a batch that was undone later would leave this client with its value
        self.flush()
        found = self._known(signal)
        if found is None:
            found = SharedValue(signal, signal.peek(self), 0)
            self._defaults[found.name] = found
        return found

    def _known(self, signal: Valued) -> SharedValue | None:
        name = signal.name or ""
        found = self._latest.get(name) or self._defaults.get(name)
        return found if found is not None and found.is_of(signal) else None

    def _keep(self, signal: Valued, value: object) -> None:
        """Make a value the latest of its signal, unless a client could not tell it from that."""
        latest = SharedValue(signal, value, self.revision)
        if type(value) in _SURELY_NEWS or not self._looks_known(signal, latest):
            self._defaults.pop(latest.name, None)
            self._latest.pop(latest.name, None)
            self._latest[latest.name] = latest

    def _looks_known(self, signal: Valued, value: SharedValue) -> bool:
        known = self._known(signal)
        try:
            return known is not None and known.text() == value.text()
        except NotSerializableError:
            return False  # each session reports it, when it is to send it


def _size_on_the_wire(declaration: Declaration, value: object) -> int:
    return len(encode_value(declaration.name or "", value))
