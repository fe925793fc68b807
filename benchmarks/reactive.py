"""The reactive core against reaktiv and against plain function calls.

Each case is written once, in terms of a few node shapes; a *kit* says what these are in a library,
in the way its users write them. In the plain kit a write runs whatever follows from it, each
function once, in order: what a careful author would write by hand for a graph that never changes.
There is no tracking in it, so it is the speed limit. All kits must come to the same checksum.

Rounds of the kits are interleaved and the best of each counts: read the ratios, not the
microseconds. The cases are those of the js-reactivity benchmark (kairo, cellx, grids; see
https://github.com/milomg/js-reactivity-benchmark) told anew, with reads in place of effects, for
reaktiv's effects need an asyncio loop.

Run: `python benchmarks/reactive.py`
"""

from __future__ import annotations

import gc
import math
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import reaktiv

from cacao.reactive import Computed, Signal, Store

ROUNDS = 9
ROUND_SECONDS = 0.015

Node = Any
Write = Callable[[Node, int], None]
Read = Callable[[Node], int]
Step = Callable[[int], int]


class _Kit(Protocol):
    """A library's node shapes, and how a node is written and read from outside."""

    name: str

    def signal(self, value: int) -> Node: ...
    def plus(self, source: Node, number: int) -> Node: ...
    def times(self, source: Node, number: int) -> Node: ...
    def add(self, left: Node, right: Node) -> Node: ...
    def subtract(self, left: Node, right: Node) -> Node: ...
    def total(self, sources: Sequence[Node]) -> Node: ...
    def either(self, chooser: Node, odd: Node, even: Node) -> Node: ...
    def repeat(self, source: Node, times: int) -> Node: ...
    def row(self, sources: Sequence[Node]) -> Node: ...
    def item(self, row: Node, index: int) -> Node: ...
    def access(self) -> tuple[Write, Read]: ...


class _CacaoKit:
    name = "cacao"

    def signal(self, value: int) -> Node:
        return Signal(value)

    def plus(self, source: Node, number: int) -> Node:
        return Computed(lambda s: source.get(s) + number)

    def times(self, source: Node, number: int) -> Node:
        return Computed(lambda s: source.get(s) * number)

    def add(self, left: Node, right: Node) -> Node:
        return Computed(lambda s: left.get(s) + right.get(s))

    def subtract(self, left: Node, right: Node) -> Node:
        return Computed(lambda s: left.get(s) - right.get(s))

    def total(self, sources: Sequence[Node]) -> Node:
        return Computed(lambda s: sum([source.get(s) for source in sources]))

    def either(self, chooser: Node, odd: Node, even: Node) -> Node:
        return Computed(lambda s: odd.get(s) if chooser.get(s) % 2 else even.get(s))

    def repeat(self, source: Node, times: int) -> Node:
        return Computed(lambda s: sum([source.get(s) for _ in range(times)]))

    def row(self, sources: Sequence[Node]) -> Node:
        return Computed(lambda s: [source.get(s) for source in sources])

    def item(self, row: Node, index: int) -> Node:
        return Computed(lambda s: row.get(s)[index])

    def access(self) -> tuple[Write, Read]:
        store = Store()
        return lambda node, value: node.set(store, value), lambda node: node.get(store)


class _ReaktivKit:
    name = "reaktiv"

    def signal(self, value: int) -> Node:
        return reaktiv.Signal(value)

    def plus(self, source: Node, number: int) -> Node:
        return reaktiv.Computed(lambda: source() + number)

    def times(self, source: Node, number: int) -> Node:
        return reaktiv.Computed(lambda: source() * number)

    def add(self, left: Node, right: Node) -> Node:
        return reaktiv.Computed(lambda: left() + right())

    def subtract(self, left: Node, right: Node) -> Node:
        return reaktiv.Computed(lambda: left() - right())

    def total(self, sources: Sequence[Node]) -> Node:
        return reaktiv.Computed(lambda: sum([source() for source in sources]))

    def either(self, chooser: Node, odd: Node, even: Node) -> Node:
        return reaktiv.Computed(lambda: odd() if chooser() % 2 else even())

    def repeat(self, source: Node, times: int) -> Node:
        return reaktiv.Computed(lambda: sum([source() for _ in range(times)]))

    def row(self, sources: Sequence[Node]) -> Node:
        return reaktiv.Computed(lambda: [source() for source in sources])

    def item(self, row: Node, index: int) -> Node:
        return reaktiv.Computed(lambda: row()[index])

    def access(self) -> tuple[Write, Read]:
        return lambda node, value: node.set(value), lambda node: node()


