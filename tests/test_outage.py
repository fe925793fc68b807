"""A Redis that is lost for a while, or for a week."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacao.outage import Outage

if TYPE_CHECKING:
    import pytest


def test_an_outage_is_told_once_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    outage = Outage("redis://ada:secret@host:1/0", "nothing is heard", "Redis at %s is heard again")
    outage.end()
    assert caplog.messages == []
    for _ in range(3):
        outage.note(OSError("refused"))
    outage.end()
    outage.end()
    assert caplog.messages == [
        "nothing is heard, for Redis at host is lost (OSError: refused); it is tried again",
        "Redis at host is heard again",
    ]


def test_however_long_it_lasts_it_is_tried_every_second() -> None:
    outage = Outage("redis://host", "", "")
    pauses = [outage.note(OSError()) for _ in range(10_000)]
    assert pauses[:5] == [0.1, 0.2, 0.4, 0.8, 1.0]
    assert set(pauses[5:]) == {1.0}
    outage.end()
    assert outage.note(OSError()) == 0.1
