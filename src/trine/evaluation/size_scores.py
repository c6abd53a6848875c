"""Scores of compressed passages: each representation once per precision, whatever it is later combined with.

Dense and sparse search all passages and find candidates; multi-vectors score what any of those searches found, and
are compressed block by block, so that memory holds one block of them decoded. A combination then fuses what its own
parts found, as `trine.search` does.

Shapes: Q queries, N passages, C candidates of one query, M representations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision import Compressed, Precision, fit
from trine.encoding.precision.pooling import pool_vectors
from trine.encoding.precision.rescoring import search_binary
from trine.encoding.precision.rows import score_rows
from trine.index.selection import best
from trine.scoring import score_mode
from trine.search.fusion import DEFAULT_FUSION, fuse
from trine.types import MODES, Embeddings, Mode, PackedRows

Matrix = NDArray[np.float32]
Ids = NDArray[np.int64]

DEPTH = 100
"""Candidates of each search, as `Collection.search` has it."""
BINARY_CANDIDATES = 400
"""Passages that a binary search hands on to be scored again: four times as many as are wanted of it."""
FITTED = 2000
"""Passages that codecs of one vector each are calibrated on."""
FITTED_VECTORS = 128
"""Passages whose multi-vectors codecs are calibrated on: some ten thousand vectors."""
_BLOCK = 64
"""Passages whose multi-vectors are decoded at a time."""


@dataclass(frozen=True, slots=True)
class PartScores:
    """One representation at one precision."""

    precision: Precision
    scores: Matrix
    """(Q, N) of dense or sparse; of multi-vectors (pairs,), in the order of `Pool`."""
    tops: Sequence[Ids]
    """The best of each query, ascending; none of multi-vectors."""
    nbytes: int
    """Of N passages."""
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Everything that any search found."""

    ids: Ids
    """(pairs,) passages of all queries, ascending within a query."""
    offsets: Ids
    """(Q + 1,)"""

    @staticmethod
    def of(parts: Sequence[PartScores], queries: int) -> Pool:
        """The union of what searches found, query by query."""
        rows = [np.unique(np.concatenate([part.tops[number] for part in parts])) for number in range(queries)]
        return Pool(np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64))


def search_part(precision: Precision, queries: Embeddings, passages: Embeddings) -> PartScores:
    """Search all passages by dense or sparse at the given precision of that one representation."""
    (mode,) = precision.modes
    compressor = fit(precision, passages.take(_fitting(len(passages), FITTED)).only([mode]))
    compressed = compressor.encode(passages.only([mode]))
    asked = compressor.queries(queries)
    if mode == "dense":
        scores, tops = _dense(compressed, asked)
    else:
        scores = score_mode(asked, compressed.decode(), mode)
        tops = [np.sort(row[scores[number, row] != 0]) for number, row in enumerate(_bests(scores))]
    return PartScores(precision, scores, tops, compressed.nbytes[mode], compressor.shared_bytes)


def scan_vectors(queries: Embeddings, passages: Embeddings) -> PartScores:
    """Search all passages by multi-vectors as they are, for a model that has nothing else to find candidates with."""
    scores = np.concatenate(
        [score_mode(queries, part, "multi_vector") for part in passages.only(["multi_vector"]).split(_BLOCK)], axis=1
    )
    tops = [np.sort(row) for row in _bests(scores)]
    return PartScores(Precision.full(["multi_vector"]), scores, tops, 0, 0)


