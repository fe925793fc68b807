"""The synchronous client: a user in memory, one call after the other."""

from __future__ import annotations

import asyncio
import code
import contextlib
import gc
import signal
import subprocess
import sys
import textwrap
import threading
import unittest
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trio

from cacao import App, ConnectionClosed, HostingError, Registry, Session, Signal
from cacao.testing import AsyncTestClient, SpinningError, TestClient

Handler = Callable[..., Any]


def app_with(name: str, handler: Handler) -> App:
    app = App()
    app.on(name)(handler)
    return app


class Counter:
    """An app that counts, and the signal it counts with."""

    def __init__(self) -> None:
        with Registry():
            self.app = App()
            self.count = Signal(0, name="count")
        self.app.on("increment")(self.increment)

    async def increment(self, session: Session, event: dict[str, Any]) -> None:
        self.count.set(session, self.count.get(session) + event.get("by", 1))


# --- Sending -----------------------------------------------------------------------------------


def test_an_event_has_been_answered_when_send_returns() -> None:
    client = TestClient(Counter().app)
    result = client.send("increment")
    assert result is not None
    assert result.ok
    assert client.state == {"count": 1}


def test_data_and_fields_make_up_the_event() -> None:
    seen: list[dict[str, Any]] = []

    async def note(session: Session, event: dict[str, Any]) -> None:
        seen.append(event)

    client = TestClient(app_with("note", note))
    client.send("note", {"a": 1}, name="x", data=2)
    assert seen == [{"a": 1, "name": "x", "data": 2}]


def test_a_handler_that_still_runs_has_no_result_yet() -> None:
    async def wait() -> None:
        await trio.sleep(1)

    client = TestClient(app_with("wait", wait))
    assert client.send("wait") is None
    client.advance(1)
    result = client.result(1)
    assert result is not None
    assert result.ok


def test_everything_a_handler_sets_off_has_happened_too() -> None:
    app = App()
    seen: list[int] = []

    async def chain(session: Session) -> None:
        async with trio.open_nursery() as nursery:
            for step in range(20):
                await trio.lowlevel.checkpoint()
                nursery.start_soon(_note_later, seen, step)

    app.on("chain")(chain)
    client = TestClient(app)
    client.send("chain")
    assert sorted(seen) == list(range(20))


async def _note_later(seen: list[int], step: int) -> None:
    for _ in range(step):
        await trio.lowlevel.checkpoint()
    seen.append(step)


def test_an_unknown_event_is_a_result_with_its_code() -> None:
    result = TestClient(Counter().app).send("decrement")
    assert result is not None
    assert (result.ok, result.code) == (False, "unknown_event")
    assert "decrement" in str(result.message)


def test_the_state_is_json_as_the_page_would_see_it() -> None:
    app = App()
    pair = Signal((1, 2), name="pair")
    client = TestClient(app)
    assert client.state == {"pair": [1, 2]}
    assert pair.get(client.session) == (1, 2)


def test_messages_are_all_that_the_server_sent() -> None:
    client = TestClient(Counter().app)
    client.send("increment")
    assert [message["type"] for message in client.messages] == ["init", "update", "result"]
    assert client.messages[0]["state"] == {"count": 0}
    assert client.messages[1]["changes"] == {"count": 1}
    assert client.messages[1]["ack"] == 1
    assert client.messages[2] == {"type": "result", "id": 1, "ok": True}


def test_what_was_seen_stays_as_it_was() -> None:
    client = TestClient(Counter().app)
    state, messages = client.state, client.messages
    client.send("increment")
    assert (state["count"], len(messages)) == (0, 1)


def test_the_session_is_the_live_one_on_the_server() -> None:
    counter = Counter()
    client = TestClient(counter.app)
    client.send("increment", by=5)
    assert counter.count.get(client.session) == 5
    assert client.session.id == client.session_id


def test_any_text_can_be_sent_and_is_answered() -> None:
    client = TestClient(Counter().app)
    client.send_text("{")
    client.send_text("[1]")
    codes = [message["code"] for message in client.messages if message["type"] == "error"]
    assert codes == ["invalid_json", "invalid_message"]
    client.send("increment")
    assert client.state["count"] == 1


def test_the_plain_protocol_has_no_results_and_no_revisions() -> None:
    client = TestClient(Counter().app, subprotocol=None)
    assert client.send("increment") is None
    assert client.messages[0] == {
        "type": "init",
        "state": {"count": 0},
        "sessionId": client.session_id,
    }
    assert client.messages[1:] == [{"type": "update", "changes": {"count": 1}}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, r"event 'increment' carries fields, not 3; .* send\('increment', by=3\)"),
        ({"by": {1}}, r"event 'increment' cannot carry {'by': \{1\}} as JSON: .* set"),
    ],
)
def test_what_no_page_could_send_is_refused_and_was_never_sent(data: Any, message: str) -> None:
    client = TestClient(Counter().app)
    client.network.drop()
    with pytest.raises(TypeError, match=message):
        client.send("increment", data)
    client.network.restore()
    client.send("increment")
    assert client.runs("increment") == [({}, "done")]
    assert client.delivered_once("increment")


