"""A table for all pages: as one app-wide value, or as a value of each session."""

from __future__ import annotations

from cacao import App, Session, Signal
from cacao.limits import Limits

ROWS = [{"id": i, "name": f"row {i}", "price": i * 1.5, "stock": i % 7} for i in range(100)]

app = App(limits=Limits(max_sessions=20_000))
Table = list[dict[str, object]]

shared: Signal[Table] = Signal([], name="shared", scope="app")
own: Signal[Table] = Signal([], name="own")
sessions: dict[Session, None] = {}


def table(number: int) -> Table:
    """Make a table that is another one for each number."""
    return [{"id": number}, *ROWS]


@app.on_session_start
def begin(session: Session) -> None:
    """Note who is there, for what has to be set in each session."""
    sessions[session] = None


@app.on_session_end
def end(session: Session) -> None:
    """Forget who has left."""
    del sessions[session]


@app.on("app-wide")
def tell_at_once(session: Session, number: int) -> None:
    """Set one value for all."""
    shared.set(session, table(number))


@app.on("per session")
def tell_each(number: int) -> None:
    """Set a value in each session."""
    for session in sessions:
        own.set(session, table(number))


asgi = app.asgi
