"""Batches in which no text stands twice, as far as that can be had.

Shapes: N examples, K keys of an example.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_LOOK_BACK = 64
"""Batches that are searched for a place of an example that fits nowhere else."""


def contested(keys_NK: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(N,) whether another example has one of this one's keys."""
    ordered = np.sort(keys_NK, axis=1)
    own = np.ones(ordered.shape, np.bool_)
    own[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    _, inverse, counts = np.unique(ordered[own], return_inverse=True, return_counts=True)
    shared = np.zeros(ordered.shape, np.bool_)
    shared[own] = counts[inverse] > 1
    return np.asarray(shared.any(axis=1))


def batches_of(
    rows: Sequence[int], size: int, *, keys_NK: NDArray[np.int64], contested_N: NDArray[np.bool_]
) -> tuple[list[list[int]], list[int]]:
    """Cut a queue of examples into batches of `size`, and give the rest, fewer than `size`.

    In order, except that an example that shares a key with one already in the batch waits for the next. Where one text
    is so frequent that it cannot be kept apart, it is spread over the batches instead of heaped up in the last.

    Args:
        rows: numbers of examples; a number may come twice.
        size: of each batch.
        keys_NK: what two examples of a batch must not share; equal numbers count as sharing too.
        contested_N: examples that share a key with another, as `contested` gives it.

    Returns:
        Batches and rest, as positions in `rows`.
    """
    careful = contested_N[np.asarray(rows, np.int64)] | _twice(rows)
    if not careful.any():
        whole = len(rows) // size * size
        places = list(range(len(rows)))
        return [places[start : start + size] for start in range(0, whole, size)], places[whole:]
    return _Cutter(rows, size, keys_NK, careful).run()


class _Cutter:
    def __init__(self, rows: Sequence[int], size: int, keys_NK: NDArray[np.int64], careful: NDArray[np.bool_]) -> None:
        self.rows, self.size, self.keys_NK, self.careful = rows, size, keys_NK, careful
        self.waiting: deque[int] = deque()
        self.position = 0
        self.batches: list[list[int]] = []
        self.present: list[set[int]] = []
        counts = Counter(key for place in np.flatnonzero(careful).tolist() for key in self._own(place))
        # More copies than batches cannot be kept apart; kept waiting, they would fill the last batch alone.
        self.frequent = {key for key, count in counts.items() if count > len(rows) // size}

    def run(self) -> tuple[list[list[int]], list[int]]:
        left = len(self.rows)
        while left >= self.size:
            self._fill()
            left -= self.size
        return self.batches, [*self.waiting, *range(self.position, len(self.rows))]

    def _fill(self) -> None:
        batch: list[int] = []
        self.batches.append(batch)
        self.present.append(set())
        for _ in range(len(self.waiting)):
            self._offer(self.waiting.popleft())
        while len(batch) < self.size and self.position < len(self.rows):
            self.position += 1
            self._offer(self.position - 1)
        while len(batch) < self.size:
            self._force(self.waiting.popleft())

    def _offer(self, place: int) -> None:
        """Into the batch, or else to the end of the waiting."""
        if len(self.batches[-1]) < self.size and not self._keys(place) & self.present[-1]:
            self._add(place)
        else:
            self.waiting.append(place)

    def _force(self, place: int) -> None:
        """In exchange for an example of an earlier batch that fits here, or else as it is."""
        keys, last = self._keys(place), len(self.batches) - 1
        for number in range(last - 1, max(last - 1 - _LOOK_BACK, -1), -1):
            if keys & self.present[number]:
                continue
            batch = self.batches[number]
            for index, other in enumerate(batch):
                if not self._keys(other) & self.present[last]:
                    batch[index] = place
                    self.present[number] = {key for kept in batch for key in self._keys(kept)}
                    self._add(other)
                    return
        self._add(place)

    def _add(self, place: int) -> None:
        self.batches[-1].append(place)
        self.present[-1] |= self._keys(place)

    def _keys(self, place: int) -> set[int]:
        return self._own(place) - self.frequent if self.careful[place] else set()

    def _own(self, place: int) -> set[int]:
        row = self.rows[place]
        return {*map(int, self.keys_NK[row]), ~int(row)}


def _twice(rows: Sequence[int]) -> NDArray[np.bool_]:
    _, inverse, counts = np.unique(np.asarray(rows, np.int64), return_inverse=True, return_counts=True)
    return np.asarray(counts[inverse] > 1)
