"""The queue between a connection and its app, where hypercorn has `asyncio.Queue`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from hypercorn.config import Config
from hypothesis import given, settings
from hypothesis import strategies as st

from cacao.hardening.inbox import AppTasks, Inbox

if TYPE_CHECKING:
    from collections.abc import Coroutine


def message(number: int) -> Any:
    return {"number": number}


async def rest() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(main)


def test_messages_come_in_order_and_no_more_wait_than_there_is_room_for() -> None:
    async def main() -> None:
        inbox = Inbox(2)
        taken: list[Any] = []

        async def put() -> None:
            for number in range(5):
                await inbox.put(message(number))

        async with asyncio.TaskGroup() as tasks:
            putting = tasks.create_task(put())
            await rest()
            assert not putting.done()
            taken += [await inbox.get() for _ in range(5)]
        assert taken == [message(number) for number in range(5)]

    run(main())


def test_who_waits_for_a_message_gets_the_next_one() -> None:
    async def main() -> None:
        inbox = Inbox(2)
        async with asyncio.TaskGroup() as tasks:
            getting = tasks.create_task(inbox.get())
            await rest()
            await inbox.put(message(1))
        assert getting.result() == message(1)

    run(main())


def test_a_wait_that_is_cancelled_leaves_nothing_behind_and_takes_nothing() -> None:
    async def main() -> None:
        inbox = Inbox(1)
        for _ in range(3):
            getting = asyncio.ensure_future(inbox.get())
            await rest()
            getting.cancel()
            await rest()
        assert inbox._waiters == []
        getting = asyncio.ensure_future(inbox.get())
        await rest()
        getting.cancel()
        await inbox.put(message(1))  # in the same turn
        await rest()
        assert getting.cancelled()
        assert await inbox.get() == message(1)

    run(main())


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 4), st.lists(st.sampled_from(["put", "get", "cancel"]), max_size=30))
def test_no_message_is_lost_or_doubled_whoever_is_cancelled(size: int, steps: list[str]) -> None:
    async def main() -> None:
        inbox = Inbox(size)
        puts: list[asyncio.Task[None]] = []
        gets: list[asyncio.Task[Any]] = []
        for number, step in enumerate(steps):
            if step == "put":
                puts.append(asyncio.ensure_future(inbox.put(message(number))))
            elif step == "get":
                gets.append(asyncio.ensure_future(inbox.get()))
            elif gets:
                gets[number % len(gets)].cancel()
            if number % 3 == 0:
                await rest()
        await rest()
        put = sum(task.done() for task in puts)
        got = [task.result() for task in gets if task.done() and not task.cancelled()]
        assert len(got) + len(inbox._messages) == put
        assert len({each["number"] for each in got}) == len(got)
        waiting = [task for task in [*puts, *gets] if not task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    run(main())


def test_an_app_in_a_thread_may_call_back() -> None:
    told = []

    async def double(number: int) -> int:
        return 2 * number

    async def app(*given: Any) -> None:
        _, receive, _, in_thread, call_soon = given
        told.append(await receive())
        told.append(await in_thread(call_soon, double, 21))

    async def send(_: object) -> None:
        told.append("ended")

    async def main() -> None:
        async with AppTasks(asyncio.get_running_loop()) as tasks:
            put = await tasks.spawn_app(app, Config(), message(0), send)  # type: ignore[arg-type]
            await put(message(1))

    run(main())
    assert told == [message(1), 42, "ended"]
