"""Awaiting asyncio libraries from trio: in a trio run of its own, and as a guest of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import traceback
from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

import aiosqlite
import pytest
import trio
import trio.testing

from cacao.errands import from_asyncio, take_first_step
from cacao.errors import HostingError
from cacao.hosting import Receive, Scope, Send, host

T = TypeVar("T")
Run = Callable[[Callable[[], Awaitable[T]]], T]


def run_native(body: Callable[[], Awaitable[T]]) -> T:
    return trio.run(body)


def run_as_guest(body: Callable[[], Awaitable[T]]) -> T:
    results: list[T] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            results.append(await body())

    async def never(*args: object) -> None:
        raise AssertionError

    asyncio.run(host(app)({"type": "http"}, never, never))  # type: ignore[arg-type]
    return results[0]


@pytest.fixture(params=[run_native, run_as_guest])
def run(request: pytest.FixtureRequest) -> object:
    return request.param


class Gate:
    """An asyncio coroutine that tells trio of its state, and stays until it is cancelled."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.entered = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    async def pass_through(self) -> None:
        try:
            self._token.run_sync_soon(self.entered.set)
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            self.log.append("cleaned up")


def test_the_result_comes_back(run: Run[int]) -> None:
    async def answer() -> int:
        await asyncio.sleep(0)
        return 42

    async def body() -> int:
        return await from_asyncio(answer())

    assert run(body) == 42


def test_a_future_is_awaited_like_a_coroutine(run: Run[int]) -> None:
    class Answer:
        def __await__(self) -> Generator[Any, Any, int]:
            yield from asyncio.sleep(0).__await__()
            return 42

    async def body() -> int:
        return await from_asyncio(Answer())

    assert run(body) == 42


def test_an_exception_comes_back_with_its_traceback(run: Run[list[str]]) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("no such table")

    async def body() -> list[str]:
        with pytest.raises(ValueError, match="no such table") as caught:
            await from_asyncio(fail())
        return [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]

    assert run(body)[-1] == "fail"


def test_context_variables_go_along_and_do_not_come_back(run: Run[tuple[str, str]]) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def read_and_write() -> str:
        before = variable.get()
        variable.set("written by asyncio")
        return before

    async def body() -> tuple[str, str]:
        variable.set("written by trio")
        return await from_asyncio(read_and_write()), variable.get()

    assert run(body) == ("written by trio", "written by trio")


def test_all_calls_of_a_run_share_one_loop_which_is_closed_at_its_end(
    run: Run[list[asyncio.AbstractEventLoop]],
) -> None:
    async def current_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    async def body() -> list[asyncio.AbstractEventLoop]:
        return [await from_asyncio(current_loop()), await from_asyncio(current_loop())]

    (first, second), (third, _) = run(body), run(body)
    assert first is second
    assert first is not third
    assert first.is_closed()


def test_errands_run_at_the_same_time(run: Run[list[str]]) -> None:
    log: list[str] = []

    async def body() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def get() -> None:
            log.append(await queue.get())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(from_asyncio, get())
            nursery.start_soon(from_asyncio, queue.put("met"))
        return log

    assert run(body) == ["met"]


def test_the_coroutine_knows_that_it_is_in_asyncio_even_with_eager_tasks(run: Run[object]) -> None:
    async def use_eager_tasks() -> None:
        factory = getattr(asyncio, "eager_task_factory", None)
        asyncio.get_running_loop().set_task_factory(factory)

    async def in_trio() -> bool:
        return trio.lowlevel.in_trio_task()

    async def body() -> object:
        await from_asyncio(use_eager_tasks())
        return await from_asyncio(in_trio())

    assert run(body) is False


def test_cancelling_waits_for_the_cleanup_on_the_asyncio_side(run: Run[None]) -> None:
    async def body() -> None:
        gate = Gate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(from_asyncio, gate.pass_through())
            await gate.entered.wait()
            nursery.cancel_scope.cancel()
        assert nursery.cancel_scope.cancelled_caught
        assert gate.log == ["cleaned up"]

    run(body)


def test_a_cancelled_task_does_not_begin_an_errand(run: Run[list[str]]) -> None:
    log: list[str] = []

    async def begin() -> None:
        log.append("begun")

    async def body() -> list[str]:
        with trio.CancelScope() as scope:
            scope.cancel()
            await from_asyncio(begin())
        assert scope.cancelled_caught
        return log

    assert run(body) == []


def test_a_value_returned_in_spite_of_the_cancellation_is_returned(run: Run[list[str]]) -> None:
    async def stay(gate: Gate) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await gate.pass_through()
        return "rows"

    async def body() -> list[str]:
        gate, scope, results = Gate(), trio.CancelScope(), []

        async def ask() -> None:
            with scope:
                results.append(await from_asyncio(stay(gate)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await gate.entered.wait()
            scope.cancel()
        assert not scope.cancelled_caught
        return results

    assert run(body) == ["rows"]


def test_an_error_of_the_cleanup_wins_over_the_cancellation(run: Run[None]) -> None:
    async def body() -> None:
        gate = Gate()

        async def fail_in_cleanup() -> None:
            try:
                await gate.pass_through()
            finally:
                raise OSError("rollback failed")

        with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="rollback failed")):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(from_asyncio, fail_in_cleanup())
                await gate.entered.wait()
                nursery.cancel_scope.cancel()

    run(body)


