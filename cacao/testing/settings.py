"""What the tests of this process use unless they say otherwise: seed and way to the app.

This file imports nothing of Cacao: the pytest plugin loads it in every project that has Cacao
installed, whether or not it uses it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Settings", "SettingsInUse", "Via", "current_settings", "take_seed", "use_settings"]


Via = Literal["memory", "socket", "browser"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a test client takes where its test does not say.

    Attributes:
        seed: Decides the order in which ready tasks run.
        via: How clients reach the app.
    """

    seed: int = 0
    via: Via = "memory"


@dataclass(slots=True)
class SettingsInUse:
    """Settings of one block, and whether anything in it has followed their seed.

    Attributes:
        settings: What is used in the block.
        seed_was_taken: Whether `take_seed` was called in it.
    """

    settings: Settings
    seed_was_taken: bool = False


# Of the process, not of a context: a thread that a test starts is part of the test.
_in_use = [SettingsInUse(Settings())]


def current_settings() -> Settings:
    """Give the settings of the innermost block; to follow their seed, take it by `take_seed`."""
    return _in_use[-1].settings


def take_seed() -> int:
    """Give the seed of the innermost block, and note there that something follows it."""
    for block in _in_use:
        block.seed_was_taken = True
    return _in_use[-1].settings.seed


@contextmanager
def use_settings(settings: Settings) -> Iterator[SettingsInUse]:
    """Let every test client that is made in the block use these settings.

    To change one of them: `use_settings(replace(current_settings(), seed=7))`.
    """
    block = SettingsInUse(settings)
    _in_use.append(block)
    try:
        yield block
    finally:
        _in_use.pop()
