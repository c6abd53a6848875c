"""Inverted lists: for each term the texts that hold it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trine.types import IntArray, SparseRows


@dataclass(frozen=True, slots=True)
class Postings:
    """The transpose of N sparse rows, for sums over the terms of one query at a time.

    Term ids may be anything up to 2**31: only those that occur take space. On one core, with 100,000 texts of 80
    terms, a query whose 12 terms have 11,000 entries takes 0.1 ms; building the lists takes 0.7 s.
    """

    size: int
    """N."""
    terms: NDArray[np.int32]
    """Distinct term ids, ascending."""
    bounds: NDArray[np.int64]
    """(distinct terms + 1,); term number t owns the entries from ``bounds[t]`` up to ``bounds[t + 1]``."""
    rows: NDArray[np.int32]
    """(entries,) numbers of texts, ascending within a term."""
    weights: NDArray[np.float32]
    """(entries,)"""

    @staticmethod
    def of(rows: SparseRows) -> Postings:
        """The lists of N rows; weights of 0 count as absent."""
        present = rows.weights != 0
        terms = rows.ids[present]
        order = np.argsort(terms, kind="stable")
        terms = terms[order]
        starts = np.flatnonzero(np.append(True, terms[1:] != terms[:-1])[: len(terms)])
        owners = np.repeat(np.arange(len(rows), dtype=np.int32), np.diff(rows.offsets))[present]
        return Postings(
            size=len(rows),
            terms=terms[starts],
            bounds=np.append(starts, len(terms)),
            rows=owners[order],
            weights=rows.weights[present][order],
        )

    def scores(self, ids: IntArray, weights: NDArray[np.floating]) -> NDArray[np.float32]:
        """(N,) inner products with one query; summed in float64. Terms that no text holds add nothing."""
        where = np.searchsorted(self.terms, ids)
        known = where < len(self.terms)
        known[known] = self.terms[where[known]] == ids[known]
        where = where[known]
        starts, lengths = self.bounds[where], self.bounds[where + 1] - self.bounds[where]
        ends = np.cumsum(lengths)
        entries = np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
        values = np.repeat(np.asarray(weights, np.float64)[known], lengths) * self.weights[entries]
        return np.bincount(self.rows[entries], values, minlength=self.size).astype(np.float32)
