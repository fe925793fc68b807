"""What is on its way to one client: not a queue of messages, but what the next ones must say.

The changed names stay in the session's store until a message is written, so the last value of
each wins and a client that reads nothing costs nothing more. Of a value that has grown out of the
one that the client has, only the new part is sent. Replies (results and errors) wait in order.
`take` turns it all into text at one moment: a reply never overtakes a change that its handler made.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, cast

from orjson import Fragment

from cacao.errors import NotSerializableError
from cacao.items import Items
from cacao.protocol import Beat, Error, Init, Result, Update, encode, encode_value
from cacao.reactive import Computed, Signal

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.protocol import Outcome, Patch, ServerMessage
    from cacao.registry import Declaration, Registry
    from cacao.shared import SharedStore
    from cacao.store import Store

    Failed = Callable[[Exception, Declaration], None]

__all__ = ["Outbox"]

# Values that the store compares exactly: they change only when they differ.
_SCALARS = frozenset({int, float, str, bool, type(None)})

# Values of which a client may be sent the new part alone.
_GROWING = frozenset({str, Items})
# Of a shorter text the patch would be as long as the value.
_SHORT = 8

_KEPT_OUTCOMES = 256


class Outbox:
    """The next messages of one session.

    Args:
        shared: Has the app-wide values; None if the session has them itself.

    Attributes:
        is_numbered: Whether the client speaks `cacao.v1` and so gets revisions and acks.
        can_patch: Whether the client takes patches in place of whole values.
        rev: Number of the last message that carried state.
        last_event: The highest number of an event accepted from this client; 0 before any.
        replies: Results and errors that wait to be sent, oldest first.
        outcomes: How the last numbered events ended, 256 at least, each with the revision that
            the client had been sent by then; sent again when a connection broke.
        is_beat_due: Whether a sign of life is owed; a client answers it with one.
    """

    __slots__ = (
        "_acked",
        "_fingerprints",
        "_heard",
        "_sent",
        "_shared",
        "can_patch",
        "is_beat_due",
        "is_numbered",
        "last_event",
        "outcomes",
        "replies",
        "rev",
    )

    def __init__(self, shared: SharedStore | None = None) -> None:
        self.is_numbered = False
        self.can_patch = False
        self.rev = 0
        self.last_event = 0
        self.replies: list[Result | Error] = []
        self.outcomes: list[tuple[int, Result | Error]] = []
        self.is_beat_due = False
        self._acked = 0
        # What was last sent of values that the store cannot compare, by name: a list mutated in
        # place and set again is a change there, but perhaps not on the wire.
        self._fingerprints: dict[str, bytes] = {}
        # The growing values that the client has, by name.
        self._sent: dict[str, object] = {}
        self._shared = shared
        self._heard = 0  # the revision of the app-wide values that the client has

    @property
    def has_news(self) -> bool:
        """Whether there are app-wide values that the client has not been sent."""
        return self._shared is not None and self._heard != self._shared.revision

    def acknowledge_again(self) -> None:
        """Send the last acknowledgement once more, as an event came that had been accepted."""
        self._acked = min(self._acked, self.last_event - 1)

    def take(
        self,
        store: Store,
        registry: Registry | None,
        failed: Failed,
        greeting: Init | None = None,
    ) -> list[str]:
        """Write all that is due, as message texts in the order to be sent.

        Args:
            store: Holds the values and what changed.
            registry: Whose declarations the client sees; None for none.
            failed: Told of each value that could not be computed or written; it may add a
                reply, which is sent at once. All other values are sent.
            greeting: Sends the whole state, in place of what changed; its `state`, `rev` and
                `last_event` are filled in.
        """
        if greeting is not None:
            messages: list[ServerMessage] = [self._init(greeting, store, registry, failed)]
        else:
            messages = self._update(store, failed)
        if self.replies:
            messages += self.replies
            self._keep_outcomes()
            self.replies = []
        if self.is_beat_due:
            messages.append(Beat())
            self.is_beat_due = False
        return [encode(message) for message in messages]

    def _keep_outcomes(self) -> None:
        if self.is_numbered:
            sent_at = self.rev
            self.outcomes += [(sent_at, reply) for reply in self.replies if reply.id is not None]
            if len(self.outcomes) > 2 * _KEPT_OUTCOMES:
                del self.outcomes[:-_KEPT_OUTCOMES]

    def reopen(self, rev: int | None) -> Outcome:
        """Prepare for a client that comes back: what it has missed is sent again, once.

        Args:
            rev: The last revision it has seen; None if it knows nothing any more.

        Returns:
            What the client is to be told.
        """
        if self.rev == 0:
            return "fresh"
        if rev is not None:
            self.replies[:0] = [reply for sent_at, reply in self.outcomes if sent_at >= rev]
        self.outcomes.clear()
        return "resumed" if rev == self.rev else "rebuilt"

    def _init(
        self, greeting: Init, store: Store, registry: Registry | None, failed: Failed
    ) -> Init:
        self._fingerprints.clear()
        self._sent.clear()
        synced = registry.synced if registry is not None else ()
        for declaration in synced:
            if isinstance(declaration, Computed):
                store.watch(declaration)
        store.take_changes()  # they are in the state; this reports each computed that fails
        state: dict[str, object] = {}
        for declaration in synced:
            self._put(state, declaration, store, failed)
        if self._shared is not None:
            self._heard = self._shared.revision
        if not self.is_numbered:
            return replace(greeting, state=state)
        self.rev += 1
        self._acked = self.last_event
        return replace(greeting, state=state, rev=self.rev, last_event=self.last_event)

    def _put(
        self, state: dict[str, object], declaration: Declaration, store: Store, failed: Failed
    ) -> None:
        name = declaration.name or ""
        try:
            state[name], value = self._write(name, declaration, store)
            self._remember(name, value)
        except NotSerializableError as error:
            failed(error, declaration)
        except Exception as error:  # noqa: BLE001 - the author's code, reported; the rest goes out
            if not isinstance(declaration, Computed):
                failed(error, declaration)

    def _write(self, name: str, declaration: Declaration, store: Store) -> tuple[Fragment, object]:
        shared = self._shared
        if shared is not None and isinstance(declaration, Signal) and declaration.scope == "app":
            latest = shared.latest(declaration)
            return latest.fragment(), latest.value
        value = cast("Signal[object] | Computed[object]", declaration).peek(store)
        return Fragment(encode_value(name, value)), value

    def _update(self, store: Store, failed: Failed) -> list[ServerMessage]:
        patches: dict[str, list[Patch]] = {}
        changes = self._encode_changes(store.take_changes(), patches, failed)
        if self._shared is not None:
            self._shared.flush()
            if self._heard != self._shared.revision:
                self._add_news(self._shared, changes, patches, failed)
        if not self.is_numbered:
            return [Update(changes)] if changes else []
        if not changes and not patches and self._acked == self.last_event:
            return []
        self.rev += 1
        self._acked = self.last_event
        return [Update(changes, self.rev, self.last_event, patches or None)]

    def _encode_changes(
        self,
        changed: dict[Declaration, object],
        patches: dict[str, list[Patch]],
        failed: Failed,
    ) -> dict[str, object]:
        changes: dict[str, object] = {}
        for declaration, value in changed.items():
            name = declaration.name or ""
            patch = self._growth(name, value) if type(value) in _GROWING else None
            try:
                text = encode_value(name, value if patch is None else patch)
            except NotSerializableError as error:
                failed(error, declaration)
                continue
            if patch is not None:
                patches[name] = [cast("Patch", Fragment(text))]
                self._fingerprints.pop(name, None)
            elif type(value) in _SCALARS or self._is_news(name, text):
                changes[name] = Fragment(text)
            self._remember(name, value)
        return changes

    def _add_news(
        self,
        shared: SharedStore,
        changes: dict[str, object],
        patches: dict[str, list[Patch]],
        failed: Failed,
    ) -> None:
        for news in shared.since(self._heard):
            name, value, signal = news.name, news.value, news.signal
            if signal is None:
                continue
            patch = self._growth(name, value) if type(value) in _GROWING else None
            try:
                if patch is None:
                    changes[name] = news.fragment()
                else:
                    patches[name] = [cast("Patch", Fragment(encode_value(name, patch)))]
            except NotSerializableError as error:
                failed(error, signal)
            self._remember(name, value)
        self._heard = shared.revision

    def _growth(self, name: str, value: object) -> Patch | None:
        """Tell how a value grew out of the one that the client has; None if it did not."""
        sent = self._sent.get(name)
        if isinstance(value, Items):
            added = value.added_to(sent)
            return ["splice", len(value) - len(added), 0, added] if added else None
        if isinstance(sent, str) and isinstance(value, str) and value.startswith(sent):
            return ["append", value[len(sent) :]]
        return None

    def _remember(self, name: str, value: object) -> None:
        """Keep what the client has now, if what follows may grow out of it."""
        is_long = isinstance(value, str) and len(value) >= _SHORT
        if self.can_patch and (is_long or isinstance(value, Items)):
            self._sent[name] = value
        elif self._sent:
            self._sent.pop(name, None)

    def _is_news(self, name: str, text: bytes) -> bool:
        fingerprint = text if len(text) <= 32 else blake2b(text, digest_size=16).digest()
        if self._fingerprints.get(name) == fingerprint:
            return False
        self._fingerprints[name] = fingerprint
        return True
