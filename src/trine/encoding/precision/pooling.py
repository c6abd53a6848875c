"""Fewer vectors for a passage: similar ones of its tokens become their mean.

Vectors are clustered by Ward's criterion, and each cluster is replaced by its mean. Pairs of clusters that are each
other's nearest are merged all at once: under Ward's criterion this gives the same tree as merging the single best
pair each time (Murtagh, The Computer Journal 26(4), 1983), in a dozen rounds instead of one a token.

Source: Clavié, Chaffin & Adams, Reducing the Footprint of Multi-Vector Retrieval with Minimal Performance Impact via
Token Pooling, arXiv 2409.14683, section 2.

Shapes: T tokens of all texts, S vectors of one text, C clusters, d dimensions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision.rows import require_finite
from trine.errors import UsageError
from trine.types import PackedRows

WINDOW = 1024
"""Vectors that are clustered together; a longer text is pooled in stretches, so that memory does not grow with the
square of its length."""

_Matrix = NDArray[np.float64]


def pool_vectors(packed: PackedRows, factor: int) -> PackedRows:
    """Keep at most one vector for `factor` of a text's: ceil(S / factor), in the order of each cluster's first token.

    A pooled vector has the direction of its members' mean and the mean of their lengths, so that unit vectors stay
    such. A text without vectors keeps none.

    Raises:
        UsageError: `factor` is below 1, or a number is not finite.
    """
    if factor < 1:
        raise UsageError(f"the pooling factor is {factor}; it must be at least 1")
    require_finite(packed.values)
    if factor == 1:
        return packed
    rows = []
    for number in range(len(packed)):
        values = np.asarray(packed.row(number), np.float64)
        stretches = [values[start : start + WINDOW] for start in range(0, len(values), WINDOW)]
        rows.append(np.concatenate([_pooled(part, factor) for part in stretches] or [values]).astype(np.float32))
    return PackedRows.from_rows(rows, width=packed.values.shape[1])


def clusters(value_Sd: _Matrix, count: int) -> NDArray[np.int64]:
    """(S,) the cluster of each vector, numbered from 0 by first member, when Ward's tree is cut into `count`.

    There are fewer where there are fewer distinct vectors.
    """
    numbers: dict[bytes, int] = {}
    label_S = np.array([numbers.setdefault(row.tobytes(), len(numbers)) for row in value_Sd], np.int64)
    if len(numbers) > count:
        distinct = value_Sd[np.unique(label_S, return_index=True)[1]]
        sizes = np.bincount(label_S).astype(np.float64)
        label_S = _cut(len(distinct), _merges(distinct, sizes, len(distinct) - count))[label_S]
    _, first, labels = np.unique(label_S, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[labels.reshape(-1)]


def _pooled(value_Sd: _Matrix, factor: int) -> _Matrix:
    label_S = clusters(value_Sd, -(-len(value_Sd) // factor))
    sizes = np.bincount(label_S)[:, None]
    means = np.zeros((len(sizes), value_Sd.shape[1]))
    np.add.at(means, label_S, value_Sd)
    means /= sizes
    wanted = np.bincount(label_S, np.linalg.norm(value_Sd, axis=1))[:, None] / sizes
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    pooled: _Matrix = means * (wanted / np.where(lengths > 0, lengths, 1))
    return pooled


def _merges(center_Cd: _Matrix, size_C: _Matrix, count: int) -> NDArray[np.int64]:
    """The `count` cheapest merges of Ward's tree (count, 2), as pairs of one member of each side."""
    centers, sizes, members = center_Cd.copy(), size_C.copy(), np.arange(len(center_Cd))
    merges, costs = np.zeros((0, 2), np.int64), np.zeros(0)
    while len(centers) > 1:
        cost = _ward(centers, sizes)
        nearest = cost.argmin(axis=1)
        everyone = np.arange(len(centers))
        nearest_cost = cost[everyone, nearest]
        # No later merge is cheaper than the cheapest one now.
        if (costs <= nearest_cost.min()).sum() >= count:
            break
        left = np.flatnonzero((nearest[nearest] == everyone) & (everyone < nearest))
        right = nearest[left]
        merges = np.concatenate([merges, np.stack([members[left], members[right]], axis=1)])
        costs = np.concatenate([costs, nearest_cost[left]])
        both = sizes[left] + sizes[right]
        centers[left] = (centers[left] * sizes[left, None] + centers[right] * sizes[right, None]) / both[:, None]
        sizes[left] = both
        kept = np.delete(everyone, right)
        centers, sizes, members = centers[kept], sizes[kept], members[kept]
    return merges[np.argsort(costs, kind="stable")[:count]]


def _ward(centers: _Matrix, sizes: _Matrix) -> _Matrix:
    """(C, C) growth of the squared error if two clusters merge; infinite on the diagonal, and exactly symmetric."""
    squares = np.einsum("cd,cd->c", centers, centers)
    distance = np.maximum(squares[:, None] + squares[None, :] - 2 * (centers @ centers.T), 0)
    cost: _Matrix = np.minimum(distance, distance.T) * (
        sizes[:, None] * sizes[None, :] / (sizes[:, None] + sizes[None, :])
    )
    np.fill_diagonal(cost, np.inf)
    return cost


def _cut(count: int, merges: NDArray[np.int64]) -> NDArray[np.int64]:
    """The cluster of each of `count` things after the given merges."""
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = item = parent[parent[item]]
        return item

    for left, right in merges.tolist():
        parent[root(right)] = root(left)
    return np.array([root(item) for item in range(count)], np.int64)
