"""BM25 over integer term ids: the baseline that needs no model, and a partner in fusion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.index.base import Ranking
from trine.index.checks import allowed_rows, check_batch
from trine.index.postings import Postings
from trine.index.rows import RowLog, Rows
from trine.index.selection import best_matches
from trine.types import Embeddings, SparseRows

_WIDTH = 2**31
"""Term ids are int32."""


class Vocabulary:
    """Terms numbered in the order they were first seen; grows, never forgets."""

    def __init__(self, terms: Iterable[str] = ()) -> None:
        """`terms` in the order of their ids, as `terms()` of an earlier vocabulary lists them."""
        self._terms = list(terms)
        self._ids = {term: number for number, term in enumerate(self._terms)}
        if len(self._ids) < len(self._terms):
            twice = Counter(self._terms).most_common(1)[0][0]
            raise UsageError(f"the term {twice!r} occurs more than once in a vocabulary")

    def __len__(self) -> int:
        return len(self._terms)

    def terms(self, start: int = 0) -> list[str]:
        """The terms with ids from `start` on: what is new since the vocabulary had that length."""
        return self._terms[start:]

    def encode(self, texts: Iterable[Sequence[str]], *, grow: bool) -> SparseRows:
        """Count the terms of each text.

        Args:
            texts: the terms of N texts, as an analyser gives them.
            grow: take up new terms (passages), or leave them out (queries).

        Returns:
            (N, len(self)) term counts.
        """
        rows = [self._count(terms, grow=grow) for terms in texts]
        return SparseRows.from_rows(rows, width=len(self))

    def _count(self, terms: Sequence[str], *, grow: bool) -> dict[int, int]:
        counts: dict[int, int] = {}
        for term, count in Counter(terms).items():
            number = self._ids.get(term)
            if number is None:
                if not grow:
                    continue
                number = self._ids[term] = len(self._terms)
                self._terms.append(term)
            counts[number] = count
        return counts


class Bm25Index:
    """Ranks texts by the terms they share with a query, in memory.

    The score of a text is the sum over query terms, each as often as the query holds it, of
    ``idf * tf / (tf + k1 * (1 - b + b * length / average_length))`` with ``idf = ln(1 + (N - df + .5) / (df + .5))``:
    Lucene's form, without the constant factor k1 + 1 and with exact lengths (Kamphuis et al., "Which BM25 Do You
    Mean?", ECIR 2020, table 1, there "Lucene (accurate)"; Robertson and Zaragoza, "The Probabilistic Relevance
    Framework", 2009).

    k1 = 0.9 is Anserini's; b lies between Anserini's 0.4 and Lucene's 0.75. On six Korean and English test sets
    (`benchmarks/bm25.py`) this setting is within .025 nDCG@10 of the best of six on each; the best b rises with the
    length of the texts.

    N, df and the average length are those of the texts held at the time of the search, as if the index were built
    anew; a text without terms counts for none of them.
    """

    def __init__(self, *, k1: float = 0.9, b: float = 0.6) -> None:
        """`k1` >= 0 says how soon more of the same term stops counting, `b` in 0..1 how much long texts lose."""
        if k1 < 0 or not 0 <= b <= 1:
            raise UsageError(f"k1 is {k1} and b is {b}; k1 must be at least 0 and b from 0 to 1")
        self.k1 = k1
        self.b = b
        self._log = RowLog(Embeddings(sparse=SparseRows.from_rows([], width=_WIDTH)))
        self._last: _Weighted | None = None

    def __len__(self) -> int:
        return len(self._log.read().ids)

    def ids(self) -> NDArray[np.int64]:
        """All ids held, ascending."""
        return self._log.read().ids.copy()

    def add(self, ids: NDArray[np.int64], counts: SparseRows) -> None:
        """Insert or replace texts, given as term counts (`Vocabulary.encode`)."""
        embeddings = Embeddings(sparse=counts)
        numbers = check_batch(ids, embeddings, dimensions={"sparse": _WIDTH}, modes=("sparse",))
        if len(counts.weights) and counts.weights.min() < 0:
            raise UsageError(f"a term count is {counts.weights.min()}; counts cannot be negative")
        self._log.add(numbers, embeddings)

    def delete(self, ids: NDArray[np.int64]) -> None:
        """Remove; ids that are not held are ignored."""
        self._log.delete(ids)

    def search(self, queries: SparseRows, *, k: int, allowed: NDArray[np.int64] | None = None) -> Ranking:
        """The `k` best of all texts, or of `allowed`, per query; only texts that share a term are found."""
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        weighted = self._weighted()
        ids = weighted.source.ids
        rows = allowed_rows(ids, allowed)
        found = (weighted.postings.scores(*queries.row(number)) for number in range(len(queries)))
        return Ranking.from_rows([best_matches(scores, k, ids=ids, rows=rows) for scores in found])

    def scores(self, queries: SparseRows, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, P) scores of the P given texts, in the order given; an id that is not held scores 0."""
        weighted = self._weighted()
        held = weighted.source.ids
        wanted = np.asarray(ids, np.int64)
        where = np.searchsorted(held, wanted)
        inside = where < len(held)
        inside[inside] = held[where[inside]] == wanted[inside]
        result = np.zeros((len(queries), len(wanted)), np.float32)
        for number in range(len(queries)):
            result[number, inside] = weighted.postings.scores(*queries.row(number))[where[inside]]
        return result

    def _weighted(self) -> _Weighted:
        """What the searches sum up, worked out again only after a write."""
        source, last = self._log.read(), self._last
        if last is None or last.source is not source:
            self._last = last = _weigh(source, k1=self.k1, b=self.b)
        return last


@dataclass(frozen=True, slots=True)
class _Weighted:
    """Each term's share of a text's score, and the rows it was computed from."""

    source: Rows
    postings: Postings


def _weigh(source: Rows, *, k1: float, b: float) -> _Weighted:
    counts = source.embeddings.sparse
    if counts is None:
        raise UsageError("BM25 needs term counts")
    postings = Postings.of(counts)
    # Counts are whole numbers, so these sums are exact, whatever order the texts came in.
    lengths = np.bincount(postings.rows, postings.weights, minlength=postings.size)
    filled = np.count_nonzero(lengths)
    norms = k1 * (1 - b + b * lengths * filled / max(lengths.sum(), 1.0))
    frequencies = np.diff(postings.bounds)
    idf = np.log1p((filled - frequencies + 0.5) / (frequencies + 0.5))
    count = postings.weights.astype(np.float64)
    shares = np.repeat(idf, frequencies) * count / (count + norms[postings.rows])
    return _Weighted(source, replace(postings, weights=shares.astype(np.float32)))
