"""The protocol that every index backend follows, and the ranking it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from trine.types import Embeddings, Mode


@dataclass(frozen=True, slots=True)
class Ranking:
    """What Q queries found, in flat arrays; within a query by falling score, equal scores by rising id."""

    offsets: NDArray[np.int64]
    """(Q + 1,)"""
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def row(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and scores of one query."""
        span = slice(self.offsets[number], self.offsets[number + 1])
        return self.ids[span], self.scores[span]

    @staticmethod
    def from_rows(rows: Sequence[tuple[NDArray[np.int64], NDArray[np.float32]]]) -> Ranking:
        """Ids and scores per query, already in order."""
        return Ranking(
            np.cumsum([0, *(len(ids) for ids, _ in rows)], dtype=np.int64),
            np.concatenate([np.zeros(0, np.int64), *(ids for ids, _ in rows)]),
            np.concatenate([np.zeros(0, np.float32), *(scores for _, scores in rows)]),
        )


class Index(Protocol):
    """A searchable set of embeddings under integer ids.

    Ids are non-negative int64 chosen by the caller. An index holds only the modes in `dimensions`. It is a cache that
    can be built again from the embeddings it was given; the owner of those decides what is true.

    Values that are not finite, ids that are negative or occur twice in one call, and widths other than `dimensions`
    are refused with `UsageError` before anything is written.
    """

    persistent: ClassVar[bool]
    """Whether what was flushed is there again after `open` on the same path; otherwise every `open` starts empty."""
    modes: tuple[Mode, ...]
    """The representations this backend keeps and can search."""

    @classmethod
    def open(cls, path: str | None, *, dimensions: Mapping[Mode, int]) -> Index:
        """Open or make the index at `path` (None: in memory, where the backend can).

        Modes that the backend cannot keep are left out of `modes`.

        Raises:
            UsageError: `dimensions` holds no mode that the backend keeps, or the backend needs a path and got None.
            CollectionLocked: another process, or another object in this one, holds the index at `path`.
            CollectionError: what lies at `path` is damaged or was made for other dimensions; the folder can be
                deleted and the index built again.
        """
        ...

    def __len__(self) -> int: ...

    def ids(self) -> NDArray[np.int64]:
        """All ids held, ascending."""
        ...

    def add(self, ids: NDArray[np.int64], embeddings: Embeddings) -> None:
        """Insert or replace. Embeddings may hold more modes than the index keeps, never fewer."""
        ...

    def delete(self, ids: NDArray[np.int64]) -> None:
        """Remove; ids that are not held are ignored."""
        ...

    def search(self, queries: Embeddings, *, mode: Mode, k: int, allowed: NDArray[np.int64] | None = None) -> Ranking:
        """The `k` best of all ids, or of `allowed`, per query.

        Sparse finds only ids that share a term with the query, and so score other than 0. Ids in `allowed` that are
        not held are ignored; an empty `allowed` finds nothing.

        Raises:
            UsageError: `mode` is not in `modes`, the queries lack it or have another width, or `k` is under 1.
        """
        ...

    def flush(self) -> None:
        """Make what was added so far durable."""
        ...

    def close(self) -> None:
        """Release files and locks; further calls are errors."""
        ...