def test_what_is_no_text_is_not_sent_as_one() -> None:
    client = TestClient(Counter().app)
    with pytest.raises(TypeError, match=r"a client sends text, not {'type': 'beat'}"):
        client.send_text({"type": "beat"})  # type: ignore[arg-type]
    assert [frame.direction for frame in client.frames] == ["sent", "received"]


# --- Worlds ------------------------------------------------------------------------------------


def test_two_clients_of_one_app_are_two_users_of_one_run() -> None:
    counter = Counter()
    alice, bob = TestClient(counter.app), TestClient(counter.app)
    alice.send("increment")
    assert (alice.state["count"], bob.state["count"]) == (1, 0)
    assert alice.session is not bob.session
    alice.advance(3)
    assert bob.time == 3


def test_clients_of_two_apps_do_not_meet() -> None:
    one, other = Counter(), Counter()
    here, there = TestClient(one.app), TestClient(other.app)
    here.send("increment")
    here.advance(1)
    there.send("increment", by=7)
    assert (here.state, here.time) == ({"count": 1}, 1)
    assert (there.state, there.time) == ({"count": 7}, 0)


def test_a_closed_world_leaves_nothing_to_the_next_one() -> None:
    counter = Counter()
    first = TestClient(counter.app)
    first.send("increment")
    first.advance(9)
    first.close()
    again = TestClient(counter.app)
    assert (again.state["count"], again.time) == (0, 0)


def test_the_other_clients_go_on_when_one_closes() -> None:
    counter = Counter()
    alice, bob = TestClient(counter.app), TestClient(counter.app)
    alice.close()
    bob.send("increment")
    assert bob.state["count"] == 1


def test_closing_twice_is_nothing() -> None:
    client = TestClient(Counter().app)
    client.close()
    client.close()


def test_a_world_is_not_kept_alive_by_being_found() -> None:
    script = """
        import gc, weakref
        from cacao import App
        from cacao.testing import TestClient
        from cacao.testing.open_worlds import find_world
        app = App()
        client = TestClient(app)
        world = weakref.ref(find_world(app))
        del client
        assert world() is None
        assert find_world(app) is None
        app = weakref.ref(app)
        gc.collect()
        assert app() is None
    """
    assert run_script(script) == ""


def test_a_second_client_must_have_the_seed_of_the_first() -> None:
    app = App()
    client = TestClient(app, seed=1)
    with pytest.raises(ValueError, match="seed=1"):
        TestClient(app, seed=2)
    client.close()
    TestClient(app, seed=2)


def test_a_client_is_shown_by_its_name() -> None:
    client = TestClient(Counter().app)
    assert repr(client) == "<TestClient 'client 1'>"
    assert repr(client.user("alice").tab()) == "<TestClient 'alice, tab 2'>"
    assert repr(AsyncTestClient(Counter().app)) == "<AsyncTestClient>"  # it has not come in yet


# --- Where it can be used ----------------------------------------------------------------------


def test_what_is_no_app_is_refused_with_advice() -> None:
    app = App()
    with pytest.raises(TypeError, match=r"needs a cacao\.App, not function .* pass app"):
        TestClient(app.asgi)  # type: ignore[arg-type]


async def test_inside_a_trio_task_the_async_client_is_named() -> None:
    with pytest.raises(HostingError, match="AsyncTestClient"):
        TestClient(App())


def test_a_handler_cannot_step_its_own_world() -> None:
    app = App()

    async def meddle(session: Session) -> None:
        client.send("other")

    app.on("meddle")(meddle)
    client = TestClient(app)
    with pytest.raises(HostingError, match="AsyncTestClient"):
        client.send("meddle")


def test_inside_asyncio_it_works_as_anywhere() -> None:
    async def notebook_cell() -> object:
        client = TestClient(Counter().app)
        client.send("increment")
        await asyncio.sleep(0)
        client.send("increment")
        return client.state["count"]

    assert asyncio.run(notebook_cell()) == 2


def test_the_test_may_run_trio_between_two_sends() -> None:
    client = TestClient(Counter().app)
    client.send("increment")
    assert trio.run(trio.sleep, 0) is None
    client.send("increment")
    assert client.state["count"] == 2


def test_unittest_needs_nothing_more() -> None:
    class Case(unittest.TestCase):
        def test_increment(self) -> None:
            client = TestClient(Counter().app)
            client.send("increment")
            self.assertEqual(client.state["count"], 1)  # noqa: PT009 -- unittest is the point

    result = unittest.TestResult()
    Case("test_increment").run(result)
    assert result.wasSuccessful()


