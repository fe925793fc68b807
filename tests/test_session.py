"""Sessions over the wire: what a client sends, what it gets, and who is unharmed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from live import Page, live
from trio.testing import wait_all_tasks_blocked

from cacao import App, Computed, Limits, Registry, Session, Signal
from cacao.exchange import Exchange
from cacao.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable


class Counter:
    """A small app with one of each: a sync, an async, a slow and a failing handler."""

    def __init__(self, **limits: Any) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=Limits(**limits))
            self.count = Signal(0, name="count")
            self.log: Signal[list[str]] = Signal(default_factory=list, name="log")
            self.private = Signal("secret", name="private", client=False)
            self.doubled = Computed(lambda s: self.count.get(s) * 2, name="doubled")
        self.app.bind("count:input", self.count)
        self.started: list[str] = []
        self.ended: list[str] = []
        handlers: dict[str, Callable[..., object]] = {
            "increment": self.increment,
            "now": self.now,
            "slow": self.slow,
            "boom": self.boom,
            "unwritable": self.unwritable,
            "churn": self.churn,
        }
        for name, function in handlers.items():
            self.app.on(name)(function)

    async def increment(self, session: Session, event: dict[str, Any]) -> None:
        self.count.update(session, lambda n: n + event.get("by", 1))

    def now(self, session: Session) -> None:
        self.count.value += 1

    async def slow(self, session: Session, event: dict[str, Any]) -> None:
        label = str(event.get("label", ""))
        self.started.append(label)
        try:
            await trio.sleep(event.get("seconds", 1))
            self.ended.append(label)
        except trio.Cancelled:
            self.ended.append(f"{label} cancelled")
            raise

    async def boom(self, session: Session) -> None:
        self.count.set(session, 99)
        raise ValueError("a secret of the server's")

    async def unwritable(self, session: Session) -> None:
        self.count.set(session, 5)
        self.log.set(session, {1, 2})  # type: ignore[arg-type]

    async def churn(self, session: Session, event: dict[str, Any]) -> None:
        for n in range(event["times"]):
            self.count.set(session, n + 1)
            await trio.sleep(event["every"])


# --- The plain protocol ------------------------------------------------------------------------


async def test_a_plain_client_gets_init_at_once_and_updates(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open()
        await page.event("increment")
        assert page.messages == [
            {
                "type": "init",
                "state": {"count": 0, "log": [], "doubled": 0},
                "sessionId": running.session.id,
            },
            {"type": "update", "changes": {"count": 1, "doubled": 2}},
        ]


async def test_a_value_that_did_not_change_is_not_sent(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open()
        await page.event("increment", {"by": 0})
        assert page.of_type("update") == []


async def test_a_signal_for_the_server_only_is_never_sent(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open()
        counter.private.set(running.session, "changed")
        await wait_all_tasks_blocked()
        assert "private" not in json.dumps(page.messages)


async def test_sessions_have_a_state_each(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        ada, bob = await running.open(), await running.open()
        await ada.event("increment")
        assert ada.of_type("update")
        assert not bob.of_type("update")


async def test_a_default_that_cannot_be_made_is_reported_and_the_rest_is_sent(
    autojump_clock: object,
) -> None:
    counter = Counter()
    with counter.app.registry:
        broken: Signal[int] = Signal(default_factory=lambda: 1 // 0, name="broken")
    async with live(counter.app) as running:
        page = await running.open()
        assert page.messages[0]["state"] == {"count": 0, "log": [], "doubled": 0}
        (report,) = running.errors
        assert report.where == f"signal {broken.name!r}"


async def test_a_signal_declared_later_reaches_open_pages(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open()
        with counter.app.registry:
            late = Signal("hello", name="late")
            shout = Computed(lambda s: late.get(s).upper(), name="shout")
        await wait_all_tasks_blocked()
        assert page.messages[-1]["state"] == {
            **page.messages[0]["state"],
            "late": "hello",
            "shout": "HELLO",
        }
        late.set(running.session, "bye")
        await trio.sleep(1)
        assert page.messages[-1]["changes"] == {"late": "bye", "shout": "BYE"}
        assert shout.get(running.session) == "BYE"


# --- cacao.v1 ----------------------------------------------------------------------------------


async def test_v1_greets_numbers_acknowledges_and_tells_results(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.event("increment", id=1)
        init, update, result = page.messages
        assert len(init.pop("token")) >= 32
        assert init == {
            "type": "init",
            "state": {"count": 0, "log": [], "doubled": 0},
            "sessionId": running.session.id,
            "rev": 1,
            "outcome": "fresh",
            "lastEvent": 0,
            "heartbeat": 20.0,
        }
        assert update == {
            "type": "update",
            "changes": {"count": 1, "doubled": 2},
            "rev": 2,
            "ack": 1,
        }
        assert result == {"type": "result", "id": 1, "ok": True}


async def test_an_event_that_came_before_is_acknowledged_and_not_applied(
    autojump_clock: object,
) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open_v1()
        await page.event("increment", id=1)
        await page.event("increment", id=1)
        assert counter.count.get(running.session) == 1
        assert page.messages[-1] == {"type": "update", "changes": {}, "rev": 3, "ack": 1}


async def test_hello_on_an_open_socket_brings_the_whole_state(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.event("increment", id=1)
        await page.send({"type": "hello", "rev": 1})
        again = page.messages[-1]
        assert (again["state"]["count"], again["outcome"], again["rev"]) == (1, "rebuilt", 3)
        assert again["lastEvent"] == 1
        assert again["token"] != page.messages[0]["token"]


async def test_revisions_have_no_gap(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        for number in range(1, 21):
            await page.event(["increment", "now", "boom", "nope"][number % 4], id=number)
        revisions = [message["rev"] for message in page.messages if "rev" in message]
        assert revisions == list(range(1, len(revisions) + 1))


async def test_without_hello_in_time_the_connection_is_closed(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open("cacao.v1")
        await trio.sleep(4.9)
        assert page.close_code is None
        await trio.sleep(0.2)
        assert page.close_code == 1008
        assert not running.runtime.sessions


async def test_before_hello_everything_else_is_answered_with_an_error(
    autojump_clock: object,
) -> None:
    async with live(Counter().app) as running:
        page = await running.open("cacao.v1")
        await page.send_text('{"type":"event","name":"increment","id":1}', "nonsense")
        assert [message["code"] for message in page.messages] == ["invalid_message", "invalid_json"]
        await page.send({"type": "hello"})
        assert page.messages[-1]["state"]["count"] == 0


async def test_a_client_that_leaves_before_hello_leaves_nothing(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open("cacao.v1")
        page.connection.hang_up()
        await wait_all_tasks_blocked()
        assert not running.runtime.sessions


async def test_a_first_message_that_is_too_big_closes_the_connection(
    autojump_clock: object,
) -> None:
    async with live(Counter(max_message_bytes=100).app) as running:
        page = await running.open("cacao.v1")
        await page.send_text("x" * 101)
        assert page.close_code == 1009


# --- Order and overlap -------------------------------------------------------------------------


async def test_a_slow_handler_delays_no_other_event(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.event("slow", {"seconds": 60}, id=1)
        await page.event("increment", id=2)
        assert page.messages[-1] == {"type": "result", "id": 2, "ok": True}


async def test_events_of_one_name_wait_for_each_other_in_order(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open_v1()
        for number, label in enumerate("abc", 1):
            await page.event("slow", {"label": label}, id=number)
        assert counter.started == ["a"]
        await trio.sleep(1.5)
        assert counter.started == ["a", "b"]
        await trio.sleep(2)
        assert counter.ended == ["a", "b", "c"]
        assert [message["id"] for message in page.of_type("result")] == [1, 2, 3]


async def test_a_flooding_client_is_no_longer_read_from_and_loses_nothing(
    autojump_clock: object,
) -> None:
    counter = Counter(max_waiting_events=4)
    async with live(counter.app) as running:
        page = await running.open_v1()
        await page.send(
            *({"type": "event", "name": "slow", "id": n} for n in range(1, 11)),
            {"type": "event", "name": "increment", "id": 11},
        )
        assert len(page.connection._inbox) == 7
        assert counter.count.get(running.session) == 0
        await trio.sleep(20)
        assert len(counter.ended) == 10
        assert counter.count.get(running.session) == 1


# --- Flushing ----------------------------------------------------------------------------------


async def test_changes_that_no_event_caused_are_gathered(autojump_clock: object) -> None:
    async with live(Counter(flush_interval=0.05).app) as running:
        page = await running.open_v1()
        await page.event("churn", {"times": 100, "every": 0.002}, id=1)
        await trio.sleep(1)
        counts = [m["changes"]["count"] for m in page.of_type("update") if m["changes"]]
        # Within 0.05 s of the greeting, then every 0.05 s, and the end of the event at 0.2 s.
        assert counts == [25, 50, 75, 100]


async def test_the_first_change_after_a_quiet_time_leaves_at_once(autojump_clock: object) -> None:
    counter = Counter(flush_interval=0.05)
    async with live(counter.app) as running:
        page = await running.open()
        await trio.sleep(1)
        counter.count.set(running.session, 1)
        await wait_all_tasks_blocked()
        assert page.of_type("update") == [{"type": "update", "changes": {"count": 1, "doubled": 2}}]


async def test_a_client_that_takes_nothing_costs_one_message_and_one_set_of_names(
    autojump_clock: object,
) -> None:
    counter = Counter(flush_interval=0.01)
    async with live(counter.app) as running:
        page = await running.open()
        await trio.sleep(1)
        page.stall()
        for n in range(100):
            counter.count.set(running.session, n + 1)
            await trio.sleep(0.02)
        await page.take()
        await trio.sleep(1)
        assert [m["changes"]["count"] for m in page.of_type("update")] == [1, 100]


async def test_a_client_that_never_takes_its_replies_is_no_longer_read_from(
    autojump_clock: object,
) -> None:
    async with live(Counter(max_waiting_replies=3).app) as running:
        page = await running.open()
        page.stall()
        await page.send_text(*["nonsense"] * 10)
        assert 0 < len(page.connection._inbox) < 10
        await page.take()
        assert [m["code"] for m in page.of_type("error")] == ["invalid_json"] * 10


async def test_a_client_that_takes_nothing_for_too_long_is_cut(autojump_clock: object) -> None:
    async with live(Counter(send_timeout=10).app) as running:
        page = await running.open()
        page.stall()
        await page.event("increment")
        await trio.sleep(9)
        assert page.close_code is None
        await trio.sleep(10)
        assert page.close_code == 1008
        assert not running.runtime.sessions


async def test_a_list_changed_in_place_and_set_again_is_sent_once(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open()
        log = counter.log.get(running.session)
        log.append("x" * 40)
        counter.log.set(running.session, log)
        await trio.sleep(1)
        counter.log.set(running.session, log)
        await trio.sleep(1)
        assert page.of_type("update") == [{"type": "update", "changes": {"log": ["x" * 40]}}]


# --- Signs of life -----------------------------------------------------------------------------


async def test_a_quiet_v1_client_gets_beats_and_lives_while_it_answers(
    autojump_clock: object,
) -> None:
    async with live(Counter(heartbeat=20).app) as running:
        page = await running.open_v1()
        for _ in range(20):
            await trio.sleep(10)
            await page.send({"type": "beat"})
        assert page.close_code is None
        assert 8 <= len(page.of_type("beat")) <= 10


async def test_a_silent_v1_client_is_cut(autojump_clock: object) -> None:
    async with live(Counter(heartbeat=20).app) as running:
        page = await running.open_v1()
        await trio.sleep(39)
        assert page.close_code is None
        await trio.sleep(10)
        assert page.close_code == 4408


async def test_a_page_that_only_listens_is_asked_for_a_sign_of_life(
    autojump_clock: object,
) -> None:
    counter = Counter(heartbeat=20)
    async with live(counter.app) as running:
        page = await running.open_v1()
        for n in range(60):
            counter.count.set(running.session, n + 1)
            await trio.sleep(1)
            if page.messages[-1]["type"] == "beat":
                await page.send({"type": "beat"})
        assert page.close_code is None
        assert page.of_type("beat")


async def test_a_plain_client_may_be_silent(autojump_clock: object) -> None:
    async with live(Counter(heartbeat=20).app) as running:
        page = await running.open()
        await trio.sleep(1000)
        assert page.close_code is None
        assert [message["type"] for message in page.messages] == ["init"]


# --- Bad input ---------------------------------------------------------------------------------

BAD = [
    ("nonsense", "invalid_json"),
    ("[]", "invalid_message"),
    ('"event"', "invalid_message"),
    ('{"type":"nope"}', "unknown_type"),
    ('{"type":"init","state":{"count":9},"sessionId":"x"}', "unknown_type"),
    ('{"type":"event","name":"nope"}', "unknown_event"),
    ('{"type":"event","name":"__class__"}', "unknown_event"),
    ('{"type":"event","name":"__proto__"}', "unknown_event"),
    ('{"type":"event","name":"constructor"}', "unknown_event"),
    ('{"type":"event","name":5}', "invalid_message"),
    ('{"type":"event","name":"increment","data":[1]}', "invalid_message"),
    ('{"type":"event","name":"count:input","data":{}}', "invalid_data"),
    ('{"type":"event","name":"count:input","data":{"value":"x"}}', "invalid_data"),
    ('{"type":"event","name":"increment","data":{"x":' + "[" * 100 + "]" * 100 + "}}", "too_deep"),
]


@pytest.mark.parametrize(("text", "code"), BAD, ids=[code for _, code in BAD])
async def test_a_bad_message_gets_its_code_and_harms_nobody(
    text: str, code: str, autojump_clock: object
) -> None:
    async with live(Counter().app) as running:
        bystander = await running.open()
        page = await running.open()
        await page.send_text(text)
        (error,) = page.of_type("error")
        assert error["code"] == code
        assert len(error["message"]) < 300
        await page.event("increment")
        assert page.messages[-1]["changes"]["count"] == 1
        assert [message["type"] for message in bystander.messages] == ["init"]


async def test_a_message_that_is_too_big_ends_that_connection_only(autojump_clock: object) -> None:
    async with live(Counter(max_message_bytes=1000).app) as running:
        bystander = await running.open()
        page = await running.open()
        await page.event("increment", {"pad": "x" * 900})
        assert page.close_code is None
        await page.event("increment", {"pad": "x" * 1000})
        assert page.close_code == 1009
        assert len(running.runtime.sessions) == 1
        await bystander.event("increment")
        assert bystander.messages[-1]["changes"]["count"] == 1


async def test_wrong_data_of_a_numbered_event_settles_it_as_invalid_data(
    autojump_clock: object,
) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.event("count:input", {"value": "x"}, id=1)
        assert page.messages[-1] == {
            "type": "result",
            "id": 1,
            "ok": False,
            "code": "invalid_data",
            "message": "expected int, got str",
            "details": [{"path": ["value"], "message": "expected int, got str"}],
        }


async def test_a_refused_event_is_acknowledged(autojump_clock: object) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.send_text('{"type":"event","id":1,"name":"increment","data":[]}')
        await page.event("nope", id=2)
        acks = [message["ack"] for message in page.of_type("update")]
        assert acks == [1, 2]
        assert [(e["code"], e["id"]) for e in page.of_type("error")] == [
            ("invalid_message", 1),
            ("unknown_event", 2),
        ]


# --- Errors in the author's code ---------------------------------------------------------------


async def test_an_error_in_a_handler_reaches_log_client_and_sink_and_the_session_lives(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.event("boom", id=1)
        result = page.messages[-1]
        (report,) = running.errors
        (record,) = caplog.records
        assert (result["ok"], result["code"]) == (False, "handler_error")
        assert "secret" not in json.dumps(page.messages)
        assert report.error_id == result["errorId"]
        assert (report.where, report.event) == ("handler of event 'boom'", "boom")
        assert isinstance(report.error, ValueError)
        assert record.exc_info is not None
        assert record.exc_info[1] is report.error
        assert vars(record)["error_id"] == report.error_id
        await page.event("increment", id=2)
        assert page.messages[-1]["ok"]


async def test_an_error_in_a_plain_handler_is_told_to_a_plain_client(
    autojump_clock: object,
) -> None:
    counter = Counter()

    @counter.app.on("plain boom")
    def boom() -> None:
        raise KeyError("x")

    async with live(counter.app) as running:
        page = await running.open()
        await page.event("plain boom")
        (error,) = page.of_type("error")
        assert error["code"] == "handler_error"
        assert error["errorId"] == running.errors[0].error_id


async def test_several_errors_of_one_handler_come_as_a_group(autojump_clock: object) -> None:
    counter = Counter()

    @counter.app.on("many")
    async def many() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counter.boom, running.session)
            nursery.start_soon(counter.boom, running.session)

    async with live(counter.app) as running:
        page = await running.open()
        await page.event("many")
        (report,) = running.errors
        assert isinstance(report.error, ExceptionGroup)
        assert len(report.error.exceptions) == 2


async def test_a_value_that_cannot_be_written_raises_at_set_and_the_rest_goes_out(
    autojump_clock: object,
) -> None:
    async with live(Counter().app) as running:
        page = await running.open_v1()
        await page.event("unwritable", id=1)
        assert page.of_type("update")[0]["changes"] == {"count": 5, "doubled": 10}
        result = page.messages[-1]
        assert result["code"] == "not_serializable"
        assert "signal 'log'" in result["message"]
        assert "signal 'log'" in str(running.errors[0].error)


async def test_a_failing_computed_is_reported_and_the_rest_goes_out(
    autojump_clock: object,
) -> None:
    counter = Counter()
    with counter.app.registry:
        inverse = Computed(lambda s: 1 / (counter.count.get(s) - 1), name="inverse")
        weird = Computed(lambda s: {counter.count.get(s)}, name="weird")
    async with live(counter.app) as running:
        page = await running.open()
        assert page.messages[0]["state"] == {"count": 0, "log": [], "doubled": 0, "inverse": -1}
        assert page.messages[1]["code"] == "not_serializable"
        await page.event("increment")
        assert page.of_type("update")[-1]["changes"] == {"count": 1, "doubled": 2}
        assert {report.where for report in running.errors} == {
            "computed 'inverse'",
            "computed 'weird'",
        }
        await page.event("increment")
        assert page.of_type("update")[-1]["changes"]["inverse"] == 1
        assert inverse.get(running.session) == 1
        assert weird.get(running.session) == {2}


async def test_a_failing_error_sink_keeps_no_error_from_the_others(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    counter = Counter()
    told: list[str] = []

    @counter.app.on_error
    def broken(report: object) -> None:
        raise RuntimeError("sink")

    counter.app.on_error(lambda report: told.append(report.where))
    async with live(counter.app) as running:
        page = await running.open()
        await page.event("boom")
        assert told == ["handler of event 'boom'"]
        assert len(running.errors) == 1
        assert "broken" in caplog.text


# --- Life --------------------------------------------------------------------------------------


async def test_leaving_cancels_what_runs_for_that_user(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page, other = await running.open(), await running.open()
        await page.event("slow", {"label": "a", "seconds": 60})
        await other.event("slow", {"label": "b", "seconds": 60})
        page.connection.hang_up()
        await wait_all_tasks_blocked()
        assert counter.ended == ["a cancelled"]
        assert len(running.runtime.sessions) == 1
        await trio.sleep(61)
        assert counter.ended == ["a cancelled", "b"]


async def test_the_author_can_close_a_session(autojump_clock: object) -> None:
    counter = Counter()
    counter.app.on("leave")(lambda session: session.close(4000, "enough"))
    async with live(counter.app) as running:
        page = await running.open()
        await page.event("leave")
        assert page.close_code == 4000
        assert not running.runtime.sessions


async def test_ending_the_run_closes_connections_with_restart(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open()
        await page.event("slow", {"label": "a", "seconds": 60})
    assert page.close_code == 1012
    assert counter.ended == ["a cancelled"]


async def test_a_run_that_drains_closes_its_pages_and_takes_no_more(
    autojump_clock: object,
) -> None:
    async with live(Counter().app) as running:
        page = await running.open()
        running.runtime.drain()
        await wait_all_tasks_blocked()
        assert page.close_code == 1012
        late = await running.open()
        assert late.close_code == 1012
        assert late.messages == []


async def test_a_session_that_breaks_ends_alone_and_is_reported(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with live(Counter().app) as running:
        bystander = await running.open()
        with monkeypatch.context() as patch:
            patch.setattr(Exchange, "flush", _break)
            patch.setattr(Session, "_end", _break)
            page = await running.open()
        assert page.close_code == 1011
        assert [report.where for report in running.errors] == ["session", "session"]
        await bystander.event("increment")
        assert bystander.messages[-1]["changes"]["count"] == 1


async def _break(*_: object) -> None:
    raise RuntimeError("a bug of ours")


async def test_a_handler_knows_its_session_without_being_told(autojump_clock: object) -> None:
    counter = Counter()
    seen: list[int] = []

    @counter.app.on("look")
    async def look() -> None:
        await trio.sleep(1)
        seen.append(counter.count.value)

    async with live(counter.app) as running:
        ada, bob = await running.open(), await running.open()
        await ada.event("now")
        await ada.event("look")
        await bob.event("look")
        await trio.sleep(2)
        assert sorted(seen) == [0, 1]


async def test_the_sockets_end_while_writing_is_no_error(autojump_clock: object) -> None:
    counter = Counter()
    async with live(counter.app) as running:
        page = await running.open()
        page.stall()
        await page.event("increment")
        page.connection.hang_up()
        await page.take()
        assert not running.runtime.sessions
        assert not running.errors


def test_a_session_alone_is_a_place_to_try_signals_in() -> None:
    counter = Counter()
    session = Session()
    counter.count.set(session, 21)
    assert counter.doubled.get(session) == 42
    session.close()
    assert counter.count.get(Session()) == 0


def test_limits_are_positive() -> None:
    with pytest.raises(Exception, match="limit heartbeat is 0; give a positive number"):
        Limits(heartbeat=0)


async def test_a_running_session_may_be_attached_to_later(autojump_clock: object) -> None:
    session = Session()
    page = Page(None)
    closings: list[tuple[int, str]] = []

    async def attach() -> None:
        closings.append(await session.attach(page.connection))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(session.run)
        await trio.sleep(1)
        nursery.start_soon(attach)
        await trio.sleep(1)
        session.close(4000)
    assert page.messages == [{"type": "init", "state": {}, "sessionId": session.id}]
    assert closings == [(4000, "")]
    assert session.id in repr(session)


async def test_an_error_that_there_is_nobody_to_tell_of_is_raised() -> None:
    session = Session()

    async def fail() -> None:
        raise ZeroDivisionError

    with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(session.run)
            await wait_all_tasks_blocked()
            session.start_soon(fail)


def test_a_session_redefines_nothing_of_its_store_by_accident() -> None:
    shared = {name for name in vars(Session) if name in vars(Store)}
    assert {name for name in shared if not name.startswith("__")} == {"close", "owe"}
