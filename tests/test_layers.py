"""The picture in docs/architecture.md, checked against the imports."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cacao"
ARCHITECTURE = ROOT / "docs" / "architecture.md"

# A row of the table: | `file.py` | its one job | what it may import |
ROW = re.compile(r"^\| `(?P<name>[\w./]+)` \|[^|]+\| (?P<below>[^|]*) \|$", re.MULTILINE)


def table() -> dict[str, set[str]]:
    """Read which module may import which; testing/ counts as one module."""
    return {
        module_of(match["name"]): {
            name.strip("`").removesuffix("/") for name in re.findall(r"`[\w/]+`", match["below"])
        }
        for match in ROW.finditer(ARCHITECTURE.read_text())
    }


def module_of(path: str) -> str:
    return path.partition("/")[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Name the modules of this package that a file imports, at whatever depth of the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level:
            pytest.fail(f"{path}: relative import, line {node.lineno}")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    inside = {name.split(".")[1] for name in found if name.startswith("cacao.")}
    return inside & {module_of(str(p.relative_to(PACKAGE))) for p in PACKAGE.rglob("*.py")}


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_stands_below_it(path: Path) -> None:
    module = module_of(str(path.relative_to(PACKAGE)))
    assert imports_of(path) - {module} <= table()[module]


def test_every_row_is_a_file_and_every_arrow_points_down() -> None:
    rows = table()
    modules = {module_of(str(path.relative_to(PACKAGE))) for path in FILES}
    assert set(rows) == modules
    order = list(rows)
    for module, below in rows.items():
        for name in below:
            assert order.index(name) < order.index(module), f"{module} imports {name}, above it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_imported_inside_a_function(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                assert not isinstance(inner, ast.Import | ast.ImportFrom), ast.unparse(inner)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_begins_with_its_one_job(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{path} has no docstring"
    assert len(docstring.splitlines()[0]) <= 100
