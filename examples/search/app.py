"""Search a slow database as you type: the newest keystroke wins, and no query outlives its user.

python app.py, or: hypercorn app:asgi
"""

import database
import trio
from database import Bar

from cacao import App, Limits, Session, Signal

# A page that goes has half a second to come back, as a reload does. Then its query ends.
app = App(static_folder="page/dist", limits=Limits(bye_window=0.5))

bars = Signal[list[Bar]]([], name="bars")
answered = Signal("", name="answered")  # the text that `bars` answers
running = Signal(0, name="running")  # queries of all users, as the database counts them


# `latest`: a new keystroke cancels the search for the one before. So do Stop and leaving, by the
# same path. This function does not know which of them it was, and need not.
@app.on("search", concurrency="latest")
async def search(session: Session, text: str) -> None:
    found = await find(text) if text else []
    bars.set(session, found)
    answered.set(session, text)


@app.on("stop")
def stop(session: Session) -> None:
    session.cancel("search")


async def find(text: str) -> list[Bar]:
    """Ask the database, in a thread; when cancelled, wait until the query has really ended.

    Trio never abandons this thread. The database calls `check_cancelled` every few milliseconds,
    which raises there when this task has been cancelled: so the query ends first, then the search,
    and only then does the next one start. One user never has two.
    """
    return await trio.to_thread.run_sync(database.search, text, trio.from_thread.check_cancelled)


@app.every(0.1)
def count_running(session: Session) -> None:
    running.set(session, len(database.running))  # an equal number is no change, and not sent


@app.quart.get("/running")
async def running_now() -> dict[str, int]:
    return {"running": len(database.running)}  # for those who watch from outside


asgi = app.asgi

if __name__ == "__main__":
    app.run(port=8000)
