"""The records of a file by number: where each begins is remembered, its text stays on disk.

Packed files (.gz, .xz) and Parquet are unpacked once into an unnamed temporary file, so that any record can be reached.
"""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import os
import shutil
import stat
import tempfile
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, Protocol, TypeAlias

import msgspec

from trine.errors import DataError
from trine.tables import missing_extra

Record: TypeAlias = str | dict[str, Any]
"""A line of plain text, or columns by name."""

_PACKED = {".gz": gzip.open, ".xz": lzma.open}
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_DELIMITERS = (",", "\t", ";", "|")
_LONGEST_ROW = 64 * 2**20
"""Bytes after which a quotation mark in a CSV file counts as never closed."""
_BLOCK = 2**20
_BOM = b"\xef\xbb\xbf"


class Content:
    """The bytes of a file, unpacked; several threads may read at once. Closed when nothing refers to it any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self.size = os.fstat(descriptor).st_size
        self.close = weakref.finalize(self, os.close, descriptor)

    def read(self, start: int, size: int) -> bytes:
        """At most `size` bytes from `start`."""
        if hasattr(os, "pread"):
            return os.pread(self._descriptor, size, start)
        with self._lock:
            os.lseek(self._descriptor, start, os.SEEK_SET)
            return os.read(self._descriptor, size)

    def stream(self) -> BinaryIO:
        """A reader of its own, from the beginning."""
        return io.BufferedReader(_Reader(self), _BLOCK)


class _Reader(io.RawIOBase):
    def __init__(self, content: Content) -> None:
        self._content, self._position = content, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._content.read(self._position, len(buffer))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def unpacked(path: Path) -> Content:
    """The content of a regular file, unpacked where its name ends in .gz, .xz or .parquet.

    Raises:
        DataError: there is no such file, it is empty, or it cannot be unpacked.
        MissingExtra: Parquet without pyarrow.
    """
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is not a regular file")
        if status.st_size == 0:
            raise DataError(f"{path} is empty (0 bytes)")
        if path.suffix == ".parquet":
            return _spooled_parquet(path)
        opener: Any = _PACKED.get(path.suffix)
        if opener is None:
            return Content(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
        with opener(path, "rb") as packed, tempfile.TemporaryFile() as spool:
            shutil.copyfileobj(packed, spool, _BLOCK)
            return _kept(spool, path)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _kept(spool: IO[bytes], path: Path) -> Content:
    """The spool's content, which outlives the file object."""
    spool.flush()
    content = Content(os.dup(spool.fileno()))
    if content.size == 0:
        raise DataError(f"{path} is empty when unpacked")
    return content


def _spooled_parquet(path: Path) -> Content:
    """A Parquet file as JSON lines: shuffled reading would unpack a row group for every row."""
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise missing_extra(f"reading {path.name}", "parquet") from error
    encoder = msgspec.json.Encoder()
    try:
        with parquet.ParquetFile(path) as table, tempfile.TemporaryFile() as spool:
            for batch in table.iter_batches(batch_size=1024):
                spool.write(encoder.encode_lines(batch.to_pylist()))
            return _kept(spool, path)
    except ArrowException as error:
        raise DataError(f"{path}: not a Parquet file that can be read: {error}") from error


@dataclass(frozen=True, slots=True)
class Slot:
    """One record as it lies in the file."""

    line: int
    """Its first line, from 1."""
    start: int
    """Its first byte."""
    raw: bytes


class Layout(Protocol):
    """How records lie in a file."""

    def slots(self, stream: BinaryIO) -> Iterator[Slot]:
        """The records in order; blank lines are passed over."""
        ...

    def record(self, raw: bytes) -> Record:
        """What a slot's bytes hold.

        Raises:
            DataError: they break the format; the message has no place in it.
        """
        ...


def layout_of(path: Path, content: Content) -> Layout:
    """How the records lie: CSV by its suffix; JSON by its suffix or a first character "{"; else a text a line.

    Raises:
        DataError: a JSON file that holds one array, or a CSV file with an unusable header.
    """
    names = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    suffix = names[-1] if names else ""
    if suffix in (".csv", ".tsv"):
        return _csv_layout(path, content, delimiter="\t" if suffix == ".tsv" else None)
    begin = content.read(0, 4096).removeprefix(_BOM).lstrip()
    if suffix == ".parquet" or begin.startswith(b"{"):
        return JsonLines()
    if suffix in _JSON_SUFFIXES:
        if begin.startswith(b"["):
            raise DataError(f"{path}:1: begins a JSON array; write one object a line (JSON lines)")
        return JsonLines()
    return TextLines()


