"""The edge, driven by hand as a server would."""

from __future__ import annotations

from collections.abc import MutableMapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from quart import request
from trio.testing import wait_all_tasks_blocked

from cacao import App, Limits, Registry, Signal
from cacao.asgi import Edge, WebSocketConnection
from cacao.errors import ConnectionClosed
from cacao.gate import Gate
from cacao.hardening import MAX_MESSAGE_BYTES
from cacao.pages import make_quart

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Message = MutableMapping[str, Any]


class Server:
    """One ASGI call: what the server tells the app, and what the app answered."""

    def __init__(self, scope: Message) -> None:
        self.scope = scope
        self.answers: list[Message] = []
        self.tell, self._receive = trio.open_memory_channel[Message](100)

    async def receive(self) -> Message:
        return await self._receive.receive()

    async def send(self, message: Message) -> None:
        await trio.lowlevel.checkpoint()
        self.answers.append(message)


class GoneServer(Server):
    """A server whose client has gone: sending raises, as uvicorn's does."""

    async def send(self, message: Message) -> None:
        if message["type"] != "websocket.accept":
            raise OSError("client disconnected")
        await super().send(message)


def counter() -> App:
    with Registry() as registry:
        app = App(registry=registry)
        count = Signal(0, name="count")
    app.on("increment")(lambda session: count.update(session, lambda n: n + 1))
    # The registry holds names weakly: somebody must hold the signal.
    app.__dict__["count"] = count
    return app


def edge_of(app: App) -> Edge:
    return Edge(app.runtime, app.quart, app._report)


def websocket(path: str = "/ws", **more: Any) -> Message:
    headers = [(b"host", b"localhost"), (b"cookie", b"a=1")]
    return {"type": "websocket", "path": path, "headers": headers, **more}


