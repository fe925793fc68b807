from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import cacao
from cacao import App
from cacao.cli import main
from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TWO = "from cacao import App\none = App()\ntwo = App()\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[App, int, str]]:
    """Apps that would have been served, with port and host."""
    served: list[tuple[App, int, str]] = []
    monkeypatch.setattr(App, "run", lambda app, port, host: served.append((app, port, host)))
    return served


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("target", "source", "name"),
    [
        ("app.py", "from cacao import App\napp = App()\n", "app"),
        ("./app.py", "from cacao import App\nanything = App()\n", "anything"),
        ("app.py", TWO + "app = App()\n", "app"),
        ("app.py", "from cacao import App\none = same = App()\n", "one"),
        ("app.py:two", TWO, "two"),
        ("app", "from cacao import App\napp = App()\n", "app"),
        ("app:two", TWO, "two"),
    ],
)
def test_the_app_is_found(
    folder: Path, served: list[tuple[App, int, str]], target: str, source: str, name: str
) -> None:
    (folder / "app.py").write_text(source)
    assert main(["run", target]) == 0
    assert served == [(getattr(sys.modules["app"], name), 8000, "127.0.0.1")]


def test_host_and_port_are_passed_on(folder: Path, served: list[tuple[App, int, str]]) -> None:
    (folder / "app.py").write_text("from cacao import App\napp = App()\n")
    assert main(["run", "app.py", "--host", "::1", "--port", "0"]) == 0
    assert served[0][1:] == (0, "::1")


def test_a_file_imports_its_neighbours_from_wherever_it_is_run(
    folder: Path, served: list[tuple[App, int, str]]
) -> None:
    there = folder / "there"
    there.mkdir()
    (there / "my-app.py").write_text("from neighbour import app\n")
    (there / "neighbour.py").write_text("from cacao import App\napp = App()\n")
    assert main(["run", "there/my-app.py"]) == 0
    assert served[0][0] is sys.modules["neighbour"].app


@pytest.mark.parametrize(
    ("target", "source", "told"),
    [
        ("nowhere.py", "", "no file 'nowhere.py' in "),
        ("nowhere", "", "no module 'nowhere' here; give a file, such as app.py"),
        ("deep.app", "", "no module 'deep.app' here"),
        ("app.py", "app = 3\n", "app.py makes no Apps; write app = App() there"),
        ("app.py", TWO, "2 Apps; name one: cacao run app.py:one or cacao run app.py:two"),
        ("app.py:three", TWO, "app.py has no 'three'; name one: cacao run app.py:one or"),
        ("app.py:n", TWO + "n = 3\n", "app.py has 'n' of type int, no App; name one"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, source: str, told: str
) -> None:
    (folder / "app.py").write_text(source)
    assert main(["run", target]) == 1
    said = complaint(capsys)
    assert told in said
    assert said.count("\n") == 1


def test_a_file_that_is_no_python_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "page.html").write_text("<p>")
    assert main(["run", "./page.html"]) == 1
    assert "'page.html' is no Python file" in complaint(capsys)


def test_a_module_that_is_a_file_is_offered(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "app.x.py").write_text("")
    assert main(["run", "app.x"]) == 1
    assert "do you mean: cacao run app.x.py" in complaint(capsys)


@pytest.mark.parametrize("target", ["app.py", "app"])
@pytest.mark.parametrize("error", ["ZeroDivisionError", "ModuleNotFoundError"])
def test_an_error_of_the_file_shows_its_own_traceback_alone(
    folder: Path, capsys: pytest.CaptureFixture[str], target: str, error: str
) -> None:
    source = "1 / 0\n" if error == "ZeroDivisionError" else "import nowhere\n"
    (folder / "app.py").write_text(source)
    with pytest.raises(SystemExit) as ended:
        main(["run", target])
    assert ended.value.code == 1
    said = complaint(capsys)
    assert f'app.py", line 1, in <module>\n    {source}' in said
    assert said.count("File ") == 1
    assert error in said


def test_a_file_that_cannot_be_parsed_shows_where(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "app.py").write_text("app = (\n")
    with pytest.raises(SystemExit):
        main(["run", "app.py"])
    assert "SyntaxError" in complaint(capsys)


def test_an_address_that_cannot_be_had_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HostingError("port 80 is taken")

    monkeypatch.setattr(App, "run", fail)
    (folder / "app.py").write_text("from cacao import App\napp = App()\n")
    assert main(["run", "app.py"]) == 1
    assert complaint(capsys) == "cacao: port 80 is taken\n"


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_refused(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "app.py", f"--port={port}"])
    assert ended.value.code == 2
    assert "--port" in complaint(capsys)


def test_the_module_is_the_command_too() -> None:
    command = [sys.executable, "-m", "cacao", "--version"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout == f"cacao {cacao.__version__}\n"
