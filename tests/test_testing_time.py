"""Virtual time: it stands still, and passes from deadline to deadline."""

from __future__ import annotations

import math
import time

import pytest
import trio

from cacao import App, Session, Signal
from cacao.testing import TestClient


class Clockwork:
    """An app with a ticker, and the virtual times at which it ticked."""

    def __init__(self, interval: float) -> None:
        self.app = App()
        self.interval = interval
        self.ticks: list[float] = []
        self.shown = Signal(0, name="ticks")
        self.app.on("start")(self.start)

    async def start(self, session: Session) -> None:
        while True:
            await trio.sleep(self.interval)
            self.ticks.append(trio.current_time())
            self.shown.update(session, lambda ticks: ticks + 1)


def test_time_stands_still_while_events_are_sent() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app)
    for _ in range(50):
        client.send("start")
    assert client.time == 0
    assert clockwork.ticks == []


def test_an_hour_passes_second_by_second() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app)
    client.send("start")
    client.advance(3600)
    assert clockwork.ticks == [float(second) for second in range(1, 3601)]
    assert client.state["ticks"] == 3600
    assert client.time == 3600


def test_an_hour_takes_no_hour() -> None:
    client = TestClient(Clockwork(1).app)
    client.send("start")
    began = time.monotonic()
    client.advance(3600)
    assert time.monotonic() - began < 60


def test_nothing_happens_before_its_time() -> None:
    clockwork = Clockwork(1)
    client = TestClient(clockwork.app)
    client.send("start")
    client.advance(0.999)
    assert clockwork.ticks == []
    client.advance(0.001)
    assert len(clockwork.ticks) == 1


@pytest.mark.parametrize("interval", [0.1, 1 / 3, 0.7, 1e-3])
def test_ticks_are_counted_right_whatever_the_rounding(interval: float) -> None:
    clockwork = Clockwork(interval)
    client = TestClient(clockwork.app)
    client.send("start")
    client.advance(100 * interval)
    assert len(clockwork.ticks) == 100


def test_a_page_that_stays_open_for_a_day_answers_the_heartbeats() -> None:
    client = TestClient(App())
    client.advance(86_400)
    client.send_text('{"type": "beat"}')
    assert client.session.id == client.session_id


@pytest.mark.parametrize("seconds", [-1, math.inf, math.nan])
def test_time_goes_forward_by_a_finite_amount(seconds: float) -> None:
    client = TestClient(App())
    with pytest.raises(ValueError, match="0 or more seconds"):
        client.advance(seconds)
