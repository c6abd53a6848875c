"""Hits on a terminal: where they are, why they are there, and the passage with its matches marked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trine.cli.output import console

if TYPE_CHECKING:
    from rich.text import Text

    from trine.search.explain import Highlight, Marks
    from trine.types import Hit

INDENT = 4
SNIPPET_CELLS = 480
"""Terminal cells of a passage that are shown; a Hangul syllable takes two."""
LEAD = 40
"""Characters shown before the first match of a cut passage."""
STRONG = 0.6
"""Weight of a mark from which it is also bold."""

_SPACE = re.compile(r"\s+")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def print_hits(hits: Sequence[Hit], marks: Sequence[Marks], *, full: bool) -> None:
    """Print hits to standard output; a passage on one line where nobody's terminal limits its length."""
    from rich.padding import Padding
    from rich.text import Text

    target = console()
    for hit, mark in zip(hits, marks, strict=True):
        passage = hit.passage
        source = f"{printable(passage.document_id)}:{passage.line}"
        target.print(
            Text.assemble((f"{hit.rank:>2}  ", "bold"), (source, "cyan"), f"  {number(hit.score)}"), soft_wrap=True
        )
        text = styled(passage.text, mark.text)
        parts = [styled(passage.title, mark.title, base="bold")] if passage.title else []
        parts.append(text if full else cut(text, cells=SNIPPET_CELLS))
        if len(hit.scores) > 1:
            parts.append(Text("  ".join(f"{name} {number(score)}" for name, score in hit.scores.items()), style="dim"))
        for part in parts:
            if target.is_terminal:
                target.print(Padding(part, (0, 0, 0, INDENT)))
            else:
                target.print(Text(" " * INDENT) + part, soft_wrap=True)
        target.print()


def styled(text: str, marks: Sequence[Highlight], *, base: str = "") -> Text:
    """The text on one line, with the marked words in another style."""
    from rich.text import Text

    result, end = Text(style=base), 0
    for mark in marks:
        result.append(_line(text[end : mark.start]))
        result.append(_line(text[mark.start : mark.end]), style="bold yellow" if mark.weight >= STRONG else "yellow")
        end = mark.end
    result.append(_line(text[end:]))
    return result


def cut(text: Text, *, cells: int) -> Text:
    """The part of the text of that width that holds most matches, between whole words, with dots where it was cut."""
    from rich.text import Text

    from trine.data.graphemes import grapheme_cut

    plain = text.plain
    if text.cell_len <= cells:
        return text
    length = max(cells * len(plain) // text.cell_len, 1)
    start = max(_best_start(text, length) - LEAD, 0)
    start = min(start, len(plain) - length)
    if start > 0:
        space = plain.find(" ", start, start + LEAD)
        start = space + 1 if space >= 0 else grapheme_cut(plain, start, after=0)
    end = min(start + length, len(plain))
    if end < len(plain):
        space = plain.rfind(" ", end - LEAD, end)
        end = space if space > start else grapheme_cut(plain, end, after=start)
    part = text[start:end]
    if start > 0:
        part = Text("… ") + part
    return part + " …" if end < len(plain) else part


def number(value: float) -> str:
    """A score in few characters."""
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def printable(text: str) -> str:
    """Text that cannot move the cursor or change colours, as control characters from a document could."""
    return _CONTROL.sub("\ufffd", text)


def _best_start(text: Text, length: int) -> int:
    """Where to begin so that most matches follow within `length` characters; strong ones count twice."""
    spans = [(span.start, 2 if "bold" in str(span.style) else 1) for span in text.spans]
    totals = [
        (sum(weight for start, weight in spans if first <= start < first + length - LEAD), -first) for first, _ in spans
    ]
    return -max(totals)[1] if totals else 0


def _line(text: str) -> str:
    return printable(_SPACE.sub(" ", text))
