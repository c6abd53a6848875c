"""Documents -> passages of bounded length, cut where the text itself has its joints."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine.data.graphemes import grapheme_cut
from trine.data.sentences import sentence_spans
from trine.errors import UsageError
from trine.types import Document, Heading, Passage

Spans = NDArray[np.int64]
_LEAST_TOKENS = 8
"""One code point can be four byte-level tokens; below this a budget could not hold a single character safely."""
_CHARACTERS_PER_TOKEN = 32
"""A token counts at least this many characters, so that a base64 line folded into one unknown token is still cut."""
_LONGEST_HEADING = 200
"""Headings longer than this are paragraphs in disguise; they would fill every title below them."""
_SENTENCE_CONTEXT = 200
"""Characters before a place that are enough to tell whether a sentence starts there."""
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n\s*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[^\S\n]*(?:\n|\Z)")
_SPACE = re.compile(r"\s+")
_LAST_SPACE = re.compile(r"\s(?=\S*\Z)")


@dataclass(frozen=True, slots=True)
class Chunking:
    """How long passages may be; lengths are in tokens of the encoder and count the passage's text, not its title."""

    max_tokens: int = 256
    overlap_tokens: int = 0
    """How much of a passage's end the next one repeats, in whole sentences where they fit."""

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be kept."""
        if self.max_tokens < _LEAST_TOKENS:
            raise UsageError(f"Chunking.max_tokens is {self.max_tokens}; it must be at least {_LEAST_TOKENS}")
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise UsageError(
                f"Chunking.overlap_tokens is {self.overlap_tokens} with max_tokens {self.max_tokens}; "
                f"it must lie between 0 and half of that, {self.max_tokens // 2}"
            )


def chunk(document: Document, *, spans: Callable[[str], Spans], chunking: Chunking) -> list[Passage]:
    """Cut a document into passages in reading order.

    A passage never crosses a heading. Within a section whole paragraphs are joined up to the budget; one that is too
    long is cut at sentences, a sentence that is too long at lines, spaces, then tokens. Without overlap the passages
    hold every character of the sections that is not whitespace exactly once. A heading's own line becomes part of the
    titles below it, and a passage only if nothing stands below it.

    Args:
        document: `headings` must ascend by offset.
        spans: text -> (tokens, 2) code-point offsets, as `TextEncoder.token_spans`; called once with the whole text.
        chunking: The lengths.

    Raises:
        UsageError: headings out of order or outside the text.
    """
    if not document.text or document.text.isspace():
        return []
    measure = _Measure(document.text, spans(document.text))
    newlines = _newlines(document.text)
    passages: list[Passage] = []
    for start, end, title in _sections(document):
        units = _units(measure, start, end, chunking.max_tokens - chunking.overlap_tokens)
        for first, last in _pack(measure, units, chunking):
            passages.append(
                Passage(
                    document_id=document.id,
                    ordinal=len(passages),
                    start=first,
                    end=last,
                    line=int(np.searchsorted(newlines, first)) + 1,
                    text=document.text[first:last],
                    title=title,
                )
            )
    return passages


class _Measure:
    """Token counts of any stretch of one text. A token that lies partly inside counts as inside."""

    def __init__(self, text: str, spans: Spans) -> None:
        self.text = text
        rows = np.asarray(spans, np.int64).reshape(-1, 2)
        self.starts = np.maximum.accumulate(rows[:, 0])
        self.ends = np.maximum.accumulate(rows[:, 1])

    def cost(self, start: int, end: int) -> int:
        tokens = self.token_at(end) - self.first_token(start)
        return max(tokens, (end - start) // _CHARACTERS_PER_TOKEN)

    def costs(self, spans: Spans) -> NDArray[np.int64]:
        """`cost` of many spans at once."""
        tokens = np.searchsorted(self.starts, spans[:, 1]) - np.searchsorted(self.ends, spans[:, 0], side="right")
        most: NDArray[np.int64] = np.maximum(tokens, (spans[:, 1] - spans[:, 0]) // _CHARACTERS_PER_TOKEN)
        return most

    def first_token(self, position: int) -> int:
        """Number of the first token that ends after `position`."""
        return int(np.searchsorted(self.ends, position, side="right"))

    def token_at(self, position: int) -> int:
        """Number of the first token that starts at or after `position`."""
        return int(np.searchsorted(self.starts, position))

    def reach(self, start: int, tokens: int) -> int:
        """The furthest position at which a stretch from `start` still costs at most `tokens`."""
        furthest = min(start + (tokens + 1) * _CHARACTERS_PER_TOKEN - 1, len(self.text))
        beyond = self.first_token(start) + tokens
        if beyond < len(self.starts):
            furthest = min(furthest, int(self.starts[beyond]))
        return max(furthest, start + 1)


def _newlines(text: str) -> NDArray[np.int64]:
    return np.flatnonzero(np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32) == ord("\n"))


def _sections(document: Document) -> Iterator[tuple[int, int, str]]:
    """(start, end, title) of each stretch between headings that holds text."""
    headings = _checked_headings(document)
    text = document.text
    first = headings[0].start if headings else len(text)
    if not _is_blank(text, 0, first):
        yield 0, first, _joined([document.title])
    above: list[Heading] = []
    for number, heading in enumerate(headings):
        end = headings[number + 1].start if number + 1 < len(headings) else len(text)
        above = [other for other in above if other.level < heading.level]
        body = min(_heading_end(text, heading), end)
        if not _is_blank(text, body, end):
            yield body, end, _joined([document.title, *(other.text for other in above), heading.text])
        elif number + 1 == len(headings) or headings[number + 1].level <= heading.level:
            yield heading.start, end, _joined([document.title, *(other.text for other in above)])
        above.append(heading)


def _checked_headings(document: Document) -> Sequence[Heading]:
    last = -1
    for heading in document.headings:
        if not last < heading.start < len(document.text):
            raise UsageError(
                f"document {document.id!r}: heading {heading.text!r} starts at {heading.start}; headings must ascend "
                f"and lie within the text of {len(document.text)} characters"
            )
        last = heading.start
    return [heading for heading in document.headings if len(heading.text) <= _LONGEST_HEADING]


def _heading_end(text: str, heading: Heading) -> int:
    """One past the heading's line, and past the line of = or - that underlines it in Markdown."""
    newline = text.find("\n", heading.start)
    if newline < 0:
        return len(text)
    underline = _UNDERLINE.match(text, newline + 1)
    return underline.end() if underline else newline + 1


