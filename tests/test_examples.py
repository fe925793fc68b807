"""The examples' own tests, run as their reader would: in the example's folder, in a process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted(
    path.parent for path in (Path(__file__).parent.parent / "examples").glob("*/test_app.py")
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_tests_of_an_example_pass(example: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=example, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_there_are_examples() -> None:
    assert {example.name for example in EXAMPLES} >= {"counter", "search"}
