"""Determinism: one seed, one order of tasks; and trio is left as it was."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from random import Random
from typing import Any

import pytest
import trio

from cacao import App, HostingError, Session, Signal
from cacao.testing import TestClient
from cacao.testing.seat import Seat

RANDOM_BY_NATURE = {"sessionId", "token", "errorId"}


def race(seed: int) -> str:
    """Let ten tasks race; gives everything that was on the wire, and their order."""
    app = App()
    order = Signal[list[int]](default_factory=list, name="order")

    @app.on("race")
    async def run_race(session: Session) -> None:
        async def runner(number: int) -> None:
            for _ in range(3):
                await trio.lowlevel.checkpoint()
                order.update(session, lambda before: [*before, number])

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(runner, number)

    client = TestClient(app, seed=seed)
    client.send("race")
    client.advance(1)
    transcript = json.dumps([without_random(message) for message in client.messages])
    client.close()
    return transcript


def without_random(message: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in message.items() if key not in RANDOM_BY_NATURE}


def test_a_thousand_runs_give_one_transcript() -> None:
    assert len({race(seed=0) for _ in range(1000)}) == 1


def test_another_seed_is_another_order() -> None:
    assert len({race(seed) for seed in range(20)}) == 20


def test_the_seed_is_zero_unless_told() -> None:
    assert TestClient(App())._world.seed == 0


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_the_transcript_does_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    script = f"import sys; sys.path.insert(0, {str(__file__).rpartition('/')[0]!r})\n"
    script += "import test_testing_seat as t, hashlib\n"
    script += "print(hashlib.sha256(t.race(3).encode()).hexdigest())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256(race(3).encode()).hexdigest()


def test_trio_s_scheduler_is_left_as_it_was() -> None:
    scheduler = trio._core._run
    before = (scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING)
    client = TestClient(App())
    client.advance(1)
    assert (scheduler._r, scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before
    assert not trio.lowlevel.in_trio_run()
    assert sys.get_asyncgen_hooks() == (None, None)


async def test_inside_a_seat_the_surrounding_run_is_hidden_and_then_back() -> None:
    with Seat(seed=0):
        assert not trio.lowlevel.in_trio_run()
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("name", "value"),
    [("_r", None), ("_r", Random), ("_ALLOW_DETERMINISTIC_SCHEDULING", None)],
)
def test_an_unknown_trio_is_refused_by_name(
    name: str, value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trio._core._run, name, value)
    with pytest.raises(HostingError, match=f"trio {trio.__version__} keeps its scheduling seed"):
        Seat(seed=0)
