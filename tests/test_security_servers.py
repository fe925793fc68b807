"""The edge under real servers: hosts, origins, headers, logins."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from processes import HYPERCORN, Server, served
from trio_websocket import ConnectionClosed, open_websocket_url

from cacao.headers import CONTENT_SECURITY_POLICY

if TYPE_CHECKING:
    from collections.abc import Iterator

APP = """
from quart import request
from quart import Response

from cacao import App, Signal, SignedCookie

user = SignedCookie("user", secret="a secret for this test alone")
app = App(authenticate=user.read, static_folder="page")
name = Signal("", name="name")

@app.on_connect
def remember(session):
    name.set(session, session.user)

@app.quart.post("/login")
async def login():
    response = Response("welcome")
    user.set(response, (await request.form)["name"])
    return response

@app.quart.get("/mine")
async def mine():
    return "mine", {"Content-Security-Policy": "default-src 'none'"}

@app.quart.get("/fails")
async def fails():
    raise ValueError("a bug")

asgi = app.asgi
"""

COMMANDS = {
    "hypercorn": HYPERCORN,
    "hypercorn -k trio": [*HYPERCORN, "-k", "trio"],
    "uvicorn": [str(Path(sys.executable).parent / "uvicorn"), "app:asgi", "--port", "{port}"],
}

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


@pytest.fixture(scope="module", params=COMMANDS)
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("app")
    (folder / "app.py").write_text(APP)
    (folder / "page").mkdir()
    (folder / "page" / "index.html").write_text("<h1>hi</h1>")
    with served(COMMANDS[request.param], cwd=folder) as server:
        yield server


Answer = tuple[int, dict[str, str]]


def ask(server: Server, path: str = "/", method: str = "GET", **headers: str) -> Answer:
    """Ask for a path; `_` in a header's name stands for `-`."""
    fields = {"Host": f"127.0.0.1:{server.port}"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
    return ask_raw(server, lines)


def ask_raw(server: Server, lines: list[str]) -> Answer:
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 10)) as stream:
        stream.sendall("".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1"))
        with contextlib.closing(http.client.HTTPResponse(stream)) as answer:
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def shake_hands(server: Server, **headers: str) -> int:
    return ask(server, "/ws", **UPGRADE, **headers)[0]


# --- Hosts and origins -------------------------------------------------------------------------


def test_a_name_that_was_rebound_to_this_machine_gets_nothing(server: Server) -> None:
    assert ask(server)[0] == 200
    assert ask(server, Host="localhost")[0] == 200
    for path in ("/", "/health", "/mine", "/nope"):
        assert ask(server, path, Host="evil.com")[0] == 421
    assert shake_hands(server, Host="evil.com", Origin="http://evil.com") == 421
    assert "App(allowed_hosts=['evil.com'])" in server.stderr


@pytest.mark.parametrize("host", ["", "a b", "\xff", "evil.com/x", "127.0.0.1:x", "[::1", "@"])
def test_a_host_that_is_none_is_the_clients_mistake(server: Server, host: str) -> None:
    assert 400 <= ask(server, Host=host)[0] < 500
    if host.isascii():  # uvicorn with wsproto hangs up on others without a word
        assert 400 <= shake_hands(server, Host=host) < 500
    assert ask(server)[0] == 200


def test_a_request_names_one_host(server: Server) -> None:
    host = f"Host: 127.0.0.1:{server.port}"
    assert ask_raw(server, ["GET / HTTP/1.1", host])[0] == 200
    assert 400 <= ask_raw(server, ["GET / HTTP/1.1", host, host])[0] < 500
    assert 400 <= ask_raw(server, ["GET / HTTP/1.1"])[0] < 500
    assert 400 <= ask_raw(server, ["GET / HTTP/1.0"])[0] < 500


@pytest.mark.parametrize("origin", ["http://evil.com", "null", "\xff", "http://[::1", "x:y:z", "@"])
def test_a_page_of_another_or_of_no_origin_is_forbidden(server: Server, origin: str) -> None:
    assert shake_hands(server, Origin=origin) == 403
    assert shake_hands(server, Origin=f"http://127.0.0.1:{server.port}") == 401


def test_a_websocket_elsewhere_is_not_found(server: Server) -> None:
    assert ask(server, "/other", **UPGRADE)[0] == 404


# --- Headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "host", "status"),
    [
        ("/", "GET", "localhost", 200),
        ("/health", "GET", "localhost", 200),
        ("/nope", "GET", "localhost", 404),
        ("/login", "GET", "localhost", 404),
        ("/health", "DELETE", "localhost", 405),
        ("/fails", "GET", "localhost", 500),
        ("/", "GET", "evil.com", 421),
    ],
)
def test_every_answer_tells_the_browser_to_be_careful(
    server: Server, path: str, method: str, host: str, status: int
) -> None:
    answered, headers = ask(server, path, method, Host=host, Origin="http://evil.com")
    assert answered == status
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "SAMEORIGIN"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert not [name for name in headers if name.startswith("access-control")]


def test_a_route_may_have_a_policy_of_its_own(server: Server) -> None:
    _, headers = ask(server, "/mine")
    assert headers["content-security-policy"] == "default-src 'none'"
    assert headers["x-content-type-options"] == "nosniff"


# --- Logins ------------------------------------------------------------------------------------


def log_in(server: Server, name: str) -> str:
    """Log in as a page does, and give what the browser keeps."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    with contextlib.closing(connection):
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/login", f"name={name}", form)
        cookie = connection.getresponse().headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    return str(cookie.partition(";")[0])


async def first_message(
    server: Server, cookie: str | None = None, protocol: str | None = None
) -> dict[str, Any]:
    headers = [(b"cookie", cookie.encode())] if cookie else None
    url = f"{server.websocket_url}/ws"
    protocols = [protocol] if protocol else None
    with trio.fail_after(10):
        async with open_websocket_url(url, subprotocols=protocols, extra_headers=headers) as page:
            try:
                message: dict[str, Any] = json.loads(await page.get_message())
                return message
            finally:
                await trio.aclose_forcefully(page._stream)


async def test_who_has_logged_in_is_known_to_the_session(server: Server) -> None:
    cookie = await trio.to_thread.run_sync(log_in, server, "ada")
    assert (await first_message(server, cookie))["state"] == {"name": "ada"}


@pytest.mark.parametrize("cookie", ["", "user=ada", "user=ImFkYSI.aaaaaa.bbbb"])
def test_a_stranger_gets_401(server: Server, cookie: str) -> None:
    assert shake_hands(server, Cookie=cookie) == 401


async def test_a_page_of_a_stranger_gets_4401(server: Server) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        await first_message(server, protocol="cacao.v1")
    assert caught.value.reason is not None
    assert (caught.value.reason.code, caught.value.reason.reason) == (4401, "unauthorized")