def _joined(parts: Sequence[str]) -> str:
    """Title parts in order, each once: a document often repeats its title as the first heading."""
    names = [" ".join(part.split()) for part in parts]
    return " > ".join(dict.fromkeys(name for name in names if name))


def _is_blank(text: str, start: int, end: int) -> bool:
    return start >= end or text[start:end].isspace()


def _units(measure: _Measure, start: int, end: int, limit: int) -> list[tuple[int, int]]:
    """Paragraphs of a section; sentences of those over `limit`; pieces of sentences over it."""
    return _refined(measure, _paragraphs(measure.text, start, end), limit, (_sentences, _pieces))


def _refined(
    measure: _Measure, spans: Spans, limit: int, finer: Sequence[Callable[[_Measure, int, int, int], Spans]]
) -> list[tuple[int, int]]:
    units: list[tuple[int, int]] = []
    for (start, end), cost in zip(spans.tolist(), measure.costs(spans).tolist(), strict=True):
        if cost <= limit or not finer:
            units.append((start, end))
        else:
            units.extend(_refined(measure, finer[0](measure, start, end, limit), limit, finer[1:]))
    return units


def _paragraphs(text: str, start: int, end: int) -> Spans:
    rows: list[tuple[int, int]] = []
    for separator in (*_BLANK_LINE.finditer(text, start, end), None):
        stop = separator.start() if separator else end
        _append_stripped(rows, text, start, stop)
        start = separator.end() if separator else end
    return np.array(rows, np.int64).reshape(-1, 2)


def _sentences(measure: _Measure, start: int, end: int, limit: int) -> Spans:
    return sentence_spans(measure.text[start:end]) + start


def _pieces(measure: _Measure, start: int, end: int, limit: int) -> Spans:
    """Cut what has no sentence boundary: at the last newline or space of the second half, else between tokens."""
    rows: list[tuple[int, int]] = []
    while start < end:
        reach = min(measure.reach(start, limit), end)
        cut = end if reach == end else _cut(measure.text, start, reach)
        _append_stripped(rows, measure.text, start, cut)
        start = cut + _leading_space(measure.text, cut, end)
    return np.array(rows, np.int64).reshape(-1, 2)


def _cut(text: str, start: int, reach: int) -> int:
    if text[reach].isspace():
        return reach
    middle = (start + reach) // 2
    newline = text.rfind("\n", middle + 1, reach)
    if newline >= 0:
        return newline
    space = _LAST_SPACE.search(text, middle + 1, reach)
    return space.end() if space else grapheme_cut(text, reach, after=start)


def _leading_space(text: str, start: int, end: int) -> int:
    space = _SPACE.match(text, start, end)
    return space.end() - start if space else 0


def _append_stripped(rows: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    kept = piece.strip()
    if kept:
        first = start + len(piece) - len(piece.lstrip())
        rows.append((first, first + len(kept)))


def _pack(measure: _Measure, units: Sequence[tuple[int, int]], chunking: Chunking) -> Iterator[tuple[int, int]]:
    """Join neighbouring units up to the budget."""
    if not units:
        return
    start, end = units[0]
    for unit_start, unit_end in units[1:]:
        if measure.cost(start, unit_end) > chunking.max_tokens:
            yield start, end
            start = _overlapping_start(measure, (start, end), (unit_start, unit_end), chunking)
        end = unit_end
    yield start, end


def _overlapping_start(measure: _Measure, previous: tuple[int, int], unit: tuple[int, int], chunking: Chunking) -> int:
    """Where the passage that begins with `unit` starts, so that it repeats the end of the `previous` one.

    The first sentence start within the overlap, else the first word start, else (no spaces) the first token.
    """
    start, end = previous
    if not chunking.overlap_tokens:
        return unit[0]
    earliest = measure.token_at(end) - chunking.overlap_tokens
    if not 0 <= earliest < len(measure.starts):
        return unit[0]
    position = max(int(measure.starts[earliest]), start + 1)
    window = max(position - _SENTENCE_CONTEXT, start)
    later = (int(sentence) + window for sentence in sentence_spans(measure.text[window:end])[:, 0])
    found = next((sentence for sentence in later if sentence >= position), None)
    if found is None:
        space = _SPACE.search(measure.text, position - 1, end)
        found = space.end() if space else grapheme_cut(measure.text, position, after=start)
    if found >= end or measure.cost(found, unit[1]) > chunking.max_tokens:
        return unit[0]
    return found
