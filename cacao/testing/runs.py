"""What became of every event that reached the app, as the server saw it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from cacao.errors import MessageError, NotSerializableError
from cacao.protocol import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from cacao.protocol import Event
    from cacao.store import Store
    from cacao.testing.client_half import Sent

__all__ = ["Delivery", "Runs", "shown"]


class _Run:
    """One event that was accepted."""

    __slots__ = ("event", "outcome", "session_id")

    def __init__(self, session_id: str, event: Event) -> None:
        self.session_id = session_id
        self.event = event
        self.outcome = "running"


class Delivery(NamedTuple):
    """How often events of one name were sent, and how often they were accepted; true if once each.

    Attributes:
        name: Of the events.
        sent: How many the clients have sent.
        accepted: How many the server has let start, or wait for their turn.
        missing: How many of those sent were never accepted.
        extra: How many were accepted that were not sent, or not sent again.
    """

    name: str
    sent: int
    accepted: int
    missing: int
    extra: int

    def __bool__(self) -> bool:
        """Tell whether something was sent, and each of it accepted once."""
        return self.sent > 0 and not self.missing and not self.extra


class Runs:
    """The events of one run of an app. Implements `cacao.dispatch.Witness`."""

    def __init__(self) -> None:
        self._all: list[_Run] = []
        self._open: dict[int, _Run] = {}

    def accepted(self, session: Store, event: Event) -> None:
        """Note that an event starts, or waits."""
        run = _Run(session.id, event)  # type: ignore[attr-defined] # it is a Session
        self._all.append(run)
        self._open[id(event)] = run

    def settled(self, _session: Store, event: Event, error: Exception | None) -> None:
        """Note how it has ended."""
        self._open.pop(id(event)).outcome = _outcome(error)

    def of(
        self, name: str, session_ids: Collection[str], live: Collection[str]
    ) -> list[tuple[Any, str]]:
        """List what became of the events of one name, in the order in which they were accepted.

        Args:
            name: Of the events.
            session_ids: Whose events.
            live: The sessions that live now.
        """
        return [
            (shown(run.event.data), _outcome_now(run, live))
            for run in self._all
            if run.event.name == name and run.session_id in session_ids
        ]

    def delivery(self, name: str, sent: Iterable[Sent], session_ids: Collection[str]) -> Delivery:
        """Compare the events of one name that clients have sent with those accepted.

        Args:
            name: Of the events.
            sent: All that the clients have sent.
            session_ids: The sessions that they have had.
        """
        wanted = Counter(
            (event.session_id, event.id or None) for event in sent if event.name == name
        )
        accepted = Counter(
            (run.session_id, run.event.id)
            for run in self._all
            if run.event.name == name and run.session_id in session_ids
        )
        missing, extra = wanted - accepted, accepted - wanted
        return Delivery(name, wanted.total(), accepted.total(), missing.total(), extra.total())


def shown(data: dict[str, Any]) -> Any:
    """Give what an event carries: the value of its only field, or all of them."""
    return next(iter(data.values())) if len(data) == 1 else data


def _outcome(error: Exception | None) -> str:
    if error is None:
        return "done"
    if isinstance(error, MessageError):
        return str(error.code)
    if isinstance(error, NotSerializableError):
        return ErrorCode.NOT_SERIALIZABLE.value
    return ErrorCode.HANDLER_ERROR.value


def _outcome_now(run: _Run, live: Collection[str]) -> str:
    """Tell how a run stands: one whose session has ended was cancelled with it."""
    if run.outcome == "running" and run.session_id not in live:
        return ErrorCode.CANCELLED.value
    return run.outcome
