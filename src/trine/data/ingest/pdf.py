"""PDF: the text layer, page by page."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pypdfium2

from trine.data.decoding import normalize_newlines
from trine.data.sources import Limits, Skipped
from trine.errors import DocumentError
from trine.types import Document, Heading

_WRONG_PASSWORD = 4
"""FPDF_ERR_PASSWORD in PDFium's fpdfview.h."""
_SOFT_HYPHEN = re.compile("\ufffe\n?|\xad\n")
"""PDFium marks a hyphen that breaks a word at a line's end with U+FFFE."""


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """One document. Where several pages hold text, each begins with a heading line "p. 3".

    Pages that cannot be loaded are left out and counted in the metadata as ``unreadable_pages``.

    Raises:
        DocumentError: encrypted, broken, or without a text layer (a scan).
    """
    try:
        pdf = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == _WRONG_PASSWORD:
            raise DocumentError("is encrypted: save a copy without a password") from error
        raise DocumentError(f"is a broken PDF: {error}") from error
    with pdf:
        pages = _pages(pdf, limits)
        title = pdf.get_metadata_dict().get("Title", "")
    unreadable = sum(text is None for text in pages)
    texts = {number: text for number, text in enumerate(pages, start=1) if text}
    if not texts:
        raise DocumentError("has no text layer; a scanned PDF needs text recognition (OCR) first")
    metadata = {"unreadable_pages": unreadable} if unreadable else {}
    if len(texts) == 1:
        yield Document(name, next(iter(texts.values())), title, metadata)
        return
    headings, parts, length = [], [], 0
    for number, text in texts.items():
        headings.append(Heading(length, 1, f"p. {number}"))
        parts.append(f"p. {number}\n{text}\n\n")
        length += len(parts[-1])
    yield Document(name, "".join(parts), title, metadata, headings)


def _pages(pdf: pypdfium2.PdfDocument, limits: Limits) -> list[str | None]:
    """Text of each page; None for one that PDFium cannot load."""
    pages: list[str | None] = []
    characters = 0
    for index in range(len(pdf)):
        try:
            pages.append(_page_text(pdf, index))
        except pypdfium2.PdfiumError:
            pages.append(None)
        characters += len(pages[-1] or "")
        if characters > limits.characters:
            raise DocumentError(f"holds more than the limit of {limits.characters} characters")
    return pages


def _page_text(pdf: pypdfium2.PdfDocument, index: int) -> str:
    page = pdf[index]
    text_page = page.get_textpage()
    text = _SOFT_HYPHEN.sub("", normalize_newlines(text_page.get_text_range())).strip()
    text_page.close()
    page.close()
    return text
