"""How to search, checked before anything is computed, and how the candidates are ranked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.search.fusion import FUSIONS, RETRIEVERS, Weights, fuse, weights_for
from trine.search.retrieve import Candidates
from trine.tables import unknown


class Found(NamedTuple):
    """A candidate that made it into the best k."""

    id: int
    score: float
    scores: dict[str, float]
    """Raw score per retriever that has one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search."""

    retrievers: tuple[str, ...]
    fusion: str
    weights: Weights
    k: int
    depth: int

    @staticmethod
    def of(
        available: Sequence[str],
        *,
        retrievers: Sequence[str] | None,
        fusion: str,
        weights: Weights,
        k: int,
        depth: int,
    ) -> Plan:
        """Fill in what was left open and refuse what cannot be.

        Without `retrievers`, all `available` ones take part; in a weighted sum of raw scores only those that have a
        weight, since BM25's scale has nothing to do with that of the embeddings.

        Raises:
            UsageError: an unknown or unavailable retriever, weights that do not fit, k or depth under 1.
        """
        if k < 1 or depth < 1:
            raise UsageError(f"k is {k} and depth {depth}; both must be at least 1")
        if fusion not in FUSIONS:
            raise unknown(fusion, FUSIONS, kind="fusion")
        if isinstance(retrievers, str):
            retrievers = [retrievers]
        if isinstance(weights, Mapping):
            for name in weights:
                if name not in RETRIEVERS:
                    raise unknown(name, RETRIEVERS, kind="retriever")
        if retrievers is None:
            chosen = tuple(name for name in available if fusion != "weighted" or _weighs(name, weights))
        else:
            chosen = tuple(retrievers)
        _check(chosen, available)
        if len(chosen) == 1 and weights is not None:
            raise UsageError(f"weights have no effect with {chosen[0]!r} as the only retriever")
        if len(chosen) > 1:
            weights_for(chosen, fusion=fusion, weights=weights)
        return Plan(chosen, fusion, weights, k, max(depth, k))

    def rank(self, candidates: Candidates) -> list[Found]:
        """The best k; equal scores by rising id."""
        scores_CM = candidates.scores
        if len(self.retrievers) == 1:
            fused_C = np.nan_to_num(scores_CM[:, 0].astype(np.float64))
        else:
            fused_C = fuse(scores_CM, self.retrievers, fusion=self.fusion, weights=self.weights)
        order = np.lexsort((candidates.ids, -fused_C))[: self.k]
        return [
            Found(int(candidates.ids[place]), float(fused_C[place]), self._present(scores_CM[place])) for place in order
        ]

    def _present(self, scores_M: NDArray[np.float32]) -> dict[str, float]:
        pairs = zip(self.retrievers, scores_M.tolist(), strict=True)
        return {name: score for name, score in pairs if not math.isnan(score)}


def _check(chosen: Sequence[str], available: Sequence[str]) -> None:
    for name in chosen:
        if name not in RETRIEVERS:
            raise unknown(name, RETRIEVERS, kind="retriever")
        if name not in available:
            raise UsageError(f"this collection has no {name} embeddings; it has {', '.join(available)}")
    if not chosen or len(set(chosen)) < len(chosen):
        raise UsageError(f"name at least one retriever, and each once; got {chosen}")


def _weighs(name: str, weights: Weights) -> bool:
    """Whether a weighted sum gives `name` a weight; None and names mean the sets for the three modes."""
    return name in weights if isinstance(weights, Mapping) else name != "bm25"
