"""What one client knows: the server's messages, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from cacao.protocol import Result

__all__ = ["Mirror"]


@dataclass(slots=True)
class Mirror:
    """The client's side of the protocol, without a connection.

    Attributes:
        state: The values by name, after every update so far.
        messages: Every message from the server, decoded, in order.
        session_id: What the server calls the session; empty before `init`.
        results: How each numbered event ended, by its number.
    """

    state: dict[str, Any] = field(default_factory=dict)
    messages: list[dict[str, Any]] = field(default_factory=list)
    session_id: str = ""
    results: dict[int, Result] = field(default_factory=dict)

    def take(self, text: str) -> dict[str, Any]:
        """Apply one message of the server's; gives it back decoded."""
        message: dict[str, Any] = orjson.loads(text)
        self.messages.append(message)
        match message["type"]:
            case "init":
                self.state = dict(message["state"])
                self.session_id = message["sessionId"]
            case "update":
                self.state.update(message["changes"])
                for name, patches in message.get("patches", {}).items():
                    self.state[name] = _patched(self.state[name], patches)
            case "result" | "error" if "id" in message:
                self.results[message["id"]] = _result(message)
        return message


def _patched(value: Any, patches: list[list[Any]]) -> Any:
    """Apply patches to a copy: who has seen the value keeps what was seen."""
    for operation, *arguments in patches:
        if operation == "append":
            value += arguments[0]
        else:
            at, deleted, added = arguments
            value = value[:at] + added + value[at + deleted :]
    return value


def _result(message: dict[str, Any]) -> Result:
    """Read a `result`, or the `error` that a refused event gets instead."""
    return Result(
        id=message["id"],
        ok=message.get("ok", False),
        code=message.get("code"),
        message=message.get("message"),
        details=message.get("details"),
        error_id=message.get("errorId"),
    )