class _Box:
    """A plain value, and what to compute after a write to it: which box, by which function."""

    __slots__ = ("followers", "signals", "value")

    def __init__(self, value: Any) -> None:
        self.value = value
        self.signals = [self]  # what it follows from in the end
        self.followers: list[tuple[_Box, Callable[[], Any]]] = []


class _PlainKit:
    name = "plain"

    def signal(self, value: int) -> Node:
        return _Box(value)

    def plus(self, source: Node, number: int) -> Node:
        return _follow([source], lambda: source.value + number)

    def times(self, source: Node, number: int) -> Node:
        return _follow([source], lambda: source.value * number)

    def add(self, left: Node, right: Node) -> Node:
        return _follow([left, right], lambda: left.value + right.value)

    def subtract(self, left: Node, right: Node) -> Node:
        return _follow([left, right], lambda: left.value - right.value)

    def total(self, sources: Sequence[Node]) -> Node:
        return _follow(sources, lambda: sum([source.value for source in sources]))

    def either(self, chooser: Node, odd: Node, even: Node) -> Node:
        return _follow([chooser, odd, even], lambda: odd.value if chooser.value % 2 else even.value)

    def repeat(self, source: Node, times: int) -> Node:
        return _follow([source], lambda: sum([source.value for _ in range(times)]))

    def row(self, sources: Sequence[Node]) -> Node:
        return _follow(sources, lambda: [source.value for source in sources])

    def item(self, row: Node, index: int) -> Node:
        return _follow([row], lambda: row.value[index])

    def access(self) -> tuple[Write, Read]:
        return _write_plain, lambda node: int(node.value)


def _follow(sources: Sequence[_Box], fn: Callable[[], Any]) -> _Box:
    box = _Box(fn())
    box.signals = list(dict.fromkeys(signal for each in sources for signal in each.signals))
    for signal in box.signals:
        signal.followers.append((box, fn))
    return box


def _write_plain(signal: Node, value: int) -> None:
    signal.value = value
    for box, fn in signal.followers:
        box.value = fn()


# --- Cases: build a graph, return one step of the measured work ---------------------------------


def write_and_read(kit: _Kit) -> Step:
    write, read = kit.access()
    signal = kit.signal(0)

    def step(i: int) -> int:
        write(signal, i)
        return read(signal)

    return step


def cached_read(kit: _Kit) -> Step:
    _, read = kit.access()
    computed = kit.plus(kit.signal(1), 1)
    return lambda _: read(computed)


def _written_and_read(kit: _Kit, signal: Node, sinks: Sequence[Node]) -> Step:
    write, read = kit.access()

    def step(i: int) -> int:
        write(signal, i)
        return sum([read(sink) for sink in sinks])

    return step


def chain(kit: _Kit, length: int = 10) -> Step:
    node = signal = kit.signal(0)
    for _ in range(length):
        node = kit.plus(node, 1)
    return _written_and_read(kit, signal, [node])


def wide(kit: _Kit) -> Step:
    signal = kit.signal(0)
    return _written_and_read(kit, signal, [kit.plus(signal, i) for i in range(1000)])


def fan_in(kit: _Kit) -> Step:
    signals = [kit.signal(i) for i in range(1000)]
    return _written_and_read(kit, signals[500], [kit.total(signals)])


def grid(kit: _Kit) -> Step:
    """Ten layers of ten nodes, each the total of three of the layer before."""
    signal = kit.signal(0)
    layer = [kit.plus(signal, i) for i in range(10)]
    for _ in range(9):
        layer = [kit.total([layer[(i + k) % 10] for k in range(3)]) for i in range(10)]
    return _written_and_read(kit, signal, layer)


