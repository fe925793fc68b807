"""The counter in Cacao, tested through the real server on a port of this machine."""

from __future__ import annotations

from functools import partial

from counters import in_cacao

counting = partial(in_cacao.counting, via="socket")