def test_the_prompt_needs_nothing_more() -> None:
    prompt = code.InteractiveInterpreter({"app": Counter().app})
    for line in (
        "from cacao.testing import TestClient",
        "client = TestClient(app)",
        "result = client.send('increment')",
    ):
        assert prompt.runsource(line) is False
    assert prompt.locals["client"].state == {"count": 1}


def test_no_thread_is_started() -> None:
    before = threading.active_count()
    client = TestClient(Counter().app)
    client.send("increment")
    client.advance(60)
    assert threading.active_count() == before


# --- Threads and real time ---------------------------------------------------------------------


def test_work_in_a_thread_is_waited_for_in_real_time() -> None:
    done = threading.Event()
    app = App()
    ready = Signal("no", name="ready")

    async def work(session: Session) -> None:
        await trio.to_thread.run_sync(done.wait)
        ready.set(session, "yes")

    app.on("work")(work)
    client = TestClient(app)
    assert client.send("work") is None
    assert client.state["ready"] == "no"
    done.set()
    client.wait(lambda: client.state["ready"] == "yes")
    assert client.time == 0


def test_a_wait_in_vain_ends_with_a_timeout() -> None:
    client = TestClient(App())
    with pytest.raises(TimeoutError, match="real time"):
        client.wait(lambda: False, timeout=0.01)


# --- Ends --------------------------------------------------------------------------------------


async def spin() -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def spin_on_regardless() -> None:
    while True:
        with contextlib.suppress(trio.Cancelled):
            await trio.lowlevel.checkpoint()


def test_a_spinning_handler_is_named_with_its_line() -> None:
    client = TestClient(app_with("spin", spin), max_ticks=500)
    with pytest.raises(SpinningError, match=r"event spin.*test_testing_client\.py:\d+, in spin"):
        client.send("spin")


def test_a_spinning_handler_is_cancelled() -> None:
    ended: list[str] = []

    async def spin_and_tell() -> None:
        try:
            await spin()
        finally:
            ended.append("yes")

    client = TestClient(app_with("spin", spin_and_tell), max_ticks=500)
    with pytest.raises(SpinningError):
        client.send("spin")
    assert ended == ["yes"]


@pytest.mark.parametrize("spin", [spin, spin_on_regardless])
def test_a_broken_world_refuses_to_go_on_and_closes_without_a_word(spin: Handler) -> None:
    app = app_with("spin", spin)
    client, other = (TestClient(app, max_ticks=500) for _ in range(2))
    with pytest.raises(SpinningError):
        client.send("spin")
    with pytest.raises(HostingError, match="broken: a task in it never came to rest"):
        client.send("spin")
    with pytest.raises(HostingError, match="make a new client"):
        client.advance(1)
    client.close()
    other.close()


def test_a_new_client_gets_a_new_world_after_a_broken_one() -> None:
    app = app_with("spin", spin)
    broken = TestClient(app, max_ticks=500)
    with pytest.raises(SpinningError):
        broken.send("spin")
    again = TestClient(app, max_ticks=500)
    assert again.send("other") is not None
    broken.close()
    assert TestClient(app, max_ticks=500)._world is again._world


def test_a_send_after_closing_says_so() -> None:
    client = TestClient(Counter().app)
    client.close()
    with pytest.raises(ConnectionClosed, match="the test client has closed; open another"):
        client.send("increment")
    with pytest.raises(ConnectionClosed):
        _ = client.session


def test_a_send_after_the_server_closed_says_so() -> None:
    client = TestClient(Counter().app)
    client.send_text('{"type": "event", "name": "' + 300_000 * "x" + '"}')
    with pytest.raises(ConnectionClosed) as closed:
        client.send("increment")
    assert closed.value.code == 1009


def test_a_send_after_the_session_ended_says_so() -> None:
    client = TestClient(Counter().app)
    client._world.do(client.session.close)
    with pytest.raises(ConnectionClosed):
        client.send("increment")
    with pytest.raises(ConnectionClosed, match="has ended"):
        _ = client.session


