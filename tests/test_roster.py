"""Who is in the roster: found by token, waiting, making room; nothing of who has left."""

from __future__ import annotations

from cacao import Limits, Session
from cacao.roster import Roster


def test_a_session_that_has_ended_does_not_wait() -> None:
    roster = Roster(Limits(max_sessions=1))
    first, second = Session(), Session()
    assert roster.admit(first)
    roster.dismiss(first)
    roster.waits(first)  # its last connection let go of it too late
    assert roster.admit(second)
    assert not roster.admit(first)
    assert list(roster.sessions.values()) == [second]


def test_nothing_is_left_of_sessions_that_have_ended() -> None:
    roster = Roster(Limits())
    sessions = [Session(register=roster.register) for _ in range(10)]
    for session in sessions:
        assert roster.admit(session)
        roster.waits(session)
    roster.end_waiting()
    for session in sessions:
        roster.dismiss(session)
        roster.dismiss(session)
    assert (roster.sessions, roster._waiting, roster._owners, roster._counts) == ({}, {}, {}, {})