@asynccontextmanager
async def living(edge: Edge) -> AsyncIterator[Server]:
    """Drive the lifespan around a block."""
    server = Server({"type": "lifespan"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge, server.scope, server.receive, server.send)
        server.tell.send_nowait({"type": "lifespan.startup"})
        await wait_all_tasks_blocked()
        assert server.answers == [{"type": "lifespan.startup.complete"}]
        yield server
        server.tell.send_nowait({"type": "lifespan.shutdown"})


@asynccontextmanager
async def connected(edge: Edge, server: Server) -> AsyncIterator[Server]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(edge, server.scope, server.receive, server.send)
        server.tell.send_nowait({"type": "websocket.connect"})
        await wait_all_tasks_blocked()
        yield server
        server.tell.send_nowait({"type": "websocket.disconnect", "code": 1001})


async def test_the_lifespan_opens_and_closes_the_run() -> None:
    async with living(edge_of(counter())) as server:
        pass
    assert server.answers[-1] == {"type": "lifespan.shutdown.complete"}


async def test_quarts_own_lifespan_runs_inside_ours() -> None:
    app = counter()
    seen: list[str] = []

    @app.quart.before_serving
    async def before() -> None:
        seen.append("before")

    @app.quart.after_serving
    async def after() -> None:
        seen.append("after")

    async with living(edge_of(app)):
        assert seen == ["before"]
    assert seen == ["before", "after"]


@pytest.mark.parametrize("phase", ["startup", "shutdown"])
async def test_a_failing_lifespan_is_told_to_the_server(
    phase: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = counter()

    async def fail() -> None:
        raise ValueError("no database")

    (app.quart.before_serving if phase == "startup" else app.quart.after_serving)(fail)
    server = Server({"type": "lifespan"})
    server.tell.send_nowait({"type": "lifespan.startup"})
    server.tell.send_nowait({"type": "lifespan.shutdown"})
    await edge_of(app)(server.scope, server.receive, server.send)
    assert server.answers[-1] == {
        "type": f"lifespan.{phase}.failed",
        "message": "ValueError: no database",
    }
    assert "no database" in caplog.text


@pytest.mark.parametrize("with_lifespan", [True, False])
async def test_a_websocket_gets_its_session(with_lifespan: bool) -> None:
    edge = edge_of(counter())
    async with trio.open_nursery() as nursery:
        if with_lifespan:
            await nursery.start(_live_until_cancelled, edge)
        async with connected(edge, Server(websocket())) as server:
            server.tell.send_nowait(
                {"type": "websocket.receive", "text": '{"type":"event","name":"increment"}'}
            )
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    accept, init, update = server.answers
    assert accept == {"type": "websocket.accept", "subprotocol": None}
    assert '"count":0' in init["text"]
    assert update["text"] == '{"type":"update","changes":{"count":1}}'


async def _live_until_cancelled(edge: Edge, task_status: trio.TaskStatus[None]) -> None:
    async with living(edge):
        task_status.started()
        await trio.sleep_forever()


async def test_the_subprotocol_is_taken_where_it_is_offered() -> None:
    scope = websocket(subprotocols=["other", "cacao.v1"])
    async with connected(edge_of(counter()), Server(scope)) as server:
        assert server.answers == [{"type": "websocket.accept", "subprotocol": "cacao.v1"}]


async def test_a_websocket_elsewhere_is_refused() -> None:
    async with connected(edge_of(counter()), Server(websocket("/other"))) as server:
        assert server.answers == [{"type": "websocket.close"}]


async def test_a_page_of_another_host_is_refused_and_named_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    headers = [(b"host", b"localhost:8000"), (b"origin", b"http://evil.com")]
    scope = {**websocket(), "headers": headers}
    async with connected(edge_of(counter()), Server(scope)) as server:
        assert server.answers == [{"type": "websocket.close"}]
    assert "http://evil.com" in caplog.text


async def test_the_pages_of_a_listed_host_are_let_in() -> None:
    headers = [(b"host", b"localhost:8000"), (b"origin", b"http://localhost:5173")]
    app = counter()
    gate = Gate(allowed_origins=["http://localhost:5173"])
    edge = Edge(app.runtime, app.quart, app._report, gate=gate)
    async with connected(edge, Server({**websocket(), "headers": headers})) as server:
        assert server.answers[0]["type"] == "websocket.accept"


async def test_the_server_is_told_how_large_a_message_may_be() -> None:
    app = counter()
    edge = Edge(app.runtime, app.quart, app._report, max_message_bytes=100)
    async with connected(edge, Server(websocket())) as server:
        assert server.answers[0][MAX_MESSAGE_BYTES] == 100


async def test_a_binary_message_closes_with_1003() -> None:
    async with connected(edge_of(counter()), Server(websocket())) as server:
        server.tell.send_nowait({"type": "websocket.receive", "bytes": b"x", "text": None})
        await wait_all_tasks_blocked()
        closed = server.answers[-1]
        assert (closed["type"], closed["code"]) == ("websocket.close", 1003)


async def test_a_client_that_is_gone_while_we_send_is_no_error() -> None:
    async with connected(edge_of(counter()), GoneServer(websocket())) as server:
        pass
    assert server.answers == [{"type": "websocket.accept", "subprotocol": None}]


async def test_a_client_that_is_gone_before_the_handler_answers_is_no_error() -> None:
    app = counter()
    released = trio.Event()

    @app.on("later")
    async def later() -> None:
        with trio.CancelScope(shield=True):
            await released.wait()

    edge = edge_of(app)
    async with connected(edge, Server(websocket())) as server:
        server.tell.send_nowait(
            {"type": "websocket.receive", "text": '{"type":"event","name":"later"}'}
        )
        await wait_all_tasks_blocked()
        server.tell.send_nowait({"type": "websocket.disconnect", "code": 1001})
        await wait_all_tasks_blocked()
        released.set()
    assert [answer["type"] for answer in server.answers] == [
        "websocket.accept",
        "websocket.send",
    ]


async def test_nothing_is_sent_on_a_closed_connection() -> None:
    server = Server(websocket())
    connection = WebSocketConnection(server.scope, server.receive, server.send)
    server.tell.send_nowait({"type": "websocket.connect"})
    await connection.accept()
    await connection.close()
    await connection.close()
    with pytest.raises(ConnectionClosed):
        await connection.send("late")
    assert [answer["type"] for answer in server.answers] == ["websocket.accept", "websocket.close"]


async def test_draining_closes_what_is_open_with_1012() -> None:
    edge = edge_of(counter())
    edge.drain()  # nothing runs yet: nothing to close
    async with living(edge):
        async with connected(edge, Server(websocket())) as server:
            edge.drain()
            await wait_all_tasks_blocked()
        assert server.answers[-1]["code"] == 1012


async def test_http_goes_to_quart() -> None:
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "path": "/health",
        "raw_path": b"/health",
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
        "http_version": "1.1",
    }
    server = Server(scope)
    server.tell.send_nowait({"type": "http.request", "body": b"", "more_body": False})
    await edge_of(counter())(scope, server.receive, server.send)
    assert (server.answers[0]["status"], b'"ok"' in server.answers[1]["body"]) == (200, True)


async def test_http_for_another_host_does_not_reach_quart() -> None:
    headers = [(b"host", b"evil.com")]
    scope = {"type": "http", "method": "GET", "headers": headers, "server": ("127.0.0.1", 8000)}
    server = Server(scope)
    await edge_of(counter())(scope, server.receive, server.send)
    start, body = server.answers
    assert (start["status"], body["body"]) == (421, b"this server does not answer to that host\n")
    names = [name for name, _ in start["headers"]]
    assert len(names) == len(set(names))
    assert b"content-security-policy" in names


async def test_a_handler_can_look_at_who_connected() -> None:
    app = counter()
    seen: list[tuple[str, str, str]] = []
    app.on("who")(
        lambda session: seen.append(
            (session.peer.address, session.peer.query, session.peer.headers["cookie"])
        )
    )
    scope = websocket(client=("10.1.2.3", 5), query_string=b"tab=2")
    async with connected(edge_of(app), Server(scope)) as server:
        server.tell.send_nowait(
            {"type": "websocket.receive", "text": '{"type":"event","name":"who"}'}
        )
        await wait_all_tasks_blocked()
    assert seen == [("10.1.2.3", "tab=2", "a=1")]


def nobody(where: str, error: Exception) -> None:
    raise AssertionError(where) from error


# --- Plain HTTP --------------------------------------------------------------------------------


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<h1>hi</h1>")
    (tmp_path / "assets" / "page-abc123.js").write_text("let a")
    (tmp_path.parent / "secret.txt").write_text("secret")
    return tmp_path


async def test_the_page_and_its_files_are_served(site: Path) -> None:
    client = make_quart(site, nobody).test_client()
    page = await client.get("/")
    assert (page.status_code, await page.get_data(as_text=True)) == (200, "<h1>hi</h1>")
    assert page.headers["cache-control"] == "public, no-cache"
    script = await client.get("/assets/page-abc123.js")
    assert script.mimetype == "text/javascript"
    assert "immutable" in script.headers["cache-control"]


async def test_an_unchanged_file_is_not_sent_again(site: Path) -> None:
    client = make_quart(site, nobody).test_client()
    first = await client.get("/")
    again = await client.get("/", headers={"if-none-match": first.headers["etag"]})
    assert again.status_code == 304


@pytest.mark.parametrize("path", ["/nope.js", "/../secret.txt", "/%2e%2e/secret.txt", "/assets"])
async def test_nothing_outside_the_folder_is_served(site: Path, path: str) -> None:
    response = await make_quart(site, nobody).test_client().get(path)
    assert response.status_code == 404
    assert "secret" not in await response.get_data(as_text=True)


async def test_a_file_is_closed_when_its_browser_goes_as_it_is_opened(
    site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    open_file = trio.open_file
    body = make_quart(site, nobody).response_class.file_body_class(site / "index.html")
    with trio.CancelScope() as browser:

        async def open_and_go(*args: Any, **kwargs: Any) -> Any:
            opened.append(await open_file(*args, **kwargs))
            browser.cancel()
            return opened[0]

        monkeypatch.setattr(trio, "open_file", open_and_go)
        async with body:
            raise AssertionError("it was not cancelled")
    assert opened[0].closed


async def test_an_app_without_page_says_how_to_get_one(tmp_path: Path) -> None:
    none = await make_quart(None, nobody).test_client().get("/")
    assert (none.status_code, 'static_folder="page/dist"' in await none.get_data(as_text=True)) == (
        404,
        True,
    )
    unbuilt = await make_quart(tmp_path / "dist", nobody).test_client().get("/")
    assert "build the page first" in await unbuilt.get_data(as_text=True)


async def test_health_answers(site: Path) -> None:
    response = await make_quart(site, nobody).test_client().get("/health")
    assert await response.get_json() == {"status": "ok"}


async def test_the_authors_own_routes_come_before_the_files(site: Path) -> None:
    with Registry() as registry:
        app = App(registry=registry, static_folder=site)

    @app.quart.get("/api/<name>")
    async def hello(name: str) -> dict[str, str]:
        return {"hello": name}

    client = app.quart.test_client()
    assert await (await client.get("/api/ada")).get_json() == {"hello": "ada"}
    assert (await client.get("/")).status_code == 200


async def test_a_request_that_is_too_large_is_refused() -> None:
    app = App(registry=Registry(), limits=Limits(max_upload_bytes=100))

    @app.quart.post("/upload")
    async def upload() -> str:
        return str(len(await request.get_data()))

    client = app.quart.test_client()
    assert await (await client.post("/upload", data=b"x" * 100)).get_data() == b"100"
    refused = await client.post("/upload", data=b"x" * 101)
    assert refused.status_code == 413
