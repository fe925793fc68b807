"""How much one client may ask of the server, and how long the server waits for it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from cacao.errors import DeclarationError

__all__ = ["MAX_NAME_LENGTH", "Limits"]

# Longest name of a signal or an event, in characters.
MAX_NAME_LENGTH = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one app, as in `App(limits=Limits(flush_interval=0.05))`.

    Attributes:
        max_message_bytes: Largest message a client may send, in bytes of UTF-8; a larger one
            closes the connection with 1009.
        max_depth: Deepest nesting of lists and objects in a message; deeper is `too_deep`.
        max_name_length: Longest name of an event that a client may send, in characters; a longer
            one is `invalid_message`.
        max_upload_bytes: Largest body of an HTTP request; a larger one is answered with 413.
        max_waiting_events: Events of one session that may wait or run; beyond it the server
            stops reading from that client's socket until one has ended.
        max_waiting_replies: Results and errors that may wait for one client to take them;
            beyond it the server stops reading from that client's socket.
        max_unsent_items: Pieces of streams that may be on their way to one client; beyond it,
            `await signal.append(...)` waits for the client.
        max_unsent_bytes: The same, in bytes.
        max_messages_per_second: Messages that the server reads from one client in the long run;
            of more it reads on later, and nothing is lost.
        message_burst: Messages that a client may send ahead of that.
        max_sessions: Live sessions in one run of the app, those without a connection included. Of
            these, the one that has waited longest makes room for a new one; where there is none,
            a new client is closed with 1013.
        max_sessions_per_address: The same of one public address (of IPv6, one /64 network). Private
            ones are not counted: they are of your own network, or a proxy's.
        max_threads: Handlers of one run of the app that may be in threads at once, abandoned ones
            counted until they return; further ones wait for a place.
        flush_interval: Seconds within which changes that no event of this client caused are
            gathered into one message.
        hello_timeout: Seconds within which a `cacao.v1` client must say `hello`.
        heartbeat: Seconds between signs of life; a `cacao.v1` client that is silent for two
            of them is cut with 4408.
        send_timeout: Seconds within which a client must take one message off the wire.
        resume_window: Seconds for which a session whose connection was lost waits for its client,
            with all that runs in it.
        bye_window: The same when the page has said that it goes: long enough for a reload.
        park_window: Seconds for which a session that was stored when the server ended waits for its
            client.
        handover_timeout: Seconds within which another process must say that it has the session of
            a client that has come here.
        drain_timeout: Seconds that running handlers get when the server ends, or when their
            session goes to another process.
        finish_timeout: Seconds for which what is declared `on_leave="finish"` may go on after
            its user has left.
        hook_timeout: Seconds that the `on_disconnect` hooks of a connection, or the
            `on_session_end` hooks of a session, may take together; and `authenticate` for a
            connection.

    Raises:
        DeclarationError: A limit is not positive.
    """

    max_message_bytes: int = 256 * 1024
    max_depth: int = 64
    max_name_length: int = MAX_NAME_LENGTH
    max_upload_bytes: int = 16 * 1024 * 1024
    max_waiting_events: int = 64
    max_waiting_replies: int = 256
    max_unsent_items: int = 1000
    max_unsent_bytes: int = 64 * 1024
    max_messages_per_second: float = 1000.0
    message_burst: int = 20_000
    max_sessions: int = 10_000
    max_sessions_per_address: int = 1000
    max_threads: int = 40
    flush_interval: float = 0.010
    hello_timeout: float = 5.0
    heartbeat: float = 20.0
    send_timeout: float = 10.0
    resume_window: float = 120.0
    bye_window: float = 5.0
    park_window: float = 3600.0
    handover_timeout: float = 0.5
    drain_timeout: float = 3.0
    finish_timeout: float = 30.0
    hook_timeout: float = 5.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0:
                raise DeclarationError(f"limit {field.name} is {value!r}; give a positive number")
