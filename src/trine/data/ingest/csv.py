"""CSV and TSV with a header line: one row, one document."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from trine.data.decoding import open_text
from trine.data.ingest.rows import lines_of, row_document, undecodable
from trine.data.sources import Limits, Skipped, open_source, skipped
from trine.errors import DocumentError
from trine.types import Document

_DELIMITERS = (",", "\t", ";", "|")


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """A document per row, streamed; a row that cannot be used is skipped by line number. Columns: see `row_document`.

    The delimiter is the one under which the header has a column `text`. Values stay strings: a file of text does not
    say which of its columns are numbers. Empty cells are left out.

    Raises:
        DocumentError: the header has no column `text` under any delimiter.
    """
    with open_source(path) as stream, open_text(stream, newline="") as text:
        lines = _Lines(lines_of(text, longest=limits.characters), most_characters=limits.characters)
        delimiter, header = _header(lines)
        while True:
            lines.start_row()
            try:
                cells = _next_row(lines, delimiter, limits.characters)
                if cells is None:
                    return
                if cells:
                    yield row_document(_row(header, cells), name=name, line=lines.row_line)
            except DocumentError as error:
                yield skipped(path, error, line=lines.row_line)
            except csv.Error as error:
                yield skipped(path, f"is not a valid row: {error}", line=lines.row_line)
                lines.give_back_all_but_first()


class _Lines(Iterator[str]):
    """Lines for csv.reader that remember the row they belong to.

    A quotation mark that is never closed swallows the lines after it; giving them back costs one row, not the file.
    """

    def __init__(self, source: Iterator[tuple[int, str | None]], *, most_characters: int) -> None:
        self._source = source
        self._most_characters = most_characters
        self._returned: deque[tuple[int, str | None]] = deque()
        self._row: list[tuple[int, str | None]] = []
        self._characters = 0

    @property
    def row_line(self) -> int:
        """Number of the current row's first line."""
        return self._row[0][0] if self._row else 0

    def start_row(self) -> None:
        self._row, self._characters = [], 0

    def give_back_all_but_first(self) -> None:
        self._returned.extendleft(reversed(self._row[1:]))

    def __next__(self) -> str:
        numbered = self._returned.popleft() if self._returned else next(self._source)
        self._row.append(numbered)
        line = numbered[1]
        self._characters += len(line or "")
        if line is None or self._characters > self._most_characters:
            raise csv.Error("longer than a document may be, or a quotation mark is never closed")
        if undecodable(line):
            raise csv.Error("bytes that are not in the file's encoding")
        return line


def _header(lines: _Lines) -> tuple[str, list[str]]:
    try:
        line = next(lines, "")
    except csv.Error as error:
        raise DocumentError(f"has an unusable first line: {error}") from error
    for delimiter in _DELIMITERS:
        names = [name.strip() for name in next(csv.reader([line], delimiter=delimiter), [])]
        lowered = [name.lower() for name in names]
        if "text" in lowered:
            known = ("id", "_id", "title", "text")
            return delimiter, [low if low in known else name for low, name in zip(lowered, names, strict=True)]
    raise DocumentError(f"has no column 'text' in its first line, which reads {line.strip()!r:.100}")


def _next_row(lines: _Lines, delimiter: str, longest: int) -> list[str] | None:
    """The next row, None at the end. The module-wide field limit (131072 by default) is lifted only meanwhile."""
    before = csv.field_size_limit(longest)
    try:
        return next(csv.reader(lines, delimiter=delimiter, strict=True), None)
    finally:
        csv.field_size_limit(before)


def _row(header: list[str], cells: list[str]) -> dict[str, object]:
    if len(cells) != len(header):
        raise DocumentError(f"has {len(cells)} cells where the header has {len(header)} columns")
    return {name: cell for name, cell in zip(header, cells, strict=True) if name and cell}
