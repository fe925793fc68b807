"""Lists that share their storage: each keeps what it was, and tells what came since."""

from __future__ import annotations

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacao.items import Items

# (which earlier list grows, what is added), again and again.
GROWTH = st.lists(st.tuples(st.integers(0, 50), st.lists(st.integers(), max_size=3)), max_size=30)


@given(GROWTH)
def test_every_list_stays_as_it_was_whatever_grows_out_of_it(
    steps: list[tuple[int, list[int]]],
) -> None:
    lists, models = [Items[int]()], [list[int]()]
    for which, added in steps:
        i = which % len(lists)
        lists.append(lists[i].grown(added))
        models.append(models[i] + added)
    assert [list(each) for each in lists] == models


@given(GROWTH)
def test_what_was_added_joins_the_earlier_list_to_the_later(
    steps: list[tuple[int, list[int]]],
) -> None:
    lists = [Items[int]()]
    for which, added in steps:
        lists.append(lists[which % len(lists)].grown(added))
    for earlier in lists:
        for later in lists:
            added_since = later.added_to(earlier)
            assert added_since is None or [*earlier, *added_since] == list(later)


def test_growing_at_the_end_copies_nothing() -> None:
    items = Items(range(10))
    longer = items.grown([10])
    assert longer.added_to(items) == [10]
    assert items.added_to(longer) is None
    assert items.grown([11]).added_to(items) is None  # the place at the end was taken


def test_it_reads_like_a_list() -> None:
    items = Items("abcd").grown("e")
    older = Items("xyz")
    older.grown("!")
    assert (items[0], items[-1], items[1:3], len(items), "c" in items) == (
        "a",
        "e",
        ["b", "c"],
        5,
        True,
    )
    assert (older[-1], older[-2:], older[::-1]) == ("z", ["y", "z"], ["z", "y", "x"])
    with pytest.raises(IndexError):
        older[3]
    assert items == list("abcde") == items != "abcde"
    assert repr(older) == "Items(['x', 'y', 'z'])"
    assert deepcopy(older) == older


def test_it_has_no_hash() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Items())
