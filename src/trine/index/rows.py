"""Embeddings under ids, written in any order and read as one block in the order of the ids."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from trine.types import Embeddings

_DELETED = -1
"""Stands for the row of an id that was removed."""


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """What is held at one moment."""

    ids: NDArray[np.int64]
    """(N,), ascending."""
    embeddings: Embeddings
    """The N texts in the same order."""


@dataclass(frozen=True, slots=True)
class _Write:
    """One call of `add`, or of `delete` where there are no embeddings."""

    ids: NDArray[np.int64]
    embeddings: Embeddings | None


class RowLog:
    """A set of rows that takes writes at the cost of their own size.

    Writes are kept in order and merged by the next read, once for all of them: many small adds cost no more than a
    large one. Writing and reading by turns costs a copy of everything at each turn. Safe to use from several threads.
    """

    def __init__(self, empty: Embeddings) -> None:
        """`empty` says the representations and widths, and holds no text."""
        self._rows = Rows(np.zeros(0, np.int64), empty)
        self._pending: list[_Write] = []
        self._lock = Lock()

    def add(self, ids: NDArray[np.int64], embeddings: Embeddings) -> None:
        """Insert or replace; the arrays are copied. No id may occur twice."""
        everything = np.arange(len(ids))
        write = _Write(np.array(ids, np.int64), embeddings.take(everything))
        with self._lock:
            self._pending.append(write)

    def delete(self, ids: NDArray[np.int64]) -> None:
        """Remove; unknown ids are ignored."""
        write = _Write(np.unique(np.asarray(ids, np.int64)), None)
        with self._lock:
            self._pending.append(write)

    def read(self) -> Rows:
        """Everything that is held; the same object until something is written."""
        with self._lock:
            if self._pending:
                self._rows = _merge(self._rows, self._pending)
                self._pending = []
            return self._rows


def _merge(rows: Rows, writes: list[_Write]) -> Rows:
    """The rows after all writes: of each id the last write counts."""
    parts = [_Write(rows.ids, rows.embeddings), *writes]
    total, sources = 0, []
    for part in parts:
        count = len(part.ids)
        if part.embeddings is None:
            sources.append(np.full(count, _DELETED))
        else:
            sources.append(np.arange(total, total + count))
            total += count
    ids, source = np.concatenate([part.ids for part in parts]), np.concatenate(sources)
    order = np.argsort(ids, kind="stable")
    is_last = np.append(ids[order][1:] != ids[order][:-1], True)[: len(ids)]
    order = order[is_last]
    order = order[source[order] != _DELETED]
    kept = source[order]
    if not len(kept):
        return Rows(ids[order], rows.embeddings.take(slice(0, 0)))
    joined = Embeddings.concatenate([part.embeddings for part in parts if part.embeddings and len(part.ids)])
    in_order = len(kept) == total and bool((np.diff(kept) > 0).all())
    return Rows(ids[order], joined if in_order else joined.take(kept))
