"""The k best of many scores, equal scores by rising position."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatVector = NDArray[np.float32]


def best(scores: FloatVector, k: int) -> NDArray[np.int64]:
    """Positions of the `k` highest scores, falling; equal scores by rising position, also at the border of k.

    `np.argpartition` picks arbitrary ones among scores equal to the k-th, so it serves only to find that score.
    """
    if k >= len(scores):
        return np.argsort(-scores, kind="stable")
    border = np.partition(scores, len(scores) - k)[len(scores) - k]
    above = np.flatnonzero(scores > border)
    level = np.flatnonzero(scores == border)[: k - len(above)]
    return np.concatenate([above[np.argsort(-scores[above], kind="stable")], level])


def best_matches(
    scores: FloatVector, k: int, *, ids: NDArray[np.int64], rows: NDArray[np.int64] | None
) -> tuple[NDArray[np.int64], FloatVector]:
    """Ids and scores of the `k` best among `rows` (None: all) whose score is not 0; `ids` ascend."""
    found = np.flatnonzero(scores) if rows is None else rows[scores[rows] != 0]
    top = found[best(scores[found], k)]
    return ids[top], scores[top]
