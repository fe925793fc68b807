"""What outlives a process: values by key, in memory, in a SQLite file or in Redis."""

from cacao.storage.opening import open_storage
from cacao.storage.seam import Entry, Storage

__all__ = ["Entry", "Storage", "open_storage"]
