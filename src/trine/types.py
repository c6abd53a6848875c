"""The nouns that every room speaks.

Shapes: N texts, D dense dimensions, V vocabulary, T tokens of all texts together, d multi-vector dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError

FloatArray: TypeAlias = NDArray[np.floating]
IntArray: TypeAlias = NDArray[np.integer]

Mode: TypeAlias = Literal["dense", "sparse", "multi_vector"]
"""One of the three representations."""
Kind: TypeAlias = Literal["query", "passage"]
"""The side of a search that a text stands on; decides prompts and lengths."""
KINDS: tuple[Kind, ...] = ("query", "passage")
MODES: tuple[Mode, ...] = ("dense", "sparse", "multi_vector")

Scalar: TypeAlias = str | int | float | bool | None
Metadata: TypeAlias = Mapping[str, Scalar]
Qrels: TypeAlias = dict[str, dict[str, int]]
"""query id -> document id -> relevance grade."""
Run: TypeAlias = dict[str, dict[str, float]]
"""query id -> document id -> score, higher is better."""


@dataclass(frozen=True, slots=True)
class Document:
    """A source text before it is cut into passages."""

    id: str
    """Unique within a collection: the path relative to the indexed root, or the `id` of a JSONL or CSV row."""
    text: str
    """Plain text; passages point into it by code-point offsets."""
    title: str = ""
    metadata: Metadata = field(default_factory=dict)
    headings: Sequence[Heading] = ()
    """Headings in order of their offset; chunking never crosses one."""


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading inside a document's text."""

    start: int
    """Code-point offset of the heading's line in the document's text."""
    level: int
    """1 for the outermost."""
    text: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, the unit that is embedded and found."""

    document_id: str
    ordinal: int
    """Position among the document's passages, from 0."""
    start: int
    """First code point in the document's text."""
    end: int
    """One past the last code point: ``text == document.text[start:end]``."""
    line: int
    """Line of `start` in the document's text, from 1."""
    text: str
    title: str = ""
    """Title and heading path, joined by " > "."""

    @property
    def content(self) -> str:
        """What is embedded: the title line, where there is one, then the text."""
        return f"{self.title}\n{self.text}" if self.title else self.text


@dataclass(frozen=True, slots=True)
class Query:
    """A search request of an evaluation set."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a query, what it should find, and what it should not."""

    query: str
    positives: tuple[str, ...]
    """At least one; training draws one a time."""
    negatives: tuple[str, ...] = ()
    """Hard negatives."""
    positive_scores: tuple[float, ...] = ()
    """A teacher's scores of the positives; empty, or one each."""
    negative_scores: tuple[float, ...] = ()
    query_prompt: str | None = None
    """Put in front of the query instead of the model's own prompt."""
    passage_prompt: str | None = None
    lang: str = ""
    """Language code, or a pair of them such as "en-ko"."""


@dataclass(frozen=True, slots=True)
class Hit:
    """One passage found, with the scores that put it where it is."""

    rank: int
    """From 1."""
    passage_id: int
    passage: Passage
    score: float
    """The fused score, or the only mode's own."""
    scores: Mapping[str, float]
    """Raw score per retriever that saw it ("dense", "sparse", "multi_vector", "bm25")."""
    metadata: Metadata
    terms: Mapping[str, float] = field(default_factory=dict)
    """Matched terms and their share of the sparse score, highest first."""


@dataclass(frozen=True, slots=True)
class SparseRows:
    """N sparse rows in compressed form; ids ascend within a row, no id twice."""

    offsets: NDArray[np.int64]
    """(N + 1,)"""
    ids: NDArray[np.int32]
    """(nnz,)"""
    weights: NDArray[np.float32]
    """(nnz,)"""
    width: int
    """V, the size of the vocabulary."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Ids and weights of one row, as views."""
        span = slice(self.offsets[number], self.offsets[number + 1])
        return self.ids[span], self.weights[span]

    def take(self, rows: IntArray | slice) -> SparseRows:
        """The given rows, copied."""
        offsets, where = _gather(self.offsets, rows)
        return SparseRows(offsets, self.ids[where], self.weights[where], self.width)

    @staticmethod
    def concatenate(parts: Sequence[SparseRows]) -> SparseRows:
        """The rows of all parts, in order."""
        width = max((part.width for part in parts), default=0)
        return SparseRows(
            _join_offsets([part.offsets for part in parts]),
            np.concatenate([part.ids for part in parts]) if parts else np.zeros(0, np.int32),
            np.concatenate([part.weights for part in parts]) if parts else np.zeros(0, np.float32),
            width,
        )

    @staticmethod
    def from_rows(rows: Iterable[Mapping[int, float]], *, width: int) -> SparseRows:
        """Rows given as id -> weight; ids are sorted."""
        offsets, ids, weights = [0], [], []
        for row in rows:
            for key in sorted(row):
                ids.append(key)
                weights.append(row[key])
            offsets.append(len(ids))
        return SparseRows(
            np.asarray(offsets, np.int64), np.asarray(ids, np.int32), np.asarray(weights, np.float32), width
        )


