"""What one source file may cost to read, and how it is opened without trusting it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trine.errors import DocumentError, UsageError

_LEAST_MEMORY = 512 * 2**20
"""An idle worker with every parser imported holds 150 MiB of address space (Linux, Python 3.11); parsing needs more."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that a single file may cost; a file that wants more is skipped with a reason."""

    file_bytes: int = 256 * 2**20
    """Size on disk. JSONL, CSV and TSV are streamed, so they may be larger."""
    characters: int = 20_000_000
    """Length of one document's text."""
    seconds: float = 60.0
    """Time for one file in the worker process."""
    memory_bytes: int = 2 * 2**30
    """Address space of the worker process."""
    archive_entries: int = 10_000
    """Members of a zipped document (DOCX, HWPX)."""
    archive_bytes: int = 512 * 2**20
    """Size of a zipped document when inflated."""
    archive_ratio: float = 200.0
    """Inflated size over size on disk, once more than 16 MiB come out; office files of real text reach about 20."""

    def __post_init__(self) -> None:
        """Refuse limits under which nothing could be read."""
        for name in self.__slots__:
            if getattr(self, name) <= 0:
                raise UsageError(f"Limits.{name} must be positive, not {getattr(self, name)}")
        if self.memory_bytes < _LEAST_MEMORY:
            raise UsageError(f"Limits.memory_bytes is {self.memory_bytes}; the worker needs at least {_LEAST_MEMORY}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file, or one row of a file, that gave no document."""

    path: str
    """The file as it was reached from the paths given, in a form that can be printed."""
    reason: str
    line: int | None = None
    """Line of the row, from 1; None where the whole file is meant."""


def skipped(path: Path, reason: object, *, line: int | None = None) -> Skipped:
    """The report on one file or row."""
    return Skipped(printable(path), str(reason), line)


def printable(path: Path) -> str:
    """A path as text that any encoding can carry.

    Names that are not UTF-8 are mostly Korean ones from old zip archives, so CP949 is tried next.
    """
    return str(path) if _is_utf8(str(path)) else str(Path(*map(_printable_part, path.parts)))


def _printable_part(part: str) -> str:
    if _is_utf8(part):
        return part
    try:
        return os.fsencode(part).decode("cp949")
    except UnicodeDecodeError:
        return os.fsencode(part).decode("utf-8", "replace")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextlib.contextmanager
def open_source(path: Path, *, most_bytes: int | None = None) -> Iterator[BinaryIO]:
    """Open a regular file for reading; a pipe, socket or device never blocks.

    Raises:
        DocumentError: it is not a regular file, is empty, is larger than `most_bytes`, or cannot be opened.
    """
    try:
        # A pipe that nobody writes to would block a plain open; O_NONBLOCK covers a file replaced after the first look.
        _require_readable(os.stat(path), most_bytes)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            _require_readable(os.fstat(descriptor), most_bytes)
            yield stream
    except OSError as error:
        raise DocumentError(f"cannot be read: {error.strerror or error}") from error


def check_source(path: Path, *, most_bytes: int | None = None) -> None:
    """Raise what `open_source` would, before another process is asked to read the file."""
    with open_source(path, most_bytes=most_bytes):
        pass


def read_source(path: Path, *, limits: Limits) -> bytes:
    """All bytes of a regular file of at most `limits.file_bytes`."""
    with open_source(path, most_bytes=limits.file_bytes) as stream:
        data = stream.read(limits.file_bytes + 1)
    if len(data) > limits.file_bytes:
        raise DocumentError(f"grew past the limit of {limits.file_bytes} bytes while it was read")
    return data


def _require_readable(status: os.stat_result, most_bytes: int | None) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError("is not a regular file")
    if status.st_size == 0:
        raise DocumentError("is empty (0 bytes)")
    if most_bytes is not None and status.st_size > most_bytes:
        raise DocumentError(f"has {status.st_size} bytes, more than the limit of {most_bytes}")
