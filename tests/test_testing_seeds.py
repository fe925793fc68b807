"""Tests under many schedules: which runs there are, what is told of them, and that seeds replay."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from cacao.testing.open_worlds import keep_worlds
from cacao.testing.seat import seed_trio
from cacao.testing.settings import Settings, current_settings, take_seed, use_settings

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = "pytester"

SEATS = Path(__file__).parent.parent / "examples" / "seats"

# In two orders of six the test fails. Its seeds are those of Python's generator, and stay.
RACY = """
    import pytest, trio

    async def first():
        arrived = []
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(note, arrived, name)
        return arrived[0]

    async def note(arrived, name):
        arrived.append(name)
"""


@pytest.fixture
def seeded(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run a test module, given what follows on `RACY`, in a pytest of its own.

    That one is in this very process, and shares `cacao.testing.settings` with it. Not so where the
    module uses Cacao: some of its modules would be loaded twice.
    """
    pytester.makeini("[pytest]\nfilterwarnings = error\ntrio_mode = true\nxfail_strict = true")

    def run(source: str, *arguments: str, uses_cacao: bool = False) -> pytest.RunResult:
        pytester.makepyfile(test_it=RACY + source)
        run = pytester.runpytest_subprocess if uses_cacao else pytester.runpytest_inprocess
        return run("-p", "no:cacheprovider", *arguments)

    return run


def failing_seed(output: str) -> int:
    match = re.search(r"failed with seed (\d+)", output)
    assert match, output
    return int(match[1])


# --- which runs there are


def test_the_first_seed_that_fails_is_reported_once_with_its_replay(
    seeded: Callable[..., pytest.RunResult],
) -> None:
    source = """
    @pytest.mark.parametrize("name", ["b c"])
    async def test_order(name):
        print("a run")
        assert await first() not in name
    """
    result = seeded(source, "--cacao-seeds", "50")
    assert result.parseoutcomes() == {"failed": 1}
    output = result.stdout.str()
    seed = failing_seed(output)
    assert 0 < seed < 50
    assert output.count("a run\n") == 1  # what the others printed is gone
    result.stdout.fnmatch_lines(
        f"failed with seed {seed} after {seed} seed* that passed; "
        f"replay: pytest 'test_it.py::test_order[[]b c]' --cacao-seed {seed}"
    )
    replayed = seeded(source, "test_it.py::test_order[b c]", "--cacao-seed", str(seed))
    assert replayed.parseoutcomes() == {"failed": 1}
    replayed.stdout.fnmatch_lines(f"failed with seed {seed}; replay: *")
    assert seeded(source, "--cacao-seeds", str(seed)).parseoutcomes() == {"passed": 1}


def test_seeds_are_counted_from_the_one_given(seeded: Callable[..., pytest.RunResult]) -> None:
    source = """
    from cacao.testing.settings import current_settings, take_seed

    def test_seed():
        assert take_seed() < 12
    """
    result = seeded(source, "--cacao-seed", "10", "--cacao-seeds", "5")
    result.stdout.fnmatch_lines("failed with seed 12 after 2 seeds that passed; *")


def test_a_test_without_a_schedule_runs_once_and_has_no_seed(
    seeded: Callable[..., pytest.RunResult],
) -> None:
    source = """
    runs = []

    def test_no_schedule():
        runs.append(1)

    async def test_some_schedule():
        runs.append(2)

    def test_counts():
        assert runs == [1] + [2] * 20

    def test_fails():
        assert runs == []
    """
    result = seeded(source, "--cacao-seeds", "20")
    assert result.parseoutcomes() == {"passed": 3, "failed": 1}
    result.stdout.no_fnmatch_line("*failed with seed*")


def test_fixtures_of_a_test_are_new_in_each_run_and_wider_ones_stay(
    seeded: Callable[..., pytest.RunResult],
) -> None:
    source = """
    log = []

    @pytest.fixture(scope="module")
    def wide():
        log.append("+wide")
        yield
        print(*log, "-wide")

    @pytest.fixture(params=["x"])
    def narrow(wide):
        log.append("+")
        yield []
        log.append("-")

    @pytest.fixture
    async def in_trio():
        yield []

    class TestOfAClass:
        async def test_everything_is_new(self, narrow, in_trio, tmp_path):
            assert (narrow, in_trio, list(tmp_path.iterdir()), vars(self)) == ([], [], [], {})
            narrow.append(1)
            in_trio.append(1)
            (tmp_path / "file").touch()
            self.attribute = 1

    async def test_last_of_the_module(narrow):
        assert log.count("+") < 6
    """
    result = seeded(source, "--cacao-seeds", "3")
    assert result.parseoutcomes() == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines(
        [
            "failed with seed 2 after 2 seeds *",
            "*Captured stdout teardown*",
            "+wide" + " + -" * 6 + " -wide",
        ]
    )


