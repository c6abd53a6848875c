"""An encoder that keeps what it has encoded: two steps over the same texts then cost one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.types import Embeddings, Kind, Mode, TextEncoder


class Remembered:
    """Dense embeddings of another encoder, each text of a side encoded once; a `TextEncoder` for that alone.

    Memory is that of the vectors: 1.5 KiB a text for 384 dimensions.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self._kept: dict[tuple[Kind, str], NDArray[np.floating]] = {}
        self.fingerprint = encoder.fingerprint
        self.dimensions: Mapping[Mode, int] = {"dense": encoder.dimensions["dense"]}
        self.max_length = encoder.max_length

    def encode(
        self, texts: Sequence[str], *, kind: Kind, modes: Iterable[Mode] | None = None, progress: bool = False
    ) -> Embeddings:
        """Embed texts in input order.

        Raises:
            UsageError: another mode than dense.
        """
        if modes is not None and set(modes) != {"dense"}:
            raise UsageError("only dense embeddings are remembered; ask the encoder itself for others")
        fresh = [text for text in dict.fromkeys(texts) if (kind, text) not in self._kept]
        if fresh:
            found = self._encoder.encode(fresh, kind=kind, modes=["dense"], progress=progress).dense
            assert found is not None
            self._kept.update(zip(((kind, text) for text in fresh), found, strict=True))
        width = self.dimensions["dense"]
        rows = [self._kept[kind, text] for text in texts]
        return Embeddings(dense=np.stack(rows) if rows else np.zeros((0, width), np.float32))

    def covers(self, text: str) -> bool:
        """As the encoder does."""
        return self._encoder.covers(text)

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """As the encoder does."""
        return self._encoder.token_spans(text)

    def token_labels(self, ids: Iterable[int]) -> list[str]:
        """As the encoder does."""
        return self._encoder.token_labels(ids)

    def vector_spans(self, text: str, *, kind: Kind) -> NDArray[np.int64]:
        """As the encoder does."""
        return self._encoder.vector_spans(text, kind=kind)

    def sparse_spans(self, text: str, *, kind: Kind) -> Sequence[tuple[int, int, int]]:
        """As the encoder does."""
        return self._encoder.sparse_spans(text, kind=kind)
