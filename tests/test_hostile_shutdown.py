"""SIGTERM, whatever clients do: pages are closed with 1012, and the server exits with 0 in time."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from hostile import WORKERS, Victim, connected, event, request, victim, websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

WITHIN = 10  # seconds
LARGE = 30_000_000  # bytes, more than the kernels take between them


@pytest.fixture(params=WORKERS)
def target(request: pytest.FixtureRequest) -> Iterator[Victim]:
    with victim(request.param) as target:
        yield target


def test_all_who_are_there_do_not_delay_the_end(target: Victim) -> None:
    server = target.server
    with (
        websocket(server) as stalled,
        connected(server, request("/slow", {})) as waiting,
        connected(server, request("/health", {})) as idle,
        connected(server, b"GET / HT"),
        connected(server),
        connected(server, request("/body", {"Content-Length": "9"}, method="POST")),
    ):
        stalled.send(event("fill", size=LARGE))
        assert idle.read_status() == 200
        assert target.is_well()
        assert server.stop(signal.SIGTERM, within=WITHIN) == 0
        assert target.bystander.client.read_close_code() == 1012
        assert waiting.read_status() != 200
    assert "Traceback" not in server.stderr


def test_a_second_signal_does_not_spoil_the_end(target: Victim) -> None:
    target.server.process.send_signal(signal.SIGTERM)
    assert target.server.stop(signal.SIGTERM, within=WITHIN) == 0
    assert target.bystander.client.read_close_code() == 1012
    assert "Traceback" not in target.server.stderr


def test_uvicorn_ends_in_time_by_its_flag() -> None:
    with victim("uvicorn") as target, websocket(target.server) as stalled:
        stalled.send(event("fill", size=LARGE))
        assert target.is_well()
        # It shuts down in order, and then dies of the signal.
        assert target.server.stop(signal.SIGTERM, within=WITHIN) == -signal.SIGTERM
        assert target.bystander.client.read_close_code() == 1012
