"""The seats of a hall, sold to all who come, and never more than there are.

All pages show one number, the seats that are free. Between two awaits of a handler no other handler
runs, and at each await any other may. So `book` looks whether enough seats are free, and takes them
all, without an await between; what takes time comes after.

`oversold.py` beside this file looks first as well, but takes one seat at a time, while the tickets
are printed. Two seats are left; a pair and twelve single visitors click in the same moment. Only if
the pair is served before all the others is the hall oversold, and that is up to the scheduler:

    pytest oversold.py                      passes
    pytest oversold.py --cacao-seeds 200    finds an order of the tasks that fails, and its seed

python app.py, or: hypercorn app:asgi
"""

import trio
from pydantic import PositiveInt

from cacao import App, MessageError, Session, Signal

SEATS = 100

app = App()

free = Signal(SEATS, name="free", scope="app")
booked = Signal(0, name="booked")  # by this session
printed = Signal(0, name="printed")  # of its tickets


@app.on("book")
async def book(session: Session, seats: PositiveInt) -> None:
    if free.get(session) < seats:
        raise MessageError("sold_out", f"only {free.get(session)} seats are free")
    free.update(session, lambda n: n - seats)
    booked.update(session, lambda n: n + seats)
    for _ in range(seats):
        await print_ticket()
        printed.update(session, lambda n: n + 1)


async def print_ticket() -> None:
    """Stands for whatever takes time: a printer, a bank, a database."""
    await trio.sleep(1)


asgi = app.asgi

if __name__ == "__main__":
    app.run(port=8000)
