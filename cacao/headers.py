"""What every HTTP answer tells the browser, so that a mistake in a page does less harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cacao.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

__all__ = ["CONTENT_SECURITY_POLICY", "SecurityHeaders"]

# Scripts, connections and all else from here alone: what is injected into a page does not run.
# Styles may stand in the page, because components set them so.
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; object-src 'none'; base-uri 'self'; form-action 'self'; "
    "frame-ancestors 'self'"
)


class SecurityHeaders:
    """Headers that are added to an answer where it has none of that name.

    Args:
        content_security_policy: None for none.

    Raises:
        DeclarationError: It cannot stand in a header.
    """

    def __init__(self, content_security_policy: str | None = CONTENT_SECURITY_POLICY) -> None:
        self._headers = [
            (b"x-content-type-options", b"nosniff"),
            (b"x-frame-options", b"SAMEORIGIN"),  # for what does not know frame-ancestors
            (b"referrer-policy", b"same-origin"),
        ]
        if content_security_policy is not None:
            value = _header_value(content_security_policy)
            self._headers.append((b"content-security-policy", value))

    def complete(self, start: MutableMapping[str, Any]) -> None:
        """Add what is missing to an ASGI message that starts an answer."""
        given = list(start.get("headers", ()))
        names = {bytes(name).lower() for name, _ in given}
        start["headers"] = given + [pair for pair in self._headers if pair[0] not in names]


def _header_value(policy: str) -> bytes:
    if not (policy.isascii() and policy.isprintable() and policy.strip()):
        raise DeclarationError(
            f"content_security_policy is {policy!r}; expected one line of ASCII such as "
            "\"default-src 'self'\", or None for no policy"
        )
    return policy.strip().encode()
