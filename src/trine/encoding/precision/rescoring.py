"""Binary search, then better scores for what it found.

Source: Yamada et al., Efficient Passage Retrieval with Hashing, ACL 2021, section 3: candidates by Hamming distance,
then the query in float.

Shapes: Q queries, R passages, D dimensions, B bytes of a packed row, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision.rows import BinaryRows, Coded, FloatMatrix, RowCodec
from trine.errors import UsageError
from trine.types import FloatArray


@dataclass(frozen=True, slots=True)
class Rescored:
    """The best of each query."""

    positions: NDArray[np.int64]
    """(Q, C) of passages, best first; equal scores by rising position."""
    scores: FloatMatrix
    """(Q, C)"""


def hamming(query_QD: FloatArray, coded: Coded) -> NDArray[np.int64]:
    """(Q, R) dimensions whose signs differ, for passages that `BinaryRows` encoded."""
    if query_QD.shape[1] != coded.width:
        raise UsageError(f"queries have {query_QD.shape[1]} dimensions, the coded vectors {coded.width}")
    query_QB, code_RB = BinaryRows().encode(query_QD).arrays["codes"], coded.arrays["codes"]
    result = np.empty((len(query_QB), len(code_RB)), np.int64)
    for number, query_B in enumerate(query_QB):
        np.bitwise_count(code_RB ^ query_B).sum(axis=1, dtype=np.int64, out=result[number])
    return result


def search_binary(query_QD: FloatArray, coded: Coded, *, second: tuple[RowCodec, Coded], candidates: int) -> Rescored:
    """Passages of the least Hamming distance, ordered by the float query's inner product with a second copy.

    Args:
        query_QD: queries in float.
        coded: what `BinaryRows` made of the passages.
        second: codec and codes of the same passages by which they are ordered; the bits themselves, for no more bytes.
        candidates: how many to take of the binary search; equal distances by rising position.
    """
    if candidates < 1:
        raise UsageError(f"candidates is {candidates}; at least one must be looked at")
    codec, copy = second
    if len(copy) != len(coded):
        raise UsageError(f"there are bits of {len(coded)} passages, and a second copy of {len(copy)}")
    queries = np.asarray(query_QD, np.float32)
    count = min(candidates, len(coded))
    positions = np.empty((len(queries), count), np.int64)
    scores = np.empty((len(queries), count), np.float32)
    for number, distance_R in enumerate(hamming(queries, coded)):
        found = np.sort(np.argsort(distance_R, kind="stable")[:count])
        score_C = codec.decode(copy.take(found)) @ queries[number]
        order = np.argsort(-score_C, kind="stable")
        positions[number], scores[number] = found[order], score_C[order]
    return Rescored(positions, scores)