def test_wider_fixtures_go_before_the_next_module_comes(
    pytester: pytest.Pytester, seeded: Callable[..., pytest.RunResult]
) -> None:
    pytester.makeconftest(
        """
        import pytest
        alive = []

        @pytest.fixture(scope="module")
        def wide(request):
            alive.append(request.node.name)
            yield list(alive)
            alive.pop()
        """
    )
    test = "async def test_alone(wide): assert len(wide) == 1"
    pytester.makepyfile(test_first=test, test_second=test)
    assert seeded("", "--cacao-seeds", "3").parseoutcomes() == {"passed": 2}


def test_skipped_and_expected_failures_are_one_outcome_as_well(
    seeded: Callable[..., pytest.RunResult],
) -> None:
    source = """
    @pytest.mark.skip
    async def test_skipped(): ...

    async def test_skips_itself():
        pytest.skip()

    @pytest.mark.xfail
    async def test_fails_under_some_seed():
        assert await first() == "a"

    @pytest.mark.xfail
    async def test_fails_under_no_seed():
        assert await first() in "abc"
    """
    result = seeded(source, "--cacao-seeds", "50")
    assert result.parseoutcomes() == {"skipped": 2, "xfailed": 1, "failed": 1}
    result.stdout.fnmatch_lines("[[]XPASS(strict)]*")
    result.stdout.no_fnmatch_line("*failed with seed*")


def test_what_fails_in_setting_up_or_tearing_down_has_its_seed_told(
    seeded: Callable[..., pytest.RunResult],
) -> None:
    source = """
    @pytest.fixture
    def early():
        assert trio.run(first) != "b"

    @pytest.fixture
    def late():
        yield
        assert trio.run(first) != "c"

    def test_one(early): ...
    def test_two(late): ...
    """
    result = seeded(source, "--cacao-seeds", "50")
    assert result.parseoutcomes() == {"errors": 2, "passed": 1}
    result.stdout.fnmatch_lines(["failed with seed *test_one*", "failed with seed *test_two*"])


def test_unittest_cases_run_under_seeds(seeded: Callable[..., pytest.RunResult]) -> None:
    source = """
    import unittest

    class TestCase(unittest.TestCase):
        def setUp(self):
            assert not hasattr(self, "attribute")
            self.attribute = 1

        def test_fails(self):
            self.assertNotEqual(trio.run(first), "b")

        def test_passes(self):
            self.assertIn(trio.run(first), "abc")
    """
    result = seeded(source, "--cacao-seeds", "50")
    assert result.parseoutcomes() == {"passed": 1, "failed": 1}
    result.stdout.fnmatch_lines("failed with seed *TestCase::test_fails --cacao-seed *")


def test_no_seeds_are_refused(seeded: Callable[..., pytest.RunResult]) -> None:
    result = seeded("", "--cacao-seeds", "0")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*--cacao-seeds is 0; give the number of seeds, 1 or more")


def test_without_an_option_nothing_of_it_is_loaded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_modules():
            assert not {"cacao.testing.seeds", "cacao.testing.seat"} & set(sys.modules)
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    assert result.parseoutcomes() == {"passed": 1}


# --- who follows the seed

ORDER = """
    from cacao import App, Signal
    from cacao.testing import AsyncTestClient, TestClient

    app = App()
    arrived = Signal([], name="arrived")

    @app.on("race")
    async def race(session):
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(arrive, session, name)

    async def arrive(session, name):
        arrived.update(session, lambda before: [*before, name])
"""


def test_a_test_client_follows_the_seed(seeded: Callable[..., pytest.RunResult]) -> None:
    source = (
        ORDER
        + """
    def test_order():
        client = TestClient(app)
        client.send("race")
        assert client.state["arrived"] != ["b", "c", "a"]
    """
    )
    result = seeded(source, "--cacao-seeds", "200", uses_cacao=True)
    seed = failing_seed(result.stdout.str())
    replayed = seeded(source, "--cacao-seed", str(seed), uses_cacao=True)
    assert replayed.parseoutcomes() == {"failed": 1}