def test_a_page_that_closes_ends_the_handlers_of_its_session() -> None:
    ended: list[str] = []

    async def wait_for_ever() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("yes")

    app = app_with("wait", wait_for_ever)
    leaver, stayer = TestClient(app), TestClient(app)
    leaver.send("wait")
    assert ended == []
    leaver.close()
    stayer.advance(300)
    assert ended == ["yes"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals come by themselves there")
def test_ctrl_c_in_a_handler_is_a_keyboard_interrupt() -> None:
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    client = TestClient(app_with("interrupt", interrupt))
    with pytest.raises(KeyboardInterrupt):
        client.send("interrupt")
    with pytest.raises(HostingError, match="interrupted by Ctrl-C"):
        client.send("interrupt")
    client.close()


def test_ctrl_c_between_two_steps_breaks_the_world() -> None:
    app = App()
    client, other = TestClient(app), TestClient(app)
    with pytest.raises(KeyboardInterrupt):
        client._world.do(signal.raise_signal, signal.SIGINT)
    with pytest.raises(HostingError, match="interrupted by Ctrl-C"):
        other.advance(1)
    client.close()
    other.close()


def test_signals_between_two_sends_are_left_to_others() -> None:
    before = signal.getsignal(signal.SIGINT), wakeup_fd()
    client = TestClient(Counter().app)
    client.send("increment")
    assert (signal.getsignal(signal.SIGINT), wakeup_fd()) == before
    client.close()
    assert (signal.getsignal(signal.SIGINT), wakeup_fd()) == before


def wakeup_fd() -> int:
    fd = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(fd)
    return fd


SILENT = """
    import gc, trio
    from cacao import App, Signal
    from cacao.testing import SpinningError, TestClient
    app = App()
    count = Signal(0, name="count")
    @app.on("wait")
    async def wait():
        try:
            await trio.sleep_forever()
        finally:
            with trio.move_on_after(1, shield=True):
                await trio.sleep_forever()
            print("tidied up")
    @app.on("hold")
    async def hold():
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
    @app.on("spin")
    async def spin():
        while True:
            try:
                await trio.lowlevel.checkpoint()
            except trio.Cancelled:
                pass
"""


@pytest.mark.parametrize(
    ("what", "script"),
    [
        ("dropped", "client = TestClient(app); client.send('wait'); del client; gc.collect()"),
        (
            "in a cycle",
            "client = [TestClient(app)]; client.append(client); del client; gc.collect()",
        ),
        ("not to be cancelled", "client = TestClient(app); client.send('hold'); del client"),
        ("open at exit", "client = TestClient(app); client.send('wait')"),
        (
            "dropped with its app",
            "client = TestClient(app); del client, app, wait, hold, spin; gc.collect()",
        ),
    ],
)
def test_a_client_that_nobody_closes_dies_silently(what: str, script: str) -> None:
    said = run_script(SILENT + "    " + script)
    assert said == ("tidied up\n" if "wait" in script.partition("del")[0] else ""), what


@pytest.mark.parametrize("end", ["del client; gc.collect()", "pass"])
def test_a_broken_world_dies_silently(end: str) -> None:
    script = f"""
    client = TestClient(app, max_ticks=500)
    try:
        client.send("spin")
    except SpinningError:
        pass
    {end}
    """
    assert run_script(SILENT + script) == ""


def test_an_error_that_was_seen_does_not_keep_its_world_alive() -> None:
    script = """
    @app.on("fail")
    async def fail():
        raise ValueError
    import logging, weakref
    logging.disable()
    client = TestClient(app)
    world = weakref.ref(client._world)
    gc.disable()
    try:
        client.send("fail")
    except ValueError:
        pass
    del client
    assert world() is None
    """
    assert run_script(SILENT + script) == ""


def run_script(script: str) -> str:
    """Run a script with every warning an error; gives all that it has printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_world_that_dies_frees_its_sessions() -> None:
    client = TestClient(Counter().app)
    session = weakref.ref(client.session)
    client.close()
    gc.collect()
    assert session() is None


def test_what_the_app_changes_by_itself_has_come_when_a_call_returns() -> None:
    app = App()
    one = Signal(1, name="one")
    ten = Signal(10, name="ten")
    hundred = Signal(100, name="hundred")

    @app.on("set")
    async def set_one(session: Session, to: int) -> None:
        one.set(session, to)

    @app.effect
    async def follow(session: Session) -> None:
        ten.set(session, one.get(session) * 10)

    @app.effect
    async def follow_that(session: Session) -> None:
        hundred.set(session, ten.get(session) * 10)

    @app.every(5)
    def tick(session: Session) -> None:
        one.update(session, lambda n: n + 1)

    client = TestClient(app)
    client.send("set", to=3)
    assert client.state == client.server_state == {"one": 3, "ten": 30, "hundred": 300}
    client.advance(5)
    assert client.state == client.server_state == {"one": 4, "ten": 40, "hundred": 400}


def test_two_effects_that_never_agree_do_not_hold_up_the_test() -> None:
    app = App()
    one, other = Signal(0, name="one"), Signal(0, name="other")

    @app.effect
    async def chase(session: Session) -> None:
        one.set(session, other.get(session) + 1)

    @app.effect
    async def flee(session: Session) -> None:
        other.set(session, one.get(session) + 1)

    client = TestClient(app)
    seen = client.state["one"]
    client.advance(1)
    assert client.state["one"] > seen
