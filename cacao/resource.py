"""`Resource`: a value that is fetched, anew whenever what it depends on has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from cacao.async_effect import run_async_effect
from cacao.reactive import Computed, Signal, batch, current_session

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cacao.store import Store

__all__ = ["Resource", "ResourceState"]

T = TypeVar("T")


class ResourceState(NamedTuple, Generic[T]):
    """What is known of a resource in one session.

    Attributes:
        value: What was fetched last; None before that. It stays while something newer is fetched,
            and when that fails.
        is_loading: Whether something newer is being fetched.
        error: What the last attempt raised; None if it went well, or none has ended.
    """

    value: T | None
    is_loading: bool
    error: Exception | None


class Resource(Generic[T]):
    """An async computed signal; made by `@app.resource`, which tells how it behaves.

    The client sees `{"value": ..., "isLoading": ..., "error": null | {"message", "errorId"}}`.
    In a `Session()` alone nothing is fetched.

    Args:
        fetch: The author's function; called with the session.
        name: Its name on the wire, in the current registry.
        client: False keeps it on the server.
    """

    def __init__(
        self, fetch: Callable[[Any], Awaitable[T]], name: str, *, client: bool = True
    ) -> None:
        self.name = name
        self._fetch = fetch
        self._value: Signal[T | None] = Signal(None)
        self._is_loading = Signal(default=False)
        self._failure: Signal[_Failure | None] = Signal(None)
        self._shown = Computed(self._show, name, client=client)

    def __repr__(self) -> str:
        return f"<Resource {self.name!r}>"

    def state(self, session: Store) -> ResourceState[T]:
        """Return all there is to know; inside a Computed or an Effect it is a dependency."""
        failure = self._failure.get(session)
        error = None if failure is None else failure.error
        return ResourceState(self._value.get(session), self._is_loading.get(session), error)

    def get(self, session: Store) -> T | None:
        """Return what was fetched last; inside a Computed or an Effect it is a dependency."""
        return self._value.get(session)

    @property
    def value(self) -> T | None:
        """What was fetched last, in the session known here.

        Raises:
            NoSessionError: If no session is known; so do `is_loading` and `error`.
        """
        return self.get(current_session())

    @property
    def is_loading(self) -> bool:
        """Whether something newer is being fetched, in the session known here."""
        return self._is_loading.get(current_session())

    @property
    def error(self) -> Exception | None:
        """What the last attempt raised, in the session known here."""
        failure = self._failure.get(current_session())
        return None if failure is None else failure.error

    async def keep_fetched(self, session: Store, failed: Callable[[Exception], str]) -> None:
        """Fetch, and anew after each change, for as long as the session lives.

        Args:
            session: A live one.
            failed: Told of what the author's function raises; gives the error's id.
        """

        async def load() -> None:
            await self._load(session, failed)

        await run_async_effect(load, session, failed)

    async def _load(self, session: Store, failed: Callable[[Exception], str]) -> None:
        self._is_loading.set(session, value=True)
        try:
            value = await self._fetch(session)
            if session.guard is not None and self._shown.is_synced:
                session.guard(self._shown, value)
        except Exception as error:  # noqa: BLE001 - the author's code: reported, and kept as state
            self._settle(session, _Failure(error, failed(error)))
        else:
            with batch():
                self._value.set(session, value)
                self._settle(session, None)

    def _settle(self, session: Store, failure: _Failure | None) -> None:
        with batch():
            self._failure.set(session, failure)
            self._is_loading.set(session, value=False)

    def _show(self, session: Store) -> dict[str, object]:
        failure = self._failure.get(session)
        return {
            "value": self._value.get(session),
            "isLoading": self._is_loading.get(session),
            "error": None if failure is None else failure.told_to_client(self.name),
        }


class _Failure:
    """Why a resource could not be fetched."""

    def __init__(self, error: Exception, error_id: str) -> None:
        self.error = error
        self.error_id = error_id

    def told_to_client(self, name: str) -> dict[str, str]:
        """Give what betrays nothing of the server."""
        message = f"resource {name!r} failed; the server's log has the details"
        return {"message": message, "errorId": self.error_id}
