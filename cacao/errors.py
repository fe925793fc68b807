"""The exception tree.

CacaoError
├── DeclarationError        what the author declared cannot be: a duplicate name, an unknown option
├── ReactiveError
│   ├── CycleError          a computed signal depends on itself
│   ├── WriteInComputedError
│   └── EffectLoopError     effects keep triggering each other
├── NoSessionError          `.value` was used where no session is known
├── SessionEndedError       something was to be started in a session that is not live
├── NotSerializableError    a signal value that JSON cannot carry
├── MessageError            what a client sent is refused, with the wire's error code
├── UnauthorizedError       a client is refused before it has a session
├── ConnectionClosed        the other side of a connection is gone
├── StorageError            what outlives the process cannot be read or written
└── HostingError            trio is not running where it is needed
"""

from __future__ import annotations

__all__ = [
    "CacaoError",
    "ConnectionClosed",
    "CycleError",
    "DeclarationError",
    "EffectLoopError",
    "HostingError",
    "MessageError",
    "NoSessionError",
    "NotSerializableError",
    "ReactiveError",
    "SessionEndedError",
    "StorageError",
    "UnauthorizedError",
    "WriteInComputedError",
]


class CacaoError(Exception):
    """Base of every error that Cacao raises on its own account."""


class DeclarationError(CacaoError):
    """What the author declared cannot be: a duplicate name, an unknown option, a wrong kind."""


class ReactiveError(CacaoError):
    """A rule of the reactive graph was broken."""


class CycleError(ReactiveError):
    """A computed signal depends on itself.

    Attributes:
        path: Names of the computed signals on the cycle, the first one repeated at the end.
    """

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        super().__init__(
            f"computed signal {path[0]!r} depends on itself: {' -> '.join(path)}; "
            "break the cycle, or read one of them inside untracked()"
        )


class WriteInComputedError(ReactiveError):
    """A signal was written while a computed signal was being evaluated."""


class EffectLoopError(ReactiveError):
    """Effects kept triggering each other for too many rounds."""


class NoSessionError(CacaoError):
    """`.value` was used where no session is known."""


class SessionEndedError(CacaoError):
    """Something was to be started in a session that has ended, or is not live at all."""


class NotSerializableError(CacaoError):
    """A signal holds a value that JSON cannot carry.

    Attributes:
        name: The signal's name.
    """

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        super().__init__(
            f"signal {name!r} cannot be sent to the client: {why}; set a JSON value "
            "(numbers, strings, lists, dicts, dates, dataclasses, numpy arrays), "
            "or declare it with client=False"
        )


class MessageError(CacaoError):
    """What a client sent is refused; the session goes on.

    Attributes:
        code: The wire's error code, as in `docs/protocol.md`.
        details: One entry a wrong field: `{"path": [...], "message": "..."}`.
        event_id: The client's number of the refused event, where one is known.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        details: list[dict[str, object]] | None = None,
        event_id: int | None = None,
    ) -> None:
        self.code = code
        self.details = details
        self.event_id = event_id
        super().__init__(message)


class UnauthorizedError(CacaoError):
    """Raised by an app's `authenticate`, it refuses the client, and its text tells them why."""


class ConnectionClosed(CacaoError):  # noqa: N818 - an end, not a mistake
    """The other side of a connection is gone.

    Attributes:
        code: WebSocket close code; 1006 where the connection broke without one.
        reason: What the other side gave as its reason; often empty.
    """

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"connection closed with code {code}" + (f": {reason}" if reason else ""))


class StorageError(CacaoError):
    """What outlives the process cannot be read or written: the file or Redis is out of reach."""


class HostingError(CacaoError):
    """Trio is not running where it is needed, or twice where it may run once."""
