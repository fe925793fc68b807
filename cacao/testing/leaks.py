"""What an app has left behind when its last user is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacao.errors import CacaoError
from cacao.testing.tasks import describe_task, system_tasks, tasks_below

if TYPE_CHECKING:
    from collections.abc import Iterable

    import trio

__all__ = ["LeakError", "find_leaked_tasks", "tasks_of_app"]


class LeakError(CacaoError):
    """Something outlived the session it belonged to.

    Attributes:
        leaks: One line for each thing.
    """

    def __init__(self, leaks: Iterable[str]) -> None:
        self.leaks = tuple(sorted(leaks))
        super().__init__(
            "left running after the last client had gone: " + "; ".join(self.leaks) + "; "
            "start it in a nursery that ends with the session, or with the app"
        )


def tasks_of_app(root: trio.lowlevel.Task) -> frozenset[trio.lowlevel.Task]:
    """Find all tasks that an app can have started, wherever it put them.

    Args:
        root: The task in which the app runs.
    """
    return frozenset((*tasks_below(root), *system_tasks()))


def find_leaked_tasks(
    root: trio.lowlevel.Task, baseline: frozenset[trio.lowlevel.Task]
) -> dict[trio.lowlevel.Task, str]:
    """Find and describe the tasks of an app that neither are in the baseline nor below it.

    What a task of the app itself has started ends with the app, whenever it was started.

    Args:
        root: The task in which the app runs.
        baseline: What ran before the first client came.
    """
    found = tasks_of_app(root) - baseline
    return {task: describe_task(task) for task in found if not _is_below(task, baseline)}


def _is_below(task: trio.lowlevel.Task, owners: frozenset[trio.lowlevel.Task]) -> bool:
    nursery = task.parent_nursery
    while nursery is not None:
        if nursery.parent_task in owners:
            return True
        nursery = nursery.parent_task.parent_nursery
    return False