class TextLines:
    """A text a line."""

    def slots(self, stream: BinaryIO) -> Iterator[Slot]:
        """The lines that are not blank."""
        start = 0
        for number, raw in enumerate(stream, 1):
            if raw.strip():
                yield Slot(number, start, raw)
            start += len(raw)

    def record(self, raw: bytes) -> Record:
        """The line without its end."""
        return decoded(raw).rstrip("\r\n")


class JsonLines(TextLines):
    """A JSON object a line."""

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder().decode

    def record(self, raw: bytes) -> Record:
        """The object's fields."""
        text = decoded(raw)
        try:
            row = self._decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(f"not valid JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"a JSON object is needed, this is a {type(row).__name__}")
        return row


class CsvRows:
    """Rows of a CSV file under the names of its header; a row may run over several lines."""

    def __init__(self, header: list[str], *, delimiter: str) -> None:
        self.header, self.delimiter = header, delimiter

    def slots(self, stream: BinaryIO) -> Iterator[Slot]:
        """The rows below the header; a row that cannot be parsed is given as its first line alone."""
        lines = _CsvLines(stream)
        first = True
        while True:
            lines.begin()
            try:
                cells = _next_row(lines, self.delimiter)
                if cells is None:
                    return
                if not cells:
                    continue
            except (csv.Error, DataError):
                lines.give_back_all_but_first()
            if first:
                first = False
                continue
            yield lines.slot()

    def record(self, raw: bytes) -> Record:
        """The cells by column."""
        lines = _CsvLines(io.BytesIO(raw))
        lines.begin()
        try:
            cells = _next_row(lines, self.delimiter) or []
        except csv.Error as error:
            raise DataError(f"not a valid row of CSV: {error}; is a quotation mark left open?") from error
        if len(cells) != len(self.header):
            raise DataError(f"{len(cells)} cells where the header has {len(self.header)} columns")
        return dict(zip(self.header, cells, strict=True))


class _CsvLines(Iterator[str]):
    """Lines for csv.reader that remember the bytes of the row they belong to."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._returned: deque[Slot] = deque()
        self._row: list[Slot] = []
        self._size = self._line = self._start = 0

    def begin(self) -> None:
        self._row, self._size = [], 0

    def slot(self) -> Slot:
        return Slot(self._row[0].line, self._row[0].start, b"".join(slot.raw for slot in self._row))

    def give_back_all_but_first(self) -> None:
        self._returned.extendleft(reversed(self._row[1:]))
        self._row = self._row[:1]

    def __next__(self) -> str:
        slot = self._returned.popleft() if self._returned else self._next_line()
        self._row.append(slot)
        self._size += len(slot.raw)
        if self._size > _LONGEST_ROW:
            raise csv.Error("a quotation mark is never closed")
        return decoded(slot.raw)

    def _next_line(self) -> Slot:
        raw = self._stream.readline()
        if not raw:
            raise StopIteration
        self._line += 1
        slot = Slot(self._line, self._start, raw)
        self._start += len(raw)
        return slot


def _next_row(lines: _CsvLines, delimiter: str) -> list[str] | None:
    """The next row, None at the end. The module-wide field limit (131072 by default) is lifted only meanwhile."""
    before = csv.field_size_limit(_LONGEST_ROW)
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True), None)
    finally:
        csv.field_size_limit(before)


def _csv_layout(path: Path, content: Content, *, delimiter: str | None) -> CsvRows:
    lines = _CsvLines(content.stream())
    lines.begin()
    try:
        first = next(lines, "")
    except (csv.Error, DataError) as error:
        raise DataError(f"{path}:1: {error}") from error
    if delimiter is None:
        delimiter = max(_DELIMITERS, key=first.count)
    header = [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]
    if len(set(header)) < len(header) or not all(header):
        raise DataError(f"{path}:1: the header needs names that differ and are not empty; it reads {first.strip()!r}")
    return CsvRows(header, delimiter=delimiter)


def decoded(raw: bytes) -> str:
    """UTF-8, with or without a byte order mark.

    Raises:
        DataError: another encoding.
    """
    try:
        return raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"not UTF-8: byte {error.start + 1} of the record is 0x{raw[error.start]:02x}; save the file as UTF-8"
        ) from error
