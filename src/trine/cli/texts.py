"""Texts from files and standard input, one at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO, NamedTuple

from trine.cli.exits import NotFound
from trine.errors import DataError

STDIN = "-"
FORMATS = ("auto", "lines", "jsonl")


class InputText(NamedTuple):
    """A text and where it stood."""

    id: str | int
    """The "id" or "_id" of its JSON object, else the number of its line, from 1."""
    text: str


def read_texts(source: str, *, form: str = "auto") -> Iterator[InputText]:
    """The texts of a file, or of standard input for "-"; blank lines are left out.

    Args:
        source: a path or "-".
        form: "lines" takes every line as a text, "jsonl" the "text" of a JSON object per line. "auto" is "jsonl" where
            the file's name ends in .jsonl or its first line is a JSON object with a "text".

    Raises:
        NotFound: no such file.
        DataError: a line that is no UTF-8, or no JSON object with a "text".
    """
    name = "standard input" if source == STDIN else source
    if source != STDIN and not Path(source).is_file():
        raise NotFound(f"no such file: {source}")
    with nullcontext(sys.stdin.buffer) if source == STDIN else Path(source).open("rb") as stream:
        for number, line in _lines(stream, name):
            if form == "auto":
                form = "jsonl" if source.endswith(".jsonl") or _text_of(line) is not None else "lines"
            if form == "lines":
                yield InputText(number, line)
                continue
            found = _text_of(line)
            if found is None:
                raise DataError(f'{name}, line {number}: not a JSON object with a "text": {line[:80]}')
            key, text = found
            yield InputText(number if key is None else key, text)


def read_all(source: str) -> str:
    """`source` itself, or all of standard input for "-"."""
    return sys.stdin.buffer.read().decode("utf-8", "replace") if source == STDIN else source


def _lines(stream: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(stream, start=1):
        try:
            line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise DataError(f"{name}, line {number}: not UTF-8 ({error.reason}); convert it first") from error
        if line.strip():
            yield number, line


def _text_of(line: str) -> tuple[str | int | None, str] | None:
    """Id and text of a JSON object; None where there is no such thing."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        return None
    key = value.get("id", value.get("_id"))
    return (key if isinstance(key, str | int) else None), value["text"]
