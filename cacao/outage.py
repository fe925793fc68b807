"""A Redis that is lost: told once, told again when it is back, and tried every second between."""

from __future__ import annotations

import logging
from typing import Final
from urllib.parse import urlsplit

__all__ = ["Outage"]

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0

_log = logging.getLogger("cacao")


class Outage:
    """Whether a Redis is lost, for somebody who tries it again and again.

    Args:
        url: Of the Redis; the log has its host alone.
        meanwhile: What its loss means, for the log.
        afterwards: What its return means; `%s` stands for the host, if it is there.
    """

    def __init__(self, url: str, meanwhile: str, afterwards: str) -> None:
        self._host = urlsplit(url).hostname
        self._meanwhile = meanwhile
        self._afterwards = afterwards.replace("%s", str(self._host))
        self._pause: float | None = None  # None while there is no outage

    def note(self, error: BaseException) -> float:
        """Note that it is lost; gives the seconds after which to try it again."""
        if self._pause is None:
            self._pause = _FIRST_PAUSE
            _log.warning(
                "%s, for Redis at %s is lost (%s: %s); it is tried again",
                self._meanwhile,
                self._host,
                type(error).__name__,
                error,
            )
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        return self._pause

    def end(self) -> None:
        """Note that it answers."""
        if self._pause is not None:
            self._pause = None
            _log.warning("%s", self._afterwards)
