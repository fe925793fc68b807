"""What a page in a browser takes for its network, as bad as the test wants it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cacao.errors import HostingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["PageNetwork"]


class PageNetwork:
    """The part of `cacao.testing.network.Network` that can be played inside a page.

    Args:
        ask: Calls a function in the page, with an argument.
        do: Does something in the run, and lets the app come to rest.

    Attributes:
        is_down: Whether the page finds no server.
    """

    def __init__(
        self,
        ask: Callable[[str, object], object],
        do: Callable[[Callable[[], object]], object],
    ) -> None:
        self.is_down = False
        self._ask = ask
        self._do = do

    def troubles(self) -> Iterator[str]:
        """Tell in words what is not well; see `Network.troubles`."""
        if self.is_down:
            yield "the page finds no server"

    def drop(self, after_frames: int = 0, *, silently: bool = False) -> None:
        """Break the connection; see `Network.drop`.

        Raises:
            ValueError: `after_frames` is negative.
        """
        if after_frames < 0:
            raise ValueError(f"after_frames is the number of frames to come, not {after_frames}")
        self.is_down = True
        drop = "([frames, silently]) => __cacaoTest__.drop(frames, silently)"
        self._do(lambda: self._ask(drop, [after_frames, silently]))

    def restore(self) -> None:
        """Mend all of it, and tell the page, as a browser does; its client comes back at once."""
        self.is_down = False
        self._do(lambda: self._ask("() => __cacaoTest__.restore()", None))

    def duplicate(self) -> None:
        """Let each frame of the page's arrive twice; see `Network.duplicate`."""
        self._ask("() => __cacaoTest__.duplicate()", None)

    def end(self) -> None:
        """Do nothing: all connections of a page end with it."""

    def delay(self, seconds: float) -> None:
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise HostingError(
            f"via='browser' cannot delay frames by {seconds!r} s: a page's time is real; "
            "test that via='memory' or via='socket'"
        )

    def stall(self) -> None:
        """Refuse.

        Raises:
            HostingError: Always.
        """
        raise HostingError(
            "via='browser' cannot stall a page: its browser takes what comes, whatever the page "
            "does; test that via='memory' or via='socket'"
        )
