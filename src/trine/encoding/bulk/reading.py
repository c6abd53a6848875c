"""Texts with their ids from JSON lines, plain text and Parquet, one at a time; .gz and .xz are unpacked on the way."""

from __future__ import annotations

import gzip
import lzma
import os
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from trine.data.records import JsonLines, TextLines
from trine.data.sources import printable
from trine.errors import DataError, UsageError
from trine.tables import missing_extra, unknown

FORMATS = ("auto", "lines", "jsonl")
"""How the lines of a file are read; "auto" is told by the name, else by the first line."""

JSON_LINES = (".jsonl", ".ndjson")
FOLDER_TYPES = (*JSON_LINES, ".txt", ".parquet")
"""What is read of a folder, packed or not."""

_OPENERS: Mapping[str, Any] = {".gz": gzip.open, ".xz": lzma.open}
_BATCH = 1024
_LONGEST_QUOTE = 80


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to read."""

    path: Path
    name: str
    """What manifests call it: its path below the folder given, or its own name."""
    prefix: str = ""
    """In front of the number that stands for a missing id."""


class Row(NamedTuple):
    """A text and where it stood."""

    id: str | int
    """The row's "id" or "_id", else the number of its line, from 1, behind the file's prefix."""
    text: str
    file: InputFile
    line: int
    """From 1; of Parquet, the row."""

    @property
    def place(self) -> str:
        """File and line, as manifests have them."""
        return f"{self.file.name}:{self.line}"


class BadRow(NamedTuple):
    """A line that gives no text."""

    file: InputFile
    line: int
    reason: str

    def error(self) -> DataError:
        """The error that names file and line."""
        return DataError(f"{printable(self.file.path)}, line {self.line}: {self.reason}")


class Listing(NamedTuple):
    """What there is to read."""

    files: tuple[InputFile, ...]
    ignored: Counter[str]
    """Files of a folder that are of other types: suffix -> number."""


def list_input(source: str | os.PathLike[str], *, leave_out: Path) -> Listing:
    """The file `source`, or the files of that folder and all below it, by name.

    Args:
        source: a file of any name, or a folder, of which `FOLDER_TYPES` are read and hidden files are not.
        leave_out: a folder that is not read, for it takes what comes out.

    Raises:
        UsageError: nothing there, or a folder without such files.
    """
    root = Path(source)
    if root.is_file():
        return Listing((InputFile(root, _name(root.name)),), Counter())
    if not root.is_dir():
        raise UsageError(f"there is no file or folder {printable(root)!r} to read texts from")
    files, ignored = [], Counter[str]()
    for path in _below(root, leave_out.resolve()):
        if _kind(path) in FOLDER_TYPES:
            name = _name(path.relative_to(root).as_posix())
            files.append(InputFile(path, name, f"{name}:"))
        else:
            ignored[_kind(path)] += 1
    if not files:
        found = ", ".join(f"{count} {kind or 'without suffix'}" for kind, count in ignored.items()) or "nothing"
        raise UsageError(
            f"{printable(root)} holds none of {', '.join(FOLDER_TYPES)} (or these with .gz or .xz), but {found}; "
            "a single file may have any name"
        )
    return Listing(tuple(files), ignored)


def read_file(file: InputFile, *, form: str = "auto") -> Iterator[Row | BadRow]:
    """The texts of a file in order, and the lines that give none; blank lines are left out.

    Args:
        file: a name that ends in .parquet is Parquet with columns "text" and perhaps "id" or "_id"; one that ends in
            .gz or .xz is unpacked; anything else holds lines.
        form: one of `FORMATS`.

    Raises:
        DataError: the file as a whole cannot be read.
        MissingExtra: Parquet without pyarrow.
        UnknownName: no such format.
    """
    if form not in FORMATS:
        raise unknown(form, FORMATS, kind="input format")
    if file.path.suffix.lower() == ".parquet":
        if form != "auto":
            raise UsageError(f"{file.path} is Parquet, not {form}; leave the format at 'auto'")
        yield from _parquet_rows(file)
        return
    opener = _OPENERS.get(file.path.suffix.lower(), open)
    try:
        with opener(file.path, "rb") as stream:
            yield from read_lines(stream, file, form=form)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{printable(file.path)}: cannot be read: {error}") from error


def read_lines(stream: BinaryIO, file: InputFile, *, form: str) -> Iterator[Row | BadRow]:
    """The texts of lines: each a text, or each a JSON object with a "text"."""
    lines, objects = TextLines(), JsonLines()
    if form == "auto" and _kind(file.path) in JSON_LINES:
        form = "jsonl"
    for slot in lines.slots(stream):
        try:
            if form == "auto":
                form = "jsonl" if _has_text(objects, slot.raw) else "lines"
            if form == "jsonl":
                record: Any = objects.record(slot.raw)
                yield Row(_id(record, file, slot.line), _text(record, slot.raw), file, slot.line)
            elif (text := str(lines.record(slot.raw))).strip():
                yield Row(_numbered(file, slot.line), text, file, slot.line)
        except DataError as error:
            yield BadRow(file, slot.line, str(error))


def _parquet_rows(file: InputFile) -> Iterator[Row | BadRow]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise missing_extra(f"reading {file.path.name}", "parquet") from error
    try:
        with parquet.ParquetFile(file.path) as table:
            names = table.schema_arrow.names
            if "text" not in names:
                raise DataError(f"{printable(file.path)}: no column 'text'; it has {', '.join(names)}")
            columns = [name for name in ("text", "id", "_id") if name in names]
            line = 0
            for batch in table.iter_batches(batch_size=_BATCH, columns=columns):
                for record in batch.to_pylist():
                    line += 1
                    try:
                        yield Row(_id(record, file, line), _text(record), file, line)
                    except DataError as error:
                        yield BadRow(file, line, str(error))
    except (ArrowException, OSError) as error:
        raise DataError(f"{printable(file.path)}: not Parquet that can be read: {error}") from error


def _has_text(objects: JsonLines, raw: bytes) -> bool:
    try:
        record: Any = objects.record(raw)
        return isinstance(record.get("text"), str)
    except DataError:
        return False


def _text(record: Any, raw: bytes = b"") -> str:
    value = record.get("text")
    if isinstance(value, str):
        return value
    if "text" in record:
        raise DataError(f"'text' must be a text; it is {value!r:.40}")
    raise DataError(f'not an object with a "text": {raw[:_LONGEST_QUOTE].decode("utf-8", "replace").strip()}')


def _id(record: Any, file: InputFile, line: int) -> str | int:
    key = record.get("id", record.get("_id"))
    if key is None:
        return _numbered(file, line)
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise DataError(f"'id' must be a text or a whole number; it is {key!r:.40}")
    return key


def _numbered(file: InputFile, line: int) -> str | int:
    return f"{file.prefix}{line}" if file.prefix else line


def _below(root: Path, leave_out: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(name for name in folders if not _hidden(name) and (here / name).resolve() != leave_out)
        yield from (here / name for name in sorted(names) if not _hidden(name) and (here / name).is_file())


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _kind(path: Path) -> str:
    """The suffix that says what a file holds: what stands before .gz or .xz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _OPENERS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _name(name: str) -> str:
    """Composed (NFC), so that it reads the same on every file system."""
    return unicodedata.normalize("NFC", printable(Path(name)))
