"""Why a passage was found: which of its tokens answer which query token, which terms both share, what to highlight.

Everything is computed from an encoder and two texts. The parts add up: the shares of an alignment sum to the
multi-vector score, the contributions of the terms to the sparse score.

Shapes: S query and T passage vectors, d multi-vector dimensions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from trine.data.graphemes import starts_grapheme
from trine.index.analysis import Analyzer
from trine.scoring import score_mode, weights_of
from trine.types import MODES, Embeddings, FloatArray, Hit, Mode, TextEncoder

Span: TypeAlias = tuple[int, int]
"""Code-point start and end in a text."""

FAINT = 0.4
"""A word that carries less than this part of what the strongest word carries is not highlighted: subword pieces and
function words are shared by nearly every pair of texts."""

_UNSPACED = (
    ("\u0e00", "\u0eff"),
    ("\u1000", "\u109f"),
    ("\u1780", "\u17ff"),
    ("\u3040", "\u30ff"),
    ("\u3400", "\u9fff"),
    ("\uf900", "\ufaff"),
    ("\U00020000", "\U0003ffff"),
)
"""Thai, Lao, Burmese, Khmer, kana and Han are written without spaces: there a word is what the tokenizer says."""


@dataclass(frozen=True, slots=True)
class AlignedToken:
    """One query vector and the passage vector that it matches best."""

    query: Span | None
    """None for a special, prompt or expansion token."""
    passage: Span | None
    similarity: float
    """Inner product of the two vectors: the cosine, where they are normalised."""
    share: float
    """Part of the multi-vector score: the similarity over the number of query vectors."""


@dataclass(frozen=True, slots=True)
class AlignedWord:
    """A word of the query, its tokens taken together."""

    query: Span | None
    """None for all special tokens together."""
    passage: Span | None
    """The word of the passage that gives most of the share."""
    passages: tuple[tuple[Span, float], ...]
    """Every word of the passage that a token of this one matches best, with its share, largest first."""
    similarity: float
    """Mean over the word's tokens."""
    share: float
    """Sum over the word's tokens."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """How a multi-vector score came about."""

    query: str
    text: str
    tokens: tuple[AlignedToken, ...]
    """In the order of the query's vectors."""

    @property
    def score(self) -> float:
        """The multi-vector score: the sum of all shares."""
        return float(sum(token.share for token in self.tokens))

    def words(self) -> tuple[AlignedWord, ...]:
        """Sub-word tokens merged into words on both sides; the shares still sum to the score."""
        query_words, passage_words = Words(self.query), Words(self.text)
        groups: list[tuple[Span | None, list[AlignedToken]]] = []
        special: list[AlignedToken] = []
        for token in self.tokens:
            word = None if token.query is None else query_words.around(token.query)
            if word is None:
                special.append(token)
            elif groups and (last := groups[-1][0]) is not None and word[0] < last[1] and last[0] < word[1]:
                groups[-1] = ((min(last[0], word[0]), max(last[1], word[1])), [*groups[-1][1], token])
            else:
                groups.append((word, [token]))
        if special:
            groups.append((None, special))
        return tuple(_aligned_word(word, tokens, passage_words) for word, tokens in groups)


@dataclass(frozen=True, slots=True)
class TermMatch:
    """A vocabulary entry that query and passage share."""

    term: str
    """The vocabulary's own string, which may be a piece of a word."""
    query_weight: float
    passage_weight: float
    contribution: float
    """Part of the sparse score: the product of the weights."""
    query_spans: tuple[Span, ...]
    """Where it stands in the query; none for a term that the model added."""
    passage_spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class WordMatch:
    """The shared terms that belong to one word of the query."""

    word: str
    """As the query writes it; the vocabulary's string for a term that the model added."""
    spans: tuple[Span, ...]
    """Where the word stands in the query."""
    contribution: float
    terms: tuple[str, ...]
    """The vocabulary's strings, in the order of their first place in the query."""


@dataclass(frozen=True, slots=True)
class Highlight:
    """A word to mark in a text."""

    start: int
    end: int
    weight: float
    """Of the strongest word in the text: at most 1, at least `FAINT`."""


