"""The laws of coming back: whatever the network does, each event counts once and nothing is lost.

A *story* is what one page and its network do, step by step. Many pages live through theirs in one
run of an app; then the network heals, time passes, and the laws are looked at. Hypothesis looks for
short stories that break them; ten thousand others are made from seeds. One that fails is told with
its seed: `python tests/test_resume_laws.py SEED` lets it happen 500 times.
"""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import trio
from faulty_network import TICK, Network, Wire
from hypothesis import given, settings
from hypothesis import strategies as st
from resuming_client import ResumingClient, Sent, outcome_of, text_of
from trio.testing import MockClock

from cacao import App, Computed, Limits, ListSignal, Registry, Session, Signal, TextSignal
from cacao.protocol import encode_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from cacao.runtime import Runtime

    Step = tuple[str, *tuple[int, ...]]
    Story = Sequence[Step]

SHARES = [range(5000), range(5000, 10_000)]
CROWD = 500

LIMITS = Limits(max_sessions=1_000_000, flush_interval=TICK)
AWAY = LIMITS.resume_window + 1
DEAD = AWAY + 3 * LIMITS.heartbeat  # where the server has to notice first that nobody is there

ONE_AT_A_TIME = {"latest", "keep_latest", "drop"}
REFUSED = {"unknown": "unknown_event", "wrong": "invalid_data"}
EVENTS = ["plain", "quick", "slow", "fail", "grow", "write", "rewrite", "check"]
EVENTS += [*ONE_AT_A_TIME, *REFUSED]
EVENTS.sort()


# --- The app -------------------------------------------------------------------------------------


class Witness:
    """An app with a handler of each kind, and what they have done.

    Attributes:
        diaries: By session, what each event has come to: "begins", then "ends", "fails" or "stops".
    """

    def __init__(self) -> None:
        with Registry() as registry:
            self.app = App(registry=registry, limits=LIMITS)
            self.count = Signal(0, name="count")
            self.lines: ListSignal[int] = ListSignal(name="lines")
            self.text = TextSignal("begin: ", name="text")
            self.parity: Signal[dict[str, int]] = Signal({}, name="parity")
            doubled = Computed(lambda s: self.count.get(s) * 2, name="doubled")
        self.signals = [self.count, self.lines, self.text, self.parity, doubled]
        self.diaries: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
        self._declare()

    def state(self, session: Session) -> dict[str, Any]:
        """Give what a client should have."""
        return {
            str(signal.name): json.loads(encode_value("", signal.peek(session)))  # type: ignore[attr-defined]
            for signal in self.signals
        }

    @asynccontextmanager
    async def _noted(self, session: Session, n: int, ticks: int = 0) -> AsyncIterator[None]:
        diary = self.diaries[session.id][n]
        diary.append("begins")
        try:
            if ticks:
                await trio.sleep(ticks * TICK)
            yield
        except trio.Cancelled:
            diary.append("stops")
            raise
        except ZeroDivisionError:
            diary.append("fails")
            raise
        diary.append("ends")

    def _declare(self) -> None:
        on = self.app.on
        for handler in (self.plain, self.wrong, self.rewrite, self.check, self.quick, self.slow):
            on(handler.__name__)(handler)
        for handler in (self.fail, self.grow, self.write):
            on(handler.__name__)(handler)
        on("latest", concurrency="latest")(self.slow)
        on("keep_latest", concurrency="keep_latest")(self.slow)
        on("drop", concurrency="drop")(self.slow)

    def plain(self, session: Session, n: int) -> None:
        self.diaries[session.id][n] += ["begins", "ends"]
        self.count.update(session, lambda before: before + 1)

    def wrong(self, session: Session, n: str) -> None:
        raise AssertionError(n)

    def rewrite(self, session: Session, n: int) -> None:
        self.diaries[session.id][n] += ["begins", "ends"]
        self.lines.set(session, list(self.lines.get(session))[-2:])
        self.text.set(session, f"anew, {n}: ")

    def check(self, session: Session, n: int) -> None:
        self.diaries[session.id][n] += ["begins", "ends"]
        self._set_parity(session, n)

    def _set_parity(self, session: Session, n: int) -> None:
        """Set what has been before: what was sent then must not hide what is to be sent now."""
        self.parity.set(session, {"of": n % 2})

    async def quick(self, session: Session, n: int) -> None:
        self.diaries[session.id][n] += ["begins", "ends"]
        self.count.update(session, lambda before: before + 1)

    async def slow(self, session: Session, n: int, ticks: int) -> None:
        async with self._noted(session, n, ticks):
            self.count.update(session, lambda before: before + 1)
            self._set_parity(session, n)

    async def fail(self, session: Session, n: int, ticks: int) -> None:
        async with self._noted(session, n, ticks):
            raise ZeroDivisionError

    async def grow(self, session: Session, n: int, ticks: int) -> None:
        async with self._noted(session, n):
            for piece in range(3):
                await self.lines.append(session, n * 10 + piece)
                await trio.sleep(ticks * TICK / 4)

    async def write(self, session: Session, n: int, ticks: int) -> None:
        async with self._noted(session, n):
            for word in ("one ", "and ", f"{n}, "):
                await self.text.append(session, word)
                await trio.sleep(ticks * TICK / 4)


