"""The pytest options `--cacao-seeds` and `--cacao-seed`: a test under schedules of one's choice.

How it works. A test runs as often as there are seeds, each time as if it were the first: fixtures
of function scope are set up anew, wider ones stay. The first run that raises anything is the last,
and so is one that follows no seed, for the others would be the same. Only the last run is reported:
pytest is told of one test with one outcome.

`plugin.py` loads this file only where one of the options is given.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from _pytest.runner import runtestprotocol

from cacao.testing.seat import seed_trio
from cacao.testing.settings import current_settings, use_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

__all__: list[str] = []


@dataclass(slots=True)
class _Run:
    """One run of a test.

    Attributes:
        seed: What it runs under.
        is_of_last_seed: Whether no seed is left.
        next_test: What pytest runs after the last run of this test.
        follows_seed: Tells whether anything in the run has followed its seed so far.
        has_raised: Whether anything came out of it. An XFAIL has raised; a strict XPASS has not.
        is_last: Whether another run could tell nothing more; known when it is torn down.
    """

    seed: int
    is_of_last_seed: bool
    next_test: pytest.Item | None
    follows_seed: Callable[[], bool]
    has_raised: bool = False
    is_last: bool = False


_current_run = pytest.StashKey[_Run]()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a number of seeds that is none.

    Raises:
        UsageError: It is less than 1.
    """
    count = config.getoption("cacao_seeds")
    if count is not None and count < 1:
        raise pytest.UsageError(f"--cacao-seeds is {count}; give the number of seeds, 1 or more")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a test under the seeds asked for, and report it once."""
    if not isinstance(item, pytest.Function):
        return None  # a doctest, say, which cannot run twice
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _run_seeds(item, nextitem):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note what a run has raised, and say under which seed."""
    report = yield
    run = item.stash.get(_current_run, None)
    if run is not None and call.excinfo is not None:
        run.has_raised = True
        if run.follows_seed():
            report.sections.append(("Cacao", _how_to_replay(item, run.seed)))
    return report


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """After the last run, tear down the wider fixtures that the next test does not need."""
    run = item.stash.get(_current_run, None)
    try:
        yield
    except BaseException:
        if run is not None:
            run.has_raised = True
        raise
    finally:
        if run is not None:
            run.is_last = run.has_raised or run.is_of_last_seed or not run.follows_seed()
            if run.is_last:
                item.session._setupstate.teardown_exact(run.next_test)  # noqa: SLF001 -- no other way


def _run_seeds(item: pytest.Function, next_test: pytest.Item | None) -> list[pytest.TestReport]:
    """Run a test under one seed after the other; gives the reports of the last run."""
    seeds = _seeds(item.config)
    for seed in seeds:
        run, reports = _run_seed(item, seed, next_test, is_of_last_seed=seed == seeds[-1])
        if run.is_last:
            break
    return reports


def _run_seed(
    item: pytest.Function, seed: int, next_test: pytest.Item | None, *, is_of_last_seed: bool
) -> tuple[_Run, list[pytest.TestReport]]:
    _forget_earlier_run(item)
    with (
        use_settings(replace(current_settings(), seed=seed)) as in_use,
        seed_trio(seed) as trio_has_run,
    ):
        item.stash[_current_run] = run = _Run(
            seed=seed,
            is_of_last_seed=is_of_last_seed,
            next_test=next_test,
            follows_seed=lambda: in_use.seed_was_taken or trio_has_run(),
        )
        # Pytest tears down what the next test does not need. With the parent in its place that is
        # what belongs to this very test.
        return run, runtestprotocol(item, log=False, nextitem=item.parent)  # type: ignore[arg-type]


def _seeds(config: pytest.Config) -> range:
    first = config.getoption("cacao_seed") or 0
    return range(first, first + (config.getoption("cacao_seeds") or 1))


def _forget_earlier_run(item: pytest.Function) -> None:
    item._report_sections.clear()  # noqa: SLF001 -- else the output of every run is shown
    if item.cls is not None:
        # Pytest makes the instance once for each item, but a test is to find a new one.
        for name in ("_instance", "_obj"):
            item.__dict__.pop(name, None)


def _how_to_replay(item: pytest.Item, seed: int) -> str:
    passed = seed - _seeds(item.config).start
    after = f" after {passed} {'seed' if passed == 1 else 'seeds'} that passed" if passed else ""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    test = shlex.quote(f"{file}::{item.nodeid.partition('::')[2]}")
    return f"failed with seed {seed}{after}; replay: pytest {test} --cacao-seed {seed}"
