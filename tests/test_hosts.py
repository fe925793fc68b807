from __future__ import annotations

from typing import Any

import pytest

from cacao import DeclarationError
from cacao.hosts import AllowedHosts, host_of, is_loopback

ANYWHERE = "203.0.113.7"
LOOPBACK = "127.0.0.1"


def headers(*hosts: str) -> list[tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), *((b"host", host.encode("latin-1")) for host in hosts)]


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("example.com", "example.com"),
        ("Example.COM:8000", "example.com"),
        ("example.com.", "example.com"),
        ("example.com:", "example.com"),
        ("my_container:8000", "my_container"),
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("[0:0:0:0:0:0:0:1]", "::1"),
    ],
)
def test_the_host_is_read_without_port_and_brackets(header: str, host: str) -> None:
    assert host_of(headers(header)) == host


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        "a b",
        "a,b",
        "example.com/path",
        "user@example.com",
        "http://example.com",
        "example.com:port",
        "example.com:123456",
        "example.com:80:80",
        "[::1",
        "::1",
        "[::1::]",
        "[]",
        "\xff",
        "\x00",
        "localhost\t",
        "localhost\n",
        "a" * 256,
    ],
)
def test_what_is_no_host_is_none(header: str) -> None:
    assert host_of(headers(header)) is None


def test_a_missing_and_a_second_host_are_none() -> None:
    assert host_of(headers()) is None
    assert host_of(headers("localhost", "localhost")) is None


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.localhost", "127.0.0.1", "127.255.0.3", "::1", "::ffff:127.0.0.1", "0.0.0.0"],  # noqa: S104
)
def test_this_machine_is_known_by_its_names(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "localhost.evil.com", "notlocalhost", "128.0.0.1", "127.evil.com", "::2", "0x7f.1"]
)
def test_other_names_are_not_this_machine(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("listed", "host", "on_loopback", "elsewhere"),
    [
        ([], "localhost", True, True),
        ([], "evil.com", False, True),
        (["example.com"], "example.com", True, True),
        (["Example.com"], "example.com", True, True),
        (["example.com"], "localhost", True, False),
        (["example.com"], "www.example.com", False, False),
        (["example.com"], "evil.com", False, False),
        (["*.example.com"], "www.example.com", True, True),
        (["*.example.com"], "a.b.example.com", True, True),
        (["*.example.com"], "example.com", False, False),
        (["*.example.com"], "evilexample.com", False, False),
        (["192.168.1.7"], "192.168.1.7", True, True),
        (["[::2]"], "::2", True, True),
        (["0:0:0:0:0:0:0:2"], "::2", True, True),
        (["*"], "evil.com", True, True),
    ],
)
def test_the_list_decides_and_on_loopback_loopbacks_names_are_added(
    listed: list[str], host: str, on_loopback: bool, elsewhere: bool
) -> None:
    hosts = AllowedHosts(listed)
    assert hosts.allow(host, LOOPBACK) is on_loopback
    assert hosts.allow(host, "::1") is on_loopback
    assert hosts.allow(host, ANYWHERE) is elsewhere
    assert hosts.allow(host, "") is elsewhere  # a Unix socket


@pytest.mark.parametrize(
    "listed",
    [
        ["https://example.com"],
        ["example.com:8000"],
        ["example.com/"],
        [""],
        ["*."],
        ["**"],
        ["www.*.com"],
        "example.com",
    ],
    ids=repr,
)
def test_what_cannot_be_a_host_is_refused_with_what_can(listed: Any) -> None:
    with pytest.raises(DeclarationError, match=r"expected a list of hosts without scheme and port"):
        AllowedHosts(listed)
