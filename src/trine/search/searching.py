"""Queries in, hits out, all within one state of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from trine.search.filters import Condition
from trine.search.plan import Found, Plan
from trine.search.retrieve import Sources, retrieve
from trine.search.settings import Models, Settings
from trine.search.store import Store
from trine.search.views import Bm25View, IndexView
from trine.types import Embeddings, Hit, Mode, SparseRows

_Ids = NDArray[np.int64]


class Searcher:
    """Searches a store through its derived indexes."""

    def __init__(self, store: Store, settings: Settings, models: Models, *, index: IndexView) -> None:
        """`index` is the view of this very store."""
        self._store, self._settings, self._models, self._index = store, settings, models, index
        self._bm25 = Bm25View(store)

    def embed(self, queries: Sequence[str], plan: Plan) -> Embeddings:
        """What `search` needs of the queries; by any number of threads."""
        modes = list(self._dimensions(plan))
        if modes == ["multi_vector"] and "dense" in self._settings.dimensions:
            # It re-ranks what dense finds.
            modes = ["dense", "multi_vector"]
        return self._models.encoder().encode(queries, kind="query", modes=modes) if modes else Embeddings()

    def search(
        self, queries: Sequence[str], embeddings: Embeddings, plan: Plan, conditions: Sequence[Condition]
    ) -> list[list[Hit]]:
        """The hits of each query, best first; by one thread at a time."""
        with self._store.snapshot():
            allowed = self._store.matching(conditions) if conditions else None
            terms = self._counted(queries) if "bm25" in plan.retrievers else None
            sources = Sources(
                index=self._index,
                fetch=partial(self._store.embeddings, dimensions=self._dimensions(plan)),
                bm25=None if terms is None else self._bm25.synchronised(),
            )
            found = retrieve(embeddings, terms, sources, retrievers=plan.retrievers, depth=plan.depth, allowed=allowed)
            results = []
            for number, candidates in enumerate(found):
                best, row = plan.rank(candidates), slice(number, number + 1)
                sparse = embeddings.sparse.take(row) if embeddings.sparse is not None else None
                results.append(self._hits(best, self._matched(best, sparse, terms and terms.take(row))))
            return results

    def _dimensions(self, plan: Plan) -> dict[Mode, int]:
        return {mode: width for mode, width in self._settings.dimensions.items() if mode in plan.retrievers}

    def _counted(self, queries: Sequence[str]) -> SparseRows:
        """Term counts of the queries; a term that no passage ever had is left out."""
        analyzer = self._models.analyzer(self._store.analyzer_fingerprint())
        counts = [Counter(analyzer.terms(query)) for query in queries]
        numbers = self._store.term_ids({term for row in counts for term in row})
        rows = ({numbers[term]: float(n) for term, n in row.items() if term in numbers} for row in counts)
        return SparseRows.from_rows(rows, width=self._store.vocabulary_size())

    def _hits(self, best: Sequence[Found], terms: Sequence[Mapping[str, float]]) -> list[Hit]:
        stored = self._store.passages(found.id for found in best)
        return [
            Hit(
                rank=rank,
                passage_id=found.id,
                passage=stored[found.id].passage,
                score=found.score,
                scores=found.scores,
                metadata=stored[found.id].metadata,
                terms=matched,
            )
            for rank, (found, matched) in enumerate(zip(best, terms, strict=True), start=1)
        ]

    def _matched(
        self, best: Sequence[Found], sparse: SparseRows | None, terms: SparseRows | None
    ) -> list[dict[str, float]]:
        """Terms of one query that each of the best shares, with their part of the sparse, or else the bm25 score."""
        ids = np.array([found.id for found in best], np.int64)
        if sparse is not None and len(best):
            shares = self._sparse_shares(sparse, ids)
            labels = self._models.encoder().token_labels
        elif terms is not None and len(best):
            shares = self._bm25_shares(terms, ids)
            labels = self._store.term_labels
        else:
            return [{} for _ in best]
        return [_labelled(row, labels) for row in shares]

    def _sparse_shares(self, query: SparseRows, ids: _Ids) -> list[dict[int, float]]:
        ascending = np.sort(ids)
        passages = self._store.embeddings(ascending, dimensions={"sparse": query.width}).sparse
        assert passages is not None
        weights = dict(zip(*(part.tolist() for part in query.row(0)), strict=True))
        results = []
        for place in np.searchsorted(ascending, ids):
            pairs = zip(*(part.tolist() for part in passages.row(place)), strict=True)
            results.append({term: weight * weights[term] for term, weight in pairs if term in weights})
        return results

    def _bm25_shares(self, query: SparseRows, ids: _Ids) -> list[dict[int, float]]:
        """The score is a sum over terms, so that each term searched alone gives its share."""
        terms, counts = query.row(0)
        single = SparseRows(np.arange(len(terms) + 1), terms, counts, query.width)
        shares_TC = self._bm25.synchronised().scores(single, ids)
        return [dict(zip(terms.tolist(), column.tolist(), strict=True)) for column in shares_TC.T]


def _labelled(shares: Mapping[int, float], labels: Callable[[Iterable[int]], list[str]]) -> dict[str, float]:
    """Shares other than 0 under printable names, highest first; tokens that print alike are added up."""
    present = {term: share for term, share in shares.items() if share}
    named: Counter[str] = Counter()
    for label, share in zip(labels(present), present.values(), strict=True):
        named[label] += share  # type: ignore[assignment]
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))
