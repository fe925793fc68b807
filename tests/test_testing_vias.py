"""One test, three ways: in memory, through the real server, and in the app's page."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock

from cacao import App, Peer, Session, Signal
from cacao.errors import ConnectionClosed, HostingError
from cacao.testing import AsyncTestClient, LeakError, PageError, TestClient
from cacao.testing.browser.chromium import the_chromium
from cacao.testing.settings import Settings, use_settings
from cacao.testing.sockets import served as served_module

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from playwright.async_api import Page as BrowserPage

    from cacao.testing.settings import Via

EXAMPLES = Path(__file__).parent.parent / "examples"
COUNTER_PAGE = EXAMPLES / "counter" / "page" / "dist"
WAYS: tuple[Via, ...] = ("memory", "socket", "browser")


def counter(**options: object) -> tuple[App, Signal[int]]:
    """Make an app that the counter's page fits to."""
    app = App(static_folder=COUNTER_PAGE, **options)  # type: ignore[arg-type]
    count = Signal(0, name="count")

    @app.on("increment")
    async def increment(session: Session, event: dict[str, int]) -> None:
        count.update(session, lambda n: n + event.get("by", 1))

    @app.on("later")
    async def later(session: Session) -> None:
        await trio.sleep(600)
        count.set(session, 600)

    @app.on("divide")
    async def divide(session: Session) -> None:
        count.set(session, count.get(session) // 0)

    return app, count


def pytest_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of a folder as their author would."""
    command = [sys.executable, "-W", "error", "-m", "pytest", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# --- The same file, three ways --------------------------------------------------------------------


@pytest.mark.parametrize("via", ["socket", "browser"])
@pytest.mark.parametrize("example", ["counter", "search"])
def test_the_tests_of_an_example_pass_whichever_way_they_go(example: str, via: str) -> None:
    run = pytest_in(EXAMPLES / example, "--cacao-via", via)
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_option_decides_the_way_and_nothing_else_does(tmp_path: Path) -> None:
    (tmp_path / "test_way.py").write_text(
        "from cacao import App\n"
        "from cacao.testing import TestClient\n"
        "def test_way():\n"
        "    print('address:', repr(TestClient(App()).session.peer.address))\n"
    )
    for options, address in (((), "''"), (("--cacao-via", "socket"), "'127.0.0.1'")):
        run = pytest_in(tmp_path, "-s", *options)
        assert f"address: {address}" in run.stdout


def test_an_unknown_way_is_refused_with_those_there_are(tmp_path: Path) -> None:
    run = pytest_in(tmp_path, "--cacao-via", "pigeon")
    assert all(way in run.stderr for way in WAYS)


@pytest.mark.parametrize("via", WAYS)
def test_what_a_test_sees_is_the_same_whichever_way_it_goes(via: Via) -> None:
    app, count = counter()
    with TestClient(app, via=via) as alice:
        bob = alice.user("bob", tabs=2)
        result = alice.send("increment", by=2)
        assert result is not None
        assert (result.id, result.ok) == (1, True)
        assert alice.state == alice.server_state == {"count": 2}
        assert count.get(alice.session) == 2
        assert alice.send("decrement").code == "unknown_event"  # type: ignore[union-attr]
        with alice.expect_error(ZeroDivisionError):
            assert alice.send("divide").code == "handler_error"  # type: ignore[union-attr]
        assert alice.send("later") is None
        alice.advance(599)
        assert alice.state["count"] == 2
        alice.advance(1)
        assert alice.state["count"] == 600
        assert alice.result(4).ok  # type: ignore[union-attr]
        assert alice.runs("increment") == [(2, "done")]
        assert [client.state["count"] for client in bob.tabs] == [0, 0]
        assert alice.never_saw("Traceback")
        assert alice.time == 600


@pytest.mark.parametrize("via", WAYS)
def test_a_handler_error_fails_the_test_whichever_way_it_goes(via: Via) -> None:
    app, _ = counter()
    with TestClient(app, via=via) as client, pytest.raises(ZeroDivisionError):
        client.send("divide")


@pytest.mark.parametrize("via", WAYS)
def test_a_lost_connection_is_taken_up_whichever_way_it_goes(via: Via) -> None:
    app, _ = counter()
    with TestClient(app, via=via) as client:
        for drop in (
            {"after_frames": 0},
            {"after_frames": 1},
            {"after_frames": 0, "silently": True},
        ):
            client.network.drop(**drop)  # type: ignore[arg-type]
            client.send("increment")
            client.network.restore()
            assert client.resumed, drop
        assert client.state == client.server_state == {"count": 3}
        assert client.delivered_once("increment")
        client.network.duplicate()
        client.send("increment")
        assert client.state == {"count": 4}
        assert client.delivered_once("increment")


@pytest.mark.parametrize("via", WAYS)
def test_whom_authenticate_refuses_hears_why_whichever_way_it_goes(via: Via) -> None:
    def authenticate(peer: Peer) -> str | None:
        assert "cacao" not in peer.query  # how a connection is told apart is ours
        return peer.cookies.get("who") or peer.headers.get("x-who")

    app, _ = counter(authenticate=authenticate)
    with TestClient(app, via=via, cookies={"who": "ada"}) as ada:
        assert ada.session.user == "ada"
        assert ada.user(headers={"X-Who": "bob"}).session.user == "bob"
        assert ada.user("eve").session.user == "eve"  # the test has said who it is
        with pytest.raises(ConnectionClosed) as refused:
            ada.user()
    assert refused.value.code == 4401


# --- Over a socket --------------------------------------------------------------------------------


@pytest.fixture
def over_socket() -> Iterator[None]:
    with use_settings(Settings(via="socket")):
        yield


@pytest.mark.usefixtures("over_socket")
class TestOverASocket:
    def test_the_edge_turns_away_a_page_of_another_origin(self) -> None:
        app, _ = counter()
        first = TestClient(app)
        assert first.session.peer.address == "127.0.0.1"
        evil = TestClient(app, headers={"Origin": "http://evil.example"})
        with pytest.raises(ConnectionClosed, match=r"HTTP 403: .*origin"):
            evil.send("increment")

    def test_a_message_of_many_packets_has_come_when_send_returns(self) -> None:
        app = App()
        text = Signal("", name="text")

        @app.on("fill")
        async def fill(session: Session, event: dict[str, int]) -> None:
            text.set(session, "x" * event["size"])

        client = TestClient(app)
        for size in (1, 5_000_000, 30_000_000):
            client.send("fill", size=size)
            assert len(client.state["text"]) == size

    def test_bytes_that_take_their_time_are_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        send_all = trio.SocketStream.send_all

        async def send_late(stream: trio.SocketStream, data: bytes) -> None:
            await trio.to_thread.run_sync(time.sleep, 0.01)  # which counts as blocked
            await send_all(stream, data)

        monkeypatch.setattr(trio.SocketStream, "send_all", send_late)
        app, _ = counter()
        client = TestClient(app)
        for number in range(1, 4):
            client.send("increment")
            assert client.state == {"count": number}

    def test_an_hour_of_heartbeats_passes_and_nobody_is_taken_for_dead(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        client.advance(3600)
        beats = [message for message in client.messages if message["type"] == "beat"]
        assert len(beats) == 180  # one each 20 s, answered each time
        client.send("increment")
        assert client.state == {"count": 1}
        assert client.outcome is None  # it was never lost

    def test_a_silent_client_is_noticed_by_its_heartbeat(self) -> None:
        app, _ = counter()
        client, other = TestClient(app), TestClient(app)
        client.network.drop(silently=True)
        client.advance(120 + 45)
        with pytest.raises(ConnectionClosed):
            _ = client.session
        other.send("increment")
        assert other.state == {"count": 1}

    def test_a_client_that_takes_nothing_holds_up_the_server_as_a_full_window_does(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        client.network.stall()
        for _ in range(3):
            client.send("increment")
        assert client.state == {"count": 0}
        client.network.restore()
        updates = [m["changes"] for m in client.messages if m["type"] == "update"]
        assert updates == [{"count": 1}, {"count": 3}]  # one was under way, the others gathered

    def test_the_server_may_close_and_the_client_hears_the_code(self) -> None:
        app, _ = counter()

        @app.on("leave")
        def leave(session: Session) -> None:
            session.close()

        client = TestClient(app)
        client.send("leave")
        with pytest.raises(ConnectionClosed) as closed:
            client.send("increment")
        assert closed.value.code == 1000

    def test_the_plain_protocol_goes_there_too(self) -> None:
        app, _ = counter()
        client = TestClient(app, subprotocol=None)
        client.send("increment")
        assert client.state == {"count": 1}
        assert client.messages[0].keys() == {"type", "state", "sessionId"}

    def test_the_end_of_one_world_leaves_another_alone(self) -> None:
        (one, _), (two, _) = counter(), counter()
        first, second = TestClient(one), TestClient(two)
        first.close()
        second.advance(30)
        second.send("increment")
        assert second.state == {"count": 1}

    def test_what_outlives_the_last_client_is_a_leak_there_too(self) -> None:
        app, _ = counter()

        @app.on("hide")
        async def hide(session: Session) -> None:
            trio.lowlevel.spawn_system_task(trio.sleep_forever, name="hidden")

        client = TestClient(app)
        client.send("hide")
        with pytest.raises(LeakError, match="hidden"):
            client.close()

    def test_a_connection_that_is_on_its_way_for_ever_is_told_of(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(served_module, "_PATIENCE", 0.05)
        app, _ = counter()
        client = TestClient(app)
        assert client._stage._served is not None
        (wire,) = client._stage._served._flights
        wire._near_end.sent += 1  # type: ignore[attr-defined] # it is a SocketWire
        with pytest.raises(HostingError, match="still on its way: messages of a client"):
            client.send("increment")

    def test_ctrl_c_comes_out_of_the_call_that_waits_for_a_message(self) -> None:
        class Interrupted:
            @property
            def in_flight(self) -> int:
                raise KeyboardInterrupt

        app, _ = counter()
        client = TestClient(app)
        assert client._stage._served is not None
        client._stage._served.watch(Interrupted())
        with pytest.raises(KeyboardInterrupt):
            client.send("increment")

    @pytest.mark.parametrize("threshold", [float("inf"), 0.0])
    def test_an_async_test_goes_there_under_its_own_clock(self, threshold: float) -> None:
        app, _ = counter()

        async def main() -> None:
            async with AsyncTestClient(app) as client:
                assert client.session.peer.address == "127.0.0.1"
                await client.send("increment")
                assert client.state == {"count": 1}
                await client.send("later")
                await client.advance(600)
                assert client.state == {"count": 600}

        trio.run(main, clock=MockClock(autojump_threshold=threshold))


def test_a_way_that_is_not_installed_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    app, _ = counter()
    for via, module, extra in (
        ("socket", "sockets.served", "test"),
        ("browser", "browser.pages", "browser"),
    ):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, f"cacao.testing.{module}", None)
            with pytest.raises(HostingError, match=rf"pip install 'cacao\[{extra}\]'"):
                TestClient(app, via=via)  # type: ignore[arg-type]


def test_a_way_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"via='sock' is no way .*'memory', 'socket', 'browser'"):
        TestClient(App(), via="sock")  # type: ignore[arg-type]


def test_a_client_of_an_open_world_cannot_go_another_way() -> None:
    app, _ = counter()
    _first = TestClient(app)
    with pytest.raises(ValueError, match="via='memory'"):
        TestClient(app, via="socket")


# --- In a page ------------------------------------------------------------------------------------


@pytest.fixture
def in_browser() -> Iterator[None]:
    with use_settings(Settings(via="browser")):
        yield


@pytest.mark.usefixtures("in_browser")
class TestInAPage:
    def test_a_user_clicks_types_and_sees(self) -> None:
        app, count = counter()
        name = Signal("", name="name")
        app.bind("name:input", name)
        greeting = Signal("", name="greeting")

        @app.effect
        def greet(session: Session) -> None:
            greeting.set(session, f"Hello, {name.get(session)}!")

        client = TestClient(app)
        client.page.click("+")
        client.page.click("+")
        assert count.get(client.session) == 2
        assert client.runs("increment") == [({}, "done")] * 2
        assert client.result(2).ok  # type: ignore[union-attr]
        client.page.fill("Your name", "Ada")
        assert client.page.sees("Hello, Ada!")
        assert not client.page.sees("Hello, Bob!")
        assert client.page.do(_text_of("#count")) == "2"

    def test_the_page_shows_what_the_server_has_sent_when_send_returns(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        for number in range(1, 11):
            client.send("increment")
            assert client.page.do(_text_of("#count")) == str(number)

    def test_what_the_client_has_is_what_the_pages_own_client_says(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        client.page.do(
            _running(
                "[...__cacao__].map(c => { const send = c.send.bind(c);"
                "c.send = (...event) => { send(...event); return new Promise(() => {}) } })"
            )
        )
        assert client.send("increment") is None  # though the message with its result has come
        assert client.messages[-1] == {"type": "result", "id": 1, "ok": True}
        client.page.do(_running("[...__cacao__].map(c => { c.get = () => 42 })"))
        assert client.state == {"count": 42}
        assert client.server_state == {"count": 1}

    def test_the_page_says_that_the_network_is_down_and_comes_back(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        client.network.drop()
        assert client.page.sees("reconnecting")
        client.page.click("+")
        assert client.state == {"count": 0}
        client.network.restore()
        assert client.page.sees("connected")
        assert client.state == {"count": 1}

    def test_a_reloaded_page_is_back_in_its_session(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        client.send("increment")
        before = client.session_id

        async def reload(page: BrowserPage) -> None:
            await page.reload()

        client.page.do(reload)
        assert client.session_id == before
        assert client.state == {"count": 1}
        client.send("increment")
        assert client.state == {"count": 2}

    def test_a_text_that_is_none_is_refused_as_in_memory(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        with pytest.raises(TypeError, match=r"a client sends text, not \{'a': 1\}; for an event"):
            client.send_text({"a": 1})  # type: ignore[arg-type]

    def test_what_is_not_there_is_told_with_what_is(self) -> None:
        app, _ = counter()
        page = TestClient(app).page
        with pytest.raises(PageError, match=r"no button 'nosuch' is .*: '−', 'Reset', '\+';"):  # noqa: RUF001
            page.click("nosuch")
        with pytest.raises(PageError, match=r"no field 'Age' is .*: 'Your name';"):
            page.fill("Age", "36")
        page.do(_showing("<button hidden>Save</button>"))
        with pytest.raises(PageError, match=r"no button 'Save' is .*: none;"):
            page.click("Save")

    def test_a_name_of_several_is_told_with_all_of_them(self) -> None:
        app, _ = counter()
        page = TestClient(app).page
        page.do(_showing('<button>Add</button><button>Add "all"</button><button>Undo</button>'))
        with pytest.raises(PageError, match=r"button 'add' may be any of 2: 'Add', 'Add \"all\"';"):
            page.click("add")

    def test_what_cannot_be_clicked_or_filled_is_told_with_the_reason(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cacao.testing.browser.page._ACTING_MS", 200)
        app, _ = counter()
        page = TestClient(app).page
        page.do(_showing("<button disabled>Save</button><label>Name <input readonly></label>"))
        with pytest.raises(PageError, match=r"(?s)button 'Save' .*not enabled"):
            page.click("Save")
        with pytest.raises(PageError, match=r"(?s)field 'Name' .*not editable"):
            page.fill("Name", "Ada")

    def test_what_the_page_draws_late_is_waited_for(self) -> None:
        app, _ = counter()
        page = TestClient(app).page
        page.do(_showing(""))
        draw = "document.body.innerHTML = '<button>Save</button>'"
        page.do(_running(f"void setTimeout(() => {{ {draw} }}, 300)"))
        page.click("Save")

    def test_the_report_of_what_is_not_there_shows_the_line_of_the_test_alone(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "test_page.py").write_text(
            "from cacao import App\n"
            "from cacao.testing import TestClient\n"
            "def test_page():\n"
            f"    app = App(static_folder={str(COUNTER_PAGE)!r})\n"
            "    TestClient(app, via='browser').page.click('nosuch')\n"
        )
        run = pytest_in(tmp_path)
        assert "no button 'nosuch'" in run.stdout
        assert "test_page.py:5: PageError" in run.stdout
        assert not any(name in run.stdout for name in ("page_line", "concurrent", "playwright"))

    def test_errors_in_the_page_fail_the_test(self) -> None:
        throw = (
            "setTimeout(() => { throw new Error('thrown') }); new Promise(requestAnimationFrame)"
        )
        app, _ = counter()
        client = TestClient(app)
        with pytest.raises(PageError, match="client 1: wrong"):
            client.page.do(_running("console.error('wrong')"))
        with pytest.raises(PageError, match=r"client 1: .*thrown"):
            client.page.do(_running(throw))

    def test_an_app_without_a_page_is_told_so(self) -> None:
        with pytest.raises(HostingError, match="answers HTTP 404; name the folder"):
            TestClient(App())

    def test_a_page_without_a_client_of_ours_is_told_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(served_module, "_PATIENCE", 2.0)
        (tmp_path / "index.html").write_text("<!doctype html><link rel=icon href=data:,>")
        with pytest.raises(HostingError, match="no client of Cacao's has connected there"):
            TestClient(App(static_folder=tmp_path))

    def test_what_a_page_cannot_do_is_refused_with_the_way_named(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        for refused in (
            lambda: client.network.stall(),
            lambda: client.network.delay(1),
            lambda: client.user(subprotocol=None),
        ):
            with pytest.raises(HostingError, match="via='browser'"):
                refused()

    def test_a_page_is_not_clicked_while_the_app_stands_still(self) -> None:
        app, _ = counter()
        client = TestClient(app)
        with client.together(), pytest.raises(HostingError, match="outside of together"):
            client.page.click("+")
        assert client.state == {"count": 1}  # the click was on its way

    def test_there_is_a_page_in_the_browser_alone(self) -> None:
        app, _ = counter()
        client = TestClient(app, via="memory")
        with pytest.raises(HostingError, match="--cacao-via browser"):
            _ = client.page

    def test_an_async_test_has_a_page_that_it_can_send_from(self) -> None:
        app, _ = counter()

        async def main() -> None:
            async with AsyncTestClient(app) as client:
                await client.send("increment")
                assert client.state == {"count": 1}
                with pytest.raises(HostingError, match="use TestClient"):
                    client.page.click("+")

        trio.run(main, clock=MockClock())

    def test_a_machine_without_chromium_is_told_how_to_name_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("cacao.testing.browser.chromium._NAMES", ("no-such-browser",))
        monkeypatch.delenv("CHROMIUM", raising=False)
        monkeypatch.setattr("cacao.testing.browser.pages.the_chromium", the_chromium.__wrapped__)
        app, _ = counter()
        with pytest.raises(HostingError, match="environment variable CHROMIUM"):
            TestClient(app)


def _text_of(selector: str) -> Callable[[BrowserPage], Coroutine[Any, Any, str]]:
    return lambda page: page.locator(selector).inner_text()


def _running(script: str) -> Callable[[BrowserPage], Coroutine[Any, Any, Any]]:
    return lambda page: page.evaluate(script)


def _showing(html: str) -> Callable[[BrowserPage], Coroutine[Any, Any, Any]]:
    return _running(f"document.body.innerHTML = {html!r}")
