"""`App`: what the author declares, and the ways to serve it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cacao import server
from cacao.asgi import Edge
from cacao.events import Events
from cacao.hosting import host as host_anywhere
from cacao.limits import Limits
from cacao.pages import make_quart
from cacao.registry import Place, Registry, claim_registry
from cacao.runtime import Runtime, open_runtime

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from quart_trio import QuartTrio

    from cacao.hosting import ASGIApp
    from cacao.reactive import Signal
    from cacao.session import ErrorReport

__all__ = ["App"]

Function = TypeVar("Function", bound="Callable[..., object]")
Sink = TypeVar("Sink", bound="Callable[[ErrorReport], None]")


class App:
    """A Cacao app: named signals, and what answers the page's events.

    Args:
        registry: Whose signals the page sees. By default the one that bare `Signal(...)`s join;
            a second bare App in one process gets a new one, which later signals join.
        static_folder: The page's built files, served at `/`; relative to the file that makes
            the App.
        limits: How much one client may ask; see `Limits`.

    Attributes:
        registry: As given, or found.
        limits: As given.
    """

    def __init__(
        self,
        *,
        registry: Registry | None = None,
        static_folder: str | Path | None = None,
        limits: Limits | None = None,
    ) -> None:
        place = Place.of_caller()
        self.registry = claim_registry(place) if registry is None else registry
        self.limits = limits or Limits()
        self._static_folder = (
            None if static_folder is None else Path(place.file).parent / static_folder
        )
        self.events = Events()
        self._error_sinks: list[Callable[[ErrorReport], None]] = []

    # --- Declaring -----------------------------------------------------------------------------

    def on(self, name: str, **options: object) -> Callable[[Function], Function]:
        """Let a function answer an event, as in `@app.on("increment")`.

        The function takes `(session, event)`, where `event` is a dict of what the page sent; the
        last ones may be left out. If it is async, it runs in the session's nursery: it is
        cancelled when its user leaves, and events of one name wait for each other while those of
        other names go on. A plain function runs in place and should be short. What it raises
        reaches the log, `on_error`, the client (as `handler_error`, without details) and the
        test; the session lives on.

        Args:
            name: The event's name, 1 to 128 characters.
            options: None are known yet.

        Raises:
            DeclarationError: The name is taken or cannot be used, the function takes other
                parameters, or an option is unknown.
        """

        def declare(function: Function) -> Function:
            self.events.declare_handler(name, function, options)
            return function

        return declare

    def bind(self, name: str, signal: Signal[Any]) -> None:
        """Let an event set a signal: `{"value": ...}`, of the type of the signal's default.

        A value of another type is refused as `invalid_data`; null sets the default again. A
        signal whose default is None takes any value.

        Args:
            name: The event's name, such as `"name:input"`.
            signal: The signal to set.

        Raises:
            DeclarationError: The name is taken or cannot be used, or `signal` is no Signal.
        """
        self.events.declare_binding(name, signal)

    def on_error(self, sink: Sink) -> Sink:
        """Be told of each error in the author's code, besides the log; also as a decorator.

        Args:
            sink: Called in the session's task with an `ErrorReport`; short and not async.
        """
        self._error_sinks.append(sink)
        return sink

    # --- Serving -------------------------------------------------------------------------------

    @cached_property
    def quart(self) -> QuartTrio:
        """The Quart app that answers plain HTTP; add routes of your own to it."""
        return make_quart(self._static_folder)

    @cached_property
    def asgi(self) -> ASGIApp:
        """The ASGI application, for any server: `asgi = app.asgi`, `hypercorn app:asgi`."""
        return host_anywhere(Edge(self.runtime, self.quart))

    def run(self, port: int = 8000, host: str = "127.0.0.1") -> None:
        """Serve the app in this process until Ctrl-C or SIGTERM.

        Args:
            port: TCP port; 0 picks a free one.
            host: Address to listen on; the default is reached from this machine only.

        Raises:
            HostingError: The address cannot be had.
        """
        server.run(self.asgi, host=host, port=port)

    def runtime(
        self, on_error: Callable[[ErrorReport], None] | None = None
    ) -> AbstractAsyncContextManager[Runtime]:
        """Open one run of this app, inside trio: `async with app.runtime() as runtime`.

        Nothing leaks from one run to the next. Servers and tests go through here.

        Args:
            on_error: Told of each error in the author's code, in this run.
        """
        sinks = [*self._error_sinks, on_error] if on_error else self._error_sinks
        return open_runtime(self.registry, self.events, self.limits, sinks)
