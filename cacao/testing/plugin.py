"""The pytest plugin: a fresh registry for every test, and no world left open.

Thin, and loaded by pytest in every project that has Cacao installed: it takes the reactive core
only where the project has already imported it, and the test client only where a test asks for it.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, get_args

import pytest

import cacao.testing
from cacao.testing.failures import keep_reports
from cacao.testing.open_worlds import keep_worlds, open_worlds
from cacao.testing.settings import Via, current_settings, use_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from cacao.testing import TestClient
    from cacao.testing.world import World

__all__: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of `pytest --help` that are ours."""
    group = parser.getgroup("cacao")
    group.addoption(
        "--cacao-seeds",
        type=int,
        metavar="N",
        help="run each test under N orders of its tasks, and report the first that fails",
    )
    group.addoption(
        "--cacao-seed",
        type=int,
        metavar="N",
        help="the order of tasks to run each test under, or the first of many (default: 0)",
    )
    group.addoption(
        "--cacao-via",
        choices=get_args(Via),
        default="memory",
        help="how test clients reach their app: in memory (default), over a real socket, or as its "
        "page in a real browser",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Take what an option needs, which loads trio, only where the option is given."""
    stack = ExitStack()
    stack.enter_context(
        use_settings(replace(current_settings(), via=config.getoption("cacao_via")))
    )
    config.add_cleanup(stack.close)
    if any(config.getoption(name) is not None for name in ("cacao_seeds", "cacao_seed")):
        config.pluginmanager.import_plugin("cacao.testing.seeds")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Import each test module in a registry of its own, so that two bare Apps never meet."""
    with _fresh_registry() if isinstance(collector, pytest.Module) else nullcontext():
        return (yield)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what an app looked like when its test failed."""
    if "cacao.testing.inspection.report" not in sys.modules:  # no test client was used
        return (yield)
    plugin = import_module("cacao.testing.inspection.report_plugin")
    report: pytest.TestReport = yield from plugin.make_report(item, call)
    return report


@pytest.fixture(autouse=True)
def _cacao_isolation() -> Iterator[None]:
    """Run each test in a registry of its own, and close the clients that it has left open.

    A world may be a wider fixture's; then only those go that have come in this test.
    """
    earlier = [(world, len(world.stage.lines)) for world in open_worlds()]
    with keep_worlds() as worlds, keep_reports(), _fresh_registry():
        yield
    guests = [partial(_leave, world, count) for world, count in earlier]
    _do_all([*guests, *(world.close for world in worlds)])


@pytest.fixture
def cacao_client() -> type[TestClient]:
    """Give the factory of test clients; a client closes with its test."""
    return cacao.testing.TestClient


def _fresh_registry() -> AbstractContextManager[object]:
    """Make a registry for the block, if anything has imported registries at all."""
    registry = sys.modules.get("cacao.registry")
    return nullcontext() if registry is None else registry.Registry()


def _leave(world: World, count: int) -> None:
    """Let the clients go that came after the first so many, if their world is still open."""
    guests = world.stage.lines[count:]
    if guests and world in open_worlds():
        world.leave(guests)


def _do_all(endings: Sequence[Callable[[], object]]) -> None:
    """End worlds; one that fails does not keep the others open.

    Raises:
        Exception: What one has raised; if several have, as a group.
    """
    errors: list[Exception] = []
    for end in endings:
        try:
            end()
        except Exception as error:  # noqa: BLE001 -- raised below
            errors.append(error)
    if len(errors) > 1:
        raise ExceptionGroup("several worlds did not close well", errors)
    if errors:
        raise errors[0]
