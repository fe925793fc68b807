"""The network between one client and the app: as bad as the test wants it."""

from __future__ import annotations

import math
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import trio

from cacao.errors import ConnectionClosed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cacao.testing.wire import Wire

__all__ = ["Network"]

_BROKEN = 1006
_HAS_LEFT = ConnectionClosed(1001, "the test client has closed; its network is gone with it")


class Client(Protocol):
    """Who is at the near end of a network."""

    def connected(self) -> None:
        """Hear that there is a connection; what is to be sent first is sent now."""
        ...

    def arrived(self, text: str) -> None:
        """Take a text of the server's."""
        ...

    def closed(self, why: ConnectionClosed) -> None:
        """Hear that the server has closed."""
        ...

    def lost(self) -> None:
        """Hear that the connection has broken."""
        ...


class Network:
    """What lies between one client and the app, and how a test has it fail.

    Each of these methods holds from now on, until `restore`. Within a connection nothing overtakes
    what goes the same way, as in TCP. A *frame* is one message, in either direction.

    When the client has left, they raise `ConnectionClosed`.
    """

    def __init__(
        self,
        client: Client,
        dial: Callable[[Network], Wire],
        start_soon: Callable[..., object],
        do: Callable[..., object],
    ) -> None:
        # Made by `Line`. `start_soon` runs what carries late frames; `do` lets the app come to rest
        # after a change of the script, where a test need not wait for that itself.
        self._client = client
        self._dial = dial
        self._do = do
        self._wire: Wire | None = None
        self._half_open: list[Wire] = []  # the server has not heard that they are gone
        self._up, self._down = _Way(start_soon), _Way(start_soon)
        self._frames_left = math.inf
        self._is_silent = False
        self._copies = 1
        self._is_over = False

    # --- For tests -----------------------------------------------------------------------------

    def drop(self, after_frames: int = 0, *, silently: bool = False) -> None:
        """Break the connection; events that the client sends meanwhile wait for the next one.

        What is under way then is lost.

        Args:
            after_frames: How many frames from the server still arrive.
            silently: Whether the server hears nothing of it, as when a laptop is closed. It finds
                out by its heartbeat. By default it notices at once.

        Raises:
            ValueError: `after_frames` is negative.
        """
        if after_frames < 0:
            raise ValueError(f"after_frames is the number of frames to come, not {after_frames}")
        self._change(partial(self._drop, after_frames, is_silent=silently))

    def restore(self) -> None:
        """Mend all of it: what is under way arrives now, and a client that was cut off comes back.

        It comes back to its session, if that still waits, and sends what waits here.
        """
        self._change(self._restore)

    def delay(self, seconds: float) -> None:
        """Let each frame take so many seconds of the test's clock, in either direction.

        Raises:
            ValueError: The seconds are negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a frame takes 0 or more seconds, not {seconds!r}")
        self._change(partial(self._set_delay, seconds))

    def duplicate(self) -> None:
        """Let each frame of the client's arrive twice, as if it had not heard of the first."""
        self._change(self._double)

    def stall(self) -> None:
        """Let the client take nothing: what the server sends waits, and in the end the server.

        What the client sends goes on. That the server has closed it hears when it takes again.
        """
        self._change(self._stall)

    # --- For the client ------------------------------------------------------------------------

    @property
    def is_up(self) -> bool:
        """Whether there is a connection, as far as the client knows."""
        return self._wire is not None

    @property
    def in_flight(self) -> int:
        """How many frames the transport carries now; late ones do not count."""
        return 0 if self._wire is None else self._wire.in_flight

    def troubles(self) -> Iterator[str]:
        """Tell in words what is not well, and what is under way."""
        if not self.is_up:
            yield "connection dropped" + (", the server has not noticed" if self._half_open else "")
        elif self._frames_left < math.inf:
            yield f"frames until it drops: {self._frames_left}"
        if self._up.delay:
            yield f"each frame takes {self._up.delay:g} s"
        if self._copies > 1:
            yield "each frame of the client's arrives twice"
        if self._down.is_blocked:
            yield "stalled: the client takes nothing"
        if under_way := self._up.under_way:
            yield f"frames on their way to the server: {under_way}"
        if under_way := self._down.under_way:
            yield f"frames on their way to the client: {under_way}"

    def connect(self) -> None:
        """Open a connection."""
        self._frames_left = math.inf
        self._wire = self._dial(self)
        self._client.connected()

    def send(self, text: str) -> None:
        """Carry a text to the server; without a connection it gets lost."""
        if self._wire is not None:
            for _ in range(self._copies):
                self._up.carry(partial(self._wire.send, text))

    def hang_up(self, code: int, reason: str) -> None:
        """Close as the client, after what was sent, and for good."""
        self._is_over = True
        if self._wire is not None:
            self._up.carry(partial(self._wire.hang_up, code, reason))
            self._wire = None

    def end(self) -> None:
        """Let the server hear at once of all that is over: the test ends."""
        self._up.deliver_all()
        while self._half_open:
            self._half_open.pop().hang_up(_BROKEN)

    # --- For the wire --------------------------------------------------------------------------

    def arrived(self, wire: Wire, text: str) -> None:
        """Take a text of the server's."""
        self._down.carry(partial(self._arrive, wire, text))

    def closed(self, wire: Wire, why: ConnectionClosed) -> None:
        """Take the server's close."""
        self._down.carry(partial(self._close, wire, why))

    # --- Inside --------------------------------------------------------------------------------

    def _change(self, act: Callable[[], object]) -> None:
        if self._is_over:
            raise ConnectionClosed(_HAS_LEFT.code, _HAS_LEFT.reason)
        self._do(act)

    def _arrive(self, wire: Wire, text: str) -> None:
        if wire is not self._wire:
            return
        self._frames_left -= 1
        self._client.arrived(text)
        if self._frames_left <= 0:
            self._break()

    def _close(self, wire: Wire, why: ConnectionClosed) -> None:
        if wire is self._wire:
            self._wire = None
            self._client.closed(why)

    def _drop(self, after_frames: int, *, is_silent: bool) -> None:
        self._frames_left = after_frames
        self._is_silent = is_silent
        if not after_frames:
            self._break()

    def _break(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        self._up.lose_all()  # what comes down is of a wire that is none any more
        if self._is_silent:
            wire.forget()
            self._half_open.append(wire)
        else:
            wire.hang_up(_BROKEN, "the connection broke")
        self._client.lost()

    def _set_delay(self, seconds: float) -> None:
        self._up.delay = self._down.delay = seconds

    def _double(self) -> None:
        self._copies = 2

    def _stall(self) -> None:
        self._down.is_blocked = True
        if self._wire is not None:
            self._wire.hold()

    def _restore(self) -> None:
        self._set_delay(0)
        self._copies = 1
        self._frames_left = math.inf
        self._down.is_blocked = False
        self._up.deliver_all()
        self._down.deliver_all()
        if self._wire is None:
            self.connect()
        else:
            self._wire.release()


class _Way:
    """One direction of a network: nothing overtakes anything in it.

    Attributes:
        delay: Seconds that each frame takes.
        is_blocked: Whether nothing arrives.
    """

    def __init__(self, start_soon: Callable[..., object]) -> None:
        self.delay = 0.0
        self.is_blocked = False
        self._start_soon = start_soon
        self._under_way: deque[tuple[float, Callable[[], None]]] = deque()

    @property
    def under_way(self) -> int:
        """How many frames are late."""
        return len(self._under_way)

    def carry(self, act: Callable[[], None]) -> None:
        """Do something when it is its time, and after all that is earlier."""
        if not (self.delay or self.is_blocked or self._under_way):
            act()
            return
        due = trio.current_time() + self.delay
        self._under_way.append((due, act))  # where an earlier one is due later, it waits for that
        self._start_soon(self._deliver_at, due, name="cacao.testing network")

    async def _deliver_at(self, due: float) -> None:
        await trio.sleep_until(due)
        while self._under_way and not self.is_blocked and self._under_way[0][0] <= due:
            self._under_way.popleft()[1]()

    def deliver_all(self) -> None:
        """Do now what is under way."""
        while self._under_way:
            self._under_way.popleft()[1]()

    def lose_all(self) -> None:
        """Forget what is under way."""
        self._under_way.clear()
