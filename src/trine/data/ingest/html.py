"""HTML pages: the main text without navigation, with headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lxml.html
import trafilatura
from trafilatura.settings import use_config

from trine.data.decoding import decode
from trine.data.ingest.outline import Outline
from trine.data.sources import Limits, Skipped, read_source
from trine.errors import DocumentError
from trine.types import Document

_DECLARED = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{1,40})", re.IGNORECASE)
_XML_DECLARED = re.compile(rb"\s*<\?xml[^>]{0,100}?encoding\s*=\s*[\"']([\w-]{1,40})", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_HEADING = re.compile(r"h([1-6])")
_SPACE = re.compile(r"\s+")
_LINE_EDGES = re.compile(r" *\n\s*")
_HIDDEN = frozenset(["script", "style", "noscript", "template", "nav", "aside", "footer", "iframe", "svg", "button"])
_LINES = frozenset(["br", "lb", "dt", "dd"])
_ITEMS = frozenset(["li", "item"])
_ROWS = frozenset(["tr", "row"])
_LAYOUT = ("p", "div", "table", "ul", "ol", "list", "head", "h1", "h2", "h3", "h4", "h5", "h6")
_BLOCKS = frozenset(
    [*_LAYOUT, "article", "blockquote", "quote", "section", "main", "header", "address", "dl", "form", "hr", "details"]
    + ["summary", "figure", "figcaption", "fieldset", "caption", "center", "dialog", "td", "th", "cell"]
)
"""Of HTML, and of the tree that trafilatura returns, where TEI names stand (head, list, item, quote, row, cell, lb)."""
_MAIN_TEXT_SHARE = 0.25
"""Where trafilatura keeps less than this of the visible text, it has taken a list or a table for decoration."""

_LONGEST_ARTICLE = 2_000_000
"""Longer pages are dumps rather than articles, and trafilatura takes about 4 seconds for each million characters."""


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """One document: trafilatura's main text; the whole visible page where that finds little of it.

    Raises:
        DocumentError: no text, or tags nested deeper than the 256 levels that libxml2 follows.
    """
    data = read_source(path, limits=limits)
    declared = _DECLARED.search(data[:4096]) or _XML_DECLARED.match(data[:200])
    source = decode(data, declared=declared.group(1).decode() if declared else None)
    try:
        page = lxml.html.document_fromstring(_XML_DECLARATION.sub("", source, count=1))
    except (lxml.etree.LxmlError, ValueError) as error:
        raise DocumentError(f"is not HTML: {error}") from error
    body = page.find("body")
    whole = _rendered(page if body is None else body)
    if not whole.length:
        raise DocumentError("gives no text: it has none, or its tags are nested more than 256 deep")
    title = " ".join((page.findtext(".//title") or "").split())
    main = _main_text(page) if len(source) <= _LONGEST_ARTICLE else None
    chosen = main if main is not None and main.length >= _MAIN_TEXT_SHARE * whole.length else whole
    yield chosen.document(name, title=title)


def _main_text(page: Any) -> Outline | None:
    """What trafilatura takes for the text; None if it finds nothing."""
    config = use_config()
    # Below this many characters trafilatura gives up the tree, and with it headings and lists, for a flat text.
    config.set("DEFAULT", "MIN_EXTRACTED_SIZE", "1")
    found = trafilatura.bare_extraction(page, favor_recall=True, include_comments=False, config=config)
    return None if found is None or found.body is None else _rendered(found.body)


def _rendered(root: Any) -> Outline:
    writer = _Writer()
    _walk(root, writer)
    writer.end_block()
    return writer.outline


class _Writer:
    """Collects inline text and closes it into blocks."""

    def __init__(self) -> None:
        self.outline = Outline()
        self._parts: list[str] = []

    def text(self, text: str | None) -> None:
        if text:
            self._parts.append(_SPACE.sub(" ", text))

    def line(self, prefix: str = "") -> None:
        self._parts.append("\n" + prefix)

    def end_block(self, *, level: int = 0) -> None:
        self.outline.add(_LINE_EDGES.sub("\n", "".join(self._parts)), level=level)
        self._parts.clear()

    def verbatim(self, text: str) -> None:
        self.end_block()
        self.outline.add(text)


def _walk(element: Any, writer: _Writer) -> None:
    tag = element.tag if isinstance(element.tag, str) else ""
    if tag and tag not in _HIDDEN and not _is_hidden(element):
        level = _level(element, tag)
        if tag == "pre" or (tag == "code" and "\n" in "".join(element.itertext())):
            writer.verbatim("".join(element.itertext()).strip("\n"))
        elif tag in _ROWS and next(element.iterdescendants(*_LAYOUT), None) is None:
            writer.line(" | ".join(" ".join("".join(cell.itertext()).split()) for cell in element))
        else:
            _walk_inside(element, writer, tag, level)
    writer.text(element.tail)


def _walk_inside(element: Any, writer: _Writer, tag: str, level: int) -> None:
    closed = level > 0 or (tag in _BLOCKS and not _continues_list(element, tag))
    if closed:
        writer.end_block()
    elif tag in _ITEMS:
        writer.line("- ")
    elif tag in _LINES:
        writer.line()
    writer.text(element.text)
    for child in element:
        _walk(child, writer)
    if closed:
        writer.end_block(level=level)


def _continues_list(element: Any, tag: str) -> bool:
    """A list within a list item, or the only paragraph of one, stays in the block of the outer list."""
    parent = element.getparent()
    return parent is not None and parent.tag in _ITEMS and tag in ("ul", "ol", "list", "p", "div")


def _level(element: Any, tag: str) -> int:
    found = _HEADING.fullmatch(element.get("rend", "") if tag == "head" else tag)
    return int(found.group(1)) if found else 0


def _is_hidden(element: Any) -> bool:
    style = element.get("style", "").replace(" ", "").lower()
    return element.get("hidden") is not None or "display:none" in style
