"""How sure a mean over queries is, and a difference between two systems: the paired bootstrap.

Queries are drawn with replacement and every system is averaged over the same draw, so that what is hard about a query
cancels in a difference. Intervals are percentile intervals; several comparisons are not corrected for one another.

Source: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13; for retrieval, Sakai, Evaluating
Evaluation Metrics based on the Bootstrap, SIGIR 2006, and Smucker, Allan & Carterette, CIKM 2007.

Shapes: Q queries, S systems, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.types import FloatArray

RESAMPLES = 10_000
CONFIDENCE = 0.95

_BLOCK = 1 << 22
"""Draws made at a time: 32 MiB of indices."""
_TIE = 1e-12
"""A resampled difference below this is rounding: a sum of gaps that cancel comes out near 1e-17."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over queries and where it lies."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """First system minus second, over the same queries."""

    mean: float
    low: float
    high: float
    share: float
    """Share of resamples in which the first is ahead, a tie counting half."""

    @property
    def significant(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def bootstrap_mean(
    values: Sequence[float] | FloatArray, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> Interval:
    """Interval of one system's mean.

    Args:
        values: one value per query.
        resamples: draws of all queries with replacement.
        confidence: probability mass inside the interval.
        seed: the same seed draws the same queries for the same Q.

    Raises:
        UsageError: there are no values, one of them is not finite, or an option is out of range.
    """
    values_Q = _column(values)
    return interval(values_Q, resampled_means(values_Q[:, None], resamples=resamples, seed=seed)[:, 0], confidence)


def paired_bootstrap(
    first: Sequence[float] | FloatArray,
    second: Sequence[float] | FloatArray,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> Difference:
    """Interval of the difference of two systems' means, `first` minus `second`.

    Args:
        first: one value per query.
        second: the other system's values, of the same queries in the same order.
        resamples: draws of all queries with replacement.
        confidence: probability mass inside the interval.
        seed: the same seed draws the same queries for the same Q.

    Raises:
        UsageError: the systems have unequal numbers of values, none at all, or an option is out of range.
    """
    left_Q, right_Q = _column(first), _column(second)
    if len(left_Q) != len(right_Q):
        raise UsageError(
            f"a paired comparison needs the same queries: one system has {len(left_Q)} values, the other {len(right_Q)}"
        )
    gap_Q = left_Q - right_Q
    return difference(gap_Q, resampled_means(gap_Q[:, None], resamples=resamples, seed=seed)[:, 0], confidence)


def resampled_means(values_QS: FloatArray, *, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.float64]:
    """(R, S) means of all systems over R draws of the Q queries, the same draws for every system."""
    count, width = values_QS.shape
    if resamples < 1:
        raise UsageError(f"resamples is {resamples}; it must be at least 1")
    if not count:
        raise UsageError("no queries to resample")
    if not np.isfinite(values_QS).all():
        raise UsageError("a value that is not a finite number cannot be resampled")
    generator = np.random.default_rng(seed)
    means_RS = np.empty((resamples, width))
    step = max(_BLOCK // count, 1)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(count, size=(rows, count))
        drawn += np.arange(rows)[:, None] * count
        times_RQ = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        means_RS[start : start + rows] = times_RQ @ values_QS / count
    return means_RS


def interval(values_Q: FloatArray, means_R: FloatArray, confidence: float = CONFIDENCE) -> Interval:
    """The mean of the values with the percentile interval of its resampled means."""
    low, high = _bounds(means_R, confidence)
    return Interval(float(values_Q.mean()), low, high)


def difference(gap_Q: FloatArray, means_R: FloatArray, confidence: float = CONFIDENCE) -> Difference:
    """The mean gap between two systems, with the percentile interval and sign of its resampled means."""
    low, high = _bounds(means_R, confidence)
    share = float(np.mean(means_R > _TIE) + np.mean(np.abs(means_R) <= _TIE) / 2)
    return Difference(float(gap_Q.mean()), low, high, share)


def _bounds(means_R: FloatArray, confidence: float) -> tuple[float, float]:
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}; it lies between 0 and 1, as 0.95")
    low, high = np.quantile(means_R, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _column(values: Sequence[float] | FloatArray) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(-1)
