"""From a URL to an open storage."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from cacao.errors import DeclarationError
from cacao.storage.memory import open_memory
from cacao.storage.sqlite import open_sqlite

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from cacao.storage.seam import Storage

__all__ = ["open_storage"]


def open_storage(
    url: str, *, patience: float = 5.0, prefix: str = "cacao:"
) -> AbstractAsyncContextManager[Storage]:
    """Choose a storage by its URL; it is open for as long as the `async with` block lasts.

    Args:
        url: `memory:`, `sqlite:path/to/file` or `redis://host:6379/0` (`rediss:` for TLS).
        patience: Seconds after which a file that another process holds, or a Redis that does not
            answer, is a `StorageError`.
        prefix: Stands before every key in Redis, which other programs may share.

    Raises:
        DeclarationError: At once, for a URL that is none of these; or Redis's client is not
            installed.
        StorageError: At the beginning of the block: it cannot be used.
    """
    scheme, _, rest = url.partition(":")
    match scheme:
        case "memory" if not rest:
            return open_memory()
        case "sqlite" if rest and not rest.startswith("//"):
            return open_sqlite(Path(rest), patience)
        case "redis" | "rediss" if rest.startswith("//"):
            return _open_redis(url, patience, prefix)
        case _:
            raise DeclarationError(
                f"storage {scheme + ':'!r} with {'...' if '@' in rest else rest!r} is unknown; "
                "expected 'memory:', 'sqlite:path/to/file' or 'redis://host:6379/0'"
            )


def _open_redis(url: str, patience: float, prefix: str) -> AbstractAsyncContextManager[Storage]:
    try:
        redis = import_module("cacao.storage.redis")  # half a second, for those who use it
    except ModuleNotFoundError as error:
        raise DeclarationError(
            f"storage 'redis:' needs {error.name}, which is not installed; "
            "pip install 'cacao[redis]'"
        ) from error
    opened = redis.open_redis(url, patience, prefix)
    return cast("AbstractAsyncContextManager[Storage]", opened)
