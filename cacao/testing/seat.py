"""What trio keeps for the whole process or thread, and a hand-pumped run must have for itself.

Everything in `cacao.testing` that leans on trio's private names is in this file:

- *which run is current*: trio keeps it in a thread-local. A run that stands still between two
  sends must not be current, or the test could not call `trio.run`, nor open a second run;
- *the order of ready tasks*: trio shuffles each batch of them, by a generator of its own. It
  has a switch that makes the order a function of that generator's seed; pytest-trio throws it
  for Hypothesis in the same way;
- *whether a task is runnable*, or waits for all others to be blocked.

All are checked when a world is made, so an unknown trio fails with a sentence, not at random.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import trio

from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

__all__ = ["Seat", "seed_trio"]


class Seat:
    """The place a hand-pumped run takes in trio while it moves, and leaves when it stands still.

    Used as `with seat:` around every step of its run. Seats may nest: the inner one hides the
    outer run, as if the thread ran nothing else.

    Args:
        seed: Decides the order in which ready tasks run; the same seed, the same order.

    Raises:
        HostingError: This version of trio keeps these things elsewhere.
    """

    def __init__(self, seed: int) -> None:
        self._scheduler, self._current = _trio_private()
        self._ours: dict[str, Any] = {}
        self._theirs: dict[str, Any] = {}
        self._our_random: Random = Random(seed)  # noqa: S311 -- an order of tasks is no secret
        self._their_random: Any = None
        self._their_switch = False
        # Tuples, because the garbage collector does not see into what `sys` gives.
        self._our_hooks = self._their_hooks = tuple(sys.get_asyncgen_hooks())

    def __enter__(self) -> None:
        current, scheduler = self._current.__dict__, self._scheduler.__dict__
        self._theirs = current.copy()
        current.clear()
        current.update(self._ours)
        self._their_random = scheduler["_r"]
        self._their_switch = scheduler["_ALLOW_DETERMINISTIC_SCHEDULING"]
        scheduler["_r"] = self._our_random
        scheduler["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
        self._their_hooks = tuple(sys.get_asyncgen_hooks())
        sys.set_asyncgen_hooks(*self._our_hooks)

    def __exit__(self, *_exc: object) -> None:
        self._our_hooks = tuple(sys.get_asyncgen_hooks())
        sys.set_asyncgen_hooks(*self._their_hooks)
        current, scheduler = self._current.__dict__, self._scheduler.__dict__
        scheduler["_ALLOW_DETERMINISTIC_SCHEDULING"] = self._their_switch
        scheduler["_r"] = self._their_random
        self._ours = current.copy()
        current.clear()
        current.update(self._theirs)
        self._theirs = {}

    def is_runnable(self) -> bool:
        """Tell whether a task of the current run can go on at once."""
        return bool(self._current.runner.runq)

    def is_watched(self) -> bool:
        """Tell whether one is in `wait_all_tasks_blocked`."""
        return bool(self._current.runner.waiting_for_idle)


@contextmanager
def seed_trio(seed: int) -> Iterator[Callable[[], bool]]:
    """Let every trio run in the block follow a seed, but for those that have a seat.

    Trio's generator is seeded, not replaced: Hypothesis knows it, and seeds it for each example.

    Args:
        seed: Decides the order in which ready tasks run; the same seed, the same order.

    Yields:
        A function that tells whether any run has followed the seed so far.

    Raises:
        HostingError: This version of trio keeps these things elsewhere.
    """
    scheduler, _ = _trio_private()
    names = scheduler.__dict__
    their_switch = names["_ALLOW_DETERMINISTIC_SCHEDULING"]
    their_state = names["_r"].getstate()
    names["_r"].seed(seed)
    start = names["_r"].getstate()
    names["_ALLOW_DETERMINISTIC_SCHEDULING"] = True
    try:
        yield lambda: names["_r"].getstate() != start
    finally:
        names["_ALLOW_DETERMINISTIC_SCHEDULING"] = their_switch
        names["_r"].setstate(their_state)


def _trio_private() -> tuple[ModuleType, Any]:
    """Find trio's scheduler module and its thread-local, or say that this trio has none."""
    scheduler = getattr(trio._core, "_run", None)  # noqa: SLF001 -- see the module's docstring
    current = getattr(scheduler, "GLOBAL_RUN_CONTEXT", None)
    runner = getattr(scheduler, "Runner", None)
    known = (
        isinstance(getattr(scheduler, "_r", None), Random)
        and isinstance(getattr(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", None), bool)
        and hasattr(current, "__dict__")
        and {"runq", "waiting_for_idle"} <= getattr(runner, "__annotations__", {}).keys()
    )
    if not known or scheduler is None:
        raise HostingError(
            f"trio {trio.__version__} keeps its scheduling seed where cacao.testing does not know "
            "it; install the trio that this version of cacao asks for, or use AsyncTestClient"
        )
    return scheduler, current
