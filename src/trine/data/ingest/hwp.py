"""Hangul word processor documents: HWP 3, HWP 5 and HWPX."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import unhwp

from trine.data.archives import check_zip
from trine.data.ingest.outline import Outline
from trine.data.sources import Limits, Skipped, open_source
from trine.errors import DocumentError
from trine.types import Document

_HEADING = re.compile(r"(#{1,6}) +(.+)")
_TABLE_RULE = re.compile(r"\|(?: *:?-+:? *\|)+")
_EMPHASIS = re.compile(r"(?<!\\)(?:\*{1,3}|~~|__|</?[a-z][^<>]*>|`)")
_CELL_BORDER = re.compile(r"(?<!\\)\|")
_IMAGE = re.compile(r"(?<!\\)!\[[^\]\n]*\]\([^)\n]*\)")
_LINK = re.compile(r"(?<!\\)\[((?:[^\]\\\n]|\\.)*)\]\([^)\n]*\)")
_ESCAPED = re.compile(r"\\([!-/:-@\[-`{-~])")


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """One document: paragraphs in order, tables as one line per row, the headings that unhwp recognises.

    Raises:
        DocumentError: encrypted, broken, or neither HWP nor HWPX.
    """
    with open_source(path, most_bytes=limits.file_bytes) as stream:
        zipped = stream.read(2) == b"PK"
    if zipped:
        check_zip(path, limits=limits)
    try:
        with unhwp.parse(path, render_options=unhwp.RenderOptions(max_heading_level=6)) as result:
            markdown, title = result.markdown, result.title
    except unhwp.UnhwpError as error:
        if error.kind in (unhwp.ErrorKind.ENCRYPTED, unhwp.ErrorKind.DISTRIBUTION_RESTRICTED):
            raise DocumentError("is encrypted or restricted: save a copy without a password") from error
        reason = str(error).removeprefix(f"Failed to parse {path}: ")
        raise DocumentError(f"is a broken HWP or HWPX file: {reason}") from error
    outline = Outline()
    for block in markdown.split("\n\n"):
        heading = _HEADING.fullmatch(block.strip())
        if heading:
            outline.add(_plain(heading.group(2)), level=len(heading.group(1)))
        else:
            outline.add(
                "\n".join(_plain(line) for line in block.split("\n") if not _TABLE_RULE.fullmatch(line.strip()))
            )
    yield outline.document(name, title=title or "")


def _plain(line: str) -> str:
    """A line of unhwp's Markdown, which escapes what stood in the document, without the markup it added."""
    text = line.rstrip()
    if text.startswith("|") and text.endswith("|"):
        text = " | ".join(cell.strip() for cell in _CELL_BORDER.split(text)[1:-1])
    text = _LINK.sub(r"\1", _IMAGE.sub("", text))
    return _ESCAPED.sub(r"\1", _EMPHASIS.sub("", text)).rstrip()
