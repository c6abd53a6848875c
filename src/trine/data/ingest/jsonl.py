"""JSON lines: one object, one document."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from trine.data.decoding import open_text
from trine.data.ingest.rows import lines_of, row_document, undecodable
from trine.data.sources import Limits, Skipped, open_source, skipped
from trine.errors import DocumentError
from trine.types import Document

_ESCAPES = 6
"""A character can take six in JSON (``\\\\u0000``)."""


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """A document per line, streamed; a line that cannot be used is skipped by number. Columns: see `row_document`."""
    with open_source(path) as stream, open_text(stream, newline=None) as text:
        for number, line in lines_of(text, longest=_ESCAPES * limits.characters):
            if line is None or line.strip():
                try:
                    yield row_document(_object(line), name=name, line=number)
                except DocumentError as error:
                    yield skipped(path, error, line=number)


def _object(line: str | None) -> dict[str, object]:
    if line is None:
        raise DocumentError("is longer than a document may be")
    if undecodable(line):
        raise DocumentError("holds bytes that are not in the file's encoding")
    try:
        row = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DocumentError(f"is not valid JSON: {error}") from error
    if not isinstance(row, dict):
        raise DocumentError(f"is not a JSON object but {type(row).__name__}")
    return row
