from __future__ import annotations

import time
from typing import Any

import pytest
from quart import Response, redirect, request
from quart_trio import QuartTrio

from cacao import DeclarationError, Peer, SignedCookie

SECRET = "correct horse battery staple"  # noqa: S105
OTHER = "staple battery horse correct"


def cookie(name: str = "user", **options: Any) -> SignedCookie:
    return SignedCookie(name, **{"secret": SECRET, **options})


def having(name: str, text: str) -> Peer:
    return Peer.of({}, {name: text})


@pytest.mark.parametrize("value", ["ada", 7, {"id": 1, "name": "Zoë"}, ["a"], "x" * 2000])
def test_a_value_comes_back(value: object) -> None:
    user = cookie()
    assert user.read(having("user", user.sign(value))) == value


def test_a_cookie_that_is_missing_is_none() -> None:
    assert cookie().read(Peer()) is None


def test_a_cookie_that_was_changed_is_none() -> None:
    user = cookie()
    signed = user.sign("ada")
    for at in range(len(signed) - 1):  # the last one has bits that nothing reads
        changed = signed[:at] + ("A" if signed[at] != "A" else "B") + signed[at + 1 :]
        assert user.read(having("user", changed)) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\xff", "ImFkYSI", "." * 100, "é.é.é"])
def test_nonsense_is_none(text: str) -> None:
    assert cookie().read(having("user", text)) is None


def test_another_secret_another_cookie() -> None:
    signed = cookie().sign("ada")
    assert cookie(secret=OTHER).read(having("user", signed)) is None


def test_what_one_cookie_holds_is_nothing_to_another() -> None:
    assert cookie("admin").read(having("admin", cookie("user").sign("ada"))) is None


def test_an_old_cookie_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    user = cookie(max_age=60)
    sent = having("user", user.sign("ada"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 59)
    assert user.read(sent) == "ada"
    monkeypatch.setattr(time, "time", lambda: now + 62)
    assert user.read(sent) is None


def test_secrets_can_be_changed_without_logging_anybody_out() -> None:
    old, new = cookie(), cookie(secret=[OTHER, SECRET])
    assert new.read(having("user", old.sign("ada"))) == "ada"
    assert cookie(secret=OTHER).read(having("user", new.sign("ada"))) == "ada"
    assert old.read(having("user", new.sign("ada"))) is None


@pytest.mark.parametrize(
    "secret", ["", "secret", [], [SECRET, "short"], None, ()], ids=lambda secret: repr(secret)
)
def test_a_secret_that_can_be_guessed_is_refused_with_how_to_make_one(secret: Any) -> None:
    with pytest.raises(DeclarationError, match=r"token_urlsafe\(32\)"):
        cookie(secret=secret)


@pytest.mark.parametrize("name", ["", "a b", "a;b", "a=b", "é", "a\n"], ids=repr)
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(DeclarationError, match="a cookie cannot be called"):
        cookie(name)


def test_an_age_is_positive() -> None:
    with pytest.raises(DeclarationError, match="max_age=0"):
        cookie(max_age=0)


def test_a_value_that_a_browser_would_drop_is_refused() -> None:
    with pytest.raises(ValueError, match="keep the value on the server"):
        cookie().sign("".join(map(chr, range(200, 3200))))


def test_a_value_that_json_cannot_carry_is_refused() -> None:
    with pytest.raises(TypeError):
        cookie().sign(object())


async def set_at(url: str, user: SignedCookie) -> tuple[str, set[str]]:
    """Let a route answer with a cookie; give its text and what the browser is told of it."""
    quart = QuartTrio(__name__)

    @quart.get("/")
    async def route() -> Any:
        response = redirect("/")
        user.set(response, "ada")
        return response

    scheme, _, host = url.partition("://")
    answer = await quart.test_client().get("/", scheme=scheme, headers={"host": host})
    (header,) = answer.headers.getlist("set-cookie")
    text, *attributes = header.split("; ")
    return text.removeprefix("user="), set(attributes)


GUARDED = {"Max-Age=1209600", "Path=/", "HttpOnly", "SameSite=Lax"}


@pytest.mark.parametrize(
    "url",
    ["https://example.com", "http://example.com", "https://localhost", "http://evil.localhost.com"],
)
async def test_a_cookie_is_kept_from_scripts_other_sites_and_plain_http(url: str) -> None:
    text, attributes = await set_at(url, cookie())
    assert cookie().read(having("user", text)) == "ada"
    assert attributes == {*GUARDED, "Secure"}


@pytest.mark.parametrize("url", ["http://localhost:8000", "http://127.0.0.1", "http://[::1]:80"])
async def test_on_loopback_plain_http_will_do(url: str) -> None:
    assert (await set_at(url, cookie()))[1] == GUARDED
    assert (await set_at(url, cookie(secure=True)))[1] == {*GUARDED, "Secure"}


async def test_an_author_may_do_without_https() -> None:
    assert (await set_at("http://example.com", cookie(secure=False)))[1] == GUARDED


def test_a_cookie_can_be_taken_away() -> None:
    response = Response("")
    cookie().clear(response)
    (header,) = response.headers.getlist("set-cookie")
    assert header == "user=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure"


async def test_a_route_reads_the_cookie_from_its_request() -> None:
    from_browser = cookie()
    quart = QuartTrio(__name__)

    @quart.get("/")
    async def route() -> str:
        return repr(from_browser.read(request))

    client = quart.test_client()
    answer = await client.get("/", headers={"cookie": f"user={from_browser.sign('ada')}"})
    assert await answer.get_data(as_text=True) == "'ada'"
