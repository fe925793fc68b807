from __future__ import annotations

from typing import Any

import pytest

from cacao import DeclarationError
from cacao.headers import CONTENT_SECURITY_POLICY, SecurityHeaders

Pairs = list[tuple[bytes, bytes]]


def completed(given: Pairs, **options: Any) -> dict[str, str]:
    start: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": given}
    SecurityHeaders(**options).complete(start)
    assert len({name.lower() for name, _ in start["headers"]}) == len(start["headers"])
    return {name.decode().lower(): value.decode() for name, value in start["headers"]}


def test_an_answer_tells_the_browser_to_be_careful() -> None:
    assert completed([(b"content-type", b"text/html")]) == {
        "content-type": "text/html",
        "x-content-type-options": "nosniff",
        "x-frame-options": "SAMEORIGIN",
        "referrer-policy": "same-origin",
        "content-security-policy": CONTENT_SECURITY_POLICY,
    }


def test_what_a_route_says_itself_stays() -> None:
    headers = completed([(b"Content-Security-Policy", b"x"), (b"X-Frame-Options", b"DENY")])
    assert headers["content-security-policy"] == "x"
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"


def test_no_script_runs_that_stands_in_the_page() -> None:
    rules = dict(rule.strip().split(" ", 1) for rule in CONTENT_SECURITY_POLICY.split(";"))
    assert rules["default-src"] == "'self'"
    assert "script-src" not in rules
    assert rules["object-src"] == "'none'"


def test_an_author_may_have_another_policy_or_none() -> None:
    mine = completed([], content_security_policy=" default-src 'self' ")
    assert mine["content-security-policy"] == "default-src 'self'"
    none = completed([], content_security_policy=None)
    assert "content-security-policy" not in none
    assert none["x-frame-options"] == "SAMEORIGIN"


@pytest.mark.parametrize("policy", ["", "  ", "default-src\nx: y", "défault"], ids=repr)
def test_what_cannot_stand_in_a_header_is_refused(policy: str) -> None:
    with pytest.raises(DeclarationError, match="expected one line of ASCII"):
        SecurityHeaders(policy)
