"""The counter in Solara, and its `render`."""

from __future__ import annotations

from contextlib import ExitStack, asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import ipyvuetify
import solara

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Page:
    """One page of the app."""

    def __init__(self, context: Any) -> None:
        self._context = context

    async def click(self, shown: int) -> None:
        """Click the button, and assert what the page then shows."""
        self._context.find(ipyvuetify.Btn).widget.click()
        self._context.find(ipyvuetify.Html, children=[str(shown)]).assert_single()


class Counter:
    """The app, and its open pages."""

    def __init__(self, stack: ExitStack) -> None:
        @solara.component  # type: ignore[untyped-decorator] # it is not installed here
        def component() -> None:
            count = solara.use_reactive(0)

            def increment() -> None:
                count.value += 1

            solara.Button("increment", on_click=increment)
            solara.Text(str(count.value))

        self._component = component
        self._stack = stack

    async def open(self) -> Page:
        """Open a page, with a count of its own."""
        _, context = solara.render(self._component(), handle_error=False)
        return Page(self._stack.enter_context(closing(context)))


@asynccontextmanager
async def counting() -> AsyncIterator[Counter]:
    with ExitStack() as stack:
        yield Counter(stack)
