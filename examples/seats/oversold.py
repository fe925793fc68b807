"""A planted race, for `pytest oversold.py --cacao-seeds 200` to find: see `app.py`.

Pytest collects this file only when it is named.
"""

import trio
from pydantic import PositiveInt

from cacao import App, MessageError, Session, Signal
from cacao.testing import TestClient

SEATS = 100

app = App()

free = Signal(SEATS, name="free", scope="app")
booked = Signal(0, name="booked")


@app.on("book")
async def book(session: Session, seats: PositiveInt) -> None:
    if free.get(session) < seats:
        raise MessageError("sold_out", f"only {free.get(session)} seats are free")
    for _ in range(seats):
        free.update(session, lambda n: n - 1)
        booked.update(session, lambda n: n + 1)
        await trio.sleep(1)  # the printer: and others may take the seat that this one counts on


def test_a_rush_for_the_last_two_seats_sells_two() -> None:
    early = TestClient(app)
    early.send("book", seats=SEATS - 2)
    early.advance(SEATS)
    pair, singles = early.user("pair"), [early.user("single") for _ in range(12)]
    with early.together():
        pair.send("book", seats=2)
        for single in singles:
            single.send("book", seats=1)
    early.advance(2)
    assert early.state["free"] == 0
