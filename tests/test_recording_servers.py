"""Recordings as users make them: `cacao run --record` with real sockets, and `cacao replay`."""

# ruff: noqa: S311 -- a small file on this disk; and chance that is no secret

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from processes import Server, served
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from cacao.cli import main
from cacao.errors import HostingError
from cacao.protocol import SUBPROTOCOL
from cacao.testing.client_half import ClientHalf

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
CACAO = [sys.executable, "-m", "cacao"]
OTHER_PYTHON = ROOT / ".venv-3.13" / "bin" / "python"


@contextmanager
def recorded(example: str, file: Path) -> Iterator[Server]:
    command = [*CACAO, "run", "app.py", "--port", "{port}", "--record", str(file)]
    with served(command, cwd=EXAMPLES / example) as server:
        yield server
        assert server.stop(signal.SIGINT, within=10) == 0
        assert f"what users of this server type is written to {file}" in server.stderr


def replay(file: Path, example: str, *words: str, python: str = sys.executable) -> str:
    """Replay in another process, whose sets have another order; gives what it says."""
    seed = {**os.environ, "PYTHONHASHSEED": str(os.getpid() % 1000)}
    command = [python, "-m", "cacao", "replay", str(file), *words]
    ran = subprocess.run(
        command, cwd=EXAMPLES / example, env=seed, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


async def click(server: Server, chance: random.Random) -> None:
    """Click about as a page does, whose connection is lost now and then."""
    client = ClientHalf(is_numbered=True)
    for _ in range(3):
        async with dialled(server.port) as socket:
            for text in client.greeting():
                await socket.send_message(text)
            for answer in client.receive(json.loads(await socket.get_message())):
                await socket.send_message(answer)
            for _ in range(chance.randrange(1, 8)):
                name = chance.choice(["increment", "decrement", "reset", "name:input", "nothing"])
                _, texts = client.send(name, {"by": 2, "value": chance.choice(["Ada", "", 3])})
                for text in texts:
                    await socket.send_message(text)
                await trio.sleep(chance.choice([0, 0, 0.003, 0.02]))
            if chance.random() < 0.5:
                await socket.send_message('{"type":"bye"}')
                await socket.aclose(1000)
        client.lost()


@asynccontextmanager
async def dialled(port: int) -> AsyncIterator[WebSocketConnection]:
    """Open a connection; on leaving it is dropped without a goodbye."""
    async with (
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
        trio.open_nursery() as nursery,
    ):
        yield await wrap_client_stream(
            nursery, stream, "127.0.0.1", "/ws", subprotocols=[SUBPROTOCOL]
        )
        nursery.cancel_scope.cancel()


async def test_the_counter_replays_here_and_on_another_python(tmp_path: Path) -> None:
    file = tmp_path / "counter.jsonl"
    with trio.fail_after(30):
        with recorded("counter", file) as server:
            async with trio.open_nursery() as nursery:
                for seed in range(20):
                    nursery.start_soon(click, server, random.Random(seed))
        assert ": the same" in replay(file, "counter")
        if OTHER_PYTHON.exists():
            assert ": the same" in replay(file, "counter", python=str(OTHER_PYTHON))


async def search(server: Server, texts: list[str]) -> None:
    async with dialled(server.port) as socket:
        await socket.send_message('{"type":"hello"}')
        await socket.get_message()
        # Halfway between two looks at how many queries run: that is not to be a matter of chance.
        await trio.sleep(0.05)
        for number, text in enumerate(texts, 1):
            await socket.send_message(
                f'{{"type":"event","id":{number},"name":"search","data":{{"text":"{text}"}}}}'
            )
            await trio.sleep(0.1)
        last = len(texts) + 1
        await socket.send_message(f'{{"type":"event","id":{last},"name":"stop"}}')
        await trio.sleep(0.1)


async def test_the_search_and_its_threads_replay(tmp_path: Path) -> None:
    file = tmp_path / "search.jsonl"
    with trio.fail_after(30):
        with recorded("search", file) as server:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(search, server, ["d", "da", "dark"])
                nursery.start_soon(search, server, ["milk", "", "white"])
        assert '"outside"' in await trio.Path(file).read_text()
        assert ": the same" in replay(file, "search")


async def test_a_recording_of_a_server_becomes_a_test_that_passes(tmp_path: Path) -> None:
    file, test = tmp_path / "counter.jsonl", tmp_path / "test_it.py"
    for name in ("app.py",):
        (tmp_path / name).write_bytes((EXAMPLES / "counter" / name).read_bytes())
    with trio.fail_after(30), recorded("counter", file) as server:
        await click(server, random.Random(5))
    said = replay(file, "counter", "--to-test", str(test))
    assert said == f"{test} passes\n"


async def test_a_client_is_told_that_the_server_ends(tmp_path: Path) -> None:
    with trio.fail_after(30), recorded("counter", tmp_path / "file") as server:
        async with dialled(server.port) as socket:
            await socket.send_message('{"type":"hello"}')
            await socket.get_message()
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await socket.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1012
        assert server.process.wait(10) == 0  # a second signal could meet an interpreter that ends
    assert '"drain":null' in await trio.Path(tmp_path / "file").read_text()


# --- The command ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, whose modules are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


SOURCE = """
from pydantic import SecretStr
from cacao import App, Signal

app = App()
said = Signal("", name="said")

@app.on("login")
def login(session, password: SecretStr):
    said.set(session, "welcome" if password.get_secret_value() == "swordfish" else "go away")
"""
TAPE = (
    '{"app":"app.py:app","seed":0,"started":"2026-01-01T00:00:00+00:00","version":"0","recording":1}\n'
    '{"at":0,"client":1,"open":{"subprotocol":null,"query":"","user":null}}\n'
    '{"at":0,"client":1,"out":{"type":"init","state":{"said":""},"sessionId":"<session-1>"}}\n'
    '{"at":1,"client":1,"secrets":["login.password"],'
    '"in":{"type":"event","name":"login","data":{"password":"<secret-1>"}}}\n'
    '{"at":1,"client":1,"out":{"type":"update","changes":{"said":"welcome"}}}\n'
    '{"at":2,"end":null}\n'
)


@pytest.fixture
def tape(folder: Path) -> Path:
    (folder / "app.py").write_text(SOURCE)
    (folder / "tape").write_text(TAPE)
    return folder / "tape"


def test_a_replay_tells_how_much_was_the_same(
    tape: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(tape), "--secret", "login.password=swordfish"]) == 0
    assert capsys.readouterr().out == "1 events, 2 frames: the same\n"
    tape.write_text("".join(TAPE.splitlines(keepends=True)[:-1]))
    assert main(["replay", str(tape), "--secret", "login.password=swordfish"]) == 0
    told = "1 events, 2 frames: the same, up to where the recording was cut off\n"
    assert capsys.readouterr().out == told


