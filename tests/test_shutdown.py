from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.asyncio.worker_context import WorkerContext as AsyncioContext
from hypercorn.trio.worker_context import WorkerContext as TrioContext

from cacao import shutdown
from cacao.shutdown import hear_of_shutdown

if TYPE_CHECKING:
    import pytest


class Listener:
    def __init__(self) -> None:
        self.drains = 0

    def drain(self) -> None:
        self.drains += 1


async def end(context_class: type[Any], listener: Listener) -> None:
    context = context_class(None)
    assert not context.terminated.is_set()
    await context.terminated.set()
    assert context.terminated.is_set()
    assert listener.drains == 1


async def test_a_trio_worker_is_heard_once_though_many_listen() -> None:
    listener = Listener()
    for _ in range(3):
        hear_of_shutdown(listener)
    await end(TrioContext, listener)


def test_an_asyncio_worker_is_heard() -> None:
    listener = Listener()
    hear_of_shutdown(listener)
    asyncio.run(end(AsyncioContext, listener))


def test_the_other_events_of_a_worker_are_not_taken_for_its_end() -> None:
    listener = Listener()
    hear_of_shutdown(listener)
    trio.run(TrioContext(None).terminate.set)
    trio.run(TrioContext.event_class().set)
    assert listener.drains == 0


def test_a_listener_is_not_kept_alive() -> None:
    hear_of_shutdown(Listener())
    trio.run(TrioContext(None).terminated.set)


def test_an_unknown_hypercorn_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutdown, "version", lambda name: "0.19.0")
    untouched = AsyncioContext.__init__
    hear_of_shutdown(Listener())
    assert AsyncioContext.__init__ is untouched
