"""Who opened a connection: address, headers, cookies, and the user they turned out to be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Peer"]


@dataclass(frozen=True, slots=True)
class Peer:
    """What is known of who opened a connection: what `App(authenticate=...)` is given.

    All of it but `address` and `user` is what the client says of itself, and may be false.

    Attributes:
        address: The client's address as the server saw it; empty in memory. Behind a proxy it is
            the proxy's.
        path: The path asked for.
        query: The query string, undecoded.
        raw_headers: Names and values in the order they came, names in lower case.
        user: What the app's `authenticate` made of them; None where the app has none.
    """

    address: str = ""
    path: str = "/ws"
    query: str = ""
    raw_headers: Sequence[tuple[bytes, bytes]] = ()
    user: object = None

    @classmethod
    def of(cls, headers: Mapping[str, str], cookies: Mapping[str, str]) -> Self:
        """Make a peer that a browser could be, as for a test.

        Args:
            headers: By name, in whatever case.
            cookies: By name; the values as they stand on the wire.
        """
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
        if cookies:
            pairs = "; ".join(f"{name}={value}" for name, value in cookies.items())
            raw.append((b"cookie", pairs.encode("latin-1")))
        return cls(raw_headers=raw)

    @property
    def headers(self) -> dict[str, str]:
        """The headers by lower-case name; of a repeated header the last value."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self.raw_headers}

    @property
    def user_key(self) -> str | None:
        """What tells users apart: a user that is a string itself, else its `id`; None for none."""
        if self.user is None:
            return None
        return str(getattr(self.user, "id", self.user))

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name, as they were sent; of a repeated name the first value.

        A browser sends the cookie of the longest path first.
        """
        cookies: dict[str, str] = {}
        for name, value in self.raw_headers:
            if name == b"cookie":
                for pair in value.decode("latin-1").split(";"):
                    key, found, text = pair.partition("=")
                    if found:
                        cookies.setdefault(key.strip(), _unquoted(text.strip()))
        return cookies

    @property
    def parameters(self) -> dict[str, str]:
        """The query string's parameters by name, decoded; of a repeated name the last value.

        A URL is written to logs: no place for a password or a token.
        """
        return dict(parse_qsl(self.query, keep_blank_values=True))


def _unquoted(value: str) -> str:
    is_quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if is_quoted else value