def test_an_async_test_client_follows_the_seed(seeded: Callable[..., pytest.RunResult]) -> None:
    source = (
        ORDER
        + """
    async def test_order(autojump_clock):
        async with AsyncTestClient(app) as client:
            await client.send("race")
            assert client.state["arrived"] != ["b", "c", "a"]
    """
    )
    result = seeded(source, "--cacao-seeds", "200", uses_cacao=True)
    seed = failing_seed(result.stdout.str())
    replayed = seeded(source, "--cacao-seed", str(seed), uses_cacao=True)
    assert replayed.parseoutcomes() == {"failed": 1}


def test_a_client_with_a_seed_of_its_own_follows_no_other(
    seeded: Callable[..., pytest.RunResult],
) -> None:
    source = (
        ORDER
        + """
    runs = []

    def test_order():
        runs.append(1)
        TestClient(app, seed=7)

    def test_counts():
        assert runs == [1]
    """
    )
    assert seeded(source, "--cacao-seeds", "5", uses_cacao=True).parseoutcomes() == {"passed": 2}


# --- the settings


def test_settings_hold_within_their_block_and_for_all_threads() -> None:
    outside = current_settings()
    with use_settings(Settings(seed=7)):
        with use_settings(Settings(seed=8, via="socket")):
            assert trio.run(trio.to_thread.run_sync, take_seed) == 8
        assert current_settings() == Settings(seed=7, via="memory")
    assert current_settings() == outside


def test_taking_the_seed_is_noted_in_every_block_around() -> None:
    with use_settings(Settings()) as outer:
        with use_settings(Settings()) as earlier:
            pass
        with use_settings(Settings()) as inner:
            current_settings()
            assert not inner.seed_was_taken
            take_seed()
    assert (outer.seed_was_taken, earlier.seed_was_taken, inner.seed_was_taken) == (
        True,
        False,
        True,
    )


# --- one seed, one schedule


async def arrivals() -> list[int]:
    arrived: list[int] = []

    async def runner(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            arrived.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(runner, number)
    return arrived


def seeded_arrivals(seed: int) -> str:
    with seed_trio(seed):
        return str(trio.run(arrivals))


def test_a_seed_is_one_order_of_a_trio_run_and_another_seed_another() -> None:
    assert len({seeded_arrivals(seed=3) for _ in range(100)}) == 1
    assert len({seeded_arrivals(seed) for seed in range(20)}) == 20


@pytest.mark.parametrize("hash_seed", ["0", "1", "random"])
def test_the_order_of_a_trio_run_is_the_same_in_another_process(hash_seed: str) -> None:
    script = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    script += "import test_testing_seeds as t; print(t.seeded_arrivals(3))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == seeded_arrivals(3)


def test_trio_is_left_as_it_was_and_tells_whether_it_ran() -> None:
    scheduler = trio._core._run
    before = (scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING)
    with seed_trio(1) as has_run:
        assert not has_run()
        trio.run(arrivals)
        assert has_run()
    assert (scheduler._r.getstate(), scheduler._ALLOW_DETERMINISTIC_SCHEDULING) == before


# --- the example


def run_example(*arguments: str, hash_seed: str = "random") -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=SEATS,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_the_planted_race_passes_by_itself_is_found_and_is_replayed() -> None:
    assert run_example("oversold.py")[0] == pytest.ExitCode.OK
    code, output = run_example("oversold.py", "--cacao-seeds", "200")
    assert code == pytest.ExitCode.TESTS_FAILED
    seed = failing_seed(output)
    assert 0 < seed < 200
    replay = output.partition("replay: pytest ")[2].splitlines()[0].split()
    for hash_seed in ("0", "1", "2"):
        code, output = run_example(*replay, hash_seed=hash_seed)
        assert (code, failing_seed(output)) == (pytest.ExitCode.TESTS_FAILED, seed)


def test_the_planted_race_is_replayed_a_hundred_times_of_a_hundred() -> None:
    spec = importlib.util.spec_from_file_location("oversold", SEATS / "oversold.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def is_oversold(seed: int) -> bool:
        with use_settings(Settings(seed=seed)), keep_worlds() as worlds:
            try:
                module.test_a_rush_for_the_last_two_seats_sells_two()
            except AssertionError:
                return True
            finally:
                for world in worlds:
                    world.close()
        return False

    seed = next(seed for seed in range(200) if is_oversold(seed))
    assert [is_oversold(seed) for _ in range(100)] == [True] * 100


def test_the_example_itself_sells_no_seat_twice_under_any_seed() -> None:
    code, output = run_example("--cacao-seeds", "200")
    assert code == pytest.ExitCode.OK, output
