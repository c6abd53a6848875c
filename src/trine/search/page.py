"""Search results and explanations as HTML: one file that needs nothing but itself, for any browser, without network.

All text comes from documents and queries, so all of it is escaped; a content policy keeps out even what would slip by.
"""

from __future__ import annotations

import base64
import hashlib
import html
import importlib.resources
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from trine.search.explain import (
    AlignedWord,
    Alignment,
    Explanation,
    Highlight,
    Marks,
    Span,
    TermMatch,
    Words,
    printable,
    word_contributions,
)
from trine.types import Hit

LABELS = {"dense": "dense", "sparse": "sparse", "multi_vector": "multi-vector", "bm25": "BM25", "reranker": "reranker"}
"""How retrievers and the reranker are called on a page; also the order in which they are shown."""

_FILES = importlib.resources.files("trine.search")
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
_BLANK_LINES = re.compile(r"\n\s*\n\s*")
_HANGUL = re.compile("[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]")
_LONG_TEXT = 700
"""Characters beyond which a passage is folded on the results page."""


def search_page(
    query: str,
    hits: Sequence[Hit],
    *,
    marks: Sequence[Marks],
    facts: Mapping[str, object],
    notes: Iterable[str] = (),
) -> str:
    """The hits of one query.

    Args:
        query: what was searched for.
        hits: what was found, best first.
        marks: what to highlight in each hit, see `trine.search.explain.Highlighter`.
        facts: shown below the query: collection, model, fusion, ...
        notes: warnings, such as that a model is not trained.
    """
    names = [name for name in LABELS if any(name in hit.scores for hit in hits)]
    tops = {name: max(hit.scores.get(name, 0.0) for hit in hits) for name in names}
    cards = "\n".join(_card(hit, mark, tops) for hit, mark in zip(hits, marks, strict=True))
    body = f"<ol class=hits id=hits>{cards}</ol>" if hits else "<p class=empty>Nothing was found.</p>"
    order = _order(names) if len(hits) > 1 else ""
    return _page(query, "Search", _head(query, facts, notes) + order, body)


def explanation_page(explanation: Explanation, *, facts: Mapping[str, object], notes: Iterable[str] = ()) -> str:
    """How one text scores for one query, word by word.

    Args:
        explanation: see `trine.search.explain.explain`.
        facts: shown below the query: source, model, ...
        notes: warnings, such as that a model is not trained.
    """
    parts = [_sum(explanation)]
    if explanation.alignment is not None:
        parts.append(_alignment(explanation.alignment))
    else:
        text = f"<p class=passage {_language(explanation.text)}>{_text(explanation.text)}</p>"
        parts.append(f"<section><h2>Text</h2>{text}</section>")
    if explanation.terms is not None:
        parts.append(_terms(explanation.terms, explanation.query))
    return _page(explanation.query, "Explanation", _head(explanation.query, facts, notes), "\n".join(parts))


# Results


def _card(hit: Hit, marks: Marks, tops: Mapping[str, float]) -> str:
    passage = hit.passage
    long = " long" if len(passage.text) > _LONG_TEXT else ""
    more = "<button type=button class=more aria-expanded=false>Show all</button>" if long else ""
    crumbs, title = _title(passage.title or passage.document_id, marks.title)
    data = {"fused": hit.score, **{name: hit.scores[name] for name in LABELS if name in hit.scores}}
    values = "".join(f' data-{name}="{value:.9g}"' for name, value in data.items())
    return (
        f"<li class=hit tabindex=-1 data-rank={hit.rank}{values}>"
        f'<div class=rank aria-label="rank {hit.rank}">{hit.rank}</div><article>'
        f"{crumbs}<header><h2 {_language(title)}>{title}</h2>"
        f'<data class=score value="{hit.score:.9g}">{_number(hit.score)}</data></header>'
        f"<p class=source>{_source(hit)}</p>"
        f'<p class="passage{long}" dir=auto {_language(passage.text)}>{_marked(passage.text, marks.text)}</p>{more}'
        f"<dl class=bars>{''.join(_bar(name, hit.scores.get(name), tops[name]) for name in tops)}</dl>"
        "</article></li>"
    )


def _title(title: str, marks: Sequence[Highlight]) -> tuple[str, str]:
    """The headings above the last one, small, and the last one."""
    cut = title.rfind(" > ")
    if cut < 0:
        return "", _marked(title, marks)
    start = cut + len(" > ")
    below = [Highlight(mark.start - start, mark.end - start, mark.weight) for mark in marks if mark.start >= start]
    above = _marked(title[:cut], [mark for mark in marks if mark.end <= cut])
    return f"<p class=crumbs {_language(title[:cut])}>{above}</p>", _marked(title[start:], below)


