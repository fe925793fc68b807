"""Whose code a frame runs: the author's, a library's, Cacao's, or plumbing that anyone may use."""

from __future__ import annotations

import sysconfig
from functools import cache
from os import sep
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Literal

import trio

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType

__all__ = ["Owner", "Spot", "authors", "innermost", "name_spot", "near", "nearest"]

Spot = tuple[CodeType, int]
"""A line of code, kept without the frame that has run it."""

Owner = Literal["author", "library", "cacao", "plumbing"]
"""Who has written a file; plumbing does what its caller asks for, and nothing else."""

_CACAO = str(Path(__file__).parents[2]) + sep
_TRIO = str(Path(trio.__file__).parent) + sep
_STDLIB = tuple(sysconfig.get_path(name) + sep for name in ("stdlib", "platstdlib"))
_INSTALLED = f"{sep}site-packages{sep}", f"{sep}dist-packages{sep}"
_PLUMBING = tuple(name + sep for name in ("anyio", "outcome", "sniffio"))
_LOGGING = f"{sep}logging{sep}"  # its handlers keep files of their own
_GENERATED = "<frozen ", "<attrs generated"
# Where trio enters a task. Below it is whoever steps the run, which may be the test.
_TASK_STEP = "unrolled_run"


@cache
def _owner_of(file: str) -> Owner:
    if file.startswith(_CACAO):
        return "cacao"
    if file.startswith((_TRIO, *_GENERATED)):
        return "plumbing"
    for root in _INSTALLED:
        if root in file:
            is_plumbing = file.partition(root)[2].startswith(_PLUMBING)
            return "plumbing" if is_plumbing else "library"
    if file.startswith(_STDLIB):
        return "library" if _LOGGING in file else "plumbing"
    return "author"


def authors(code: CodeType) -> bool:
    """Tell whether the author of the app, or of the test, has written this."""
    return _owner_of(code.co_filename) == "author"


def nearest(frame: FrameType | None) -> tuple[Owner | None, Spot | None]:
    """Look who has caused a call, from a frame outward to where trio entered the task.

    Returns:
        Who is the nearest that is no plumbing, if there is one; and the author's nearest line.
    """
    owner: Owner | None = None
    while frame is not None:
        code = frame.f_code
        whose = _owner_of(code.co_filename)
        if whose != "plumbing":
            owner = owner or whose
            if whose == "author":
                return owner, (code, frame.f_lineno)
        elif code.co_name == _TASK_STEP:
            break
        frame = frame.f_back
    return owner, None


def innermost(frames: Iterable[tuple[FrameType, int]]) -> Spot | None:
    """Find where frames stand, given the outer ones first: in the author's code if they can.

    Returns:
        The innermost line of the author's; else the innermost that is not plumbing, if any.
    """
    spot, is_authors = None, False
    for frame, line in frames:
        whose = _owner_of(frame.f_code.co_filename)
        if whose == "author" or (whose != "plumbing" and not is_authors):
            spot, is_authors = (frame.f_code, line), whose == "author"
    return spot


def name_spot(spot: Spot) -> str:
    """Put a line into words."""
    code, line = spot
    return f"{near(code.co_filename)}:{line}, in {code.co_name}"


def near(file: str) -> str:
    """Write a path as seen from here, if it is below."""
    here = Path.cwd()
    return str(Path(file).relative_to(here)) if Path(file).is_relative_to(here) else file