def test_a_cancellation_by_asyncio_code_is_an_error_and_not_a_trio_cancellation(
    run: Run[None],
) -> None:
    async def give_up() -> None:
        raise asyncio.CancelledError

    async def body() -> None:
        with pytest.raises(HostingError, match=r"give_up.*cancelled by asyncio code"):
            await from_asyncio(give_up())

    run(body)


def test_outside_trio_it_says_what_to_do() -> None:
    async def query() -> None:
        raise AssertionError

    with pytest.raises(HostingError, match="await the coroutine itself"):
        asyncio.run(from_asyncio(query()))


def test_the_exit_of_a_coroutine_ends_the_run_in_order() -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def body() -> None:
        await from_asyncio(leave())

    async def body_that_goes_on() -> str:
        with pytest.raises(SystemExit):
            await from_asyncio(leave())
        return await from_asyncio(asyncio.sleep(0, "still here"))

    with pytest.raises(SystemExit, match="3"):
        trio.run(body)
    assert trio.run(body_that_goes_on) == "still here"


def test_the_first_use_may_come_when_the_run_is_ending() -> None:
    log: list[str] = []

    async def say_goodbye() -> None:
        log.append("goodbye")

    async def system_task() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await from_asyncio(say_goodbye())

    async def body() -> None:
        trio.lowlevel.spawn_system_task(system_task)
        await trio.testing.wait_all_tasks_blocked()

    trio.run(body)
    assert log == ["goodbye"]


def test_it_leaves_the_default_threads_to_the_app() -> None:
    async def body() -> float:
        await from_asyncio(asyncio.sleep(0))
        return trio.to_thread.current_default_thread_limiter().borrowed_tokens

    assert trio.run(body) == 0


def test_aiosqlite_works(run: Run[list[str]]) -> None:
    async def names() -> list[str]:
        async with asyncio.timeout(10), aiosqlite.connect(":memory:") as db:
            await db.execute("create table bean (name text)")
            await db.executemany("insert into bean values (?)", [("criollo",), ("nacional",)])
            return [row[0] for row in await db.execute_fetchall("select name from bean")]

    async def body() -> list[str]:
        return await from_asyncio(names())

    assert run(body) == ["criollo", "nacional"]


def test_a_connection_opened_by_one_errand_serves_the_next(run: Run[int]) -> None:
    async def count(db: aiosqlite.Connection) -> int:
        (row,) = await db.execute_fetchall("select count(*) from bean")
        return int(row[0])

    async def open_database() -> aiosqlite.Connection:
        db = await aiosqlite.connect(":memory:")
        await db.execute("create table bean (name text)")
        return db

    async def body() -> int:
        db = await from_asyncio(open_database())
        try:
            return await from_asyncio(count(db))
        finally:
            await from_asyncio(db.close())

    assert run(body) == 0


def test_asyncio_streams_work(run: Run[bytes]) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def talk() -> bytes:
        async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer

    async def body() -> bytes:
        return await from_asyncio(talk())

    assert run(body) == b"hello\n"


async def test_it_works_under_pytest_trio(autojump_clock: trio.testing.MockClock) -> None:
    async def answer() -> int:
        return 42

    assert await from_asyncio(answer()) == 42


def take_in_trio(awaitable: Awaitable[Any]) -> tuple[bool, Any]:
    """Take the first step in trio, and the rest, if there is one, in its asyncio loop."""

    async def main() -> tuple[bool, Any]:
        rest = take_first_step(awaitable)
        return (True, None) if rest is None else (False, await from_asyncio(rest))

    return trio.run(main)


async def end_at_once() -> None: ...


async def wait_and_return() -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "waited"


async def wait_and_raise() -> None:
    await asyncio.sleep(0)
    raise ValueError("boom")


def test_a_first_step_that_is_all_leaves_nothing() -> None:
    assert take_in_trio(end_at_once()) == (True, None)


def test_what_is_left_after_the_first_step_goes_on_in_asyncio() -> None:
    assert take_in_trio(wait_and_return()) == (False, "waited")


def test_an_error_after_the_first_step_is_raised_by_the_rest() -> None:
    with pytest.raises(ValueError, match="boom"):
        take_in_trio(wait_and_raise())


def test_an_error_in_the_first_step_is_raised_there() -> None:
    async def fail() -> None:
        raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        take_first_step(fail())


async def test_cancelling_the_rest_reaches_the_coroutine() -> None:
    seen: list[str] = []

    async def note_cancellation() -> str:
        await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
        await asyncio.sleep(0)
        return "swallowed"

    rest = take_first_step(note_cancellation())
    assert rest is not None
    with trio.move_on_after(0.05):
        assert await from_asyncio(rest) == "swallowed"
    assert seen == ["cancelled"]