def _source(hit: Hit) -> str:
    shown = {"path", "title", "type"}
    chips = "".join(
        f"<span class=chip>{_text(key)} <b>{_text(value)}</b></span>"
        for key, value in hit.metadata.items()
        if key not in shown and value is not None and len(str(value)) <= 60
    )
    return f"<code>{_text(hit.passage.document_id)}:{hit.passage.line}</code>{chips}"


def _bar(name: str, score: float | None, top: float) -> str:
    if score is None:
        return f'<div class="{name} none"><dt>{LABELS[name]}</dt><dd>no match</dd></div>'
    width = max(min(score / top, 1.0), 0.0) if top > 0 else 0.0
    return (
        f'<div class="{name}" style="--w:{width:.3f}"><dt>{LABELS[name]}</dt><dd>{_number(score)}</dd>'
        "<i aria-hidden=true></i></div>"
    )


def _order(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    keys = [("fused", "fused"), *((name, LABELS[name]) for name in names)]
    buttons = "".join(
        f'<button type=button data-key="{key}" aria-pressed={"true" if key == "fused" else "false"}>{label}</button>'
        for key, label in keys
    )
    return f'<div class=order role=group aria-label="Order by score"><span>Order by</span>{buttons}</div>'


# Explanation


def _sum(explanation: Explanation) -> str:
    parts = []
    for mode, score in explanation.scores.items():
        weight = explanation.weights[mode]
        product = f"× {weight:g} = {weight * score:.4f}"
        parts.append(_tile(LABELS[mode], f"{score:.4f}", product, mode))
    parts.append(_tile("weighted sum", f"{explanation.fused:.4f}", f"of {len(parts)}", ""))
    return f"<div class=tiles>{''.join(parts)}</div>"


def _tile(label: str, value: str, remark: str, mode: str) -> str:
    return f'<div class="tile {mode}"><span>{label}</span><b>{value}</b><small>{remark}</small></div>'


def _alignment(alignment: Alignment) -> str:
    words = alignment.words()
    places = sorted({span for word in words for span, _ in word.passages})
    number_of = {span: number for number, span in enumerate(places)}
    received: dict[Span, float] = defaultdict(float)
    for word in words:
        for span, share in word.passages:
            received[span] += share
    top_word = max((word.share for word in words), default=0.0)
    top_place = max(received.values(), default=0.0)
    return (
        "<section><h2>Which words answer which</h2>"
        "<p class=lead>Every word of the query is matched with the passage words that are most similar to it (MaxSim). "
        "Point at a word, or move with the arrow keys, to see its match; the stronger its bar, the larger its "
        "share.</p>"
        f'<div class=query role=group aria-label="Words of the query" {_language(alignment.query)}>'
        f"{_query(alignment, words, number_of, top_word)}</div>"
        f'<p class="passage aligned" id=aligned dir=auto {_language(alignment.text)}>'
        f"{_places(alignment.text, places, received, top_place)}</p></section>"
        f"<section><h2>Multi-vector score, word by word</h2>{_word_table(alignment, words, top_word)}</section>"
    )


def _query(alignment: Alignment, words: Sequence[AlignedWord], number_of: Mapping[Span, int], top: float) -> str:
    """The query's words as buttons; those without a vector as plain text."""
    by_span = {word.query: word for word in words}
    pieces, end = [], 0
    for span in sorted(span for span in by_span if span is not None):
        pieces += [_plain_words(alignment.query[end : span[0]]), _button(alignment, by_span[span], number_of, top)]
        end = span[1]
    pieces.append(_plain_words(alignment.query[end:]))
    if None in by_span:
        pieces.append(_button(alignment, by_span[None], number_of, top))
    return "".join(pieces)


def _plain_words(text: str) -> str:
    words = (_text(text[slice(*span)]) for span in Words(text).spans())
    return "".join(f'<span class=word><span class=silent title="no vector">{word}</span></span>' for word in words)


def _button(alignment: Alignment, word: AlignedWord, number_of: Mapping[Span, int], top: float) -> str:
    targets = " ".join(str(number_of[span]) for span, _ in word.passages)
    name = "special tokens" if word.query is None else alignment.query[slice(*word.query)]
    best = "a special token" if word.passage is None else alignment.text[slice(*word.passage)]
    width = max(word.share / top, 0.0) if top > 0 else 0.0
    special = " special" if word.query is None else ""
    return (
        f'<span class=word><button type=button class="token{special}" data-to="{targets}" aria-pressed=false '
        f'aria-label="{_text(name)}: best match {_text(best)}, similarity {word.similarity:.2f}" '
        f'style="--w:{width:.3f}">{_text(name)}<i aria-hidden=true></i></button></span>'
    )


def _places(text: str, places: Sequence[Span], received: Mapping[Span, float], top: float) -> str:
    pieces, end = [], 0
    for number, span in enumerate(places):
        if span[0] < end:
            continue
        heat = max(received[span] / top, 0.0) if top > 0 else 0.0
        pieces.append(_text(text[end : span[0]]))
        pieces.append(
            f'<span class=place data-place="{number}" style="--w:{heat:.3f}">{_text(text[slice(*span)])}</span>'
        )
        end = span[1]
    return "".join([*pieces, _text(text[end:])])


def _word_table(alignment: Alignment, words: Sequence[AlignedWord], top: float) -> str:
    rows = []
    for word in words:
        name = "<i>special tokens</i>" if word.query is None else _text(alignment.query[slice(*word.query)])
        found = ", ".join(_text(alignment.text[slice(*span)]) for span, _ in word.passages[:3])
        cells = [found or "<i>a special token</i>", f"{word.similarity:.3f}", f"{word.share:.4f}"]
        rows.append(_row(name, cells, _gauge(word.share, top, "multi_vector")))
    rows.append(_row("sum", ["", "", f"{alignment.score:.4f}"], ""))
    return _table(("query word", "answered by", "similarity", "share"), rows)


def _terms(terms: Sequence[TermMatch], query: str) -> str:
    words = word_contributions(terms, query)
    if not words:
        return "<section><h2>Shared terms</h2><p class=empty>The two share no term.</p></section>"
    match_of = {match.term: match for match in terms}
    rows = []
    for word in words:
        chips = " ".join(_term(match_of[term]) for term in word.terms)
        cells = [chips, f"{word.contribution:.4f}"]
        rows.append(_row(_text(word.word), cells, _gauge(word.contribution, words[0].contribution, "sparse")))
    rows.append(_row("sum", ["", f"{sum(word.contribution for word in words):.4f}"], ""))
    return (
        "<section><h2>Shared terms</h2>"
        "<p class=lead>Vocabulary entries that both texts have a weight for. Each adds the product of its two weights "
        "to the sparse score; those of one query word are taken together.</p>"
        f"{_table(('query word', 'terms', 'contribution'), rows)}</section>"
    )


def _term(match: TermMatch) -> str:
    weights = f"{match.query_weight:.3f} × {match.passage_weight:.3f} = {match.contribution:.4f}"
    return f'<span class=chip title="{weights}">{_text(printable(match.term))}</span>'


def _table(names: Sequence[str], rows: Sequence[str]) -> str:
    """The last row is the sum; a column of bars follows the named ones."""
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    return (
        f"<div class=wide><table><thead><tr>{head}<td></td></tr></thead>"
        f"<tbody>{''.join(rows[:-1])}</tbody><tfoot>{rows[-1]}</tfoot></table></div>"
    )


def _row(name: str, cells: Sequence[str], gauge: str) -> str:
    values = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><th scope=row {_language(name)}>{name}</th>{values}{gauge or '<td></td>'}</tr>"


def _gauge(value: float, top: float, name: str) -> str:
    width = max(value / top, 0.0) if top > 0 else 0.0
    return f'<td class="gauge {name}" style="--w:{width:.3f}"><i aria-hidden=true></i></td>'


# Parts of both


def _marked(text: str, marks: Sequence[Highlight]) -> str:
    pieces, end = [], 0
    for mark in marks:
        pieces.append(_text(text[end : mark.start]))
        pieces.append(f'<mark style="--w:{mark.weight:.2f}">{_text(text[mark.start : mark.end])}</mark>')
        end = mark.end
    return "".join([*pieces, _text(text[end:])])


def _head(query: str, facts: Mapping[str, object], notes: Iterable[str]) -> str:
    warnings = "".join(f"<p class=note>{_text(note)}</p>" for note in notes)
    return f"<h1 {_language(query)}>{_text(query)}</h1>{_facts(facts)}{warnings}"


def _facts(facts: Mapping[str, object]) -> str:
    rows = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in facts.items())
    return f"<dl class=facts>{rows}</dl>"


def _language(text: str) -> str:
    """Korean is broken between words only; the browser needs to be told that it is Korean."""
    return "lang=ko" if _HANGUL.search(text) else "lang=und"


def _number(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _text(value: object) -> str:
    shown = html.escape(_UNPRINTABLE.sub("\ufffd", str(value)), quote=True)
    return _BLANK_LINES.sub("<span class=gap></span>", shown)


def _page(query: str, kind: str, head: str, body: str) -> str:
    style, script = (_FILES.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    title = _text(f"{query} · {kind.lower()}")
    return _PAGE.format(title=title, kind=kind, head=head, body=body, style=style, script=script, policy=policy)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header class=top><p class=kind>{kind}</p>{head}</header>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""