def test_a_secret_is_asked_for_if_it_is_not_given(
    tape: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return "swordfish"

    monkeypatch.setattr("cacao.cli.getpass", ask)
    assert main(["replay", str(tape), "--secret", "login.password"]) == 0
    assert asked == ["login.password: "]


def test_a_difference_is_shown_and_what_may_be_the_reason(
    tape: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(tape)]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("after 1 frames that are the same, at 1.0 s, to client 1, after {")
    assert '- "changes":{"said":"welcome"}}}\n+ "changes":{"said":"go away"}}}\n' in said.out
    assert "--secret login.password" in said.err


def test_a_difference_without_secrets_blames_none(
    tape: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tape.write_text(TAPE.replace('"secrets":["login.password"],', ""))
    assert main(["replay", str(tape)]) == 1
    assert capsys.readouterr().err == ""


def test_another_app_can_be_asked(tape: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tape.parent / "other.py").write_text(SOURCE)
    (tape.parent / "app.py").unlink()
    assert main(["replay", str(tape), "--secret=login.password=swordfish"]) == 1
    assert "no file 'app.py'" in capsys.readouterr().err
    words = ["--app", "other.py", "--secret=login.password=swordfish"]
    assert main(["replay", str(tape), *words]) == 0


def test_a_test_is_written_beside_the_app(
    tape: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacao.recording.as_test._try", lambda _: None)  # a process takes its time
    monkeypatch.setattr("cacao.recording.as_test._failure_of", lambda _: "")
    words = ["--secret=login.password=swordfish", "--to-test"]
    assert main(["replay", str(tape), *words]) == 0
    assert capsys.readouterr().out == "test_recorded.py passes\n"
    text = (tape.parent / "test_recorded.py").read_text()
    assert 'send("login", password="swordfish")' in text


def test_what_a_test_leaves_out_is_told(
    tape: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cacao.cli.write_test", lambda *_: (Path("it.py"), ("seen", "took")))
    assert main(["replay", str(tape), "--to-test", "it.py"]) == 0
    told = "it.py passes, and does not assert what depends on real time: seen, took\n"
    assert capsys.readouterr().out == told


def test_what_is_no_recording_is_told_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "tape").write_text("hello\n")
    assert main(["replay", "tape"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("cacao: 'tape' is no recording of Cacao's: its line 1 is no header")
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "here.example"])  # noqa: S104
def test_what_others_type_is_not_recorded_by_chance(
    tape: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    served: list[str] = []
    monkeypatch.setattr("cacao.cli.record", lambda *_, host, **__: served.append(host))
    words = ["run", "app.py", "--host", host, "--record", "file"]
    assert main(words) == 1
    assert "or say --record-others" in capsys.readouterr().err
    assert not (tape.parent / "file").exists()
    assert main([*words, "--record-others"]) == 0
    assert served == [host]


def test_an_address_that_cannot_be_had_leaves_no_file(
    tape: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise HostingError("port 8000 is taken")

    monkeypatch.setattr("cacao.cli.record", fail)
    for host in ("localhost", "::1"):
        assert main(["run", "app.py", "--host", host, "--record", "file"]) == 1
        assert "cacao: port 8000 is taken\n" in capsys.readouterr().err
        assert not (tape.parent / "file").exists()
