"""Embeddings of passages at a `Precision`: fitted once on a sample, then as many as there are.

Shapes: N texts, D dense dimensions, T vectors of all texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision.pooling import pool_vectors
from trine.encoding.precision.rows import Coded, RowCodec, fit_rows, prefixes, shared_bytes
from trine.encoding.precision.settings import Precision
from trine.encoding.precision.sparse import CodedSparse, encode_sparse, prune
from trine.errors import UsageError
from trine.types import MODES, Embeddings, FloatArray, IntArray, Mode, PackedRows


@dataclass(frozen=True, slots=True)
class Compressor:
    """The codecs of a precision, ready to use."""

    precision: Precision
    dense: RowCodec | None
    rescore: RowCodec | None
    """Of the second copy beside bits."""
    multi_vector: RowCodec | None

    def encode(self, passages: Embeddings) -> Compressed:
        """Compress N passages.

        Raises:
            UsageError: a representation is missing, or holds what its codec cannot.
        """
        _require(passages, self.precision)
        kept, parts = self.precision, _parts(passages, self.precision)
        packed = parts.multi_vector
        return Compressed(
            self,
            dense=None if self.dense is None else self.dense.encode(_array(parts)),
            rescore=None if self.rescore is None else self.rescore.encode(_array(parts)),
            sparse=None if parts.sparse is None else encode_sparse(parts.sparse, kept.sparse or ""),
            vectors=None if packed is None or self.multi_vector is None else self.multi_vector.encode(packed.values),
            offsets=None if packed is None else packed.offsets,
        )

    def queries(self, queries: Embeddings) -> Embeddings:
        """Queries to score with what was encoded: in float, with as many dimensions, and only what is kept."""
        kept = queries.only([mode for mode in self.precision.modes if mode in queries.modes])
        if self.precision.dimensions is None or kept.dense is None:
            return kept
        return Embeddings(prefixes(kept.dense, self.precision.dimensions), kept.sparse, kept.multi_vector)

    @property
    def shared_bytes(self) -> int:
        """Bytes kept once, whatever the number of passages: ranges, centroids."""
        codecs = (self.dense, self.rescore, self.multi_vector)
        return sum(shared_bytes(codec) for codec in codecs if codec is not None)


@dataclass(frozen=True, slots=True)
class Compressed:
    """N passages in flat arrays."""

    compressor: Compressor
    dense: Coded | None
    rescore: Coded | None
    sparse: CodedSparse | None
    vectors: Coded | None
    """The multi-vectors of all passages."""
    offsets: NDArray[np.int64] | None
    """(N + 1,) where each passage's vectors begin."""

    def __len__(self) -> int:
        for part in (self.dense, self.sparse):
            if part is not None:
                return len(part)
        return 0 if self.offsets is None else len(self.offsets) - 1

    @property
    def nbytes(self) -> Mapping[Mode, int]:
        """Bytes of each representation that is kept, a row's offset included; what is kept once is not."""
        found: dict[Mode, int] = {}
        if self.dense is not None:
            found["dense"] = self.dense.nbytes + (0 if self.rescore is None else self.rescore.nbytes)
        if self.sparse is not None:
            found["sparse"] = self.sparse.nbytes
        if self.vectors is not None and self.offsets is not None:
            found["multi_vector"] = self.vectors.nbytes + self.offsets[1:].nbytes
        return found

    def decode(self) -> Embeddings:
        """What is left of the embeddings, in float32; of a second copy beside bits, that copy."""
        codec, dense, packed = self.compressor, None, None
        if self.rescore is not None and codec.rescore is not None:
            dense = codec.rescore.decode(self.rescore)
        elif self.dense is not None and codec.dense is not None:
            dense = codec.dense.decode(self.dense)
        if self.vectors is not None and self.offsets is not None and codec.multi_vector is not None:
            packed = PackedRows(codec.multi_vector.decode(self.vectors), self.offsets)
        return Embeddings(dense, None if self.sparse is None else self.sparse.decode(), packed)

    def take(self, rows: IntArray | slice) -> Compressed:
        """The given passages, copied."""
        vectors, offsets = None, None
        if self.vectors is not None and self.offsets is not None:
            # PackedRows knows how to gather; positions stand in for the vectors.
            numbers: Any = np.arange(len(self.vectors))
            picked = PackedRows(numbers, self.offsets).take(rows)
            where: Any = picked.values
            vectors, offsets = self.vectors.take(where), picked.offsets
        return Compressed(
            self.compressor,
            dense=None if self.dense is None else self.dense.take(rows),
            rescore=None if self.rescore is None else self.rescore.take(rows),
            sparse=None if self.sparse is None else self.sparse.take(rows),
            vectors=vectors,
            offsets=offsets,
        )


def fit(precision: Precision, sample: Embeddings, *, seed: int = 0) -> Compressor:
    """The codecs of a precision, calibrated on a sample where they are ones that learn.

    Args:
        precision: what to keep.
        sample: embeddings of passages such as will be encoded; some thousand are enough.
        seed: of the draws.

    Raises:
        UsageError: the sample lacks a representation that is kept, or what the precision says cannot be done with it.
    """
    _require(sample, precision)
    parts = _parts(sample, precision)
    packed = parts.multi_vector
    return Compressor(
        precision,
        dense=None if precision.dense is None else fit_rows(precision.dense, _array(parts), seed=seed),
        rescore=None if precision.rescore is None else fit_rows(precision.rescore, _array(parts), seed=seed),
        multi_vector=None
        if packed is None or precision.multi_vector is None
        else fit_rows(precision.multi_vector, packed.values, seed=seed),
    )


def _require(passages: Embeddings, precision: Precision) -> None:
    missing = [mode for mode in precision.modes if mode not in passages.modes]
    if missing:
        held = ", ".join(passages.modes) or "nothing"
        raise UsageError(
            f"the precision keeps {', '.join(missing)}, and the embeddings hold {held}; "
            f"leave it out: Precision({missing[0]}=None)"
        )


def _parts(passages: Embeddings, precision: Precision) -> Embeddings:
    """Prefix, pruned rows, pooled vectors: what is left before numbers get narrower."""
    kept = passages.only([mode for mode in MODES if mode in precision.modes])
    dense, sparse, packed = kept.dense, kept.sparse, kept.multi_vector
    if dense is not None and precision.dimensions is not None:
        dense = prefixes(dense, precision.dimensions)
    if sparse is not None:
        sparse = prune(sparse, top=precision.sparse_top, threshold=precision.sparse_threshold)
    if packed is not None:
        packed = pool_vectors(packed, precision.pool)
    return Embeddings(dense, sparse, packed)


def _array(parts: Embeddings) -> FloatArray:
    assert parts.dense is not None
    return parts.dense
