"""Fuse the scores of several retrievers into one score per candidate.

Sources: weighted sums, BGE-M3, arXiv 2402.03216, section 3.2; reciprocal rank fusion, Cormack, Clarke and Buettcher,
SIGIR 2009, section 2; min-max and z-score sums, Bruch, Gai and Ingber, arXiv 2210.11934, section 4.

Shapes: C candidates of one query, M retrievers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.scoring import WEIGHTS
from trine.tables import unknown
from trine.types import FloatArray

RETRIEVERS: tuple[str, ...] = ("dense", "sparse", "multi_vector", "bm25")
"""Everything that can find and score passages, in the order in which scores are shown."""

DEFAULT_FUSION = "zscore"
"""Of the fusions with BM25 the best on all three sets it was tried on, rrf second (docs/LOG.md)."""

Weights: TypeAlias = str | Mapping[str, float] | None
"""A name in `trine.scoring.WEIGHTS`, a weight per retriever, or None for the fusion's own."""

_Matrix: TypeAlias = NDArray[np.float64]


def fuse(
    scores_CM: FloatArray, retrievers: Sequence[str], *, fusion: str, weights: Weights = None, rrf_k: int = 60
) -> _Matrix:
    """Make one score (C,) float64 of each candidate's M scores; higher is better.

    Args:
        scores_CM: raw scores, one column per retriever; NaN where a retriever has none for a candidate, as a lexical
            one has none without a shared term.
        retrievers: the M names of the columns.
        fusion: a name in `FUSIONS`.
        weights: see `weights_for`.
        rrf_k: the constant of reciprocal rank fusion; nothing else uses it.

    Raises:
        UsageError: an unknown fusion or retriever, or weights that do not fit the retrievers.
    """
    if fusion not in FUSIONS:
        raise unknown(fusion, FUSIONS, kind="fusion")
    if rrf_k < 0:
        raise UsageError(f"rrf_k is {rrf_k}; ranks start at 1, so it must be 0 or more (60 is the published value)")
    weights_M = weights_for(retrievers, fusion=fusion, weights=weights)
    matrix = np.asarray(scores_CM, np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != len(retrievers):
        raise UsageError(f"scores of shape {matrix.shape} do not have a column for each of {tuple(retrievers)}")
    if not len(matrix):
        return np.zeros(0)
    fused_C: _Matrix = FUSIONS[fusion](matrix, rrf_k) @ weights_M
    return fused_C


def weights_for(retrievers: Sequence[str], *, fusion: str, weights: Weights = None) -> _Matrix:
    """The weight of each retriever (M,), after checking that every weight given has an effect.

    None means the set "m3" for "weighted", whose raw scores are only commensurable with weights that were tuned for
    them, and equal weights for the fusions that normalise. Of a named set, the modes that are not searched are left
    out, as in the paper's "Dense+Sparse" rows; a mapping must name exactly the retrievers.

    Raises:
        UsageError: a retriever without a weight, a weight without a retriever, a negative one, or none above zero.
    """
    for name in retrievers:
        if name not in RETRIEVERS:
            raise unknown(name, RETRIEVERS, kind="retriever")
    if weights is None and fusion != "weighted":
        return np.ones(len(retrievers))
    chosen = _named("m3" if weights is None else weights, retrievers)
    missing = [name for name in retrievers if name not in chosen]
    if missing:
        example = {name: chosen.get(name, 1.0) for name in retrievers}
        raise UsageError(
            f"no weight for {_listed(missing)} in {dict(chosen)}; give one per retriever, for example {example}, "
            f"or leave the retriever out"
        )
    values = np.array([chosen[name] for name in retrievers], np.float64)
    if not all(math.isfinite(value) and value >= 0 for value in values) or not values.any():
        raise UsageError(f"weights must be finite, not negative and not all zero; got {dict(chosen)}")
    return values


def _named(weights: str | Mapping[str, float], retrievers: Sequence[str]) -> Mapping[str, float]:
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise unknown(weights, WEIGHTS, kind="weight set")
        return {mode: weight for mode, weight in WEIGHTS[weights].items() if mode in retrievers}
    for name in weights:
        if name not in RETRIEVERS:
            raise unknown(name, RETRIEVERS, kind="retriever")
    idle = [name for name in weights if name not in retrievers]
    if idle:
        raise UsageError(f"a weight for {_listed(idle)} has no effect: only {_listed(retrievers)} are searched")
    return weights


def _listed(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _raw(scores_CM: _Matrix, rrf_k: int) -> _Matrix:
    return np.nan_to_num(scores_CM, nan=0.0)


def _minmax(scores_CM: _Matrix, rrf_k: int) -> _Matrix:
    filled = _filled(scores_CM)
    low_M: _Matrix = filled.min(axis=0)
    return (filled - low_M) / _or_one(filled.max(axis=0) - low_M)


def _zscore(scores_CM: _Matrix, rrf_k: int) -> _Matrix:
    filled = _filled(scores_CM)
    # A constant column's deviation comes out as rounding noise instead of 0 when the mean does not round exactly.
    constant_M = filled.max(axis=0) == filled.min(axis=0)
    deviation_M = np.where(constant_M, 1.0, filled.std(axis=0))
    normalised: _Matrix = np.where(constant_M, 0.0, (filled - filled.mean(axis=0)) / _or_one(deviation_M))
    return normalised


def _rrf(scores_CM: _Matrix, rrf_k: int) -> _Matrix:
    result = np.zeros_like(scores_CM)
    for column, scores in enumerate(scores_CM.T):
        present = np.flatnonzero(~np.isnan(scores))
        falling = np.sort(-scores[present])
        # Equal scores share the best of their ranks, so that the order of the candidates does not matter.
        ranks = 1 + np.searchsorted(falling, -scores[present], side="left")
        result[present, column] = 1.0 / (rrf_k + ranks)
    return result


def _filled(scores_CM: _Matrix) -> _Matrix:
    """NaN replaced by the least score that it can stand for.

    That is the column's minimum, or 0 where all of the column is above it: 0 is what a lexical score without a shared
    term is. With the minimum alone, a single match, and with it an exact product number or name, would count nothing.
    """
    absent = np.isnan(scores_CM)
    least_M: _Matrix = np.where(absent, 0.0, scores_CM).min(axis=0)
    filled: _Matrix = np.where(absent, least_M, scores_CM)
    return filled


def _or_one(values: _Matrix) -> _Matrix:
    return np.where(values > 0, values, 1.0)


FUSIONS: Mapping[str, Callable[[_Matrix, int], _Matrix]] = {
    "rrf": _rrf,
    "weighted": _raw,
    "minmax": _minmax,
    "zscore": _zscore,
}
"""Name -> what it makes of raw scores (C, M) before they are summed with the weights."""