def dynamic(kit: _Kit) -> Step:
    """Each write changes which of two chains is read."""
    signal = kit.signal(0)
    odd = kit.plus(kit.plus(kit.signal(1), 1), 1)
    even = kit.plus(kit.plus(kit.signal(2), 1), 1)
    return _written_and_read(kit, signal, [kit.either(signal, odd, even) for _ in range(5)])


def pairs(kit: _Kit) -> Step:
    """A thousand independent pairs; one is written, all are read."""
    signals = [kit.signal(i) for i in range(1000)]
    return _written_and_read(kit, signals[7], [kit.plus(signal, 1) for signal in signals])


def avoidable(kit: _Kit) -> Step:
    """A change that comes to nothing on the second of five levels."""
    signal = kit.signal(0)
    constant = kit.times(kit.plus(signal, 1), 0)
    return _written_and_read(kit, signal, [kit.plus(kit.plus(kit.plus(constant, 1), 2), 3)])


def broad(kit: _Kit) -> Step:
    signal = kit.signal(0)
    return _written_and_read(kit, signal, [kit.plus(kit.plus(signal, i), 1) for i in range(50)])


def deep(kit: _Kit) -> Step:
    return chain(kit, 50)


def diamond(kit: _Kit) -> Step:
    signal = kit.signal(0)
    return _written_and_read(kit, signal, [kit.total([kit.plus(signal, 1) for _ in range(5)])])


def mux(kit: _Kit) -> Step:
    signals = [kit.signal(i) for i in range(100)]
    row = kit.row(signals)
    return _written_and_read(kit, signals[10], [kit.plus(kit.item(row, i), 1) for i in range(100)])


def repeated(kit: _Kit) -> Step:
    signal = kit.signal(0)
    return _written_and_read(kit, signal, [kit.repeat(signal, 30)])


def triangle(kit: _Kit) -> Step:
    node = signal = kit.signal(0)
    steps = []
    for _ in range(10):
        steps.append(node)
        node = kit.plus(node, 1)
    return _written_and_read(kit, signal, [kit.total(steps)])


def unstable(kit: _Kit) -> Step:
    """Twenty reads, each of one branch or the other by the same signal."""
    signal = kit.signal(0)
    double, inverse = kit.times(signal, 2), kit.times(signal, -1)
    picks = [kit.either(signal, double, inverse) for _ in range(20)]
    return _written_and_read(kit, signal, [kit.total(picks)])


def cellx(kit: _Kit) -> Step:
    """Ten layers of four that lean on their neighbours."""
    signals = [kit.signal(i) for i in range(1, 5)]
    a, b, c, d = signals
    for _ in range(10):
        a, b, c, d = kit.plus(b, 0), kit.subtract(a, c), kit.add(b, d), kit.plus(c, 0)
    return _written_and_read(kit, signals[1], [a, b, c, d])


CASES: dict[str, Callable[[_Kit], Step]] = {
    "write + read": write_and_read,
    "cached read": cached_read,
    "chain 10": chain,
    "wide 1 -> 1000": wide,
    "fan-in 1000 -> 1": fan_in,
    "diamond grid 10x10x3": grid,
    "dynamic dependencies": dynamic,
    "1000 pairs, 1 written": pairs,
    "kairo avoidable": avoidable,
    "kairo broad": broad,
    "kairo deep": deep,
    "kairo diamond": diamond,
    "kairo mux": mux,
    "kairo repeated": repeated,
    "kairo triangle": triangle,
    "kairo unstable": unstable,
    "cellx 10": cellx,
}


# --- Measuring ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One case: microseconds a step, best of the rounds."""

    case: str
    cacao: float
    reaktiv: float
    plain: float

    @property
    def to_reaktiv(self) -> float:
        """How many times faster than reaktiv."""
        return self.reaktiv / self.cacao

    @property
    def to_plain(self) -> float:
        """How many times slower than plain calls."""
        return self.cacao / self.plain


