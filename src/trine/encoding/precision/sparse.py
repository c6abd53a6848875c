"""Sparse rows in fewer bytes: fewer terms, narrower ids, weights of a byte.

Shapes: N texts, V vocabulary, nnz terms of all texts together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision.settings import SPARSE_CODECS
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import IntArray, SparseRows

_NARROW = 1 << 16
"""Vocabularies up to this size have ids of two bytes."""


@dataclass(frozen=True, slots=True)
class CodedSparse:
    """N sparse rows in compressed form; as `SparseRows`, and a scale per row where weights are bytes."""

    offsets: NDArray[np.int64]
    """(N + 1,)"""
    ids: NDArray[Any]
    """(nnz,) uint16 where V allows it, else int32."""
    weights: NDArray[Any]
    """(nnz,) float32, float16 or uint8."""
    scale: NDArray[np.float32] | None
    """(N,) for weights of a byte: the row's greatest weight / 255."""
    width: int
    """V"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, offsets included, but for the one offset more than there are rows."""
        scales = 0 if self.scale is None else self.scale.nbytes
        return self.offsets[1:].nbytes + self.ids.nbytes + self.weights.nbytes + scales

    def decode(self) -> SparseRows:
        """The rows with weights in float32."""
        weights = self.weights.astype(np.float32)
        if self.scale is not None:
            weights *= np.repeat(self.scale, np.diff(self.offsets))
        return SparseRows(self.offsets, self.ids.astype(np.int32), weights, self.width)

    def take(self, rows: IntArray | slice) -> CodedSparse:
        """The given rows, copied."""
        # SparseRows knows how to gather; the arrays' own types pass through it.
        part = SparseRows(self.offsets, self.ids, self.weights, self.width).take(rows)
        scale = None if self.scale is None else self.scale[rows].copy()
        return CodedSparse(part.offsets, part.ids, part.weights, scale, self.width)


def prune(rows: SparseRows, *, top: int | None = None, threshold: float = 0.0) -> SparseRows:
    """Only the `top` greatest weights of each row, and none below `threshold`; of equal weights the lower id stays."""
    keep = rows.weights >= threshold if threshold > 0 else np.ones(len(rows.ids), np.bool_)
    if top is not None:
        row_of = np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
        order = np.lexsort((rows.ids, -rows.weights, row_of))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        keep &= rank - np.repeat(rows.offsets[:-1], np.diff(rows.offsets)) < top
    counts = np.concatenate([[0], np.cumsum(keep)])
    return SparseRows(counts[rows.offsets].astype(np.int64), rows.ids[keep], rows.weights[keep], rows.width)


def encode_sparse(rows: SparseRows, name: str) -> CodedSparse:
    """Narrow ids, and weights in the form `name`.

    A byte is off by at most half the row's scale, or a whole one for a weight so small that it would vanish: a term
    that was kept stays a match.

    Args:
        rows: N rows, pruned before.
        name: "float32", "float16" or "uint8".

    Raises:
        UnknownName: no such form.
        UsageError: a weight is not finite, too great for float16, or below 0 where bytes are wanted.
    """
    if name not in SPARSE_CODECS:
        raise unknown(name, SPARSE_CODECS, kind="sparse precision")
    if not np.isfinite(rows.weights).all():
        raise UsageError("a sparse weight is not a finite number; the model is broken there")
    ids = rows.ids.astype(np.uint16 if rows.width <= _NARROW else np.int32)
    encode: Mapping[str, Any] = {"float32": _single, "float16": _half, "uint8": _bytes}
    weights, scale = encode[name](rows)
    return CodedSparse(rows.offsets, ids, weights, scale, rows.width)


def _single(rows: SparseRows) -> tuple[NDArray[Any], None]:
    return rows.weights.astype(np.float32), None


def _half(rows: SparseRows) -> tuple[NDArray[Any], None]:
    with np.errstate(over="ignore"):
        half = rows.weights.astype(np.float16)
    if not np.isfinite(half).all():
        raise UsageError(f"float16 ends at 65504, and the sparse weights reach {rows.weights.max():g}; use uint8")
    return half, None


def _bytes(rows: SparseRows) -> tuple[NDArray[Any], NDArray[np.float32]]:
    if (rows.weights < 0).any():
        raise UsageError(f"weights of a byte start at 0, and one is {rows.weights.min():g}; use float16")
    lengths = np.diff(rows.offsets)
    peaks = np.zeros(len(rows), np.float64)
    full = np.flatnonzero(lengths)
    if len(full):
        peaks[full] = np.maximum.reduceat(rows.weights, rows.offsets[:-1][full])
    scale = (peaks / 255).astype(np.float32)
    each = np.repeat(np.where(scale > 0, scale, 1).astype(np.float64), lengths)
    codes = np.clip(np.rint(rows.weights / each), 0, 255)
    codes[(codes == 0) & (rows.weights > 0)] = 1
    return codes.astype(np.uint8), scale
