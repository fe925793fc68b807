"""One value in several processes: nothing that `update` does is lost, whatever answers are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as numbers
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacao import ListSignal, NotSerializableError, Registry
from cacao.reactive import Signal
from cacao.replica import MAX_PENDING, Newest, Replica
from cacao.shared import SharedStore

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _registry() -> Iterator[None]:
    """Names of one test are no other test's."""
    with Registry():
        yield


class Chain:
    """What Redis does: lets an attempt in if it follows the newest value."""

    def __init__(self) -> None:
        self.token, self.text = "", b""
        self.applied: dict[object, int] = {}
        self.history: list[bytes] = []

    def newest(self, who: object) -> Newest:
        return Newest(self.token, self.text, self.applied.get(who, 0))

    def lets_in(self, who: object, number: int, expected: str, token: str, text: bytes) -> bool:
        if self.token != expected:
            return False
        self.token, self.text, self.applied[who] = token, text, number
        self.history.append(text)
        return True


@dataclass
class Late:
    """An attempt that is still on its way when its process has given the connection up."""

    number: int
    expected: str
    token: str
    text: bytes


class Process:
    """One process with its own values, and what it says to the chain."""

    def __init__(self, signal: Signal[Any], chain: Chain) -> None:
        self.signal = signal
        self.chain = chain
        self.run = SharedStore()
        self.errors: list[Exception] = []
        self.replica = Replica(signal, self.run, lambda error, _: self.errors.append(error))
        self.run.on_operation = lambda _, operation: self.replica.note(operation)
        self.numbers = numbers(1)
        self.late: list[Late] = []

    @property
    def value(self) -> Any:
        return self.signal.get(self.run)

    def set(self, value: object) -> None:
        self.signal.set(self.run, value)

    def add(self, number: int) -> None:
        self.signal.update(self.run, lambda n: n + number)

    def sync(self) -> None:
        """Go on until nothing is left to say."""
        self.replica.is_stale = True
        while self.replica.is_stale or self.replica.is_ahead:
            self.replica.is_stale = False
            if self.replica.is_ahead:
                self.attempt()
            else:
                self.replica.catch_up(self.chain.newest(self))

    def attempt(self, *, is_heard: bool = True, is_answered: bool = True) -> None:
        """Make one attempt, which may get lost, or its answer; then it is asked for the newest."""
        number = next(self.numbers)
        text = self.replica.attempt(number)
        if text is None:
            return
        late = Late(number, self.replica.token, f"{id(self)}:{number}", text)
        if not is_heard:
            self.late.append(late)
        elif is_answered and self.deliver(late):
            self.replica.let_in(number, late.token, text)
        elif is_answered:
            self.replica.catch_up(self.chain.newest(self))
        else:
            self.deliver(late)

    def deliver(self, late: Late) -> bool:
        return self.chain.lets_in(self, late.number, late.expected, late.token, late.text)


def processes(signal: Signal[Any], count: int = 2) -> list[Process]:
    chain = Chain()
    return [Process(signal, chain) for _ in range(count)]


def settle(*all_of_them: Process) -> None:
    for process in [*all_of_them, *all_of_them]:
        process.sync()


# --- Agreement ---------------------------------------------------------------------------------


def test_a_change_shows_at_once_and_reaches_the_others() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    ada.add(1)
    assert (ada.value, bob.value) == (1, 0)
    settle(ada, bob)
    assert (ada.value, bob.value) == (1, 1)


def test_updates_at_the_same_time_all_count() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    for _ in range(3):
        ada.add(1)
        bob.add(10)
    settle(ada, bob)
    assert (ada.value, bob.value) == (33, 33)
    assert ada.chain.history == [b"3", b"33"]


def test_of_two_sets_the_later_in_the_chain_stands() -> None:
    ada, bob = processes(Signal("", name="title", scope="app"))
    ada.set("Ada's")
    bob.set("Bob's")
    settle(ada, bob)
    assert ada.value == bob.value == "Bob's"


def test_a_set_makes_what_was_pending_before_it_needless() -> None:
    called: list[int] = []
    ada, bob = processes(Signal(0, name="count", scope="app"))

    def count_up(n: int) -> int:
        called.append(n)
        return n + 1

    ada.signal.update(ada.run, count_up)
    ada.set(5)
    ada.add(1)
    bob.add(100)
    settle(bob, ada)
    assert (ada.value, bob.value, called) == (6, 6, [0])


def test_an_update_that_changed_nothing_here_may_change_the_newest() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    bob.set(50)
    ada.signal.update(ada.run, lambda n: min(n, 10))
    settle(bob, ada)
    assert (ada.value, bob.value) == (10, 10)


def test_a_list_grows_from_both_sides() -> None:
    lines: ListSignal[str] = ListSignal(["begin"], name="lines", scope="app")
    ada, bob = processes(lines)
    lines.append(ada.run, "Ada")
    lines.append(bob.run, "Bob")
    settle(ada, bob)
    assert list(ada.value) == list(bob.value) == ["begin", "Ada", "Bob"]


def test_a_value_comes_back_as_the_type_of_the_default() -> None:
    @dataclass
    class Place:
        x: int

    ada, bob = processes(Signal(Place(0), name="place", scope="app"))
    ada.set(Place(3))
    settle(ada, bob)
    assert bob.value == Place(3)


