"""What an author says of a handler besides its function: when it runs, for how long, and where."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from cacao.errors import DeclarationError
from cacao.lanes import CONCURRENCIES

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from cacao.lanes import Concurrency

__all__ = ["HandlerOptions", "OnLeave", "Options", "StartSoon", "check_on_leave", "read_options"]

OnLeave = Literal["cancel", "finish"]

StartSoon = Callable[..., None]
"""Starts an async function with its arguments, and `name=`, as `Nursery.start_soon` does."""


class HandlerOptions(TypedDict, total=False):
    """The options of `@app.on`; `App.on` tells what they mean."""

    concurrency: Concurrency
    limit: int | None
    key: Callable[[Any], Hashable] | None
    deadline: float | None
    on_leave: OnLeave
    thread: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of one handler, checked.

    Attributes:
        concurrency: What becomes of an event while an earlier one runs; see `Lane`.
        limit: How many run at once; None for what the policy is made for.
        key: Tells from the payload which events are in each other's way; None: all of the name.
        deadline: Seconds that a run may take, from its start; None for any time.
        on_leave: What becomes of a run when the user leaves: it is cancelled, or may finish.
        thread: Whether the function runs in a thread.
    """

    concurrency: Concurrency = "queue"
    limit: int | None = None
    key: Callable[[Any], Hashable] | None = None
    deadline: float | None = None
    on_leave: OnLeave = "cancel"
    thread: bool = False


def read_options(given: HandlerOptions, label: str, *, is_async: bool) -> Options:
    """Check what an author has given.

    Args:
        given: As it came.
        label: What error messages call the handler.
        is_async: Whether its function is async.

    Raises:
        DeclarationError: An option is unknown, or its value is of no use.
    """
    for name in given:
        if name not in HandlerOptions.__annotations__:
            raise DeclarationError(
                f"{label} has no option {name!r}{_suggestion(name, HandlerOptions.__annotations__)}"
            )
    options = Options(**given)
    _check_concurrency(options, label)
    _check_deadline(options.deadline, label)
    check_on_leave(options.on_leave, label)
    if options.key is not None and not callable(options.key):
        raise DeclarationError(f"{label} has key={options.key!r}; give a function of the payload")
    if options.thread and is_async:
        raise DeclarationError(f"{label} is async and has thread=True; make it a plain function")
    if not options.thread and not is_async and options != Options():
        raise DeclarationError(
            f"{label} is a plain function, which runs in place, at once; {', '.join(given)} "
            "needs an async function, or thread=True"
        )
    return options


def _check_concurrency(options: Options, label: str) -> None:
    policy, limit = options.concurrency, options.limit
    if policy not in CONCURRENCIES:
        raise DeclarationError(
            f"{label} has concurrency={policy!r}{_suggestion(str(policy), CONCURRENCIES)}"
        )
    if limit is None:
        return
    if policy not in {"queue", "parallel"}:
        raise DeclarationError(
            f"{label} has limit={limit!r} and concurrency={policy!r}, which runs one at a time; "
            "a limit goes with 'queue' or 'parallel'"
        )
    if type(limit) is not int or limit < 1:
        raise DeclarationError(f"{label} has limit={limit!r}; give a whole number from 1")


def _check_deadline(deadline: float | None, label: str) -> None:
    if deadline is None:
        return
    if type(deadline) not in {int, float} or not 0 < deadline < math.inf:
        raise DeclarationError(f"{label} has deadline={deadline!r}; give seconds, more than 0")


def check_on_leave(on_leave: object, label: str) -> None:
    """Refuse what says not what becomes of a run when the user leaves.

    Raises:
        DeclarationError: It is neither "cancel" nor "finish".
    """
    if on_leave not in {"cancel", "finish"}:
        raise DeclarationError(f"{label} has on_leave={on_leave!r}; give 'cancel' or 'finish'")


def _suggestion(name: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"; expected one of {', '.join(names)}{hint}"
