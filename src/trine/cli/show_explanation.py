"""An explanation on a terminal: the scores, who answers whom, the shared terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trine.cli.output import console
from trine.cli.show_hits import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from trine.search.explain import Alignment, Explanation, Span, TermMatch

BAR = 16
"""Cells of the longest bar."""
BLOCKS = " ▏▎▍▌▋▊▉"
SHOWN_PIECES = 12
"""Terms of one word that are listed."""


def print_explanation(explanation: Explanation, facts: Mapping[str, Any], *, tokens: bool) -> None:
    """Print to standard output.

    Args:
        explanation: what to show.
        facts: where the text comes from.
        tokens: show the model's tokens and terms instead of whole words.
    """
    from rich.text import Text

    target = console()
    if "document" in facts:
        target.print(Text(f"{printable(facts['document'])}:{facts['line']}", style="cyan"), soft_wrap=True)
    parts = [f"{mode} {score:.4f} × {explanation.weights[mode]:g}" for mode, score in explanation.scores.items()]
    target.print(Text(f"{'  +  '.join(parts)}  =  {explanation.fused:.4f}"), soft_wrap=True)
    if explanation.alignment is not None:
        _print(target, "multi_vector: what answers each part of the query", _aligned(explanation.alignment, tokens))
    if explanation.terms:
        table = _terms(explanation.terms) if tokens else _term_words(explanation.terms, explanation.query)
        _print(target, "sparse: what the terms that both share contribute", table)
    elif explanation.terms is not None:
        target.print("\nsparse: the two share no term")


def bar(value: float, top: float) -> str:
    """A bar of eighths of cells."""
    eighths = round(8 * BAR * max(value, 0.0) / top) if top > 0 else 0
    return "█" * (eighths // 8) + (BLOCKS[eighths % 8] if eighths % 8 else "")


def _print(target: Console, title: str, table: Table) -> None:
    from rich.text import Text

    target.print()
    target.print(Text(title, style="bold"))
    target.print(table)


def _aligned(alignment: Alignment, tokens: bool) -> Table:
    rows: list[tuple[Span | None, Sequence[Span], float, float]]
    if tokens:
        rows = [
            (token.query, [] if token.passage is None else [token.passage], token.similarity, token.share)
            for token in alignment.tokens
        ]
    else:
        rows = [
            (word.query, [span for span, _ in word.passages[:3]], word.similarity, word.share)
            for word in alignment.words()
        ]
    top = max((share for *_, share in rows), default=0.0)
    table = _table("query", "answered by", "similarity", "share")
    for span, places, similarity, share in rows:
        name = "(special)" if span is None else printable(alignment.query[slice(*span)])
        found = ", ".join(printable(alignment.text[slice(*place)]) for place in places) or "(special)"
        table.add_row(name, found, f"{similarity:.3f}", f"{share:.4f}", bar(share, top))
    table.add_row("sum", "", "", f"{alignment.score:.4f}", "")
    return table


def _terms(terms: Sequence[TermMatch]) -> Table:
    table = _table("term", "query × passage", "contribution")
    top = terms[0].contribution
    for match in terms:
        product = f"{match.query_weight:.3f} × {match.passage_weight:.3f}"
        table.add_row(printable(match.term), product, f"{match.contribution:.4f}", bar(match.contribution, top))
    return table


def _term_words(terms: Sequence[TermMatch], query: str) -> Table:
    from trine.search.explain import printable as label
    from trine.search.explain import word_contributions

    words = word_contributions(terms, query)
    table = _table("query", "terms", "contribution")
    for word in words:
        pieces = " ".join(printable(label(term)) for term in word.terms[:SHOWN_PIECES])
        more = " …" if len(word.terms) > SHOWN_PIECES else ""
        row = (printable(word.word), pieces + more, f"{word.contribution:.4f}")
        table.add_row(*row, bar(word.contribution, words[0].contribution))
    table.add_row("sum", "", f"{sum(word.contribution for word in words):.4f}", "")
    return table


def _table(first: str, second: str, *numbers: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column(first, max_width=32, overflow="fold")
    table.add_column(second, max_width=48, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", style="magenta", no_wrap=True)
    return table
