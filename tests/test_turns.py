"""The guest's turns, in a real asyncio loop: what wakes trio, without a thread that waits."""

from __future__ import annotations

import asyncio
import select
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio
import uvloop
from trio._core import _run
from trio.testing import wait_all_tasks_blocked

from cacao import turns
from cacao.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from outcome import Outcome

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Host:
    """A trio main function as the guest of an asyncio loop, and the turns it gets."""

    def __init__(self, loop_name: str = "asyncio") -> None:
        self.loop_name = loop_name
        self.turns: Turns

    def run(self, main: Callable[[], Awaitable[Any]]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[self.loop_name]) as runner:
            return runner.run(self._host(main))

    async def _host(self, main: Callable[[], Awaitable[Any]]) -> Any:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Outcome[Any]] = loop.create_future()
        self.turns = Turns(loop)

        async def guest() -> Any:
            try:
                return await main()
            finally:
                self.turns.stop()

        trio.lowlevel.start_guest_run(
            guest,
            run_sync_soon_threadsafe=loop.call_soon_threadsafe,
            run_sync_soon_not_threadsafe=self.turns.soon,
            done_callback=ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
            clock=self.turns,
        )
        async with asyncio.timeout(10):
            return (await ended).unwrap()


@pytest.fixture(params=LOOPS)
def host(request: pytest.FixtureRequest) -> Host:
    return Host(request.param)


@pytest.fixture(autouse=True)
def waits_in_threads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Note each time that trio would wait for I/O in its thread."""
    waits: list[object] = []
    start = _run.start_thread_soon  # type: ignore[attr-defined] # where trio looks it up

    def note_and_start(wait: Any, deliver: Any) -> None:
        waits.append(wait)
        start(wait, deliver)

    monkeypatch.setattr(_run, "start_thread_soon", note_and_start)
    return waits


def test_deadlines_wake_it_in_order(host: Host, waits_in_threads: list[object]) -> None:
    woken: list[float] = []

    async def sleep(seconds: float) -> None:
        await trio.sleep(seconds)
        woken.append(seconds)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for seconds in (0.03, 0.01, 0.02):
                nursery.start_soon(sleep, seconds)

    host.run(main)
    assert woken == [0.01, 0.02, 0.03]
    assert waits_in_threads == []


def test_a_later_deadline_than_the_last_one_waits_for_its_own_time(host: Host) -> None:
    async def main() -> float:
        start = trio.current_time()
        with trio.move_on_after(0.02):
            await trio.to_thread.run_sync(bool)
        await trio.sleep(0.05)
        return trio.current_time() - start

    assert host.run(main) >= 0.05


def test_an_earlier_deadline_set_from_the_asyncio_side_counts(
    host: Host, waits_in_threads: list[object]
) -> None:
    async def main() -> None:
        with trio.CancelScope() as scope:
            soon = asyncio.get_running_loop().call_soon
            soon(lambda: setattr(scope, "deadline", trio.current_time() + 0.01))
            await trio.sleep_forever()

    host.run(main)
    assert waits_in_threads == []


def test_io_of_trios_own_wakes_it(host: Host, waits_in_threads: list[object]) -> None:
    async def main() -> bytes:
        left, right = (trio.socket.from_stdlib_socket(each) for each in socket.socketpair())
        with left, right:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, right)
                await left.send(b"ping")
                return await left.recv(10)

    async def answer(peer: trio.socket.SocketType) -> None:
        assert await peer.recv(10) == b"ping"
        await peer.send(b"pong")

    assert host.run(main) == b"pong"
    assert waits_in_threads == []


def test_a_thread_that_ends_wakes_it(host: Host, waits_in_threads: list[object]) -> None:
    async def main() -> int:
        return await trio.to_thread.run_sync(lambda: 42)

    assert host.run(main) == 42


@pytest.mark.parametrize("is_inline", [True, False])
def test_a_task_made_runnable_from_the_asyncio_side_runs(
    host: Host, is_inline: bool, waits_in_threads: list[object]
) -> None:
    ran: list[bool] = []

    async def main() -> None:
        event = trio.Event()
        loop = asyncio.get_running_loop()

        def set_it() -> None:
            if is_inline:
                host.turns.run(event.set)
                ran.append(event.is_set() and done[0])
            else:
                event.set()

        done = [False]
        loop.call_later(0.01, set_it)
        await event.wait()
        done[0] = True

    host.run(main)
    assert ran == ([True] if is_inline else [])
    assert waits_in_threads == []


def test_running_something_while_trio_is_busy_is_only_a_call(host: Host) -> None:
    async def main() -> None:
        calls: list[int] = []
        host.turns.run(lambda: calls.append(1))
        assert calls == [1]

    host.run(main)


def test_waiting_for_all_tasks_to_be_blocked_ends(host: Host) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    host.run(main)


def test_a_sleeping_run_costs_no_ticks(host: Host) -> None:
    class Ticks(trio.abc.Instrument):
        count = 0

        def before_io_wait(self, timeout: float) -> None:
            self.count += 1

    async def main() -> int:
        ticks = Ticks()
        trio.lowlevel.add_instrument(ticks)
        await trio.sleep(0.2)
        return ticks.count

    assert host.run(main) < 10


def test_where_trio_is_not_as_expected_it_waits_in_its_thread(
    monkeypatch: pytest.MonkeyPatch, waits_in_threads: list[object]
) -> None:
    monkeypatch.setattr(turns, "_NEEDED", ("nothing of this name",))
    host = Host()

    async def main() -> float:
        start = trio.current_time()
        await trio.sleep(0.02)
        return trio.current_time() - start

    assert 0.02 <= host.run(main) < 5
    assert waits_in_threads


def test_the_loop_forgets_the_epoll_of_a_run_that_has_ended() -> None:
    async def main() -> None:
        host = Host()
        for _ in range(2):
            await host._host(trio.lowlevel.checkpoint)
        # The number of the closed epoll is free again: whoever gets it can be watched.
        with select.epoll() as reused:
            asyncio.get_running_loop().add_reader(reused.fileno(), bool)
            asyncio.get_running_loop().remove_reader(reused.fileno())

    asyncio.run(main())
