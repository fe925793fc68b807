"""The box office, tested without a server; with `--cacao-seeds 200`, in 200 orders of its tasks."""

from app import SEATS, app

from cacao.testing import TestClient


def test_seats_are_taken_at_once_and_their_tickets_printed_one_by_one() -> None:
    visitor = TestClient(app)
    visitor.send("book", seats=3)
    assert visitor.state == {"free": SEATS - 3, "booked": 3, "printed": 0}
    visitor.advance(2)
    assert visitor.state == {"free": SEATS - 3, "booked": 3, "printed": 2}


def test_who_wants_more_than_there_is_gets_nothing() -> None:
    visitor = TestClient(app)
    visitor.send("book", seats=SEATS + 1)
    assert visitor.messages[-1]["message"] == f"only {SEATS} seats are free"
    assert visitor.state == {"free": SEATS, "booked": 0, "printed": 0}


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
    assert pair.state["booked"] + sum(single.state["booked"] for single in singles) == 2