def score_vectors(
    precisions: Sequence[Precision],
    queries: Embeddings,
    passages: Embeddings,
    pool: Pool,
    *,
    advance: Callable[[int], None] = lambda count: None,
) -> list[PartScores]:
    """Multi-vector scores of the pool at several precisions; passages are pooled once for all that pool alike."""
    asked = queries.multi_vector
    assert asked is not None
    assert passages.multi_vector is not None
    factors = {precision.pool for precision in precisions}
    sample = passages.multi_vector.take(_fitting(len(passages), FITTED_VECTORS))
    samples = {factor: Embeddings(multi_vector=pool_vectors(sample, factor)) for factor in factors}
    # Pooled by now, once for all; the codecs see what is left.
    fitted = [fit(replace(precision, pool=1), samples[precision.pool]) for precision in precisions]
    scores = np.zeros((len(precisions), len(pool.ids)), np.float32)
    sizes = np.zeros(len(precisions), np.int64)
    wanted = _pairs_by_passage(pool, len(passages))
    for start in range(0, len(passages), _BLOCK):
        block = passages.multi_vector.take(slice(start, min(start + _BLOCK, len(passages))))
        pooled = {factor: Embeddings(multi_vector=pool_vectors(block, factor)) for factor in factors}
        for number, (precision, compressor) in enumerate(zip(precisions, fitted, strict=True)):
            compressed = compressor.encode(pooled[precision.pool])
            sizes[number] += compressed.nbytes["multi_vector"]
            decoded = compressed.decode().multi_vector
            assert decoded is not None
            for row in range(len(block)):
                pairs, asking = wanted[start + row]
                if len(pairs):
                    scores[number, pairs] = _max_sim(asked.take(asking), decoded.row(row))
        advance(len(block))
    return [
        PartScores(precision, scores[number], [], int(sizes[number]), compressor.shared_bytes)
        for number, (precision, compressor) in enumerate(zip(precisions, fitted, strict=True))
    ]


def rankings(
    parts: Mapping[Mode, PartScores], pool: Pool, finders: Sequence[PartScores], *, k: int
) -> Iterator[tuple[Ids, NDArray[np.float64]]]:
    """For each query the `k` best of what `finders` found, by the fused scores of all parts; equal ones by number."""
    modes = [mode for mode in MODES if mode in parts]
    for number in range(len(pool.offsets) - 1):
        found_C = np.unique(np.concatenate([finder.tops[number] for finder in finders]))
        if not len(found_C):
            yield found_C, np.zeros(0)
            continue
        columns = [_column(parts[mode], mode, number, found_C, pool) for mode in modes]
        matrix_CM = np.stack(columns, axis=1).astype(np.float64)
        fused_C = matrix_CM[:, 0] if len(modes) == 1 else fuse(matrix_CM, modes, fusion=DEFAULT_FUSION)
        order = np.lexsort((found_C, -fused_C))[:k]
        yield found_C[order], fused_C[order]


def _column(part: PartScores, mode: Mode, number: int, found_C: Ids, pool: Pool) -> Matrix:
    if mode == "multi_vector":
        start, end = pool.offsets[number], pool.offsets[number + 1]
        scores_C: Matrix = part.scores[start + np.searchsorted(pool.ids[start:end], found_C)]
        return scores_C
    scores_C = part.scores[number, found_C]
    return scores_C


def _dense(compressed: Compressed, queries: Embeddings) -> tuple[Matrix, list[Ids]]:
    codec, coded = compressed.compressor.dense, compressed.dense
    assert codec is not None
    assert coded is not None
    assert queries.dense is not None
    if compressed.compressor.precision.dense != "binary":
        scores = score_rows(codec, queries.dense, coded)
        return scores, [np.sort(row) for row in _bests(scores)]
    second = (codec, coded)
    if compressed.compressor.rescore is not None and compressed.rescore is not None:
        second = (compressed.compressor.rescore, compressed.rescore)
    found = search_binary(queries.dense, coded, second=second, candidates=BINARY_CANDIDATES)
    return score_rows(second[0], queries.dense, second[1]), [np.sort(row) for row in found.positions[:, :DEPTH]]


def _bests(scores: Matrix) -> list[Ids]:
    return [best(row, DEPTH) for row in scores]


def _fitting(count: int, most: int) -> Ids:
    """Passages to calibrate on, spread evenly over all."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def _pairs_by_passage(pool: Pool, count: int) -> list[tuple[Ids, Ids]]:
    """Of each passage the places in the pool where it stands, and the queries that found it."""
    query_of = np.repeat(np.arange(len(pool.offsets) - 1), np.diff(pool.offsets))
    order = np.argsort(pool.ids, kind="stable")
    borders = np.searchsorted(pool.ids[order], np.arange(count + 1))
    rows = [order[borders[number] : borders[number + 1]] for number in range(count)]
    return [(row, query_of[row]) for row in rows]


def _max_sim(queries: PackedRows, passage_Td: Matrix | NDArray[np.floating]) -> Matrix:
    """(Q,) scores of one passage."""
    return score_mode(
        Embeddings(multi_vector=queries),
        Embeddings(multi_vector=PackedRows(passage_Td, np.array([0, len(passage_Td)]))),
        "multi_vector",
    )[:, 0]
