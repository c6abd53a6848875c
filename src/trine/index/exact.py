"""Brute force over everything in memory: the oracle for other backends, and enough for small collections."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.index.base import Ranking
from trine.index.checks import allowed_rows, check_batch, check_query, kept_modes
from trine.index.postings import Postings
from trine.index.rows import RowLog, Rows
from trine.index.selection import best, best_matches
from trine.scoring import score_mode
from trine.types import MODES, Embeddings, Mode, PackedRows, SparseRows

_BLOCK = 1 << 24
"""Scores held at a time: 64 MiB of float32."""
_FEW = 4
"""Below 1 of this many rows allowed, copying those rows is cheaper than scoring all and leaving most out."""


class ExactIndex:
    """Every query against every passage, for all three modes.

    Kept in memory only. A `path` is accepted, so that this backend can stand in for another, and not used. Dense is
    held as float32, multi-vectors in the type given. Writes cost their own size; the first search after a write
    merges them. Dense search takes about 0.4 ms a query at 10,000 passages of 256 dimensions and 10 ms at 100,000.
    """

    persistent: ClassVar[bool] = False

    def __init__(self, dimensions: Mapping[Mode, int]) -> None:
        """Empty; `dimensions` says the width of each mode to keep."""
        self.modes: tuple[Mode, ...] = kept_modes(dimensions, backend="the exact index", able=MODES)
        self._dimensions = {mode: dimensions[mode] for mode in self.modes}
        self._log: RowLog | None = RowLog(_nothing(self._dimensions))
        self._last: _View | None = None

    @classmethod
    def open(cls, path: str | None = None, *, dimensions: Mapping[Mode, int]) -> ExactIndex:
        """An empty index, whatever `path` is."""
        return cls(dimensions)

    def __len__(self) -> int:
        return len(self._rows().ids)

    def ids(self) -> NDArray[np.int64]:
        """All ids held, ascending."""
        return self._rows().ids.copy()

    def add(self, ids: NDArray[np.int64], embeddings: Embeddings) -> None:
        """Insert or replace."""
        numbers = check_batch(ids, embeddings, dimensions=self._dimensions, modes=self.modes)
        kept = embeddings.only(self.modes)
        if kept.dense is not None:
            kept = Embeddings(np.asarray(kept.dense, np.float32), kept.sparse, kept.multi_vector)
        self._opened().add(numbers, kept)

    def delete(self, ids: NDArray[np.int64]) -> None:
        """Remove; ids that are not held are ignored."""
        self._opened().delete(ids)

    def search(self, queries: Embeddings, *, mode: Mode, k: int, allowed: NDArray[np.int64] | None = None) -> Ranking:
        """The `k` best of all ids, or of `allowed`, per query."""
        check_query(queries, mode=mode, k=k, dimensions=self._dimensions, modes=self.modes)
        view = self._view()
        rows = allowed_rows(view.ids, allowed)
        if mode == "sparse" and queries.sparse is not None:
            return view.search_sparse(queries.sparse, k=k, rows=rows)
        return view.search_all(queries.only([mode]), mode=mode, k=k, rows=rows)

    def flush(self) -> None:
        """Nothing to do: this index is not kept on disk."""
        self._opened()

    def close(self) -> None:
        """Let go of everything."""
        self._log = None
        self._last = None

    def _opened(self) -> RowLog:
        if self._log is None:
            raise UsageError("this index was closed; open it again")
        return self._log

    def _rows(self) -> Rows:
        return self._opened().read()

    def _view(self) -> _View:
        """The rows with what is derived from them, which is worked out again only after a write."""
        rows, last = self._rows(), self._last
        if last is None or last.rows is not rows:
            self._last = last = _View(rows)
        return last


class _View:
    """The rows at one moment."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.ids = rows.ids

    @cached_property
    def postings(self) -> Postings:
        """Lists of the sparse part; built by the first sparse search."""
        sparse = self.rows.embeddings.sparse
        if sparse is None:
            raise UsageError("this index keeps no sparse embeddings")
        return Postings.of(sparse)

    def search_sparse(self, queries: SparseRows, *, k: int, rows: NDArray[np.int64] | None) -> Ranking:
        found = (self.postings.scores(*queries.row(number)) for number in range(len(queries)))
        return Ranking.from_rows([best_matches(scores, k, ids=self.ids, rows=rows) for scores in found])

    def search_all(self, queries: Embeddings, *, mode: Mode, k: int, rows: NDArray[np.int64] | None) -> Ranking:
        ids, passages = self.ids, self.rows.embeddings.only([mode])
        if rows is not None:
            ids = ids[rows]
            if len(rows) * _FEW < len(passages):
                passages, rows = passages.take(rows), None
        results = []
        for block in queries.split(max(_BLOCK // max(len(passages), 1), 1)):
            scores_QP = score_mode(block, passages, mode)
            if rows is not None:
                scores_QP = scores_QP[:, rows]
            for scores in scores_QP:
                top = best(scores, k)
                results.append((ids[top], scores[top]))
        return Ranking.from_rows(results)


def _nothing(dimensions: Mapping[Mode, int]) -> Embeddings:
    """No text, in the given modes."""
    return Embeddings(
        dense=np.zeros((0, dimensions["dense"]), np.float32) if "dense" in dimensions else None,
        sparse=SparseRows.from_rows([], width=dimensions["sparse"]) if "sparse" in dimensions else None,
        multi_vector=PackedRows.from_rows([], width=dimensions["multi_vector"])
        if "multi_vector" in dimensions
        else None,
    )
