"""One story for both test clients: the synchronous one, and its async twin.

A story is written with `await`. The synchronous client's calls are wrapped so that they can be
awaited, and never wait; so that story is driven by hand, outside of trio.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest
import trio
from trio.testing import MockClock

from cacao.testing import AsyncTestClient, TestClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from cacao import App

_AWAITED = {"call", "send", "send_text", "settle", "advance", "wait", "close", "user", "tab"}


class Opens(Protocol):
    """Opens a client of either kind, told apart by nothing."""

    def __call__(self, app: App, **options: Any) -> AbstractAsyncContextManager[AsyncTestClient]:
        """Open it for a block."""
        ...


def in_both(story: Callable[[Opens], Coroutine[Any, Any, None]]) -> Callable[[str], None]:
    """Make a test of a story: it is gone through with each of the two clients."""

    @pytest.mark.parametrize("kind", ["sync", "async"])
    def test(kind: str) -> None:
        if kind == "async":
            trio.run(story, cast("Opens", AsyncTestClient), clock=MockClock())
        else:
            _drive(story(_open_sync))

    test.__name__ = test.__qualname__ = story.__name__
    return cast("Callable[[str], None]", test)


def _drive(story: Coroutine[Any, Any, None]) -> None:
    with pytest.raises(StopIteration):
        story.send(None)


@asynccontextmanager
async def _open_sync(app: App, **options: Any) -> AsyncIterator[AsyncTestClient]:
    with TestClient(app, **options) as client:
        yield cast("AsyncTestClient", _Awaited(client))


class _Awaited:
    """A synchronous client in the clothes of the async one."""

    def __init__(self, client: TestClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if name in _AWAITED:
            return _awaitable(found)
        if name == "together":
            return lambda: _entered(found())
        return _dressed(found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Awaited) and other._client is self._client

    def __hash__(self) -> int:
        return hash(self._client)


def _awaitable(call: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def called(*args: object, **fields: Any) -> Any:
        return _dressed(call(*args, **fields))

    return called


@asynccontextmanager
async def _entered(block: Any) -> AsyncIterator[None]:
    with block:
        yield


def _dressed(value: Any) -> Any:
    if isinstance(value, TestClient):
        return _Awaited(value)
    if isinstance(value, tuple) and value and isinstance(value[0], TestClient):
        return tuple(map(_Awaited, value))
    return value
