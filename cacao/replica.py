"""One app-wide value in one of several processes: what is confirmed, and what was done since.

How it works. All processes agree on a chain of *confirmed* values, each with a token that never
comes again. What this process does to its value shows here at once, and is *pending* until a value
of the chain holds it: an *attempt* is a value, made of the confirmed one and all that is pending,
that is let in if the confirmed one is still the newest. If it is not, the pending operations are
done again, on top of the newest. So nothing that `update` does is lost, and of two `set`s the later
one in the chain stands.

The answer to an attempt may be lost with a connection. The end of the chain also tells which
attempt of this process was let in last, so none counts twice.

Nothing here waits, and nothing knows of Redis: `replication.py` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from cacao.protocol import encode_value
from cacao.reactive import Becomes
from cacao.stored import read_value

if TYPE_CHECKING:
    from collections.abc import Callable

    from cacao.reactive import Signal
    from cacao.store import Store

    Operation = Callable[[Any], Any]
    Failed = Callable[[Exception, Signal[Any]], None]

__all__ = ["MAX_PENDING", "Newest", "Replica"]

MAX_PENDING: Final = 1000
"""Operations that wait at most; more become one: that the value is what it is in this process."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The end of the chain, as it was found there.

    Attributes:
        token: Of the newest value; empty if there is none.
        text: The newest value as JSON.
        applied: The number of this process's attempt that was let in last; 0 for none.
    """

    token: str
    text: bytes
    applied: int


class Replica:
    """What this process knows of one app-wide value.

    Args:
        signal: The app-wide signal; it has a name.
        run: What stands for the run. The value there is where the chain begins, if it has none.
        failed: Told of what the author's code raises: an operation that is done again, and then
            is left out, `equal`, subscribers; and of a value that JSON cannot carry.

    Attributes:
        signal: As given.
        token: Of the confirmed value; empty while there is none.
        is_stale: Whether there may be a newer one; for the owner to set and to clear.
    """

    __slots__ = (
        "_attempts",
        "_failed",
        "_is_orphaned",
        "_kind",
        "_pending",
        "_run",
        "_text",
        "is_stale",
        "signal",
        "token",
    )

    def __init__(self, signal: Signal[Any], run: Store, failed: Failed) -> None:
        self.signal = signal
        self.token = ""
        self.is_stale = True
        self._run = run
        self._failed = failed
        self._kind = type(signal.default)
        self._text = encode_value(signal.label, signal.peek(run))
        self._pending: list[Operation] = []
        self._attempts: dict[int, int] = {}  # how many of the pending each one holds
        self._is_orphaned = False

    @property
    def is_ahead(self) -> bool:
        """Whether the chain is to get a value of this process."""
        return bool(self._pending) or self._is_orphaned

    def note(self, operation: Operation) -> None:
        """Add what is being done to the value here.

        Args:
            operation: From the value before to the value after.
        """
        held = max(self._attempts.values(), default=0)
        if isinstance(operation, Becomes):
            del self._pending[held:]  # whatever they do, this comes after
        elif len(self._pending) - held >= MAX_PENDING:
            self._pending[held:] = [Becomes(self._folded())]
        self._pending.append(operation)

    def attempt(self, number: int) -> bytes | None:
        """Begin an attempt.

        Args:
            number: Above those of all earlier ones.

        Returns:
            The value that is to follow the confirmed one. None if JSON cannot carry it: what was
            done is then given up.
        """
        try:
            text = encode_value(self.signal.label, self._folded())
        except Exception as error:  # noqa: BLE001 - also what a model's serializers raise
            self._pending.clear()
            self._attempts.clear()
            self._failed(error, self.signal)
            self._show()
            return None
        self._attempts[number] = len(self._pending)
        return text

    def let_in(self, number: int, token: str, text: bytes) -> None:
        """Note that an attempt has succeeded; the value here stays as it is."""
        del self._pending[: self._attempts[number]]
        self._move_to(token, text)

    def catch_up(self, newest: Newest) -> None:
        """Go on from the end of the chain: also the answer to an attempt that was not let in."""
        if newest.token == self.token:
            return
        del self._pending[: self._attempts.get(newest.applied, 0)]
        if newest.token:
            self._move_to(newest.token, newest.text)
        else:  # the chain is lost; whoever comes first begins it anew, with the last that it knows
            self._move_to("", self._text)
            self._is_orphaned = True
        self._show()

    def _move_to(self, token: str, text: bytes) -> None:
        self.token, self._text = token, text
        self._attempts.clear()  # each would have followed a value that is not the newest any more
        self._is_orphaned = False

    def _show(self) -> None:
        try:
            self.signal.follow(self._run, self._folded())
        except Exception as error:  # noqa: BLE001 - of the signal's `equal`, or of who follows it
            self._failed(error, self.signal)

    def _folded(self) -> Any:
        """Do all that is pending again, on top of the confirmed value."""
        value = self._confirmed()
        for position, operation in enumerate(self._pending):
            try:
                value = operation(value)
            except Exception as error:  # noqa: BLE001 - the author's code, reported once
                self._pending[position] = _nothing  # in its place: attempts count them
                self._failed(error, self.signal)
        return value

    def _confirmed(self) -> Any:
        try:
            return read_value(self._kind, self._text)
        except Exception:  # noqa: BLE001 - it was set to another type than its default's
            return orjson.loads(self._text)


def _nothing(value: Any) -> Any:
    return value
