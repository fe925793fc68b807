"""The file of a recording: one JSON object a line, the first of which tells what was recorded."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any, Self

import orjson

from cacao.errors import CacaoError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

__all__ = ["MAX_BYTES", "Entry", "Header", "Tape", "TapeError", "read_tape"]

FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024

# What comes in, by which the run is played again; and what goes out, which is compared.
INPUTS = ("open", "in", "close", "outside", "drain")
OUTPUTS = ("out", "closed", "error")
# How a recording ends: with its server, or because it grew too big.
ENDS = ("end", "full")

_OWNER_ONLY = 0o600


class TapeError(CacaoError):
    """A recording cannot be written, or a file is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first line of a file.

    Attributes:
        app: Where the app is, as on the command line: `app.py:app`.
        seed: Of the order of tasks, and of `random`.
        started: When it began, ISO 8601 with the offset from UTC.
        version: Of Cacao.
        recording: The version of the format.
    """

    app: str
    seed: int
    started: str
    version: str
    recording: int = FORMAT

    @property
    def start(self) -> datetime:
        """When it began."""
        return datetime.fromisoformat(self.started)


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that came in or went out.

    Attributes:
        at: When, in virtual seconds since the run began.
        kind: `open`, `in`, `close`, `outside` or `drain` for what came in; `out` or `closed` for
            what went out, and `error` for what the app has raised; `end` or `full` for the end.
        value: The text of `in` and `out`; for `open` the facts of the handshake; for `close` and
            `closed` the code and the reason; for `outside` the tasks whose work came back; for
            `error` its type and where it was raised, but not what it says.
        client: Whose, numbered from 1; 0 for nobody's.
        secrets: The names of what is masked in the text.
    """

    at: float
    kind: str
    value: Any = None
    client: int = 0
    secrets: tuple[str, ...] = ()

    def line(self) -> str:
        """Write it as JSON; a text that is JSON itself stands in it as it is."""
        fields: dict[str, Any] = {"at": self.at}
        if self.client:
            fields["client"] = self.client
        if self.secrets:
            fields["secrets"] = self.secrets
        start = orjson.dumps(fields).decode()[:-1]
        return f'{start},"{self.kind}":{self._written()}}}'

    def _written(self) -> str:
        if self.kind == "out" or (self.kind == "in" and _is_compact_object(self.value)):
            return str(self.value)
        return orjson.dumps(self.value).decode()

    @classmethod
    def of(cls, line: str) -> Entry:
        """Read one line.

        Raises:
            ValueError: It is none; tells why.
        """
        fields = _object(line)
        kind, value = next(reversed(fields.items()), ("", None))
        if kind not in (*INPUTS, *OUTPUTS, *ENDS):
            raise ValueError(f"{kind!r} is nothing that a recording tells of")
        at, client = fields.get("at"), fields.get("client", 0)
        if not isinstance(at, int | float) or not isinstance(client, int):
            raise ValueError(  # noqa: TRY004 -- its reader's one error
                "'at' is a number of seconds, 'client' a whole number"
            )
        if kind in ("in", "out") and not isinstance(value, str):
            value = line[line.index(f'"{kind}":') + len(f'"{kind}":') : -1]
        return cls(at, kind, value, client, tuple(fields.get("secrets", ())))


class Tape:
    """A file that is being written; also as a context manager.

    Each line is on its way to the disk when `write` returns, so a server that is killed leaves all
    that came before.

    Args:
        path: A file that does not exist; only its owner may read it.
        header: Its first line.
        max_bytes: Where it ends, whatever goes on.

    Attributes:
        header: As given.
        is_full: Whether it has ended so.

    Raises:
        TapeError: The file cannot be made.
    """

    def __init__(self, path: Path, header: Header, max_bytes: int = MAX_BYTES) -> None:
        self.header = header
        self.is_full = False
        self._left = max_bytes
        self._file = _create(path)
        self._write(orjson.dumps(asdict(header)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, entry: Entry) -> None:
        """Add one line; beyond the limit nothing, but that it is full."""
        if self.is_full:
            return
        line = entry.line().encode()
        self.is_full = len(line) > self._left
        self._write(Entry(entry.at, "full").line().encode() if self.is_full else line)

    def _write(self, line: bytes) -> None:
        self._left -= len(line) + 1
        self._file.write(line + b"\n")
        self._file.flush()


def _create(path: Path) -> IO[bytes]:
    try:
        return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _OWNER_ONLY), "wb")
    except FileExistsError:
        raise TapeError(f"'{path}' exists; delete it, or name another file") from None
    except OSError as error:
        raise TapeError(f"cannot write '{path}': {error.strerror}; name another file") from None


def read_tape(path: Path) -> tuple[Header, list[Entry]]:
    """Read a whole file. A last line that a killed server left half written is left out.

    Raises:
        TapeError: It cannot be read, or is no recording; with the line.
    """
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise TapeError(f"cannot read '{path}': {error.strerror}") from None
    except UnicodeDecodeError:
        raise TapeError(f"'{path}' is no recording of Cacao's: it is no text") from None
    first, *lines = text.split("\n")[:-1] or [""]
    header = _header(first, path)
    return header, list(_entries(lines, path))


def _header(line: str, path: Path) -> Header:
    try:
        header = Header(**_object(line))
        header.start.astimezone()
    except (ValueError, TypeError):
        raise TapeError(
            f"'{path}' is no recording of Cacao's: its line 1 is no header; "
            "make one with: cacao run app.py --record FILE"
        ) from None
    if header.recording != FORMAT:
        raise TapeError(
            f"'{path}' has format {header.recording!r}, and this is Cacao's {FORMAT}; "
            f"replay it with Cacao {header.version}"
        )
    return header


def _entries(lines: list[str], path: Path) -> Iterator[Entry]:
    for number, line in enumerate(lines, 2):
        try:
            yield Entry.of(line)
        except ValueError as error:
            raise TapeError(f"'{path}', line {number}: {error}") from None


def _object(line: str) -> dict[str, Any]:
    value = orjson.loads(line)
    if not isinstance(value, dict):
        raise ValueError("a line is a JSON object")  # noqa: TRY004 -- its reader's one error
    return value


def _is_compact_object(text: str) -> bool:
    try:
        return text.startswith("{") and orjson.dumps(orjson.loads(text)).decode() == text
    except (orjson.JSONDecodeError, TypeError):
        return False
