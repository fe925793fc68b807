"""`LiveClient`, against a real server in another process."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from processes import HYPERCORN, served

from cacao.errors import ConnectionClosed, HostingError
from cacao.testing import LiveClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADA = {"user": "ada"}
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [HYPERCORN[0], "live_app:asgi", *HYPERCORN[2:]]
    with served(command, cwd=HERE) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[LiveClient]:
    with LiveClient(url, cookies=ADA) as client:
        yield client


def test_send_waits_for_the_result_and_the_state_has_come_with_it(client: LiveClient) -> None:
    result = client.send("increment", by=2)
    assert result is not None
    assert result.ok
    assert client.state == {"count": 2}
    assert client.send("nothing").code == "unknown_event"  # type: ignore[union-attr]
    assert client.send("divide").code == "handler_error"  # type: ignore[union-attr]
    assert client.runs("increment") == [(2, "done")]
    assert client.result(1) == result
    assert [frame.direction for frame in client.frames[:2]] == ["sent", "received"]
    assert client.messages[0]["type"] == "init"
    assert client.never_saw("Traceback")


def test_send_gives_none_when_the_result_does_not_come_in_time(url: str) -> None:
    with LiveClient(url, cookies=ADA, timeout=0.1) as client:
        assert client.send("forever") is None
        assert client.runs("forever") == [({}, "running")]
        assert client.send("increment").ok  # type: ignore[union-attr]  # it waits for its own


def test_heartbeats_are_answered_while_the_test_does_something_else(client: LiveClient) -> None:
    client.send("increment")
    client.advance(0.9)  # a client that is silent for 0.4 s is cut
    beats = [frame for frame in client.frames if frame.message["type"] == "beat"]
    assert len(beats) >= 4
    client.send("increment")
    assert client.state == {"count": 2}
    assert client.outcome is None


def test_users_and_tabs_have_a_session_each(client: LiveClient) -> None:
    bob = client.user("bob", cookies={"user": "bob"}, tabs=2)
    with client.together():
        assert client.send("increment") is None
        bob.send("increment", by=5)
    assert [page.state["count"] for page in (client, *bob.tabs)] == [1, 5, 0]
    assert bob.tab().state == {"count": 0}


def test_a_lost_connection_is_taken_up(client: LiveClient) -> None:
    client.network.drop()
    assert client.send("increment") is None
    client.network.restore()
    assert client.resumed
    assert client.state == {"count": 1}
    assert client.result(1).ok  # type: ignore[union-attr]


def test_wait_and_settle_speak_of_real_time(client: LiveClient) -> None:
    client.wait(lambda: client.time > 0.05)
    with pytest.raises(TimeoutError, match=r"within 0.01 s of real time"):
        client.wait(lambda: False, timeout=0.01)
    client.settle()
    with pytest.raises(ValueError, match="0 or more seconds"):
        client.advance(-1)


def test_within_together_clients_only_send(client: LiveClient) -> None:
    waits: list[Callable[[], object]] = [
        lambda: client.advance(0),
        client.settle,
        lambda: client.wait(lambda: True),
    ]
    with client.together():
        client.send("increment")
        for wait in waits:
            with pytest.raises(RuntimeError, match="wait after the block"):
                wait()
        with pytest.raises(RuntimeError, match="does not nest"), client.together():
            pass
    assert client.state == {"count": 1}


def test_the_plain_protocol_is_spoken_where_it_is_asked_for(url: str) -> None:
    with LiveClient(url, cookies=ADA, subprotocol=None) as client:
        assert client.send("increment") is None
        assert client.state == {"count": 1}


def test_a_session_that_the_server_ends_takes_no_more_events(client: LiveClient) -> None:
    client.send("leave")
    client.wait(lambda: client._line.closing)
    with pytest.raises(ConnectionClosed) as closed:
        client.send("increment")
    assert closed.value.code == 1000


@pytest.mark.parametrize("subprotocol", ["cacao.v1", None])
def test_who_is_refused_hears_why(url: str, subprotocol: str | None) -> None:
    with pytest.raises(ConnectionClosed, match="unauthorized") as refused:
        LiveClient(url, subprotocol=subprotocol)
    assert refused.value.code == 4401


def test_where_no_server_is_that_is_said_with_the_url() -> None:
    with pytest.raises(ConnectionClosed, match=r"no client of http://127\.0\.0\.1:1/ws: .*connect"):
        LiveClient("http://127.0.0.1:1")


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://example.com", "http://", ""])
def test_what_is_no_url_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValueError, match="names no server; expected something like 'http://"):
        LiveClient(url)


def test_what_only_the_server_knows_is_refused_with_a_way_out(client: LiveClient) -> None:
    asks: dict[str, Callable[[], object]] = {
        "session": lambda: client.session,
        "server_state": lambda: client.server_state,
        "now": lambda: client.now,
        "delivered_once": lambda: client.delivered_once("increment"),
        "expect_error": lambda: client.expect_error(ValueError),
    }
    for name, ask in asks.items():
        with pytest.raises(HostingError, match=f"'{name}' needs the server's inside"):
            ask()


def test_it_is_refused_inside_a_trio_task_which_it_would_stop(client: LiveClient) -> None:
    async def main() -> None:
        client.send("increment")

    with pytest.raises(HostingError, match="inside a trio task"):
        trio.run(main)


def test_the_last_client_that_closes_ends_the_thread(url: str) -> None:
    before = threading.active_count()
    client = LiveClient(url, cookies=ADA)
    other = client.user(cookies=ADA)
    client.close()
    assert threading.active_count() == before
    other.close()
    with pytest.raises(ConnectionClosed):
        client.send("increment")


def test_a_test_that_leaves_it_open_has_it_closed(url: str, tmp_path: Path) -> None:
    (tmp_path / "test_open.py").write_text(
        "import threading\n"
        "from cacao.testing import LiveClient\n"
        f"def test_open(): LiveClient({url!r}, cookies={ADA!r}).send('increment')\n"
        "def test_closed(): assert threading.active_count() == 1\n"
    )
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_program_that_leaves_it_open_ends_without_a_word(url: str) -> None:
    script = (
        "from cacao.testing import LiveClient\n"
        f"print(LiveClient({url!r}, cookies={ADA!r}).send('increment').ok)"
    )
    command = [sys.executable, "-W", "error", "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (run.returncode, run.stdout, run.stderr) == (0, "True\n", "")
