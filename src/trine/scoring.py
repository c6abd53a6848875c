"""Scores between embeddings: dense, sparse, multi-vector and their weighted sum.

Source: BGE-M3, arXiv 2402.03216, section 3.2.

Shapes: Q queries, P passages, S and T their tokens, D dense and d multi-vector dimensions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.tables import unknown
from trine.types import MODES, Embeddings, FloatArray, Mode, PackedRows, SparseRows

FloatMatrix = NDArray[np.float32]

WEIGHTS: Mapping[str, Mapping[Mode, float]] = {
    "m3": {"dense": 1.0, "sparse": 0.3, "multi_vector": 1.0},
    "m3-long": {"dense": 0.15, "sparse": 0.5, "multi_vector": 0.35},
    "m3-library": {"dense": 1 / 3, "sparse": 1 / 3, "multi_vector": 1 / 3},
}
"""Named weight sets: those of the paper's MIRACL/MKQA and MLDR tables, and FlagEmbedding's default for pairs."""

_BLOCK = 1 << 24
"""Elements of one block of intermediate scores: 64 MiB of float32."""


@dataclass(frozen=True, slots=True)
class Scores:
    """All pair scores, (Q, P) float32 each; a representation that one side lacks is None."""

    dense: FloatMatrix | None
    sparse: FloatMatrix | None
    multi_vector: FloatMatrix | None
    fused: FloatMatrix
    """Sum of the present scores times their weights."""


def score(queries: Embeddings, passages: Embeddings, *, weights: str | Mapping[Mode, float] = "m3") -> Scores:
    """Score every query against every passage with all representations that both sides hold.

    Args:
        queries: Q texts.
        passages: P texts.
        weights: a name in `WEIGHTS` or a weight per mode; a mode that is left out weighs 0.

    Raises:
        UsageError: the sides share no representation, or a mapping weighs a mode that one side lacks.
    """
    chosen = weights_of(weights)
    shared = [mode for mode in MODES if mode in queries.modes and mode in passages.modes]
    if not shared:
        raise UsageError(f"queries hold {queries.modes}, passages {passages.modes}: no representation in common")
    lacking = [] if isinstance(weights, str) else [mode for mode in chosen if chosen[mode] and mode not in shared]
    if lacking:
        raise UsageError(
            f"weights are given for {lacking}, but queries hold {queries.modes} and passages {passages.modes}; "
            "leave them out or set them to 0"
        )
    parts: dict[Mode, FloatMatrix] = {mode: score_mode(queries, passages, mode) for mode in shared}
    fused = np.zeros((len(queries), len(passages)), np.float32)
    for mode, part in parts.items():
        fused += np.float32(chosen.get(mode, 0.0)) * part
    return Scores(parts.get("dense"), parts.get("sparse"), parts.get("multi_vector"), fused)


def weights_of(weights: str | Mapping[Mode, float]) -> Mapping[Mode, float]:
    """Look up a named weight set, or check one that is given."""
    if isinstance(weights, str):
        if weights not in WEIGHTS:
            raise unknown(weights, WEIGHTS, kind="weight set")
        return WEIGHTS[weights]
    for mode, weight in weights.items():
        if mode not in MODES:
            raise unknown(mode, MODES, kind="mode")
        if not np.isfinite(weight):
            raise UsageError(f"the weight of {mode} is {weight}; it must be a finite number")
    return weights


def score_mode(queries: Embeddings, passages: Embeddings, mode: Mode) -> FloatMatrix:
    """(Q, P) scores of one representation; both sides must hold it."""
    left, right = getattr(queries, mode), getattr(passages, mode)
    if left is None or right is None:
        raise UsageError(f"{'queries' if left is None else 'passages'} hold no {mode} embeddings")
    return _SCORERS[mode](left, right)


def dense_scores(query_QD: FloatArray, passage_PD: FloatArray) -> FloatMatrix:
    """(Q, P) inner products, in float32 whatever the storage."""
    if query_QD.shape[1] != passage_PD.shape[1]:
        raise UsageError(f"queries have {query_QD.shape[1]} dense dimensions, passages {passage_PD.shape[1]}")
    product: FloatMatrix = np.asarray(query_QD, np.float32) @ np.asarray(passage_PD, np.float32).T
    return product


def sparse_scores(queries: SparseRows, passages: SparseRows) -> FloatMatrix:
    """(Q, P) sums over shared ids of the products of weights.

    The passages are turned into posting lists once; every query term then adds its list, all at once per block.
    """
    width = max(queries.width, passages.width)
    order = np.argsort(passages.ids, kind="stable")
    posting_rows = np.repeat(np.arange(len(passages)), np.diff(passages.offsets))[order]
    posting_weights = passages.weights[order]
    starts = np.concatenate([[0], np.cumsum(np.bincount(passages.ids, minlength=width))])
    lengths = (starts[1:] - starts[:-1])[queries.ids]
    row_of_term = np.repeat(np.arange(len(queries)), np.diff(queries.offsets))
    result = np.zeros((len(queries), len(passages)), np.float32)
    for first, last in _blocks(queries.offsets, lengths, limit=_BLOCK):
        terms = slice(queries.offsets[first], queries.offsets[last])
        count = lengths[terms]
        ends = np.cumsum(count)
        where = np.arange(ends[-1] if len(ends) else 0)
        where += np.repeat(starts[queries.ids[terms]] - (ends - count), count)
        cell = np.repeat(row_of_term[terms] - first, count) * len(passages) + posting_rows[where]
        value = np.repeat(queries.weights[terms], count) * posting_weights[where]
        flat = np.bincount(cell, value, minlength=(last - first) * len(passages))
        result[first:last] = flat.reshape(last - first, len(passages))
    return result


def multi_vector_scores(queries: PackedRows, passages: PackedRows) -> FloatMatrix:
    """(Q, P) mean over query vectors of the best inner product with a passage vector (MaxSim).

    Nothing is padded, so a query vector whose best match is negative keeps its negative score. A text without
    vectors scores 0.
    """
    result = np.zeros((len(queries), len(passages)), np.float32)
    query_lengths = np.diff(queries.offsets)
    full = np.flatnonzero(query_lengths)
    tokens_S = np.asarray(queries.values, np.float32)
    if not len(full) or not len(passages.values):
        return result
    if queries.values.shape[1] != passages.values.shape[1]:
        raise UsageError(
            f"queries have {queries.values.shape[1]} multi-vector dimensions, passages {passages.values.shape[1]}"
        )
    limit = max(_BLOCK // len(tokens_S), 1)
    for first, last in _blocks(passages.offsets, np.ones(len(passages.values), np.int64), limit=limit):
        lengths = np.diff(passages.offsets[first : last + 1])
        present = np.flatnonzero(lengths)
        if not len(present):
            continue
        begin = passages.offsets[first]
        block_Td = np.asarray(passages.values[begin : passages.offsets[last]], np.float32)
        best_SP = np.maximum.reduceat(tokens_S @ block_Td.T, passages.offsets[first:last][present] - begin, axis=1)
        summed_QP = np.add.reduceat(best_SP, queries.offsets[:-1][full], axis=0)
        result[np.ix_(full, first + present)] = summed_QP / query_lengths[full, None]
    return result


def _blocks(offsets: NDArray[np.int64], cost: NDArray[np.int64], *, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of rows whose elements cost at most `limit` together; a single row may cost more."""
    total = np.concatenate([[0], np.cumsum(cost)])[offsets]
    first = 0
    while first < len(offsets) - 1:
        last = int(np.searchsorted(total, total[first] + limit, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


_SCORERS: Mapping[Mode, Callable[[Any, Any], FloatMatrix]] = {
    "dense": dense_scores,
    "sparse": sparse_scores,
    "multi_vector": multi_vector_scores,
}
