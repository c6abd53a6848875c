"""Texts from files and standard input, one at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from trine.cli.exits import NotFound

STDIN = "-"


class InputText(NamedTuple):
    """A text and where it stood."""

    id: str | int
    """The "id" or "_id" of its JSON object, else the number of its line, from 1."""
    text: str


def read_texts(source: str, *, form: str = "auto") -> Iterator[InputText]:
    """The texts of a file, or of standard input for "-"; blank lines are left out.

    Args:
        source: a path or "-"; .gz and .xz are unpacked, and .parquet is read too.
        form: "lines" takes every line as a text, "jsonl" the "text" of a JSON object per line. "auto" is "jsonl" where
            the file's name ends in .jsonl or its first line is a JSON object with a "text".

    Raises:
        NotFound: no such file.
        DataError: a line that is no UTF-8, or no JSON object with a "text".
    """
    from trine.encoding.bulk.reading import InputFile, Row, read_file, read_lines

    path = Path("standard input" if source == STDIN else source)
    if source != STDIN and not path.is_file():
        raise NotFound(f"no such file: {source}")
    file = InputFile(path, path.name)
    for row in read_lines(sys.stdin.buffer, file, form=form) if source == STDIN else read_file(file, form=form):
        if not isinstance(row, Row):
            raise row.error()
        yield InputText(row.id, row.text)


def read_all(source: str) -> str:
    """`source` itself, or all of standard input for "-"."""
    return sys.stdin.buffer.read().decode("utf-8", "replace") if source == STDIN else source
