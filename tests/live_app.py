"""A small app for the tests of `LiveClient`, whose server is another process."""

from __future__ import annotations

import trio

from cacao import App, Limits, Session, Signal

app = App(
    limits=Limits(heartbeat=0.2, resume_window=5),
    authenticate=lambda peer: peer.cookies.get("user"),
)
count = Signal(0, name="count")


@app.on("increment")
async def increment(session: Session, by: int = 1) -> None:
    count.update(session, lambda n: n + by)


@app.on("forever")
async def forever() -> None:
    await trio.sleep_forever()


@app.on("divide")
def divide(session: Session) -> None:
    count.set(session, 1 // 0)


@app.on("leave")
def leave(session: Session) -> None:
    session.close()


asgi = app.asgi