@dataclass(frozen=True, slots=True)
class PackedRows:
    """N matrices of unequal height in one array: no padding is kept."""

    values: FloatArray
    """(T, d)"""
    offsets: NDArray[np.int64]
    """(N + 1,); text n owns ``values[offsets[n]:offsets[n + 1]]``."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> FloatArray:
        """The vectors of one text, as a view (tokens, d)."""
        return self.values[self.offsets[number] : self.offsets[number + 1]]

    def take(self, rows: IntArray | slice) -> PackedRows:
        """The given texts, copied."""
        offsets, where = _gather(self.offsets, rows)
        return PackedRows(self.values[where], offsets)

    @staticmethod
    def concatenate(parts: Sequence[PackedRows]) -> PackedRows:
        """The texts of all parts, in order."""
        values = np.concatenate([part.values for part in parts]) if parts else np.zeros((0, 0), np.float32)
        return PackedRows(values, _join_offsets([part.offsets for part in parts]))

    @staticmethod
    def from_rows(rows: Sequence[FloatArray], *, width: int) -> PackedRows:
        """One (tokens, `width`) array per text."""
        values = np.concatenate([*rows, np.zeros((0, width), rows[0].dtype if len(rows) else np.float32)])
        return PackedRows(values, np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """What a model makes of N texts; a representation that was not asked for is None."""

    dense: FloatArray | None = None
    """(N, D)"""
    sparse: SparseRows | None = None
    """(N, V)"""
    multi_vector: PackedRows | None = None
    """(T, d) and N + 1 offsets"""

    def __post_init__(self) -> None:
        """Refuse parts of unequal length."""
        lengths = {mode: len(part) for mode in MODES if (part := getattr(self, mode)) is not None}
        if len(set(lengths.values())) > 1:
            raise UsageError(f"the parts of Embeddings have unequal lengths: {lengths}")

    def __len__(self) -> int:
        return next((len(part) for mode in MODES if (part := getattr(self, mode)) is not None), 0)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations that are present."""
        return tuple(mode for mode in MODES if getattr(self, mode) is not None)

    def take(self, rows: IntArray | slice) -> Embeddings:
        """The given texts, copied."""
        return Embeddings(
            dense=None if self.dense is None else np.array(self.dense[rows]),
            sparse=None if self.sparse is None else self.sparse.take(rows),
            multi_vector=None if self.multi_vector is None else self.multi_vector.take(rows),
        )

    def only(self, modes: Iterable[Mode]) -> Embeddings:
        """The same without the other representations."""
        return Embeddings(**{mode: getattr(self, mode) for mode in modes})

    def split(self, size: int) -> Iterator[Embeddings]:
        """Consecutive pieces of at most `size` texts."""
        for start in range(0, len(self), size):
            yield self.take(slice(start, min(start + size, len(self))))

    @staticmethod
    def concatenate(parts: Sequence[Embeddings]) -> Embeddings:
        """The texts of all parts, in order; all parts must hold the same representations."""
        modes = {part.modes for part in parts}
        if len(modes) > 1:
            raise UsageError(f"cannot join Embeddings that hold different representations: {sorted(modes)}")
        present = next(iter(modes), ())
        return Embeddings(
            dense=np.concatenate([part.dense for part in parts if part.dense is not None])
            if "dense" in present
            else None,
            sparse=SparseRows.concatenate([part.sparse for part in parts if part.sparse is not None])
            if "sparse" in present
            else None,
            multi_vector=PackedRows.concatenate([p.multi_vector for p in parts if p.multi_vector is not None])
            if "multi_vector" in present
            else None,
        )


def _gather(offsets: NDArray[np.int64], rows: IntArray | slice) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """New offsets for `rows`, and the positions of their elements in the old flat array."""
    starts, lengths = offsets[:-1][rows], np.diff(offsets)[rows]
    fresh = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    where = np.arange(fresh[-1]) + np.repeat(starts - fresh[:-1], lengths)
    return fresh, where


def _join_offsets(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    lengths = [np.diff(part) for part in parts]
    return (
        np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64) if parts else np.zeros(1, np.int64)
    )


class TextEncoder(Protocol):
    """What search and evaluation need of an encoder; `trine.Encoder` is one, `trine.testing.HashingEncoder` another."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the vectors could: a collection refuses an encoder with another one."""
        ...

    @property
    def dimensions(self) -> Mapping[Mode, int]:
        """Width of each representation that the encoder gives: D, V and d."""
        ...

    @property
    def max_length(self) -> int:
        """Tokens after which a passage is cut, special tokens included."""
        ...

    def encode(
        self, texts: Sequence[str], *, kind: Kind, modes: Iterable[Mode] | None = None, progress: bool = False
    ) -> Embeddings:
        """Embed texts in input order; `modes` None means all that the encoder gives."""
        ...

    def covers(self, text: str) -> bool:
        """Whether `text` is in writing systems that the model was trained on."""
        ...

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """(tokens, 2) code-point start and end of each token of `text`, special tokens left out, nothing truncated."""
        ...

    def token_labels(self, ids: Iterable[int]) -> list[str]:
        """Printable form of sparse vocabulary ids."""
        ...

    def vector_spans(self, text: str, *, kind: Kind) -> NDArray[np.int64]:
        """(vectors, 2) span in `text` behind each multi-vector row; (-1, -1) for a special or prompt token."""
        ...

    def sparse_spans(self, text: str, *, kind: Kind) -> Sequence[tuple[int, int, int]]:
        """(sparse id, start, end) for each token of `text` that feeds the sparse weights."""
        ...
