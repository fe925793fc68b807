"""A counter and a greeting: each open page has its own.

python app.py, or: hypercorn app:asgi
"""

from typing import Any

from cacao import App, Computed, Session, Signal

app = App(static_folder="page/dist")

count = Signal(0, name="count")
name = Signal("", name="name")
doubled = Computed(lambda s: count.get(s) * 2, name="doubled")
greeting = Computed(lambda s: f"Hello, {name.get(s).strip() or 'stranger'}!", name="greeting")

app.bind("name:input", name)


@app.on("increment")
async def increment(session: Session, event: dict[str, Any]) -> None:
    count.update(session, lambda n: n + event.get("by", 1))


@app.on("decrement")
async def decrement(session: Session, event: dict[str, Any]) -> None:
    count.update(session, lambda n: n - event.get("by", 1))


@app.on("reset")
async def reset(session: Session, event: dict[str, Any]) -> None:
    count.set(session, 0)


asgi = app.asgi

if __name__ == "__main__":
    app.run(port=8000)
