"""The leak check: what outlives the last user is named."""

from __future__ import annotations

import time

import pytest
import trio

from cacao import App
from cacao.testing import LeakError, TestClient


async def straggle() -> None:
    await trio.sleep_forever()


def leaky_app() -> App:
    app = App()

    @app.on("leak")
    async def leak() -> None:
        trio.lowlevel.spawn_system_task(straggle, name="straggler")

    @app.on("hold_on")
    async def hold_on() -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()

    @app.on("tidy_up")
    async def tidy_up() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(20, shield=True):
                await trio.sleep_forever()

    return app


def test_a_task_that_outlives_its_user_is_named_with_its_line() -> None:
    client = TestClient(leaky_app())
    client.send("leak")
    with pytest.raises(
        LeakError, match=r"'straggler' at .*test_testing_leaks\.py:\d+, in straggle"
    ):
        client.close()


def test_a_handler_that_cannot_be_cancelled_is_named() -> None:
    client = TestClient(leaky_app())
    client.send("hold_on")
    with pytest.raises(LeakError, match=r"event hold_on.*in hold_on"):
        client.close()


def test_a_handler_that_takes_its_time_to_tidy_up_is_no_leak() -> None:
    client = TestClient(leaky_app())
    client.send("tidy_up")
    client.close()


def test_only_the_last_client_is_asked_for_leaks() -> None:
    app = leaky_app()
    alice, bob = TestClient(app), TestClient(app)
    alice.send("leak")
    alice.close()
    with pytest.raises(LeakError):
        bob.close()


def test_every_leak_is_told() -> None:
    client = TestClient(leaky_app())
    client.send("leak")
    client.send("leak")
    with pytest.raises(LeakError) as caught:
        client.close()
    assert len(caught.value.leaks) == 2


def test_a_thread_that_notices_that_its_user_has_left_is_no_leak() -> None:
    app = App()
    ended: list[bool] = []

    def work() -> None:
        try:
            while True:
                time.sleep(0.002)
                trio.from_thread.check_cancelled()
        finally:
            ended.append(True)

    @app.on("go")
    async def go() -> None:
        await trio.to_thread.run_sync(work)

    client = TestClient(app)
    client.send("go")
    client.close()
    assert ended == [True]