@dataclass(frozen=True, slots=True)
class Marks:
    """What to mark in a hit."""

    title: tuple[Highlight, ...]
    text: tuple[Highlight, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that there is to say about one query and one text."""

    query: str
    text: str
    scores: Mapping[Mode, float]
    weights: Mapping[Mode, float]
    """Those of the weighted sum."""
    fused: float
    alignment: Alignment | None
    """None for an encoder without multi-vectors."""
    terms: tuple[TermMatch, ...] | None
    """Largest contribution first; None for an encoder without sparse weights."""


def explain(encoder: TextEncoder, query: str, text: str, *, weights: str | Mapping[Mode, float] = "m3") -> Explanation:
    """Score one text for one query with every representation, and say how each score came about.

    Args:
        encoder: what embeds both.
        query: the search request.
        text: the passage as it is embedded (`Passage.content`: title line and text).
        weights: of the weighted sum, as in `trine.scoring.score`.
    """
    left, right = encoder.encode([query], kind="query"), encoder.encode([text], kind="passage")
    parts: dict[Mode, float] = {
        mode: float(score_mode(left, right, mode)[0, 0]) for mode in MODES if mode in left.modes
    }
    chosen = {mode: float(weights_of(weights).get(mode, 0.0)) for mode in parts}
    return Explanation(
        query=query,
        text=text,
        scores=parts,
        weights=chosen,
        fused=sum(chosen[mode] * value for mode, value in parts.items()),
        alignment=_align(encoder, query, text, left, right) if "multi_vector" in parts else None,
        terms=_matches(encoder, query, text, left, right) if "sparse" in parts else None,
    )


def alignment(encoder: TextEncoder, query: str, text: str) -> Alignment:
    """Match every token of the query with the token of the text that it is most similar to (MaxSim).

    Source: late interaction, ColBERT, arXiv 2004.12832, section 3.2; averaged over the query's vectors as in BGE-M3,
    arXiv 2402.03216, section 3.2.
    """
    left = encoder.encode([query], kind="query", modes=["multi_vector"])
    right = encoder.encode([text], kind="passage", modes=["multi_vector"])
    return _align(encoder, query, text, left, right)


def term_contributions(encoder: TextEncoder, query: str, text: str) -> tuple[TermMatch, ...]:
    """The vocabulary entries that both texts have a weight for, largest contribution to the sparse score first."""
    left = encoder.encode([query], kind="query", modes=["sparse"])
    right = encoder.encode([text], kind="passage", modes=["sparse"])
    return _matches(encoder, query, text, left, right)


def word_contributions(matches: Iterable[TermMatch], query: str) -> tuple[WordMatch, ...]:
    """Terms gathered into the words of the query, largest contribution first; the sum stays the same.

    A term that stands in several words gives each an equal part.
    """
    words = Words(query)
    parts: dict[str, float] = defaultdict(float)
    spans: dict[str, set[Span]] = defaultdict(set)
    terms: dict[str, dict[str, int]] = defaultdict(dict)
    for match in matches:
        places: list[Span | None] = [word for span in match.query_spans if (word := words.around(span)) is not None]
        for place in places or [None]:
            name = printable(match.term) if place is None else query[slice(*place)].casefold()
            parts[name] += match.contribution / max(len(places), 1)
            terms[name].setdefault(match.term, len(query) if place is None else match.query_spans[0][0])
            if place is not None:
                spans[name].add(place)
    found = [
        WordMatch(
            query[slice(*min(spans[name]))] if spans[name] else name,
            tuple(sorted(spans[name])),
            parts[name],
            tuple(sorted(terms[name], key=terms[name].__getitem__)),
        )
        for name in parts
    ]
    return tuple(sorted(found, key=lambda match: -match.contribution))


def highlight_spans(
    encoder: TextEncoder, query: str, text: str, *, terms: Mapping[str, float]
) -> tuple[Highlight, ...]:
    """The words of `text` that carry the shared sparse terms, in order.

    A word weighs what its terms contribute, times the part of its pieces that it has in common with the most similar
    word of the query: a vocabulary without Korean spells it in single letters, and any two words share some of those.

    Args:
        encoder: knows where in a text its vocabulary entries stand.
        query: the search request.
        text: the passage as it is embedded.
        terms: term and its contribution, as in `Hit.terms`.
    """
    pieces = _pieces(encoder.sparse_spans(text, kind="passage"), Words(text))
    asked = [set(ids) for ids in _pieces(encoder.sparse_spans(query, kind="query"), Words(query)).values()]
    ids = sorted(set().union(*pieces.values()))
    weight_of = {
        number: terms[label] for number, label in zip(ids, encoder.token_labels(ids), strict=True) if label in terms
    }
    # A term that the model added stands in no word of the query; it is a word of its own.
    added = weight_of.keys() - set().union(*asked)
    asked += [{number} for number in added]
    found = {}
    for word, held in pieces.items():
        weight = sum(weight_of.get(number, 0.0) for number in held)
        if weight > 0:
            found[word] = weight * max(len(held & other) / len(held | other) for other in asked)
    return _strongest(found)


def lexical_spans(text: str, *, terms: Mapping[str, float], analyzer: Analyzer) -> tuple[Highlight, ...]:
    """The words of `text` that hold BM25 terms, in order.

    Args:
        text: any text.
        terms: term and its contribution, as `analyzer` cuts them.
        analyzer: cuts the words of `text` as it cut the query.
    """
    found = {}
    for span in Words(text).spans():
        cut = analyzer.terms(text[slice(*span)])
        shared = [terms[term] for term in cut if term in terms]
        # Of the pairs of characters that Korean is cut into, a single one may be shared by chance.
        if shared and 3 * len(shared) >= len(cut):
            found[span] = max(shared)
    return _strongest(found)


class Highlighter:
    """Finds what to mark in the hits of one query.

    Marked are the words that carry the hit's sparse terms, or else its BM25 terms. Where the model does not cover the
    query, so that its terms mean little, and where a hit shares no term, the words of the query are looked for as
    BM25 does.
    """

    def __init__(self, query: str, *, encoder: TextEncoder | None, analyzer: Analyzer) -> None:
        """Look at the query.

        Args:
            query: the search request.
            encoder: where the hits' terms are those of sparse weights; None where they are BM25's, or there are none.
            analyzer: cuts text as BM25 does.
        """
        self._query, self._analyzer = query, analyzer
        self._encoder = encoder
        self._blind = encoder is not None and not encoder.covers(query)
        self._terms = dict.fromkeys(analyzer.terms(query), 1.0)

    def marks(self, hit: Hit) -> Marks:
        """What to mark in a hit."""
        title, text = hit.passage.title, hit.passage.text
        if self._encoder is None or self._blind or not hit.terms:
            terms = hit.terms if self._encoder is None and hit.terms else self._terms
            return Marks(*(lexical_spans(part, terms=terms, analyzer=self._analyzer) for part in (title, text)))
        marks = highlight_spans(self._encoder, self._query, hit.passage.content, terms=hit.terms)
        start = len(hit.passage.content) - len(text)
        return Marks(
            tuple(mark for mark in marks if mark.end <= len(title)),
            tuple(
                Highlight(mark.start - start, mark.end - start, mark.weight) for mark in marks if mark.start >= start
            ),
        )


def printable(term: str) -> str:
    """A vocabulary string without the marks that tokenizers use for spaces and for pieces inside a word."""
    stripped = term.removeprefix("##").lstrip("▁Ġ").removesuffix("</w>")
    return stripped or term


class Words:
    """The words of a text, for showing tokens: no character that a reader sees as one is ever cut.

    A word is a run of letters, digits and their marks; anything else stands alone. In scripts without spaces every
    character does, so that there a token is shown as the tokenizer cut it.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []
        self._word_of: list[int] = []
        joining = False
        for position, character in enumerate(text):
            if starts_grapheme(text, position):
                joins = _joins(character) or (joining and _is_inner_apostrophe(text, position))
                if not (joining and joins):
                    self._starts.append(position)
                joining = joins
            self._word_of.append(len(self._starts) - 1)
        self._starts.append(len(text))

    def around(self, span: Span) -> Span | None:
        """The smallest run of whole words that holds `span`; None where it holds only white space or nothing."""
        start, end = max(span[0], 0), min(span[1], len(self._text))
        while start < end and self._text[start].isspace():
            start += 1
        while start < end and self._text[end - 1].isspace():
            end -= 1
        if start >= end:
            return None
        return self._starts[self._word_of[start]], self._starts[self._word_of[end - 1] + 1]

    def spans(self) -> list[Span]:
        """All words, white space left out."""
        pairs = zip(self._starts, self._starts[1:], strict=False)
        return [(start, end) for start, end in pairs if not self._text[start:end].isspace()]


def _align(encoder: TextEncoder, query: str, text: str, left: Embeddings, right: Embeddings) -> Alignment:
    assert left.multi_vector is not None
    assert right.multi_vector is not None
    query_Sd, passage_Td = (np.asarray(side.multi_vector.row(0), np.float32) for side in (left, right))  # type: ignore[union-attr]
    if not len(query_Sd) or not len(passage_Td):
        return Alignment(query, text, ())
    query_spans, passage_spans = encoder.vector_spans(query, kind="query"), encoder.vector_spans(text, kind="passage")
    similarity_ST = query_Sd @ passage_Td.T
    best_S = similarity_ST.argmax(axis=1)
    return Alignment(
        query,
        text,
        tuple(
            AlignedToken(
                _span(query_spans[number]),
                _span(passage_spans[best]),
                float(similarity_ST[number, best]),
                float(similarity_ST[number, best]) / len(best_S),
            )
            for number, best in enumerate(best_S)
        ),
    )


def _aligned_word(word: Span | None, tokens: Sequence[AlignedToken], passage_words: Words) -> AlignedWord:
    shares: dict[Span, float] = defaultdict(float)
    for token in tokens:
        if token.passage is not None and (place := passage_words.around(token.passage)) is not None:
            shares[place] += token.share
    ordered = tuple(sorted(shares.items(), key=lambda item: -item[1]))
    return AlignedWord(
        query=word,
        passage=ordered[0][0] if ordered else None,
        passages=ordered,
        similarity=float(np.mean([token.similarity for token in tokens])),
        share=float(sum(token.share for token in tokens)),
    )


def _matches(encoder: TextEncoder, query: str, text: str, left: Embeddings, right: Embeddings) -> tuple[TermMatch, ...]:
    assert left.sparse is not None
    assert right.sparse is not None
    query_ids, query_weights = left.sparse.row(0)
    passage_ids, passage_weights = right.sparse.row(0)
    shared, ours, theirs = np.intersect1d(query_ids, passage_ids, assume_unique=True, return_indices=True)
    query_places = _places(encoder.sparse_spans(query, kind="query"))
    passage_places = _places(encoder.sparse_spans(text, kind="passage"))
    found = [
        TermMatch(
            label,
            float(query_weights[our]),
            float(passage_weights[their]),
            float(query_weights[our] * passage_weights[their]),
            query_places.get(int(number), ()),
            passage_places.get(int(number), ()),
        )
        for label, number, our, their in zip(encoder.token_labels(shared.tolist()), shared, ours, theirs, strict=True)
    ]
    return tuple(sorted(found, key=lambda match: -match.contribution))


def _places(spans: Iterable[tuple[int, int, int]]) -> dict[int, tuple[Span, ...]]:
    places: dict[int, tuple[Span, ...]] = defaultdict(tuple)
    for number, start, end in spans:
        places[number] += ((start, end),)
    return places


def _pieces(spans: Iterable[tuple[int, int, int]], words: Words) -> dict[Span, set[int]]:
    """The vocabulary ids that each word is made of."""
    pieces: dict[Span, set[int]] = defaultdict(set)
    for number, start, end in spans:
        if (word := words.around((start, end))) is not None:
            pieces[word].add(number)
    return pieces


def _span(pair: FloatArray | Sequence[int]) -> Span | None:
    start, end = int(pair[0]), int(pair[1])
    return None if start < 0 else (start, end)


def _strongest(weights: Mapping[Span, float]) -> tuple[Highlight, ...]:
    top = max(weights.values(), default=0.0)
    relative = {span: weight / top for span, weight in weights.items() if top > 0}
    return tuple(Highlight(*span, weight) for span, weight in sorted(relative.items()) if weight >= FAINT)


def _joins(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character == "_"
    return character.isalnum() and not any(first <= character <= last for first, last in _UNSPACED)


def _is_inner_apostrophe(text: str, position: int) -> bool:
    return text[position] in "'\u2019" and position + 1 < len(text) and _joins(text[position + 1])
