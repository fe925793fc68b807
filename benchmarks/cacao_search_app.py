"""The app of examples/search, with its queries logged to the file that QUERY_LOG names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from query_log import log_queries

sys.path.append(str(Path(__file__).parent.parent / "examples" / "search"))

from app import asgi  # type: ignore[import-not-found]  # found by the line above

log_queries(os.environ["QUERY_LOG"])

__all__ = ["asgi"]
