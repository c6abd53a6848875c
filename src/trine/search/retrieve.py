"""Find candidates with each retriever, then score every candidate with all of them.

Fusion gets a full matrix: a passage that only one retriever found still has a score in the others, and without it a
passage just past the end of a list would count as if that retriever thought nothing of it. The scheme is that of
BGE-M3, arXiv 2402.03216, section 4: dense and sparse retrieve, multi-vector re-ranks.

Shapes: Q queries, C candidates of one query, M retrievers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.index import Ranking
from trine.scoring import score_mode
from trine.search.fusion import RETRIEVERS
from trine.tables import unknown
from trine.types import MODES, Embeddings, Mode, SparseRows


class VectorIndex(Protocol):
    """What retrieval needs of an `trine.index.Index`."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations that can be searched."""
        ...

    def search(self, queries: Embeddings, *, mode: Mode, k: int, allowed: NDArray[np.int64] | None = None) -> Ranking:
        """The `k` best per query."""
        ...


class LexicalIndex(Protocol):
    """What retrieval needs of `trine.index.bm25.Bm25Index`."""

    def search(self, queries: SparseRows, *, k: int, allowed: NDArray[np.int64] | None = None) -> Ranking:
        """The `k` best per query; only passages that share a term."""
        ...

    def scores(self, queries: SparseRows, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """(Q, P) scores of the P passages `ids`."""
        ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where candidates and their vectors come from; on disk or in memory is all the same here."""

    index: VectorIndex | None
    """Needed by every retriever but bm25."""
    fetch: Callable[[NDArray[np.int64]], Embeddings]
    """Vectors of the passages with the given ascending ids, in their order."""
    bm25: LexicalIndex | None = None


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one query found, before fusion."""

    ids: NDArray[np.int64]
    """(C,) ascending."""
    scores: NDArray[np.float32]
    """(C, M); NaN where a lexical retriever shares no term with the passage."""
    retrievers: tuple[str, ...]
    """The M columns."""


def retrieve(
    queries: Embeddings,
    query_terms: SparseRows | None,
    sources: Sources,
    *,
    retrievers: Sequence[str],
    depth: int = 100,
    allowed: NDArray[np.int64] | None = None,
) -> list[Candidates]:
    """Candidates of each query, with the exact score of every retriever for every one of them.

    Dense, sparse and bm25 each give their best `depth`. Multi-vector scores the union of theirs; where it is the only
    retriever it re-ranks dense's best `depth` (the paper takes 200), or, for queries without dense embeddings,
    scans the index.

    Args:
        queries: embeddings of Q queries, at least of the modes among `retrievers`.
        query_terms: term counts of the Q queries, for bm25.
        sources: the indexes and vectors to search.
        retrievers: names in `RETRIEVERS`.
        depth: candidates per first-stage retriever.
        allowed: ids to choose from, ascending; None for all.

    Raises:
        UsageError: an unknown retriever, or one whose queries or index are missing.
    """
    _check(queries, query_terms, sources, retrievers)
    if depth < 1:
        raise UsageError(f"depth is {depth}; at least one candidate must be looked at")
    rankings = [
        _first_stage(name, queries, query_terms, sources, depth, allowed)
        for name in _finders(retrievers, queries, sources)
    ]
    results = []
    for number in range(len(query_terms) if query_terms is not None else len(queries)):
        found = [ranking.row(number)[0] for ranking in rankings]
        ids = np.unique(np.concatenate(found)).astype(np.int64)
        terms = None if query_terms is None else query_terms.take(slice(number, number + 1))
        query = queries.take(slice(number, number + 1))
        results.append(Candidates(ids, _scores(query, terms, sources, retrievers, ids), tuple(retrievers)))
    return results


def _finders(retrievers: Sequence[str], queries: Embeddings, sources: Sources) -> list[str]:
    """The retrievers whose own search makes candidates."""
    finders = [name for name in retrievers if name != "multi_vector"]
    if finders:
        return finders
    has_dense = queries.dense is not None and sources.index is not None and "dense" in sources.index.modes
    return ["dense"] if has_dense else ["multi_vector"]


def _first_stage(
    name: str,
    queries: Embeddings,
    query_terms: SparseRows | None,
    sources: Sources,
    depth: int,
    allowed: NDArray[np.int64] | None,
) -> Ranking:
    if name == "bm25":
        assert sources.bm25 is not None
        assert query_terms is not None
        return sources.bm25.search(query_terms, k=depth, allowed=allowed)
    assert sources.index is not None
    return sources.index.search(queries, mode=_mode(name), k=depth, allowed=allowed)


def _scores(
    query: Embeddings,
    query_terms: SparseRows | None,
    sources: Sources,
    retrievers: Sequence[str],
    ids: NDArray[np.int64],
) -> NDArray[np.float32]:
    """(C, M) scores of one query for its candidates."""
    result = np.full((len(ids), len(retrievers)), np.nan, np.float32)
    if not len(ids):
        return result
    vectors = sources.fetch(ids) if any(name != "bm25" for name in retrievers) else Embeddings()
    for column, name in enumerate(retrievers):
        if name == "bm25":
            assert sources.bm25 is not None
            assert query_terms is not None
            scores = sources.bm25.scores(query_terms, ids)[0]
        else:
            scores = score_mode(query, vectors, _mode(name))[0]
        # Lexical weights are positive, so that 0 means no shared term: no score, rather than a low one.
        result[:, column] = np.where(scores == 0, np.nan, scores) if name in ("sparse", "bm25") else scores
    return result


def _mode(name: str) -> Mode:
    return next(mode for mode in MODES if mode == name)


def _check(queries: Embeddings, query_terms: SparseRows | None, sources: Sources, retrievers: Sequence[str]) -> None:
    if not retrievers:
        raise UsageError(f"no retriever given; choose among {', '.join(RETRIEVERS)}")
    if len(set(retrievers)) < len(retrievers):
        raise UsageError(f"a retriever is named twice: {tuple(retrievers)}")
    if query_terms is not None and queries.modes and len(queries) != len(query_terms):
        raise UsageError(f"{len(queries)} queries are embedded, but {len(query_terms)} have terms")
    for name in retrievers:
        if name not in RETRIEVERS:
            raise unknown(name, RETRIEVERS, kind="retriever")
        if name == "bm25" and (query_terms is None or sources.bm25 is None):
            raise UsageError("the retriever 'bm25' needs a bm25 index and the terms of the queries")
        if name != "bm25" and (name not in queries.modes or sources.index is None):
            raise UsageError(f"the retriever {name!r} needs an index and queries with {name} embeddings")
