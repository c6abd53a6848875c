"""What finds candidates for hard negatives: any mode of an encoder, BM25, or their fusion, exactly, in memory.

Shapes: Q queries, P passages, C candidates of one query, M retrievers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.index import ANALYZERS
from trine.index.analysis import Analyzer, default_analyzer
from trine.index.base import Ranking
from trine.index.bm25 import Bm25Index, Vocabulary
from trine.index.postings import Postings
from trine.index.selection import best
from trine.scoring import score_mode
from trine.search.fusion import DEFAULT_FUSION, Weights, fuse, weights_for
from trine.tables import resolve
from trine.types import Embeddings, IntArray, Mode, TextEncoder

_BLOCK = 1 << 24
"""Scores held at a time: 64 MiB of float32."""
_QUERIES = 1024


class Retriever(Protocol):
    """Ranks a fixed list of passages for queries."""

    passages: Sequence[str]
    """What the ids number."""
    name: str
    """What it ranks by, for reports."""
    ratio_scale: bool
    """Whether a score of 0 means "nothing in common", so that 95 % of a score means something."""

    def search(self, queries: Sequence[str], *, k: int, include: Sequence[IntArray] | None = None) -> Ranking:
        """The `k` best passages per query, by falling score, equal ones by rising id.

        `include` names further passages for each query that come with their scores, however low they rank.
        """
        ...


class RowRetriever(Protocol):
    """A retriever that can score all passages, and so be fused."""

    passages: Sequence[str]
    name: str

    def rows(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """(P,) scores for each query; NaN where there are none, as for a lexical one without a shared term."""
        ...


class _Ranks:
    """Search by full rows of scores."""

    ratio_scale = True

    def rows(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        raise NotImplementedError

    def search(self, queries: Sequence[str], *, k: int, include: Sequence[IntArray] | None = None) -> Ranking:
        """See `Retriever.search`; a passage without a score is found only where it is included, with a score of 0."""
        wanted = _checked_include(queries, k, include)
        found = (_top(row, k, also) for row, also in zip(self.rows(queries), wanted, strict=True))
        return Ranking.from_rows(list(found))


class EncoderRetriever(_Ranks):
    """One mode of an encoder against all passages, which are encoded once.

    Dense and multi-vector score every passage; sparse finds those that share a term.
    """

    def __init__(self, encoder: TextEncoder, passages: Sequence[str], *, mode: Mode, progress: bool = False) -> None:
        if mode not in encoder.dimensions:
            raise UsageError(f"the encoder gives {sorted(encoder.dimensions)}, not {mode!r}; choose one of these")
        _check_passages(passages)
        self.passages = passages
        self.name: str = mode
        self.encoder = encoder
        self.mode: Mode = mode
        self._embeddings = encoder.encode(passages, kind="passage", modes=[mode], progress=progress)
        sparse = self._embeddings.sparse
        self._postings = Postings.of(sparse) if mode == "sparse" and sparse is not None else None

    def rows(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """(P,) scores for each query."""
        for start in range(0, len(queries), _QUERIES):
            block = self.encoder.encode(queries[start : start + _QUERIES], kind="query", modes=[self.mode])
            yield from self._scored(block)

    def _scored(self, queries: Embeddings) -> Iterator[NDArray[np.float32]]:
        if self._postings is not None and queries.sparse is not None:
            for number in range(len(queries)):
                yield _absent_where_zero(self._postings.scores(*queries.sparse.row(number)))
            return
        for block in queries.split(max(_BLOCK // len(self.passages), 1)):
            yield from score_mode(block, self._embeddings, self.mode)


class Bm25Retriever(_Ranks):
    """BM25 over the passages; needs no model."""

    def __init__(
        self, passages: Sequence[str], *, analyzer: Analyzer | str | None = None, k1: float = 0.9, b: float = 0.6
    ) -> None:
        """`analyzer` is a row of `trine.index.ANALYZERS`, an analyzer, or None for the best one installed."""
        _check_passages(passages)
        self.passages = passages
        self.name = "bm25"
        given = default_analyzer() if analyzer is None else analyzer
        self._analyzer: Analyzer = resolve(ANALYZERS, given, kind="analyzer")() if isinstance(given, str) else given
        self._vocabulary = Vocabulary()
        self._index = Bm25Index(k1=k1, b=b)
        self._ids = np.arange(len(passages))
        counts = self._vocabulary.encode((self._analyzer.terms(text) for text in passages), grow=True)
        self._index.add(self._ids, counts)

    def rows(self, queries: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """(P,) scores for each query."""
        for query in queries:
            counts = self._vocabulary.encode([self._analyzer.terms(query)], grow=False)
            yield _absent_where_zero(self._index.scores(counts, self._ids)[0])


class FusedRetriever:
    """Several retrievers over the same passages, fused as the search does it (`trine.search.fusion`).

    Each brings its `depth` best; all of them score the candidates of all.
    """

    def __init__(
        self, parts: Sequence[RowRetriever], *, fusion: str = DEFAULT_FUSION, weights: Weights = None, depth: int = 200
    ) -> None:
        """`fusion` and `weights` are those of `trine.search.fusion.fuse`; weighted sums alone keep a ratio scale."""
        if len(parts) < 2:
            raise UsageError(f"{len(parts)} retrievers cannot be fused; give at least two, or use the one alone")
        if any(list(part.passages) != list(parts[0].passages) for part in parts[1:]):
            raise UsageError("the retrievers hold different passages; build all of them from the same list")
        if depth < 1:
            raise UsageError(f"depth is {depth}; it must be at least 1")
        self._parts, self._fusion, self._weights, self._depth = tuple(parts), fusion, weights, depth
        self._names = [part.name for part in parts]
        fuse(np.zeros((1, len(parts))), self._names, fusion=fusion, weights=weights)
        self.weights_used = weights_for(self._names, fusion=fusion, weights=weights)
        self.passages = parts[0].passages
        self.name = f"{fusion}({', '.join(self._names)})"
        self.ratio_scale = fusion == "weighted"

    def search(self, queries: Sequence[str], *, k: int, include: Sequence[IntArray] | None = None) -> Ranking:
        """See `Retriever.search`; at most the candidates of all parts are ranked, `depth` of each."""
        wanted = _checked_include(queries, k, include)
        rows = zip(*(part.rows(queries) for part in self._parts), strict=True)
        return Ranking.from_rows([self._fused(row, k, also) for row, also in zip(rows, wanted, strict=True)])

    def _fused(
        self, rows: Sequence[NDArray[np.float32]], k: int, also: IntArray
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        tops = [_top(row, max(k, self._depth), np.zeros(0, np.int64))[0] for row in rows]
        candidates_C = np.unique(np.concatenate([*tops, np.asarray(also, np.int64)]))
        scores_CM = np.stack([row[candidates_C] for row in rows], axis=1)
        fused_C = fuse(scores_CM, self._names, fusion=self._fusion, weights=self._weights).astype(np.float32)
        places, scores = _top(fused_C, k, np.searchsorted(candidates_C, also))
        return candidates_C[places], scores


def _top(row: NDArray[np.float32], k: int, also: IntArray) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Positions and scores of the `k` best that have a score, and of those in `also`, by falling score."""
    present = np.flatnonzero(~np.isnan(row))
    chosen = np.union1d(present[best(row[present], k)], np.asarray(also, np.int64))
    scores = np.nan_to_num(row[chosen], nan=0.0)
    order = np.argsort(-scores, kind="stable")
    return chosen[order], scores[order]


def _absent_where_zero(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.where(scores == 0, np.float32(np.nan), scores)


def _check_passages(passages: Sequence[str]) -> None:
    if isinstance(passages, str) or not len(passages):
        raise UsageError("passages must be a list of at least one text")


def _checked_include(queries: Sequence[str], k: int, include: Sequence[IntArray] | None) -> Sequence[IntArray]:
    if k < 1:
        raise UsageError(f"k is {k}; it must be at least 1")
    if include is None:
        return [np.zeros(0, np.int64)] * len(queries)
    if len(include) != len(queries):
        raise UsageError(f"include names passages for {len(include)} queries, but there are {len(queries)}")
    return include