# --- The page ------------------------------------------------------------------------------------


class Page:
    """One page and its network, living through a story."""

    def __init__(self, witness: Witness, runtime: Runtime, network: Network) -> None:
        self.client = ResumingClient()
        self._witness = witness
        self._runtime = runtime
        self._network = network
        self._wire: Wire | None = None
        self._is_faulty = False  # the wire has lost something in the middle
        self._is_expired = self._has_expired = False
        self._change = trio.Event()
        self._sent: list[Sent] = []
        self._forgotten: set[Sent] = set()
        self._before = 0  # how many were sent to an earlier session, or by an earlier page
        self._broken: list[str] = []
        self._greeting = ""
        self._hello_at = 0.0
        self._sessions: dict[str, None] = {}
        self._numbers = iter(range(1, 1_000_000))

    async def live(self, story: Story) -> None:
        """Go through a story, come back for good, look at the laws, and leave."""
        self._dial(1, 1)
        for name, *numbers in story:
            await getattr(self, name)(*numbers)
        self._dial(1, 1)
        await self._until(lambda: self.client.is_ready and self.client.is_settled)
        await trio.sleep(1)  # what was gathered arrives
        self.look_at_the_laws()
        await self._go_away()
        await trio.sleep(LIMITS.bye_window + 1)
        assert self.client.session_id not in self._runtime.sessions

    # --- Its steps -------------------------------------------------------------------------------

    async def say(self, which: int, ticks: int) -> None:
        """Send an event."""
        data = {"n": next(self._numbers), "ticks": ticks}
        event, texts = self.client.send(EVENTS[which % len(EVENTS)], data)
        self._sent.append(event)
        self._send(texts)

    async def wait(self, ticks: int) -> None:
        await trio.sleep(ticks * TICK)

    async def cut(self, up: int, down: int, notice: int, gap: int, latency: int) -> None:
        """Lose the connection; more may still arrive, and either side may take long to notice."""
        if self._wire is not None:
            self._wire.cut(up=up, down=down, notice=notice if notice < 200 else None)
        await trio.sleep(gap * TICK)
        self._dial(latency % 4, latency // 4)

    async def race(self, count: int, up: int) -> None:
        """Dial several times at once; of all but the last dial perhaps only `hello` arrives."""
        for latency in range(count):
            self._dial(2, 1 + latency % 2)
            assert self._wire is not None
            self._wire.cut(up=up, down=latency, notice=None)
        self._dial(3, 1)

    async def stall(self, ticks: int) -> None:
        """Take nothing for a while; the server may close for it."""
        if self._wire is not None:
            self._wire.stall(ticks)

    async def repeat(self, count: int) -> None:
        """Send the last events again, as they were."""
        if self.client.is_ready:
            known = [event for event in self._sent[self._before :] if event.id]
            self._send(list(map(text_of, known[-count:])))

    async def lose(self) -> None:
        """Let an update be lost in the middle."""
        if self._wire is not None:
            self._is_faulty = True
            self._wire.lose_update()

    async def straggle(self) -> None:
        """Let the `hello` of an earlier connection come late: it takes nothing over."""
        await self._until(lambda: self.client.is_ready)
        await trio.sleep(32 * TICK)  # that the client has its `init` has come to the server
        stranger = Stranger()
        wire = self._network.dial(stranger, 1, 1)
        wire.send(self._greeting)
        await trio.sleep(8 * TICK)
        assert stranger.outcomes == ["fresh"]
        wire.cut(up=0, down=0, notice=0)

    async def bye(self, gap: int) -> None:
        """Hide, and come back in time."""
        await self._go_away()
        await trio.sleep(gap * TICK)
        self._dial(1, 1)
        await self._until(lambda: self.client.is_ready)

    async def reload(self, gap: int) -> None:
        """Go, and let another page come in the same tab."""
        await self._go_away()
        self._forgotten |= {event for event in self._sent if event.result is None}
        self._before = len(self._sent)
        await trio.sleep(gap * TICK)
        self.client = ResumingClient(self.client.token)
        self._dial(1, 1)
        await self._until(lambda: self.client.is_ready)

    async def nap(self, seconds: int) -> None:
        """Stay away for long, but not for too long."""
        await self._lose_all()
        await trio.sleep(seconds)
        self._dial(1, 1)
        await self._until(lambda: self.client.is_ready)

    async def expire(self) -> None:
        """Stay away for too long."""
        await self._lose_all()
        self._is_expired = self._has_expired = True
        self._before = len(self._sent)
        await trio.sleep(AWAY)
        self._dial(1, 1)
        await self._until(lambda: self.client.is_ready)

    # --- Its connections -------------------------------------------------------------------------

    def arrived(self, wire: Wire, text: str) -> None:
        if wire is not self._wire:
            return  # of an older connection
        client = self.client
        inits = len(client.inits)
        is_known = client.token is not None
        self._send(client.hear(text))
        if len(client.inits) > inits:
            if (client.inits[-1] == "fresh") != (self._is_expired or not is_known):
                self._broken.append(f"init number {inits} is {client.inits[-1]}")
            self._is_expired = False
            self._sessions[str(client.session_id)] = None
        if not self._is_faulty:
            self._broken += [
                f"{b} follows {a}" for a, b in pairwise(client.revs[-2:]) if b != a + 1
            ]
        self._change.set()

    def closed(self, wire: Wire, code: int) -> None:
        if wire is not self._wire:
            return
        if code not in {1008, 4408}:  # it took nothing, or was silent
            self._broken.append(f"it was closed with {code}")
        self._wire = None
        self.client.lost()
        self._network.after(1, self._redial)

    def _redial(self) -> None:
        if self._wire is None:
            self._dial(1, 1)

    def _dial(self, up: int, down: int) -> None:
        self.client.lost()
        self._is_faulty = False
        (self._greeting,) = self.client.greeting()
        # Who dials twice is met in this order; what else is under way may come whenever it likes.
        now = trio.current_time()
        up = max(up, math.ceil((self._hello_at - now) / TICK) + 1)
        self._hello_at = now + up * TICK
        self._wire = self._network.dial(self, up, down)
        self._wire.send(self._greeting)

    async def _lose_all(self) -> None:
        await self._until(lambda: self.client.is_ready)
        assert self._wire is not None
        self._wire.cut(up=0, down=0, notice=0)

    async def _go_away(self) -> None:
        self._send(['{"type":"bye"}'])
        if self._wire is not None:
            self._wire.hang_up()
        self._wire = None
        self.client.lost()

    def _send(self, texts: list[str]) -> None:
        if self._wire is not None:
            for text in texts:
                self._wire.send(text)

    async def _until(self, is_so: Any) -> None:
        with trio.fail_after(400):
            while not is_so():
                self._change = trio.Event()
                await self._change.wait()

    # --- The laws --------------------------------------------------------------------------------

    def look_at_the_laws(self) -> None:
        assert self._broken == []
        session = self._runtime.sessions[str(self.client.session_id)]
        assert self.client.state == self._witness.state(session)
        diaries = [self._witness.diaries.get(each, {}) for each in self._sessions]
        begun = [n for diary in diaries for n in diary]
        assert len(begun) == len(set(begun))  # in one session each
        order: dict[str, list[int]] = defaultdict(list)
        by_number = {event.data["n"]: event for event in self._sent}
        for n in begun:
            order[by_number[n].name].append(n)
        for name, numbers in order.items():
            assert numbers == sorted(numbers), name
        lines = {n: entries for diary in diaries for n, entries in diary.items()}
        for event in self._sent:
            self._look_at_outcome(event, lines.get(event.data["n"], []))
        assert self.client.strays == []

    def _look_at_outcome(self, event: Sent, diary: list[str]) -> None:
        assert diary.count("begins") <= 1, event
        if event in self._forgotten:
            assert event.result is None
        elif self._has_expired and outcome_of(event) == "cancelled":
            pass  # whatever it came to, the page was told that it cannot know
        else:
            assert outcome_of(event) == expected_outcome(event.name, diary), (event, diary)


def expected_outcome(name: str, diary: list[str]) -> str:
    if name in REFUSED:
        return REFUSED[name]
    match diary:
        case ["begins", "ends"]:
            return "ok"
        case ["begins", "fails"]:
            return "handler_error"
        case ["begins", "stops"] if name == "latest":
            return "superseded"
        case [] if name in ONE_AT_A_TIME:
            return "dropped" if name == "drop" else "superseded"
    raise AssertionError(name, diary)


class Stranger:
    """Somebody who dials, and does no more.

    Attributes:
        outcomes: What became of it.
    """

    def __init__(self) -> None:
        self.outcomes: list[str] = []

    def arrived(self, wire: Wire, text: str) -> None:
        message = json.loads(text)
        if message["type"] == "init":
            self.outcomes.append(message["outcome"])

    def closed(self, wire: Wire, code: int) -> None:
        pass


# --- Stories -------------------------------------------------------------------------------------

TICKS = 40
# How often a step comes, and the largest values of its numbers.
STEPS: dict[str, tuple[int, tuple[int, ...]]] = {
    "say": (50, (len(EVENTS) - 1, TICKS)),
    "wait": (12, (TICKS,)),
    "cut": (16, (4, 6, 240, 120, 15)),
    "race": (3, (4, 3)),
    "stall": (2, (800,)),
    "repeat": (5, (5,)),
    "lose": (3, ()),
    "straggle": (1, ()),
    "bye": (2, (240,)),
    "reload": (2, (240,)),
    "nap": (1, (100,)),
    "expire": (1, ()),
}


def story_of(seed: int) -> Story:
    random = Random(seed)  # noqa: S311 - a dice, no secret
    names, weights = list(STEPS), [weight for weight, _ in STEPS.values()]
    chosen = random.choices(names, weights, k=random.randrange(2, 9))
    return [(name, *(random.randint(0, most) for most in STEPS[name][1])) for name in chosen]


STORIES = st.lists(
    st.one_of(
        *(
            st.tuples(st.just(name), *(st.integers(0, most) for most in numbers))
            for name, (_, numbers) in STEPS.items()
        )
    ),
    max_size=12,
)


async def live_through(stories: dict[object, Story]) -> None:
    """Let a page live through each of the stories, all at once; nothing is left of them."""
    tasks = trio.lowlevel.current_statistics().tasks_living
    witness = Witness()
    errors: list[object] = []
    broken: dict[object, Exception] = {}

    async def live(page: Page, seed: object, story: Story) -> None:
        try:
            await page.live(story)
        except Exception as error:  # noqa: BLE001 - raised below, when all have lived
            broken[seed] = error

    async with (
        trio.open_nursery() as nursery,
        witness.app.runtime(on_error=errors.append) as runtime,
    ):
        network = Network(runtime, nursery)
        nursery.start_soon(network.run)
        async with trio.open_nursery() as pages:
            for seed, story in stories.items():
                pages.start_soon(live, Page(witness, runtime, network), seed, story)
        _tell(broken, stories)
        await trio.sleep(DEAD)  # a page may have begun a session of which it never heard
        assert not runtime.sessions
        nursery.cancel_scope.cancel()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    lines = [entries for diary in witness.diaries.values() for entries in diary.values()]
    assert len(errors) == sum(entries[-1] == "fails" for entries in lines)


def _tell(broken: dict[object, Exception], stories: dict[object, Story]) -> None:
    """Raise the error of the shortest story that broke a law, with all that is needed to see it."""
    if broken:
        seed = min(broken, key=lambda each: len(stories[each]))
        broken[seed].add_note(f"seed {seed} of {list(broken)}: {list(stories[seed])}")
        raise broken[seed]


@pytest.fixture(autouse=True)
def _failures_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Handlers fail on purpose, by the hundred."""
    caplog.set_level(logging.CRITICAL, logger="cacao")


def run(stories: dict[object, Story]) -> None:
    trio.run(live_through, stories, clock=MockClock(autojump_threshold=0))


@settings(max_examples=60, deadline=None)
@given(story=STORIES)
def test_no_short_story_breaks_a_law(story: Story) -> None:
    run({"none": story})


def test_of_ten_thousand_stories_none_breaks_a_law() -> None:
    """In processes of their own: both processors, and nothing that traces them."""
    with ThreadPoolExecutor(len(SHARES)) as threads:
        told = list(threads.map(live_elsewhere, SHARES))
    assert told == [""] * len(SHARES), "\n".join(told)


def live_elsewhere(share: range) -> str:
    command = [sys.executable, __file__, str(share.start), str(len(share))]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    return ended.stdout + ended.stderr


def live_here(seeds: range) -> None:
    for first in seeds[::CROWD]:
        run({seed: story_of(seed) for seed in seeds if first <= seed < first + CROWD})


if __name__ == "__main__":
    logging.getLogger("cacao").setLevel(logging.CRITICAL)
    numbers = [int(word) for word in sys.argv[1:]]
    if len(numbers) == 1:  # who is first of those who are woken at once is chance
        run(dict.fromkeys(range(CROWD), story_of(numbers[0])))
    else:
        live_here(range(numbers[0], sum(numbers)))