def test_a_value_of_another_type_comes_as_json_gives_it() -> None:
    ada, bob = processes(Signal[Any](0, name="any", scope="app"))
    ada.set({"x": [1]})
    settle(ada, bob)
    assert bob.value == {"x": [1]}


# --- What goes wrong ---------------------------------------------------------------------------


def test_an_attempt_whose_answer_was_lost_counts_once() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    ada.add(1)
    ada.attempt(is_answered=False)
    ada.add(10)
    settle(ada, bob)
    assert (ada.value, bob.value) == (11, 11)


def test_it_counts_once_also_when_others_were_let_in_since() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    ada.add(1)
    ada.attempt(is_answered=False)
    bob.add(100)
    bob.sync()
    settle(ada, bob)
    assert (ada.value, bob.value) == (101, 101)


def test_an_attempt_that_arrives_late_is_let_in_instead_of_the_next_or_not_at_all() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    ada.add(1)
    ada.attempt(is_heard=False)
    assert ada.deliver(ada.late[0])
    settle(ada, bob)
    assert (ada.value, bob.value) == (1, 1)
    ada.add(1)
    ada.attempt(is_heard=False)
    settle(ada, bob)
    assert not ada.deliver(ada.late[1])
    settle(ada, bob)
    assert (ada.value, bob.value) == (2, 2)


def test_a_set_does_not_take_away_what_an_attempt_holds() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    ada.add(1)
    ada.attempt(is_answered=False)
    ada.set(5)
    ada.add(1)
    settle(ada, bob)
    assert (ada.value, bob.value) == (6, 6)


def test_a_chain_that_is_lost_begins_anew_with_the_last_value_known() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    ada.add(7)
    settle(ada, bob)
    ada.add(1)
    ada.chain.__init__()  # type: ignore[misc] # Redis was restarted, and had kept nothing
    bob.sync()
    assert ada.chain.text == b"7"
    settle(ada, bob)
    assert (ada.value, bob.value) == (8, 8)


def test_a_chain_that_has_not_begun_stays_so_until_something_happens() -> None:
    ada, bob = processes(Signal(3, name="count", scope="app"))
    settle(ada, bob)
    assert ada.chain.token == ""


def test_operations_that_wait_are_bounded() -> None:
    ada, bob = processes(Signal(0, name="count", scope="app"))
    bob.set(10_000)
    for _ in range(MAX_PENDING):
        ada.add(1)
    ada.attempt(is_heard=False)
    for _ in range(2 * MAX_PENDING):
        ada.add(1)
    assert len(ada.replica._pending) <= 2 * MAX_PENDING + 1
    settle(bob, ada)
    assert ada.value == bob.value == 3 * MAX_PENDING


def test_an_update_that_raises_on_the_newest_value_is_reported_once_and_left_out() -> None:
    ada, bob = processes(Signal({"a": 1}, name="counts", scope="app"))
    ada.signal.update(ada.run, lambda counts: {"a": counts["a"] + 1})
    ada.signal.update(ada.run, lambda counts: {**counts, "b": 2})
    bob.set({})
    settle(bob, ada)
    assert ada.value == bob.value == {"b": 2}
    assert [type(error) for error in ada.errors] == [KeyError]


def test_what_json_cannot_carry_is_reported_and_given_up() -> None:
    ada, bob = processes(Signal[Any](1, name="hidden", client=False, scope="app"))
    ada.set(object())
    settle(ada, bob)
    assert (ada.value, bob.value) == (1, 1)
    (error,) = ada.errors
    assert isinstance(error, NotSerializableError)
    ada.set(2)
    settle(ada, bob)
    assert bob.value == 2


def test_what_equal_raises_is_reported() -> None:
    def equal(old: object, new: object) -> bool:
        raise ZeroDivisionError

    ada, bob = processes(Signal(0, name="count", scope="app", equal=equal))
    ada.replica.note(lambda n: n + 1)
    ada.sync()
    bob.sync()
    assert [type(error) for error in bob.errors] == [ZeroDivisionError]


# --- Whatever happens --------------------------------------------------------------------------

ACTIONS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["add", "set", "sync", "lost", "unheard", "late"]),
        st.integers(1, 9),
    ),
    max_size=40,
)


def act(process: Process, action: str, number: int) -> None:
    if action == "add":
        process.add(number)
    elif action == "set":
        process.set(number * 1000)
    elif action == "sync":
        process.sync()
    elif action == "lost":
        process.attempt(is_answered=False)
    elif action == "unheard":
        process.attempt(is_heard=False)
    elif process.late:
        process.deliver(process.late.pop(number % len(process.late)))


@given(ACTIONS)
def test_all_processes_come_to_the_newest_value(actions: list[tuple[int, str, int]]) -> None:
    with Registry():
        everyone = processes(Signal(0, name="count", scope="app"), 3)
        for who, action, number in actions:
            act(everyone[who], action, number)
        settle(*everyone)
        chain = everyone[0].chain
        assert {process.value for process in everyone} == {int(chain.text or b"0")}


@given(ACTIONS)
def test_no_update_is_lost_or_counts_twice(actions: list[tuple[int, str, int]]) -> None:
    with Registry():
        everyone = processes(Signal(0, name="count", scope="app"), 3)
        for who, action, number in actions:
            act(everyone[who], "sync" if action == "set" else action, number)
        settle(*everyone)
        total = sum(number for _, action, number in actions if action == "add")
        assert [process.value for process in everyone] == [total] * 3
