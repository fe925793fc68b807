from __future__ import annotations

from types import SimpleNamespace

import pytest

from cacao.peer import Peer


def sent(*headers: tuple[str, str]) -> Peer:
    return Peer(raw_headers=[(name.encode(), value.encode("latin-1")) for name, value in headers])


def test_headers_are_found_by_their_lower_case_name() -> None:
    assert Peer.of({"X-Token": "t", "Accept": "*/*"}, {}).headers == {
        "x-token": "t",
        "accept": "*/*",
    }


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("a=1", {"a": "1"}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=2", {"a": "1", "b": "2"}),
        ("a=1; a=2", {"a": "1"}),
        ("a=x=y==", {"a": "x=y=="}),
        ('a="quoted"; b="', {"a": "quoted", "b": '"'}),
        ("a=; b", {"a": ""}),
        ("a=%20", {"a": "%20"}),
        ("a=\xff; ;=;", {"a": "\xff", "": ""}),
        ("", {}),
    ],
)
def test_cookies_are_read_as_they_were_sent(header: str, cookies: dict[str, str]) -> None:
    assert sent(("cookie", header)).cookies == cookies


def test_cookies_may_come_in_several_headers_as_http_2_has_them() -> None:
    assert sent(("cookie", "a=1"), ("accept", "a=3"), ("cookie", "b=2")).cookies == {
        "a": "1",
        "b": "2",
    }


def test_a_peer_is_made_with_cookies() -> None:
    assert Peer.of({}, {"a": "1", "b": "2"}).cookies == {"a": "1", "b": "2"}
    assert Peer.of({"cookie": "a=1"}, {"b": "2"}).cookies == {"a": "1", "b": "2"}
    assert Peer.of({}, {}) == Peer(raw_headers=[])


def test_parameters_are_the_query_string_decoded() -> None:
    peer = Peer(query="tab=2&name=Ada%20L+&empty=&tab=3&%ff")
    assert peer.parameters == {"tab": "3", "name": "Ada L ", "empty": "", "\ufffd": ""}
    assert Peer().parameters == {}


def test_users_are_told_apart_by_their_id_or_as_strings() -> None:
    assert Peer(user="ada").user_key == "ada"
    assert Peer(user=7).user_key == "7"
    assert Peer(user=SimpleNamespace(id=7, name="ada")).user_key == "7"
    assert Peer().user_key is None
