"""Word documents (DOCX)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docx
from docx.oxml.ns import qn

from trine.data.archives import check_zip
from trine.data.ingest.outline import Outline
from trine.data.sources import Limits, Skipped, open_source
from trine.errors import DocumentError
from trine.types import Document

_OLE_MAGIC = b"\xd0\xcf\x11\xe0"
_HEADING_STYLE = re.compile(r"(?:heading|제목|見出し|标题|überschrift|titre)\s*([1-9])", re.IGNORECASE)
_PARAGRAPH, _TABLE, _ROW, _CELL = qn("w:p"), qn("w:tbl"), qn("w:tr"), qn("w:tc")
_TEXT, _TAB, _BREAKS = qn("w:t"), qn("w:tab"), (qn("w:br"), qn("w:cr"))
_WITHOUT_TEXT = (
    *(qn(tag) for tag in ("w:pPr", "w:rPr", "w:sectPr", "w:del", "w:moveFrom")),
    "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",
)
"""Properties, what tracked changes took away, and the second copy of every text box that old readers need."""


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """One document: paragraphs, content controls and text boxes in order, tables as one line per row.

    Headings are found by style name or outline level; deleted text of tracked changes is left out, inserted text kept.
    """
    with open_source(path, most_bytes=limits.file_bytes) as stream:
        if stream.read(4) == _OLE_MAGIC:
            raise DocumentError("is encrypted, or in the old binary format: save a copy as DOCX without a password")
    check_zip(path, limits=limits)
    package = docx.Document(str(path))
    outline = Outline()
    levels = _style_levels(package)
    for element in _blocks(package.element.body):
        if element.tag == _TABLE:
            outline.add("\n".join(_rows(element)))
        else:
            outline.add("".join(_text(element)), level=_level(element, levels))
    yield outline.document(name, title=package.core_properties.title or levels.title(package))


class _StyleLevels(dict[str, int]):
    """Style id -> heading level."""

    title_id: str | None = None

    def title(self, package: Any) -> str:
        """The first paragraph in the style named Title."""
        for element in package.element.body.iter(_PARAGRAPH):
            if self.title_id is not None and element.style == self.title_id:
                return "".join(_text(element))
        return ""


def _style_levels(package: Any) -> _StyleLevels:
    levels = _StyleLevels()
    for style in package.styles:
        named = _HEADING_STYLE.fullmatch(style.name or "")
        outline_level = _outline_level(style.element)
        if named:
            levels[style.style_id] = int(named.group(1))
        elif outline_level:
            levels[style.style_id] = outline_level
        elif style.name == "Title":
            levels.title_id = style.style_id
    return levels


def _level(paragraph: Any, levels: _StyleLevels) -> int:
    """Heading level of a paragraph, 0 for running text; its own outline level wins over its style's."""
    return _outline_level(paragraph) or levels.get(paragraph.style or "", 0)


def _outline_level(element: Any) -> int:
    properties = element.find(qn("w:pPr"))
    level = None if properties is None else properties.find(qn("w:outlineLvl"))
    value = "" if level is None else level.get(qn("w:val"), "")
    return int(value) + 1 if value.isdigit() and int(value) < 9 else 0


def _blocks(parent: Any) -> Iterator[Any]:
    """Paragraphs and tables in order, also those inside content controls and tracked insertions."""
    for element in parent:
        if element.tag in (_PARAGRAPH, _TABLE):
            yield element
        elif element.tag not in _WITHOUT_TEXT:
            yield from _blocks(element)


def _rows(table: Any) -> Iterator[str]:
    for row in _nearest(table, _ROW):
        cells = (" ".join("\n".join(_cell_parts(cell)).split()) for cell in _nearest(row, _CELL))
        yield " | ".join(cells)


def _cell_parts(cell: Any) -> Iterator[str]:
    for element in _blocks(cell):
        yield "\n".join(_rows(element)) if element.tag == _TABLE else "".join(_text(element))


def _nearest(parent: Any, tag: str) -> Iterator[Any]:
    for element in parent:
        if element.tag == tag:
            yield element
        elif element.tag not in (_TABLE, _PARAGRAPH):
            yield from _nearest(element, tag)


def _text(element: Any) -> Iterator[str]:
    for child in element:
        if child.tag == _TEXT:
            yield child.text or ""
        elif child.tag == _TAB:
            yield "\t"
        elif child.tag in _BREAKS:
            yield "\n"
        elif child.tag not in _WITHOUT_TEXT:
            yield from _text(child)
            if child.tag == _PARAGRAPH:
                yield "\n"
