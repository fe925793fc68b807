"""`SignedCookie`: a value that the browser keeps for us, and cannot change."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any, Protocol

from itsdangerous import BadData, TimestampSigner, URLSafeTimedSerializer
from quart import has_request_context, request

from cacao import clock
from cacao.errors import DeclarationError
from cacao.hosts import host_of, is_loopback

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from werkzeug.sansio.response import Response  # Quart's own, and that of its redirect()

    class HasCookies(Protocol):
        """A `Peer`, a request of Quart's, or another that has cookies by name."""

        @property
        def cookies(self) -> Mapping[str, str]:
            """The cookies as they were sent."""
            ...


__all__ = ["SignedCookie"]

_LEAST_SECRET = 16
_TWO_WEEKS = 14 * 24 * 3600
# Browsers drop a larger cookie without a word.
_MAX_BYTES = 4096
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class SignedCookie:
    """A cookie of this app: signed, and of limited age.

    Its value can be read by whoever has the browser, but not be made or changed without the
    secret. It is hidden from scripts (HttpOnly), and not sent along with what pages of other sites
    ask for in the background (SameSite=Lax). To end its users' logins all at once, change the
    secret.

    Args:
        name: The cookie's name.
        secret: At least 16 characters that nobody can guess; several to change them: the first
            one signs, and what any of them has signed is valid.
        max_age: Seconds for which it is valid; two weeks by default.
        secure: Whether browsers keep it to HTTPS. None, the default: yes, but on loopback.

    Raises:
        DeclarationError: The name cannot be one, a secret is too short, or the age not positive.
    """

    def __init__(
        self,
        name: str,
        *,
        secret: str | Sequence[str],
        max_age: int = _TWO_WEEKS,
        secure: bool | None = None,
    ) -> None:
        if not _NAME.fullmatch(name):
            raise DeclarationError(
                f"a cookie cannot be called {name!r}; expected letters, digits, '-' and '_'"
            )
        if max_age <= 0:
            raise DeclarationError(f"cookie {name!r} has max_age={max_age}; give seconds above 0")
        self.name = name
        self.max_age = max_age
        self._secure = secure
        self._serializer = URLSafeTimedSerializer(
            _checked_secrets(name, secret),
            salt=f"cacao.cookie.{name}",  # what one cookie holds is not valid in another
            signer=_Signer,
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )

    def sign(self, value: object) -> str:
        """Give the text that stands for a value in the cookie, as for a test's `cookies=`.

        Args:
            value: What JSON can carry; short, such as a user's id.

        Raises:
            TypeError: JSON cannot carry it.
            ValueError: It is too long for a cookie.
        """
        text = self._serializer.dumps(value)
        signed = text if isinstance(text, str) else text.decode()
        if len(self.name) + len(signed) > _MAX_BYTES:
            raise ValueError(
                f"cookie {self.name!r} would have {len(signed)} bytes, and browsers keep "
                f"{_MAX_BYTES}; keep the value on the server, and its id in the cookie"
            )
        return signed

    def read(self, source: HasCookies) -> Any:
        """Read the value from what a browser has sent.

        Args:
            source: A `Peer`, Quart's `request`, or what else has `cookies` by name.

        Returns:
            None where the cookie is missing, too old, or not of our making.
        """
        text = source.cookies.get(self.name)
        if text is None:
            return None
        try:
            value, signed_at = self._serializer.loads(text, return_timestamp=True)
        except BadData:
            return None
        # One from the future is no forgery: another server's clock is ahead, or a test has signed
        # it before the virtual time of its app began.
        return value if clock.time() - signed_at.timestamp() < self.max_age else None

    def set(self, response: Response, value: object) -> None:
        """Let an answer give the cookie to the browser, for the whole site.

        Raises:
            TypeError: JSON cannot carry the value.
            ValueError: It is too long for a cookie.
        """
        self._add(response, self.sign(value), self.max_age)

    def clear(self, response: Response) -> None:
        """Let an answer take the cookie away from the browser. A copy of it stays valid."""
        self._add(response, "", 0)

    def _add(self, response: Response, text: str, max_age: int) -> None:
        parts = [f"{self.name}={text}", f"Max-Age={max_age}", "Path=/", "HttpOnly", "SameSite=Lax"]
        if _is_away_from_home() if self._secure is None else self._secure:
            parts.append("Secure")
        response.headers.add("Set-Cookie", "; ".join(parts))


class _Signer(TimestampSigner):
    """Signs with the time of `cacao.clock`."""

    def get_timestamp(self) -> int:
        return int(clock.time())


def _checked_secrets(name: str, secret: str | Sequence[str]) -> list[str]:
    """Give the secrets in the order that itsdangerous wants: the one that signs is last."""
    secrets = [secret] if isinstance(secret, str) else list(secret or ())  # None: not set
    if not secrets or min(map(len, secrets)) < _LEAST_SECRET:
        raise DeclarationError(
            f"a secret of cookie {name!r} has fewer than {_LEAST_SECRET} characters; make one with "
            "python -c 'import secrets; print(secrets.token_urlsafe(32))', keep it out of the "
            "code, and read it from the environment"
        )
    return secrets[::-1]


def _is_away_from_home() -> bool:
    """Whether the request being answered is for another machine's browser, as far as we see."""
    if not has_request_context() or request.is_secure:
        return True
    host = host_of([(b"host", request.headers.get("host", "").encode())])
    return host is None or not is_loopback(host)
