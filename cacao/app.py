"""`App`: what the author declares, and the ways to serve it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

import trio

from cacao import server
from cacao.asgi import Edge
from cacao.authentication import Authentication
from cacao.errors import DeclarationError
from cacao.events import EventDescription, Events
from cacao.gate import Gate, Refusal
from cacao.headers import CONTENT_SECURITY_POLICY, SecurityHeaders
from cacao.hosting import host as host_anywhere
from cacao.lifetimes import Lifetimes
from cacao.limits import Limits
from cacao.pages import make_quart
from cacao.persistence import stored_signals
from cacao.registry import Place, Registry, claim_registry
from cacao.reports import ErrorReport, report_outside
from cacao.runtime import Runtime, open_runtime
from cacao.watchdog import watch_for_blocking

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable
    from contextlib import AbstractAsyncContextManager

    from quart_trio import QuartTrio

    from cacao.dispatch import Witness
    from cacao.hosting import ASGIApp
    from cacao.lifetimes import TimerScope
    from cacao.middleware import Middleware
    from cacao.options import HandlerOptions
    from cacao.peer import Peer
    from cacao.reactive import Signal
    from cacao.resource import Resource

__all__ = ["App"]

_DEBUG_THRESHOLD = 0.1
_DEFAULT_STORAGE = "sqlite:.cacao/storage.sqlite3"

Function = TypeVar("Function", bound="Callable[..., object]")
Wrapper = TypeVar("Wrapper", bound="Middleware")
T = TypeVar("T")
Sink = TypeVar("Sink", bound="Callable[[ErrorReport], None]")


class App:
    """A Cacao app: named signals, and what answers the page's events.

    Args:
        registry: Whose signals the page sees. By default the one that bare `Signal(...)`s join;
            a second bare App in one process gets a new one, which later signals join.
        static_folder: The page's built files, served at `/`; relative to the file that makes
            the App.
        limits: How much one client may ask; see `Limits`.
        allowed_hosts: Names under which the app is asked for, without scheme and port:
            "example.com", "*.example.com", an address, "*" for all. By default any, but on loopback
            only loopback's own, such as "localhost". Others are refused with HTTP 421.
        allowed_origins: Whose pages may connect besides those that this host serves, such as
            "https://example.com"; "*" for all. Others are refused with HTTP 403.
        content_security_policy: What pages may load and run, where an answer does not say so
            itself. The default lets them load from this server alone, and run no script that
            stands in the page; None sends none.
        authenticate: Tells who opens a connection. It takes a `Peer` and gives the user, whom
            handlers find as `session.user`, or None to refuse; so does raising an
            `UnauthorizedError`. It may be async, for `Limits.hook_timeout` seconds at most. Users
            are told apart as strings, or by their `id`: nobody takes up another's session.
        storage: Where stored signals are kept, and sessions while the server restarts:
            "sqlite:path/to/file", relative to the file that makes the App, or "redis://host:6379/0",
            which several servers share. By default the file `.cacao/storage.sqlite3`, if a signal
            has `persist=`; else nothing is kept.
        debug: Whether this is a developer's machine: then code that blocks the loop for more than
            0.1 s is named in the log.
        watch_blocking: The same with another number of seconds, for any machine.

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
        allowed_hosts: Collection[str] = (),
        allowed_origins: Collection[str] = (),
        content_security_policy: str | None = CONTENT_SECURITY_POLICY,
        authenticate: Callable[[Peer], object] | None = None,
        storage: str | None = None,
        debug: bool = False,
        watch_blocking: float | None = None,
    ) -> None:
        place = Place.of_caller()
        self.registry = claim_registry(place) if registry is None else registry
        self.limits = limits or Limits()
        self._static_folder = (
            None if static_folder is None else Path(place.file).parent / static_folder
        )
        self._blocking_threshold = watch_blocking or (_DEBUG_THRESHOLD if debug else None)
        self._events = Events()
        self._lifetimes = Lifetimes()
        self._gate = Gate(allowed_hosts, allowed_origins)
        self._headers = SecurityHeaders(content_security_policy)
        self._authentication = Authentication(authenticate, self.limits.hook_timeout)
        self._storage = None if storage is None else _located(storage, place)
        self._default_storage = _located(_DEFAULT_STORAGE, place)
        self._error_sinks: list[Callable[[ErrorReport], None]] = []

    # --- Declaring -----------------------------------------------------------------------------

    def on(self, name: str, **options: Unpack[HandlerOptions]) -> Callable[[Function], Function]:
        """Let a function answer an event, as in `@app.on("increment")`.

        The function takes `(session, event)`, where `event` is a dict of what the page sent. It
        may leave them out, annotate `event` with a pydantic model, a dataclass or a TypedDict, or
        take single fields by name, as in `(session, width: int, height: int = 3)`; what the page
        sent is then checked first, and refused as `invalid_data`.

        If it is async, it runs in the session's nursery, and is cancelled when its user leaves. A
        plain function runs in place and should be short, or in a thread. What it raises reaches
        the log, `on_error`, the client (as `handler_error`, without details) and the test; a
        `MessageError` refuses the event and reaches the client only. The session lives on.

        Args:
            name: The event's name, 1 to 128 characters.
            options: For a function that is async or runs in a thread:
                `concurrency`: what becomes of an event while an earlier one of its name runs.
                    "queue" (default): it waits; "parallel": it runs, too; "latest": the earlier
                    one is cancelled (`superseded`), and when that has ended this one starts;
                    "drop": it is refused (`dropped`); "keep_latest": it waits, in place of any
                    other that waits (`superseded`).
                `limit`: for "queue" and "parallel", how many may run at once.
                `key`: a function of the payload; only events of one key are in each other's way.
                `deadline`: seconds from its start after which the handler is cancelled
                    (`timeout`).
                `on_leave`: "finish" lets it go on when the user leaves, and those events of its
                    name that wait, for `Limits.finish_timeout` seconds at most; "cancel"
                    (default) does not.
                `thread`: True runs a plain function in a thread; it gets a `ThreadSession`.

        Raises:
            DeclarationError: The name is taken or cannot be used, a parameter or an option is
                not understood.
        """

        def declare(function: Function) -> Function:
            self._events.declare_handler(name, function, options)
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
        self._events.declare_binding(name, signal)

    def middleware(self, function: Wrapper) -> Wrapper:
        """Put an async function around the answer to every event; also as a decorator.

        It takes `(session, event, call_next)`, where `event` has a `name`, `data` and `id`, and
        lets the event go on by `await call_next(event)`. It may pass another event, refuse it by
        raising a `MessageError`, or bound it in time. The first one declared is the outermost.
        `cacao.middleware` has the useful ones.

        Events pass the middleware one by one, in order: what waits before `call_next` holds up
        the later events of that session.

        Raises:
            DeclarationError: `function` is not async.
        """
        self._events.add_middleware(function)
        return function

    def events(self) -> tuple[EventDescription, ...]:
        """List the events that this app answers, in the order of declaration."""
        return tuple(declared.describe() for declared in self._events)

    def on_error(self, sink: Sink) -> Sink:
        """Be told of each error in the author's code, besides the log; also as a decorator.

        Args:
            sink: Called in the session's task with an `ErrorReport`; short and not async.
        """
        self._error_sinks.append(sink)
        return sink

    # --- Declaring what runs beside events -----------------------------------------------------

    def task(self, function: Function) -> Function:
        """Run an async function once in each run of the app: `@app.task`.

        It takes nothing. It begins with the run, and is cancelled when the last session has
        ended. What it raises is reported, and does not end the run.

        Raises:
            DeclarationError: It is not async, or takes a parameter.
        """
        self._lifetimes.declare_task(function)
        return function

    def every(
        self, seconds: float, scope: TimerScope = "session"
    ) -> Callable[[Function], Function]:
        """Run a function again and again: `@app.every(60)`.

        It may be async, and take the session. The first run is one interval after the beginning,
        the others at its multiples. A run that takes longer delays the next one, and two never
        overlap; what else came due meanwhile is left out. An error is reported, and does not end
        the timer.

        Args:
            seconds: The interval.
            scope: "session" for each live session, cancelled with it; "app" for the run of the
                app. The function then takes nothing.

        Raises:
            DeclarationError: The interval, the scope or the function cannot be used.
        """

        def declare(function: Function) -> Function:
            self._lifetimes.declare_timer(seconds, scope, function)
            return function

        return declare

    def on_session_start(self, hook: Function) -> Function:
        """Run a function as a session begins: `@app.on_session_start`.

        It may be async, and take the session; so may all the hooks. They run one after the other,
        in the order of declaration. What they raise is reported, and the session goes on. The
        page gets its state, and its events are read, when those of the start are done.

        Raises:
            DeclarationError: It takes other parameters.
        """
        self._lifetimes.declare_hook("on_session_start", hook)
        return hook

    def on_connect(self, hook: Function) -> Function:
        """Run a function for each connection, before its page gets the state.

        It is cancelled if the session is closed meanwhile. See `on_session_start`.
        """
        self._lifetimes.declare_hook("on_connect", hook)
        return hook

    def on_disconnect(self, hook: Function) -> Function:
        """Run a function when a connection has ended, for `Limits.hook_timeout` s at most.

        It runs whatever has ended the connection, also the server's end. See `on_session_start`.
        """
        self._lifetimes.declare_hook("on_disconnect", hook)
        return hook

    def on_session_end(self, hook: Function) -> Function:
        """Run a function when all that ran in a session has ended, before its values are gone.

        It runs whatever has ended the session, for `Limits.hook_timeout` s at most. See
        `on_session_start`.
        """
        self._lifetimes.declare_hook("on_session_end", hook)
        return hook

    def effect(self, function: Function) -> Function:
        """Run a function in each live session, and again when what it read has changed.

        It takes the session, or nothing. A plain function runs in the flusher, before the changes
        are sent: never inside `set()`, and once for many. An async one runs in a task: a change
        cancels the older run, waits for its end (its `finally` runs) and begins anew. What it
        reads before its first real wait is tracked, and what it reads later is not.

        What it raises is reported; the next change runs it again. A `Session()` alone has none.

        Raises:
            DeclarationError: It takes other parameters.
        """
        self._lifetimes.declare_effect(function)
        return function

    @overload
    def resource(self, function: Callable[..., Awaitable[T]]) -> Resource[T]: ...

    @overload
    def resource(
        self, *, name: str | None = None, client: bool = True
    ) -> Callable[[Callable[..., Awaitable[T]]], Resource[T]]: ...

    def resource(
        self,
        function: Callable[..., Awaitable[T]] | None = None,
        *,
        name: str | None = None,
        client: bool = True,
    ) -> Resource[T] | Callable[[Callable[..., Awaitable[T]]], Resource[T]]:
        """Make an async computed signal of an async function: `@app.resource`.

        Each live session fetches its value as it begins, and anew when what the function read
        before its first real wait has changed. The latest wins: an older run is cancelled, and
        has ended when the newer one begins. Meanwhile, and after an error, the last value stays.
        An error is kept as `error`, and reported.

        Args:
            function: Async, taking the session or nothing.
            name: On the wire; by default the function's name.
            client: False keeps it on the server.

        Raises:
            DeclarationError: The function is not async or takes other parameters, or the name is
                taken or not allowed.
        """

        def declare(function: Callable[..., Awaitable[T]]) -> Resource[T]:
            with self.registry:
                return self._lifetimes.declare_resource(function, name, client=client)

        return declare if function is None else declare(function)

    # --- Serving -------------------------------------------------------------------------------

    @cached_property
    def quart(self) -> QuartTrio:
        """The Quart app that answers plain HTTP; add routes of your own to it."""
        return make_quart(self._static_folder, self._report, self.limits.max_upload_bytes)

    @cached_property
    def asgi(self) -> ASGIApp:
        """The ASGI application, for any server: `asgi = app.asgi`, `hypercorn app:asgi`."""
        return host_anywhere(self.edge(self._serve))

    def edge(
        self,
        open_runtime: Callable[[], AbstractAsyncContextManager[Runtime]],
        on_error: Callable[[ErrorReport], None] | None = None,
        admit: Callable[[Peer], Awaitable[Peer | Refusal]] | None = None,
    ) -> Edge:
        """Make the ASGI application around a run of this app. Servers and tests go through here.

        Args:
            open_runtime: Opens the run, when the server begins.
            on_error: Told of each error at the edge, as in `runtime`.
            admit: Finds out who a peer is, in place of `self.admit`.
        """
        return Edge(
            open_runtime,
            self.quart,
            partial(self._report, on_error=on_error),
            admit=admit or self.admit,
            gate=self._gate,
            headers=self._headers,
            max_message_bytes=self.limits.max_message_bytes,
        )

    @property
    def knows_users(self) -> bool:
        """Whether everybody who is let in is somebody: `authenticate` was given."""
        return self._authentication.knows_users

    async def admit(
        self, peer: Peer, on_error: Callable[[ErrorReport], None] | None = None
    ) -> Peer | Refusal:
        """Ask `authenticate` who a peer is, before it is served. Servers and tests go through here.

        Args:
            peer: Who opens a connection.
            on_error: Told of an error in the author's code, as in `runtime`.

        Returns:
            The peer with its user, or how it is refused.
        """
        report = partial(self._report, on_error=on_error)
        return await self._authentication.admit(peer, report)

    def _report(
        self,
        where: str,
        error: Exception,
        on_error: Callable[[ErrorReport], None] | None = None,
    ) -> None:
        """Report what was raised by the author's code outside of every session."""
        report_outside(where, error, self._sinks(on_error))

    def _sinks(
        self, on_error: Callable[[ErrorReport], None] | None
    ) -> list[Callable[[ErrorReport], None]]:
        return [*self._error_sinks, on_error] if on_error else self._error_sinks

    @asynccontextmanager
    async def _serve(self) -> AsyncIterator[Runtime]:
        """Run the app for a server, watched for what blocks it if that is asked for."""
        async with trio.open_nursery() as nursery:
            if self._blocking_threshold is not None:
                nursery.start_soon(watch_for_blocking, self._blocking_threshold)
            async with self.runtime() as runtime:
                yield runtime
            nursery.cancel_scope.cancel()

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
        self,
        on_error: Callable[[ErrorReport], None] | None = None,
        *,
        storage: str | None = None,
        witness: Witness | None = None,
    ) -> AbstractAsyncContextManager[Runtime]:
        """Open one run of this app, inside trio: `async with app.runtime() as runtime`.

        Nothing leaks from one run to the next. Servers and tests go through here.

        Args:
            on_error: Told of each error in the author's code, in this run.
            storage: In place of the app's own, if it has one: "memory:" lets nothing outlive this
                run.
            witness: Told of each event of every session.

        Raises:
            DeclarationError: A signal is stored for each user, and the app knows none.
        """
        stored = stored_signals(self.registry)
        if not self.knows_users:
            _refuse_unknown_users(stored)
        own = self._storage or (self._default_storage if stored else None)
        return open_runtime(
            self.registry,
            self._events,
            self._lifetimes,
            self.limits,
            self._sinks(on_error),
            own and (storage or own),
            witness,
        )


def _located(storage: str, place: Place) -> str:
    """Let the path of a file be relative to the one that makes the App."""
    scheme, found, path = storage.partition("sqlite:")
    return f"sqlite:{Path(place.file).parent / path}" if found and not scheme else storage


def _refuse_unknown_users(stored: Iterable[Signal[Any]]) -> None:
    for signal in stored:
        if signal.persist == "user":
            raise DeclarationError(
                f"signal {signal.label!r} at {signal.place} has persist='user', but the app knows "
                "no users; tell who they are: App(authenticate=...)"
            )
