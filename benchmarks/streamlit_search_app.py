"""The search of examples/search as a Streamlit app; benchmarks/streamlit_search.py runs it.

Options, after `--`: the file to log queries to, then any of
`every-keystroke`: search at each one, rather than after a pause of 250 ms, Streamlit's own default;
`fragment`: search in a fragment, which Streamlit's documentation advises for a live field;
`checkpoint`: let the database call Streamlit every few milliseconds, which gives it the occasion to
stop a script that nobody waits for any more.
"""

from __future__ import annotations

import sys
from pathlib import Path

import streamlit as st
from query_log import log_queries

sys.path.append(str(Path(__file__).parent.parent / "examples" / "search"))

import database  # type: ignore[import-not-found]  # found by the line above

log_file, *options = sys.argv[1:]
log_queries(log_file)


def page() -> None:
    """Show the field, and the bars that are found for it."""
    text = st.text_input("Find a bar", live="0ms" if "every-keystroke" in options else True)
    if text:
        state = st.empty()

        def searching() -> None:
            state.text("searching")

        searching()
        find = database.search
        bars = find(text, searching) if "checkpoint" in options else find(text)
        state.text(f"The best for “{text}”")
        st.table(bars)


st.title("Chocolate search")
(st.fragment(page) if "fragment" in options else page)()
