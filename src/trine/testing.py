"""Doubles for tests: encoders that need no weights and no torch."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trine.types import MODES, Embeddings, Kind, Mode, PackedRows, SparseRows

_WORD = re.compile(r"\w+")


class HashingEncoder:
    """A `TextEncoder` whose vectors are a pure function of the words: equal words, equal vectors.

    Dense is the normalised sum of word vectors, sparse the word's hash with weight 1, multi-vector one vector a word.
    """

    def __init__(self, *, dense: int = 32, sparse: int = 4096, multi_vector: int = 16) -> None:
        self.dimensions: Mapping[Mode, int] = {"dense": dense, "sparse": sparse, "multi_vector": multi_vector}
        self.fingerprint = f"hashing-{dense}-{sparse}-{multi_vector}"
        self.max_length = 8192
        self._vectors: dict[tuple[str, int], NDArray[np.float32]] = {}

    def encode(
        self, texts: Sequence[str], *, kind: Kind, modes: Iterable[Mode] | None = None, progress: bool = False
    ) -> Embeddings:
        """Embed texts; `kind` and `progress` change nothing here."""
        wanted = set(MODES if modes is None else modes)
        words = [_WORD.findall(text.lower()) for text in texts]
        return Embeddings(
            dense=self._dense(words) if "dense" in wanted else None,
            sparse=SparseRows.from_rows(
                ({self._id(word): 1.0 for word in row} for row in words), width=self.dimensions["sparse"]
            )
            if "sparse" in wanted
            else None,
            multi_vector=PackedRows.from_rows(
                [
                    np.stack([self._vector(word, self.dimensions["multi_vector"]) for word in row] or [self._blank()])
                    for row in words
                ],
                width=self.dimensions["multi_vector"],
            )
            if "multi_vector" in wanted
            else None,
        )

    def covers(self, text: str) -> bool:
        """True: a hash knows all scripts."""
        return True

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """Spans of the words."""
        return np.array([match.span() for match in _WORD.finditer(text)], np.int64).reshape(-1, 2)

    def token_labels(self, ids: Iterable[int]) -> list[str]:
        """The hashes themselves."""
        return [f"#{number}" for number in ids]

    def vector_spans(self, text: str, *, kind: Kind) -> NDArray[np.int64]:
        """Spans of the words; one special vector where there is none."""
        spans = self.token_spans(text)
        return spans if len(spans) else np.array([[-1, -1]], np.int64)

    def sparse_spans(self, text: str, *, kind: Kind) -> Sequence[tuple[int, int, int]]:
        """Hash and span of each word."""
        return [(self._id(match.group().lower()), *match.span()) for match in _WORD.finditer(text)]

    def _id(self, word: str) -> int:
        return zlib.crc32(word.encode()) % self.dimensions["sparse"]

    def _vector(self, word: str, size: int) -> NDArray[np.float32]:
        key = (word, size)
        if key not in self._vectors:
            vector = np.random.default_rng(zlib.crc32(word.encode())).normal(size=size)
            self._vectors[key] = (vector / np.linalg.norm(vector)).astype(np.float32)
        return self._vectors[key]

    def _blank(self) -> NDArray[np.float32]:
        return np.zeros(self.dimensions["multi_vector"], np.float32)

    def _dense(self, words: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        size = self.dimensions["dense"]
        rows = np.zeros((len(words), size), np.float32)
        for number, row in enumerate(words):
            for word in row:
                rows[number] += self._vector(word, size)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.where(norms > 0, norms, 1), np.float32)
