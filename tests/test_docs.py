"""The Python in the documentation runs: each page's blocks in order, in one namespace.

A block that begins with a file name (`# app.py`) can be imported by the later ones, and tests that
the page defines are called. A block is left out only where its fence says so to the reader:
```python no-run
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing

from cacao import Registry
from cacao.testing.open_worlds import keep_worlds

ROOT = Path(__file__).parent.parent
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()
]
FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (?P<name>\w+)\.py\n")
FENCES_OF_PYTHON = {"python", "python no-run"}

Run = Callable[[str, str], None]


class Block(NamedTuple):
    """A fenced block, and the line on which its code begins."""

    info: str
    code: str
    line: int


def blocks_of(text: str) -> list[Block]:
    return [
        Block(found["info"].strip(), found["code"], text.count("\n", 0, found.start("code")) + 1)
        for found in FENCE.finditer(text)
    ]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the Python of a page; a traceback shows the page's own lines."""

    def run_page(text: str, page: str) -> None:
        namespace: dict[str, Any] = {"__name__": "__docs__"}
        with Registry():
            for block in blocks_of(text):
                if block.info != "python":
                    continue
                source = "\n" * (block.line - 1) + block.code
                exec(compile(source, page, "exec"), namespace)  # noqa: S102 -- our own pages
                if file := FILE_NAME.match(block.code):
                    module = ModuleType(file["name"])
                    module.__dict__.update(namespace)
                    monkeypatch.setitem(sys.modules, file["name"], module)
            call_tests(namespace)

    return run_page


def call_tests(namespace: dict[str, Any]) -> None:
    """Call the tests that a page defines, in order, as pytest would with our plugin."""
    for name, function in list(namespace.items()):
        if name.startswith("test_"):
            with keep_worlds() as worlds:
                if inspect.iscoroutinefunction(function):
                    trio.run(function, clock=trio.testing.MockClock())
                else:
                    function()
            for world in worlds:
                world.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_python_of_a_page_runs(page: Path, run: Run) -> None:
    run(page.read_text(), str(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_block_avoids_being_run_by_a_slip_of_the_fence(page: Path) -> None:
    infos = {block.info for block in blocks_of(page.read_text())}
    assert {info for info in infos if info.startswith("py")} <= FENCES_OF_PYTHON


def test_blocks_share_one_namespace_and_run_in_order(run: Run) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        run("```python\nzero = 0\n```\ntext\n```python\n\n1 / zero\n```\n", "page.md")
    assert (caught.traceback[-1].path, caught.traceback[-1].lineno + 1) == ("page.md", 7)


def test_the_tests_of_a_page_are_called(run: Run) -> None:
    for kind in ("def", "async def"):
        with pytest.raises(ZeroDivisionError):
            run(f"```python\n{kind} test_it():\n    1 / 0\n```\n", "page.md")


def test_a_block_with_a_file_name_is_a_module_to_the_next_ones(run: Run) -> None:
    run("```python\n# wheels.py\ncount = 4\n```\n```python\nimport wheels\n```\n", "page.md")


def test_what_says_no_run_is_not_run(run: Run) -> None:
    run("```python no-run\n1 / 0\n```\n```sh\nexit 1\n```\n", "page.md")
