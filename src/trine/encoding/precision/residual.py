"""Vectors as a centroid and a rough difference to it, as ColBERTv2 and PLAID keep multi-vectors.

Source: Santhanam et al., ColBERTv2, NAACL 2022, section 3.3; vectors get their length back as in PLAID, CIKM 2022.

Shapes: R vectors, D dimensions, K centroids, L = 2**bits levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision.bits import pack, unpack
from trine.encoding.precision.rows import Coded, FloatMatrix, require_finite
from trine.errors import UsageError
from trine.types import FloatArray

ROUNDS = 6
"""Rounds of k-means; the mean similarity to the centroid moves by less than a percent after four."""
SAMPLE = 1 << 15
"""Most vectors that centroids are found on."""
_DIFFERENCES = 1 << 20
"""Most differences that levels are found on."""
_LLOYD_ROUNDS = 50
_MOST_CENTROIDS = 65_535
"""Codes are two bytes, and one code is that of vectors of zeros."""
_BLOCK = 1 << 12
"""Vectors compared with all centroids at a time."""
_UNIT = 1e-2
"""How far a length may be from 1: models that compute in half precision are a few thousandths off."""


@dataclass(frozen=True, slots=True)
class ResidualRows:
    """The nearest centroid and 2**bits levels of the difference, D * bits / 8 + 2 bytes; for unit vectors and zeros.

    Off by at most half the width of a level's bucket in a dimension, but for differences past the outermost cut.
    Decoded vectors have length 1 again, as PLAID has them.
    """

    centroids: NDArray[np.float32]
    """(K, D); code K is that of a vector of zeros."""
    cuts: NDArray[np.float32]
    """(L - 1,) borders between the buckets of a difference."""
    levels: NDArray[np.float32]
    """(L,) what a bucket stands for."""

    @staticmethod
    def fit(sample_RD: FloatArray, *, bits: int, centroids: int | None = None, seed: int = 0) -> ResidualRows:
        """Find centroids by spherical k-means, then the levels that are nearest to the sample's differences.

        Args:
            sample_RD: unit vectors.
            bits: 1, 2 or 4 for a dimension.
            centroids: how many; None for the power of two below 4 times the root of the sample's size. PLAID takes 16
                times, which at this sample's size would leave 11 vectors to a centroid.
            seed: of the draws.
        """
        values = _unit(sample_RD)
        values = values[values.any(axis=1)]
        if not len(values):
            raise UsageError("centroids are found on vectors that are not all zero; the sample has none")
        generator = np.random.default_rng(seed)
        if len(values) > SAMPLE:
            values = values[np.sort(generator.choice(len(values), SAMPLE, replace=False))]
        wanted = 1 << int(np.log2(4 * np.sqrt(len(values)))) if centroids is None else centroids
        if not 1 <= wanted <= _MOST_CENTROIDS:
            raise UsageError(f"centroids is {wanted}; it lies between 1 and {_MOST_CENTROIDS}")
        center_KD = _centers(values, min(wanted, len(values)), generator)
        difference = (values - center_KD[_nearest(values, center_KD)]).ravel()
        cuts, levels = _buckets(difference, 1 << bits)
        return ResidualRows(center_KD, cuts, levels)

    @property
    def bits(self) -> int:
        """Of a dimension."""
        return len(self.levels).bit_length() - 1

    def encode(self, value_RD: FloatArray) -> Coded:
        """Nearest centroid by inner product, then the bucket of every difference."""
        values = _unit(value_RD)
        if values.shape[1] != self.centroids.shape[1]:
            raise UsageError(f"fitted for {self.centroids.shape[1]} dimensions, the vectors have {values.shape[1]}")
        nearest_R = _nearest(values, self.centroids)
        buckets = np.empty(values.shape, np.uint8)
        for start in range(0, len(values), _BLOCK):
            block = slice(start, start + _BLOCK)
            buckets[block] = np.searchsorted(self.cuts, values[block] - self.centroids[nearest_R[block]], side="right")
        code_R = np.where(values.any(axis=1), nearest_R, len(self.centroids)).astype(np.uint16)
        return Coded({"centroid": code_R, "codes": pack(buckets, bits=self.bits)}, values.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """Centroid plus levels, at length 1."""
        code_R = coded.arrays["centroid"]
        padded = np.vstack([self.centroids, np.zeros((1, coded.width), np.float32)])
        values = padded[code_R] + self.levels[unpack(coded.arrays["codes"], bits=self.bits, width=coded.width)]
        lengths = np.linalg.norm(values, axis=1)
        lengths[(code_R == len(self.centroids)) | (lengths == 0)] = np.inf
        result: FloatMatrix = values / lengths[:, None]
        return result


def _unit(value_RD: FloatArray) -> FloatMatrix:
    values = require_finite(value_RD)
    lengths = np.linalg.norm(values, axis=1)
    odd_R = (np.abs(lengths - 1) > _UNIT) & (lengths > 0)
    if odd_R.any():
        first = int(odd_R.argmax())
        raise UsageError(
            f"residual codes are for unit vectors; vector {first} has length {lengths[first]:g}. Use int4 or int8"
        )
    return values.astype(np.float32)


def _centers(values: FloatMatrix, count: int, generator: np.random.Generator) -> FloatMatrix:
    centers = values[np.sort(generator.choice(len(values), count, replace=False))].copy()
    for _ in range(ROUNDS):
        nearest = _nearest(values, centers)
        order = np.argsort(nearest, kind="stable")
        held, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(values[order], starts, axis=0)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centers[held] = np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), centers[held])
    return centers


def _buckets(difference: NDArray[np.floating], count: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Borders (L - 1,) and levels (L,) of the least squared error: Lloyd's algorithm in one dimension.

    It begins with buckets of equally many differences, where ColBERTv2 ends. Token states have dimensions of far
    greater values than the rest, which equal buckets clip: see docs/precision.md.
    """
    values = np.sort(difference[:: max(len(difference) // _DIFFERENCES, 1)].astype(np.float64))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    levels = np.quantile(values, (np.arange(count) + 0.5) / count)
    for _ in range(_LLOYD_ROUNDS):
        edges = np.concatenate([[0], np.searchsorted(values, (levels[1:] + levels[:-1]) / 2), [len(values)]])
        held = np.diff(edges)
        levels = np.where(held > 0, np.diff(sums[edges]) / np.maximum(held, 1), levels)
    return ((levels[1:] + levels[:-1]) / 2).astype(np.float32), levels.astype(np.float32)


def _nearest(values: FloatMatrix, centers: FloatMatrix) -> NDArray[np.int64]:
    found = np.empty(len(values), np.int64)
    for start in range(0, len(values), _BLOCK):
        found[start : start + _BLOCK] = (values[start : start + _BLOCK] @ centers.T).argmax(axis=1)
    return found
