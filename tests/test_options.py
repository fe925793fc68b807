"""The options of a handler: what they may be, and what is said of what they may not."""

from __future__ import annotations

from typing import Any

import pytest

from cacao import App, DeclarationError
from cacao.options import Options, read_options


async def waits() -> None: ...
def plain() -> None: ...


def test_without_options_events_of_one_name_queue() -> None:
    assert read_options({}, "handler", is_async=True) == Options()
    assert Options() == Options(
        concurrency="queue", limit=None, key=None, deadline=None, thread=False
    )


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (waits, {"concurency": "latest"}, "no option 'concurency'; .*; did you mean 'concurrency'"),
        (waits, {"color": 1}, "no option 'color'; expected one of concurrency, limit, key, "),
        (waits, {"concurrency": "lastest"}, "concurrency='lastest'; .*; did you mean 'latest'"),
        (waits, {"concurrency": 7}, "concurrency=7; expected one of queue, parallel, latest, "),
        (waits, {"limit": 0}, "limit=0; give a whole number from 1"),
        (waits, {"limit": True}, "limit=True; give a whole number from 1"),
        (waits, {"limit": 1.5}, "limit=1.5; give a whole number from 1"),
        (waits, {"limit": 2, "concurrency": "drop"}, "goes with 'queue' or 'parallel'"),
        (waits, {"key": "row"}, "key='row'; give a function of the payload"),
        (waits, {"deadline": 0}, "deadline=0; give seconds, more than 0"),
        (waits, {"deadline": float("inf")}, "deadline=inf; give seconds, more than 0"),
        (waits, {"deadline": "5"}, "deadline='5'; give seconds, more than 0"),
        (waits, {"thread": True}, "is async and has thread=True; make it a plain function"),
        (plain, {"deadline": 5}, "is a plain function, .* deadline needs an async function"),
        (plain, {"concurrency": "latest", "key": id}, "concurrency, key needs an async function"),
    ],
)
def test_what_cannot_be_is_refused(function: Any, options: Any, message: str) -> None:
    with pytest.raises(DeclarationError, match=f"^handler of event 'go' .*{message}"):
        App().on("go", **options)(function)


@pytest.mark.parametrize(
    "options",
    [
        {"limit": 3},
        {"concurrency": "parallel", "limit": 1},
        {"deadline": 0.5, "key": id},
    ],
)
def test_what_can_be_is_taken_by_async_functions_and_threads(options: Any) -> None:
    App().on("go", **options)(waits)
    App().on("go", thread=True, **options)(plain)
