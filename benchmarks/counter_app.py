"""The counter of the README, without a page."""

from __future__ import annotations

from cacao import App, Session, Signal

app = App()
count = Signal(0, name="count")


@app.on("increment")
async def increment(session: Session, event: dict[str, object]) -> None:
    """Count one up."""
    count.set(session, count.get(session) + 1)


asgi = app.asgi
