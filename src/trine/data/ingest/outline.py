"""Puts extracted blocks together into one text with headings; shared by formats whose text is not their source."""

from __future__ import annotations

from collections.abc import Mapping

from trine.data.decoding import normalize_newlines
from trine.types import Document, Heading, Scalar


class Outline:
    """Collects blocks; each stands apart from the next by a blank line."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._headings: list[Heading] = []
        self._length = 0

    @property
    def length(self) -> int:
        """Characters so far."""
        return self._length

    def add(self, text: str, *, level: int = 0) -> None:
        """Append a block; `level` from 1 makes it a heading. Empty ones are dropped."""
        block = normalize_newlines(text).strip()
        if not block:
            return
        if level:
            block = " ".join(block.split())
            self._headings.append(Heading(self._length, level, block))
        self._parts.append(f"{block}\n\n")
        self._length += len(self._parts[-1])

    def document(self, name: str, *, title: str = "", metadata: Mapping[str, Scalar] | None = None) -> Document:
        """The document; without a title of its own it takes the first heading of level 1."""
        first = next((heading.text for heading in self._headings if heading.level == 1), "")
        return Document(name, "".join(self._parts), title.strip() or first, metadata or {}, self._headings)
