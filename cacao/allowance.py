"""How many messages are read from one client: a token bucket that makes it wait, not fail."""

from __future__ import annotations

import trio

__all__ = ["Allowance"]

# Seconds of earning that a client which has used up everything waits for at once.
_PAUSE = 0.05


class Allowance:
    """What one client may still send at once; made full.

    Whoever reads a message takes 1 off `left`, and calls `earn` when that is below 0. So a client
    that stays within its burst costs a subtraction and no look at the clock.

    Args:
        per_second: Messages earned in a second.
        burst: Messages at most that may be had at once.

    Attributes:
        left: Messages.
    """

    __slots__ = ("_burst", "_per_second", "_since", "left")

    def __init__(self, per_second: float, burst: int) -> None:
        self.left: float = burst
        self._per_second = per_second
        self._burst = burst
        self._since = trio.current_time()

    async def earn(self) -> None:
        """Add what was earned since the last call; wait until that makes up for what was taken."""
        while True:
            now = trio.current_time()
            earned = (now - self._since) * self._per_second
            self.left = min(self._burst, self.left + earned)
            self._since = now
            if self.left >= 0:
                return
            await trio.sleep(max(_PAUSE, -self.left / self._per_second))
