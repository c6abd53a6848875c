"""What the row formats share: one row -> one document."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import TextIO

from trine.data.decoding import normalize_newlines
from trine.errors import DocumentError
from trine.types import Document, Scalar

_RESERVED = ("id", "_id", "title", "text", "metadata")
_INT64 = 2**63
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def row_document(row: Mapping[str, object], *, name: str, line: int) -> Document:
    """The document of a row.

    `text` is required; `id` or `_id` becomes the id, else the file's `name` and the `line`; `title` the title. Other
    scalar columns, and those of an object under `metadata` (as in BEIR), become metadata; what is not scalar is left.

    Raises:
        DocumentError: a column of the wrong kind, or no text.
    """
    text = row.get("text")
    if not isinstance(text, str):
        raise DocumentError("has no 'text'" if text is None else f"has a 'text' that is not a string: {text!r:.40}")
    text = normalize_newlines(text).replace("\0", " ")
    if not text.strip():
        raise DocumentError("has an empty 'text'")
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise DocumentError(f"has a 'title' that is not a string: {title!r:.40}")
    return Document(
        _row_id(row) or f"{name}#{line}",
        text,
        title or "",
        _metadata(row),
    )


def lines_of(stream: TextIO, *, longest: int) -> Iterator[tuple[int, str | None]]:
    """(number from 1, line) of each line; None for one of more than `longest` characters, which is never held whole."""
    number = 0
    while line := stream.readline(longest + 1):
        number += 1
        whole = len(line) <= longest
        while not whole and line and not line.endswith(("\n", "\r")):
            line = stream.readline(longest + 1)
        yield number, line if whole else None


def undecodable(line: str) -> bool:
    """Whether a line holds bytes that its file's encoding does not have."""
    return _ESCAPED_BYTE.search(line) is not None


def _row_id(row: Mapping[str, object]) -> str:
    value = row.get("id", row.get("_id"))
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise DocumentError(f"has an 'id' that is neither a string nor an integer: {value!r:.40}")
    return str(value).strip()


def _metadata(row: Mapping[str, object]) -> dict[str, Scalar]:
    nested = row.get("metadata")
    columns = {str(key): value for key, value in nested.items()} if isinstance(nested, dict) else {"metadata": nested}
    columns |= {key: value for key, value in row.items() if key not in _RESERVED}
    return {key: _scalar(value) for key, value in columns.items() if _is_scalar(value)}


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def _scalar(value: object) -> Scalar:
    """The value itself; an integer that no database column holds as its digits."""
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        return str(value)
    return value if isinstance(value, str | int | float) else None
