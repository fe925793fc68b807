from __future__ import annotations

import asyncio
from typing import Any

import trio

from cacao.hardening.shutdown import AsyncioWorker, TrioWorker, hear_of_shutdown, stop_hearing


class Listener:
    def __init__(self) -> None:
        self.drains = 0

    def drain(self) -> None:
        self.drains += 1


async def end(make_worker: type[Any], listener: Listener) -> None:
    worker = make_worker(None)
    assert not worker.terminated.is_set()
    await worker.terminated.set()
    assert worker.terminated.is_set()
    assert listener.drains == 1


async def test_the_end_of_a_trio_worker_is_heard_once_though_one_listens_thrice() -> None:
    listener = Listener()
    for _ in range(3):
        hear_of_shutdown(listener)
    await end(TrioWorker, listener)


def test_the_end_of_an_asyncio_worker_is_heard() -> None:
    listener = Listener()
    hear_of_shutdown(listener)
    asyncio.run(end(AsyncioWorker, listener))


def test_the_other_events_of_a_worker_are_not_taken_for_its_end() -> None:
    listener = Listener()
    hear_of_shutdown(listener)
    trio.run(TrioWorker(None).terminate.set)
    trio.run(TrioWorker.event_class().set)
    assert listener.drains == 0


def test_who_has_left_is_not_told() -> None:
    listener = Listener()
    hear_of_shutdown(listener)
    stop_hearing(listener)
    trio.run(TrioWorker(None).terminated.set)
    assert listener.drains == 0


def test_a_listener_is_not_kept_alive() -> None:
    hear_of_shutdown(Listener())
    trio.run(TrioWorker(None).terminated.set)
