"""Which names of this server a request may use: `Host` headers, against DNS rebinding.

A page of evil.com cannot read what 127.0.0.1 answers, until evil.com's own DNS says that evil.com
*is* 127.0.0.1; then the browser takes the two for one site, and only the `Host` header still tells
them apart. So a server on loopback, which nothing else protects, answers to loopback's names alone,
and to those that its author lists.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING

from cacao.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from ipaddress import IPv4Address

__all__ = ["AllowedHosts", "host_of", "is_loopback"]

# As browsers write it, and with the underscores of container names.
_NAME = re.compile(r"[a-z0-9_.-]{1,255}", re.IGNORECASE)
_HEADER = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9_.-]{1,255})(:[0-9]{0,5})?", re.IGNORECASE)


class AllowedHosts:
    """The hosts that an app answers to.

    Args:
        names: "example.com"; "*.example.com" for all names below it (not itself); an address; "*"
            for all. Where there are none, any host is answered, and on loopback loopback's own.

    Raises:
        DeclarationError: A name is none of these.
    """

    def __init__(self, names: Collection[str] = ()) -> None:
        listed = [names] if isinstance(names, str) else names
        wrong = [name for name in listed if name is names or not _is_listable(name)]
        if wrong:
            raise DeclarationError(
                f"allowed_hosts has {wrong[0]!r}; expected a list of hosts without scheme and port:"
                " ['example.com'], ['*.example.com'], ['192.168.1.7'], or ['*'] for all"
            )
        self._names = {_plain(name) for name in listed}
        self._suffixes = tuple(name[1:] for name in self._names if name.startswith("*."))
        self._takes_all = "*" in self._names

    def allow(self, host: str, server: str) -> bool:
        """Tell whether a request for `host` is answered.

        Args:
            host: As `host_of` gives it.
            server: The address at which the request came in; empty where the server has none.
        """
        if self._takes_all or host in self._names or host.endswith(self._suffixes):
            return True
        return is_loopback(host) if is_loopback(server) else not self._names


def host_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Give the host that a request names: in lower case, without port and brackets.

    Args:
        headers: Of the request, names in lower case.

    Returns:
        None where the `Host` header is missing, comes twice or is malformed.
    """
    values = [value.decode("latin-1") for name, value in headers if name == b"host"]
    found = _HEADER.fullmatch(values[0]) if len(values) == 1 else None
    if found is None or (found[1][0] == "[" and _address(found[1]) is None):
        return None
    return _plain(found[1])


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address means this very machine, whatever a DNS server says.

    The unspecified addresses do: a browser that is sent to 0.0.0.0 asks the machine it runs on.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_listable(name: str) -> bool:
    bare = name.removeprefix("*.")
    return name == "*" or _NAME.fullmatch(bare) is not None or _address(name) is not None


def _plain(name: str) -> str:
    """Bring what stands for the same host into one form."""
    address = _address(name)
    return name.lower().removesuffix(".") if address is None else str(address)


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
