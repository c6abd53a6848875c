"""Documents as weak pairs see them: sections under headings, cut into passages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine.data.chunking import Chunking, chunk
from trine.errors import UsageError
from trine.types import Document

Spans = Callable[[str], NDArray[np.int64]]
"""Text -> (tokens, 2) code-point offsets, as `TextEncoder.token_spans`."""

_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[^\S\n]*(?:\n|\Z)")
_TOKEN = re.compile(
    r"[\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]{1,2}|[^\W\u3041-\u30ff\u3400-\u9fff\uac00-\ud7a3]+|[^\w\s]"
)
_MARKUP = re.compile(r"^[\s#>*_\-=:：|.]+|[\s#*_=:：|]+$")


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under one heading, up to the next one of any level."""

    path: tuple[str, ...]
    """The headings above it, outermost first, its own last; empty before the first heading."""
    level: int
    """Of its own heading; 0 before the first."""
    text: str
    """Without the heading's line; empty where subsections follow at once."""


def sections(document: Document) -> list[Section]:
    """The sections of a document in order, the one before the first heading included where it holds text.

    Raises:
        UsageError: headings out of order or outside the text.
    """
    headings, text = document.headings, document.text
    starts = [heading.start for heading in headings]
    if any(later <= earlier for earlier, later in zip(starts, starts[1:], strict=False)) or (
        starts and not 0 <= starts[0] <= starts[-1] < len(text)
    ):
        raise UsageError(
            f"document {document.id!r}: headings start at {starts[:10]}; they must ascend and lie within the text "
            f"of {len(text)} characters"
        )
    found = []
    before = text[: starts[0]].strip() if starts else text.strip()
    if before:
        found.append(Section((), 0, before))
    above: list[tuple[int, str]] = []
    for number, heading in enumerate(headings):
        end = starts[number + 1] if number + 1 < len(starts) else len(text)
        body = text[min(_body_start(text, heading.start), end) : end].strip()
        above = [*(pair for pair in above if pair[0] < heading.level), (heading.level, " ".join(heading.text.split()))]
        found.append(Section(tuple(name for _, name in above), heading.level, body))
    return found


def pieces(text: str, *, max_tokens: int, spans: Spans | None = None) -> list[str]:
    """Passages of at most `max_tokens`, cut where the index cuts them (`trine.data.chunk`).

    `spans` None counts words, pairs of Hangul or ideographic letters, and signs.
    """
    passages = chunk(Document("", text), spans=spans or word_spans, chunking=Chunking(max_tokens))
    return [passage.text for passage in passages]


def word_spans(text: str) -> NDArray[np.int64]:
    """Spans of what a multilingual tokenizer would roughly make tokens of; needs no model."""
    return np.array([match.span() for match in _TOKEN.finditer(text)], np.int64).reshape(-1, 2)


def bare(line: str) -> str:
    """A line without the Markdown signs and colons around it."""
    return _MARKUP.sub("", line)


def without_first_lines(text: str, unwanted: Sequence[str], *, spelling: Callable[[str], str]) -> str:
    """The text without the lines at its start that only repeat one of `unwanted`."""
    known = {spelling(bare(line)) for line in unwanted} - {""}
    rest = text.strip()
    while rest:
        line, _, following = rest.partition("\n")
        if spelling(bare(line)) not in known:
            break
        rest = following.strip()
    return rest


def _body_start(text: str, start: int) -> int:
    """One past the heading's line, and past the line of = or - that underlines it in Markdown."""
    newline = text.find("\n", start)
    if newline < 0:
        return len(text)
    underline = _UNDERLINE.match(text, newline + 1)
    return underline.end() if underline else newline + 1
