"""Re-order what retrieval found by a model that reads query and passage together.

Source: BGE-M3, arXiv 2402.03216, puts a cross-encoder on top of the fused list; the scheme is that of Nogueira and Cho,
arXiv 1901.04085, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.search.plan import Plan
from trine.types import Hit

RERANKER = "reranker"
"""The key of its score in `Hit.scores`."""

DEFAULT_DEPTH = 50


class Scorer(Protocol):
    """What search needs of a reranker; `trine.Reranker` is one."""

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """The relevance of each (query, passage), higher is better."""
        ...


@dataclass(frozen=True, slots=True)
class Reranking:
    """A scorer and how many of the candidates it reads; without one nothing is re-ordered."""

    scorer: Scorer | None = None
    depth: int = 0
    """Candidates of a query that are scored."""

    @staticmethod
    def of(scorer: Scorer | None, *, depth: int | None) -> Reranking:
        """Fill in the depth.

        Raises:
            UsageError: a depth under 1, or one that has no effect; something that cannot score.
        """
        if scorer is None:
            if depth is not None:
                raise UsageError(f"rerank_depth={depth} has no effect without rerank=; leave it out or give a reranker")
            return Reranking()
        if not callable(getattr(scorer, "score", None)):
            raise UsageError(f"rerank must be a reranker, such as trine.Reranker.load(...); got {scorer!r:.80}")
        if depth is not None and depth < 1:
            raise UsageError(f"rerank_depth is {depth}; it must be at least 1")
        return Reranking(scorer, depth or DEFAULT_DEPTH)

    def widened(self, plan: Plan) -> Plan:
        """The plan, with enough candidates to choose from."""
        k = max(plan.k, self.depth)
        return replace(plan, k=k, depth=max(plan.depth, k))

    def apply(self, queries: Sequence[str], results: Sequence[list[Hit]], *, k: int) -> list[list[Hit]]:
        """The best `k` of each query's hits; the pairs of all queries are scored together.

        Of hits past the depth, which were not scored, the order stays, and they follow the others: their score is as
        far below the lowest of the reranker's as their fused score was below the last one scored.
        """
        if self.scorer is None:
            return [hits[:k] for hits in results]
        pairs = [
            (query, hit.passage.content)
            for query, hits in zip(queries, results, strict=True)
            for hit in hits[: self.depth]
        ]
        scores = self._scores(pairs)
        reordered, start = [], 0
        for hits in results:
            end = start + min(len(hits), self.depth)
            reordered.append(_reordered(hits, scores[start:end])[:k])
            start = end
        return reordered

    def _scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        if not pairs:
            return []
        assert self.scorer is not None
        scores = np.asarray(self.scorer.score(pairs), np.float64)
        if scores.shape != (len(pairs),) or not np.isfinite(scores).all():
            raise UsageError(
                f"the reranker gave scores of shape {scores.shape} for {len(pairs)} passages, "
                f"{int(np.isfinite(scores).sum())} of them finite; one finite score each is wanted"
            )
        result: list[float] = scores.tolist()
        return result


def _reordered(hits: Sequence[Hit], scores: Sequence[float]) -> list[Hit]:
    order = sorted(range(len(scores)), key=lambda place: -scores[place])  # stable: equal scores keep the fused order
    result = [
        replace(hits[place], score=scores[place], scores={**hits[place].scores, RERANKER: scores[place]})
        for place in order
    ]
    rest = hits[len(scores) :]
    if rest:
        shift = min(scores) - hits[len(scores) - 1].score
        result += [replace(hit, score=hit.score + shift) for hit in rest]
    return [replace(hit, rank=rank) for rank, hit in enumerate(result, start=1)]
