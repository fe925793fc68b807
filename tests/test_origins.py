from __future__ import annotations

import pytest

from cacao.origins import is_allowed_origin


def allows(
    *origins: str, host: str = "example.com", is_secure: bool = False, allowed: tuple[str, ...] = ()
) -> bool:
    headers = [(b"host", host.encode())]
    headers += [(b"origin", origin.encode("latin-1")) for origin in origins]
    return is_allowed_origin(headers, is_secure=is_secure, allowed=allowed)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://example.com", "example.com"),
        ("http://example.com", "example.com:80"),
        ("http://example.com:80", "example.com"),
        ("http://example.com:8000", "example.com:8000"),
        ("http://Example.COM:8000", "example.com:8000"),
        ("https://example.com", "example.com"),  # a proxy ends TLS
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_page_of_this_host_may_connect(origin: str, host: str) -> None:
    assert allows(origin, host=host)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "http://example.com.evil.com",
        "http://evil.com/example.com",
        "http://example.com@evil.com",
        "http://example.com:8001",
        "http://example.com:x",
        "http://",
        "null",
        "file://",
        "chrome-extension://example.com",
        "example.com",
        "",
        "\xff",
        "http://[::1",
    ],
)
def test_a_page_of_another_or_of_no_host_may_not(origin: str) -> None:
    assert not allows(origin)


def test_what_is_no_browser_may_connect() -> None:
    assert allows()


def test_two_origins_are_one_too_many() -> None:
    assert not allows("http://example.com", "http://example.com")


def test_without_host_nobody_is_at_home() -> None:
    headers = [(b"origin", b"http://example.com")]
    assert not is_allowed_origin(headers, is_secure=False, allowed=())


def test_a_page_without_tls_may_not_connect_with_it() -> None:
    assert not allows("http://example.com", is_secure=True)
    assert allows("https://example.com", is_secure=True)


def test_the_authors_list_lets_others_in() -> None:
    assert allows("http://localhost:5173", allowed=("http://localhost:5173",))
    assert not allows("http://localhost:5174", allowed=("http://localhost:5173",))
    assert allows("http://evil.com", allowed=("*",))
