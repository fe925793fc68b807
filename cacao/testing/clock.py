"""Virtual time that passes from deadline to deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from trio.testing import MockClock

__all__ = ["next_jump"]

# A deadline within a nanosecond after the target counts as reached: 0.1 + 0.1 + 0.1 > 0.3.
_TOLERANCE = 1e-9


def next_jump(clock: MockClock, target: float) -> float:
    """Tell how far to move the clock so that the next thing happens on the way to `target`.

    One jump to the end would let a ticker of one second tick once in an hour. Must be called
    with everything settled.

    Args:
        clock: The clock of the run that is current.
        target: Where it is to be in the end, on that clock.

    Returns:
        Seconds to jump, to the next deadline or to the target; 0 when the target is reached.
    """
    now = clock.current_time()
    to_deadline = trio.lowlevel.current_statistics().seconds_to_next_deadline
    if now + to_deadline <= target + _TOLERANCE:
        return to_deadline
    return max(target - now, 0.0)
