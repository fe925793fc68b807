"""The pytest plugin: a fresh registry for every test, and no world left open.

Thin, and loaded by pytest in every project that has Cacao installed: it takes the reactive core
only where the project has already imported it, and the test client only where a test asks for it.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import pytest

import cacao.testing
from cacao.testing.open_worlds import keep_worlds

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from cacao.testing import TestClient
    from cacao.testing.world import World

__all__: list[str] = []


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Import each test module in a registry of its own, so that two bare Apps never meet."""
    with _fresh_registry() if isinstance(collector, pytest.Module) else nullcontext():
        return (yield)


@pytest.fixture(autouse=True)
def _cacao_isolation() -> Iterator[None]:
    """Run each test in a registry of its own, and close the worlds that it has left open."""
    with keep_worlds() as worlds, _fresh_registry():
        yield
    _close(worlds)


@pytest.fixture
def cacao_client() -> type[TestClient]:
    """Give the factory of test clients; a client closes with its test."""
    return cacao.testing.TestClient


def _fresh_registry() -> AbstractContextManager[object]:
    """Make a registry for the block, if anything has imported registries at all."""
    registry = sys.modules.get("cacao.registry")
    return nullcontext() if registry is None else registry.Registry()


def _close(worlds: Sequence[World]) -> None:
    """Close worlds; one that fails does not keep the others open.

    Raises:
        Exception: What the closing of a world raised; of several worlds, as a group.
    """
    errors: list[Exception] = []
    for world in worlds:
        try:
            world.close()
        except Exception as error:  # noqa: BLE001 -- raised below
            errors.append(error)
    if len(errors) > 1:
        raise ExceptionGroup("several worlds did not close well", errors)
    if errors:
        raise errors[0]
