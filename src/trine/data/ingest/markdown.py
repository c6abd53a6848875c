"""Markdown; the text stays the file's own, so that offsets and lines are those an editor shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from trine.data.decoding import decode
from trine.data.sources import Limits, Skipped, read_source
from trine.types import Document, Heading

_FRONT_MATTER = re.compile(r"---[^\S\n]*\n(?=\s*[\w-]+[^\S\n]*:)(?:.*\n)*?(?:---|\.\.\.)[^\S\n]*(?:\n|\Z)")
_FIELD = re.compile(r"^([A-Za-z_][\w-]{0,63}):[^\S\n]+(\S.*?)[^\S\n]*$", re.MULTILINE)
_NOT_NEWLINE = re.compile(r"[^\n]")
_MOST_FIELDS = 32


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """One document; its title is the front matter's, or else the first heading of level 1.

    Front matter (``key: value`` lines between ``---``) becomes metadata and is blanked with spaces in the text.
    """
    text, fields = split_front_matter(decode(read_source(path, limits=limits)))
    headings = find_headings(text)
    title = fields.pop("title", "") or next((heading.text for heading in headings if heading.level == 1), "")
    yield Document(name, text, title, fields, headings)


def split_front_matter(text: str) -> tuple[str, dict[str, str]]:
    """The text with its front matter blanked, same length and lines, and the front matter's plain fields."""
    block = _FRONT_MATTER.match(text)
    if block is None:
        return text, {}
    fields = {key: _unquoted(value) for key, value in _FIELD.findall(block.group())[:_MOST_FIELDS]}
    return _NOT_NEWLINE.sub(" ", block.group()) + text[block.end() :], fields


def find_headings(text: str) -> list[Heading]:
    """Headings outside of quotations, lists and code, with their markup removed."""
    parser = MarkdownIt("commonmark").disable("inline")
    line_starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
    tokens = parser.parse(text)
    return [
        Heading(line_starts[opening.map[0]], int(opening.tag[1:]), _plain(content.content))
        for opening, content in zip(tokens, tokens[1:], strict=False)
        if opening.type == "heading_open" and opening.level == 0 and opening.map and content.content.strip()
    ]


def _plain(markup: str) -> str:
    inline = MarkdownIt("commonmark").parseInline(markup)
    return " ".join("".join(_words(inline)).split())


def _words(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        if token.children:
            yield from _words(token.children)
        elif token.type in ("text", "code_inline", "text_special"):
            yield token.content
        elif token.type in ("softbreak", "hardbreak"):
            yield " "


def _unquoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        return value[1:-1]
    return value
