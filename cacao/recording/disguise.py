"""What a recording says in place of what was said: secrets masked, random names made stable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from cacao.recording.names import Names
from cacao.recording.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cacao.app import App
    from cacao.reports import ErrorReport

__all__ = ["Disguise"]

# What a message has that tells of new names; most have not, and are not parsed.
_TELLTALE = '"sessionId"'


class Disguise:
    """The names and the secrets of one run.

    Args:
        app: Whose events tell what is secret.
        told: What to put back for a masked field, by its name.
    """

    def __init__(self, app: App, told: Mapping[str, str] | None = None) -> None:
        self.names = Names()
        self.secrets = Secrets(app, told)

    def of_client(self, text: str) -> tuple[str, tuple[str, ...]]:
        """Give what stands for a text of a client's, and the names of what is masked in it."""
        self._note_token(text)
        try:
            message = orjson.loads(text)
        except orjson.JSONDecodeError:
            message = None
        if not isinstance(message, dict):
            return self.names.hide(self.secrets.mask_text(text)), ()
        found = self.secrets.mask_event(message)
        return self.names.hide(orjson.dumps(message).decode()), tuple(found)

    def undo(self, text: str, secrets: Sequence[str]) -> str:
        """Give what a client says in this run, by what stands for it."""
        text = self.names.show(text)
        self._note_token(text)
        if not secrets:
            return text
        message = orjson.loads(text)
        self.secrets.unmask_event(message, secrets)
        return orjson.dumps(message).decode()

    def of_app(
        self, said: str | tuple[int, str] | ErrorReport, sessions: Iterable[str]
    ) -> str | list[int | str] | dict[str, str]:
        """Give what stands for what the app has said: a frame, a close, or an error.

        Args:
            said: What it was.
            sessions: The ids of the live sessions, the oldest first.
        """
        self.names.learn_sessions(sessions)
        if isinstance(said, tuple):
            return list(said)
        if isinstance(said, str):
            if _TELLTALE in said:
                self.names.learn_from(orjson.loads(said))
            return self.names.hide(self.secrets.mask_frame(said))
        self.names.learn_error(said.error_id)
        kind = type(said.error)
        return {
            "type": f"{kind.__module__}.{kind.__qualname__}",
            "where": said.where,
            "session": self.names.hide(said.session_id),
        }

    def _note_token(self, text: str) -> None:
        token = self.names.token_in(text)
        if token is not None:
            self.names.learn_token(token)
