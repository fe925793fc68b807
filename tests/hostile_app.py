"""What hostile clients are let loose on: a counter, something large to send, and a few routes."""

from __future__ import annotations

import os

import trio
from quart import request

from cacao import App, Session, Signal
from cacao.hardening import connections

# So that a test need not wait for half a minute.
if seconds := os.environ.get("SILENCE_SECONDS"):
    connections._SILENCE_SECONDS = float(seconds)
if seconds := os.environ.get("WRITE_SECONDS"):
    connections._WRITE_SECONDS = float(seconds)

app = App()

count = Signal(0, name="count")
blob = Signal("", name="blob")


@app.on("increment")
def increment(session: Session) -> None:
    count.update(session, lambda n: n + 1)


@app.on("fill")
def fill(session: Session, size: int) -> None:
    blob.set(session, "x" * size)


@app.quart.get("/slow")
async def slow() -> str:
    await trio.sleep(3600)
    return "late"


@app.quart.post("/body")
async def body() -> str:
    return str(len(await request.get_data()))


asgi = app.asgi
