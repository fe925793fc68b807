"""The counter in Streamlit, and its `AppTest`."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from streamlit.testing.v1 import AppTest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


def script() -> None:
    # AppTest runs the text of this function alone.
    import streamlit as st

    def increment() -> None:
        st.session_state.count += 1

    if "count" not in st.session_state:
        st.session_state.count = 0
    st.button("increment", key="increment", on_click=increment)
    st.text(st.session_state.count)


class Page:
    """One page of the app."""

    def __init__(self) -> None:
        self._test = AppTest.from_function(script).run()

    async def click(self, shown: int) -> None:
        """Click the button, and assert what the page then shows."""
        self._test.button(key="increment").click().run()
        assert self._test.text[0].value == str(shown)


class Counter:
    """The app; a page is a test of its own."""

    async def open(self) -> Page:
        """Open a page, with a count of its own."""
        return Page()


@asynccontextmanager
async def counting() -> AsyncIterator[Counter]:
    yield Counter()