def rows(rounds: int = ROUNDS) -> list[Row]:
    """Measure all cases.

    Args:
        rounds: How often each kit has its turn in each case; the best turn counts.
    """
    return [_measure(name, build, rounds) for name, build in CASES.items()]


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def _measure(name: str, build: Callable[[_Kit], Step], rounds: int) -> Row:
    kits: list[_Kit] = [_CacaoKit(), _ReaktivKit(), _PlainKit()]
    steps = [build(kit) for kit in kits]
    sums = {sum(step(i) for i in range(1, 20)) for step in steps}
    assert len(sums) == 1, f"{name}: the kits disagree: {sums}"
    counts = [max(1, int(ROUND_SECONDS / _time(step, 1))) for step in steps]
    best = [math.inf] * len(steps)
    for _ in range(rounds):
        for k, step in enumerate(steps):
            best[k] = min(best[k], _time(step, counts[k]) / counts[k])
    cacao, peer, plain = (seconds * 1e6 for seconds in best)
    return Row(name, cacao, peer, plain)


def _time(step: Step, count: int) -> float:
    gc.collect()
    gc.disable()
    try:
        start = time.process_time_ns()
        for i in range(count):
            step(i)
        return max(time.process_time_ns() - start, 1000) / 1e9
    finally:
        gc.enable()


def set_costs(sessions: Sequence[int] = (1, 1000, 10_000)) -> dict[int, float]:
    """Measure one `set` of a named signal, in microseconds, by how many sessions hold it."""
    signal = Signal(0)
    doubled = Computed(lambda s: signal.get(s) * 2)
    best = dict.fromkeys(sessions, math.inf)
    crowds = {count: [Store() for _ in range(count)] for count in sessions}
    for crowd in crowds.values():
        for store in crowd:
            signal.set(store, 1)
            doubled.get(store)
    for _ in range(ROUNDS):
        for count, crowd in crowds.items():
            seconds = _time(_setter(signal, crowd[-1]), 20_000)
            best[count] = min(best[count], seconds / 20_000 * 1e6)
    return best


def _setter(signal: Signal[int], store: Store) -> Step:
    def step(i: int) -> int:
        signal.set(store, i)
        return i

    return step


def memory_costs(count: int = 2000) -> dict[str, float]:
    """Measure what things weigh in a session, in bytes, the mean of `count`."""
    signals = [Signal(0) for _ in range(count)]
    computeds = [Computed(lambda s, signal=signal: signal.get(s)) for signal in signals]
    stores: list[Store] = []
    store = Store()

    def set_all(store: Store) -> None:
        for signal in signals:
            signal.set(store, -1)

    return {
        "a session, nothing touched": _weigh(
            lambda: stores.extend(Store() for _ in range(count)), count
        ),
        "a signal set": _weigh(lambda: set_all(store), count),
        "a computed read, with its edge": _weigh(lambda: [c.get(store) for c in computeds], count),
    }


def _weigh(build: Callable[[], object], count: int) -> float:
    gc.collect()
    tracemalloc.start()
    build()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return size / count


def main() -> None:
    """Measure everything and print it as Markdown."""
    measured = rows()
    print("| case (us a step) | cacao | reaktiv | plain | reaktiv / cacao | cacao / plain |")
    print("|---|---:|---:|---:|---:|---:|")
    for row in measured:
        print(
            f"| {row.case} | {row.cacao:.2f} | {row.reaktiv:.2f} | {row.plain:.2f} "
            f"| {row.to_reaktiv:.1f} | {row.to_plain:.1f} |"
        )
    to_reaktiv = geometric_mean([row.to_reaktiv for row in measured])
    to_plain = geometric_mean([row.to_plain for row in measured])
    print(f"| **geometric mean** | | | | **{to_reaktiv:.1f}** | **{to_plain:.1f}** |")
    print("\n| sessions that hold the signal | one set (us) |\n|---:|---:|")
    for count, cost in set_costs().items():
        print(f"| {count:,} | {cost:.3f} |")
    print("\n| in one session | bytes |\n|---|---:|")
    for what, weight in memory_costs().items():
        print(f"| {what} | {weight:.0f} |")


if __name__ == "__main__":
    main()
