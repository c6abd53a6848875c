"""What objectives see: the embeddings of a batch as differentiable, flat tensors, without padding.

Shapes: N texts, D dense dimensions, T tokens of all texts together, d multi-vector dimensions, V vocabulary,
Q queries, G passages of a query, P = Q * G passages, R queries of this rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenWeights:
    """Sparse weights, one a token; equal ids within a text are still apart and become one by `pooling`."""

    weights_T: Tensor
    ids_T: Tensor
    """int64"""
    offsets: Tensor
    """(N + 1,) int64; text n owns the tokens from ``offsets[n]`` to ``offsets[n + 1]``."""
    width: int
    """V"""
    pooling: Literal["max", "sum"] = "max"

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> TokenWeights:
        """The given texts."""
        offsets, where = gather_packed(self.offsets, rows)
        return replace(self, weights_T=self.weights_T[where], ids_T=self.ids_T[where], offsets=offsets)


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Multi-vectors of N texts, one text after the other."""

    values_Td: Tensor
    offsets: Tensor
    """(N + 1,) int64"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: Tensor) -> TokenVectors:
        """The given texts."""
        offsets, where = gather_packed(self.offsets, rows)
        return TokenVectors(self.values_Td[where], offsets)


Sparse = TokenWeights | Tensor
"""Weights by token, or (N, V) over the whole vocabulary (masked-language-model heads)."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """The embeddings of N texts; a representation that is not trained is None."""

    dense_ND: Tensor | None = None
    sparse: Sparse | None = None
    vectors: TokenVectors | None = None

    def __len__(self) -> int:
        parts = (self.dense_ND, self.sparse, self.vectors)
        return next((len(part) for part in parts if part is not None), 0)

    def take(self, rows: Tensor) -> Embedded:
        """The given texts, in the given order; differentiable."""
        return Embedded(
            dense_ND=None if self.dense_ND is None else self.dense_ND[rows],
            sparse=self.sparse[rows]
            if isinstance(self.sparse, Tensor)
            else None
            if self.sparse is None
            else self.sparse.take(rows),
            vectors=None if self.vectors is None else self.vectors.take(rows),
        )

    def leaves(self) -> list[Tensor]:
        """The tensors that gradients flow into, in a fixed order."""
        sparse = self.sparse.weights_T if isinstance(self.sparse, TokenWeights) else self.sparse
        values = None if self.vectors is None else self.vectors.values_Td
        return [tensor for tensor in (self.dense_ND, sparse, values) if tensor is not None]

    def with_leaves(self, leaves: Sequence[Tensor]) -> Embedded:
        """The same with other values in the tensors that `leaves` lists."""
        rest = list(leaves)
        dense_ND = None if self.dense_ND is None else rest.pop(0)
        sparse: Sparse | None = None
        if isinstance(self.sparse, TokenWeights):
            sparse = replace(self.sparse, weights_T=rest.pop(0))
        elif self.sparse is not None:
            sparse = rest.pop(0)
        vectors = None if self.vectors is None else replace(self.vectors, values_Td=rest.pop(0))
        return Embedded(dense_ND, sparse, vectors)

    @staticmethod
    def concatenate(parts: Sequence[Embedded]) -> Embedded:
        """The texts of all parts, in order; all parts hold the same representations."""
        dense = [part.dense_ND for part in parts if part.dense_ND is not None]
        vectors = [part.vectors for part in parts if part.vectors is not None]
        return Embedded(
            dense_ND=torch.cat(dense) if dense else None,
            sparse=_join_sparse([part.sparse for part in parts if part.sparse is not None]),
            vectors=TokenVectors(
                torch.cat([part.values_Td for part in vectors]), join_offsets([part.offsets for part in vectors])
            )
            if vectors
            else None,
        )


@dataclass(frozen=True, slots=True)
class PairBatch:
    """A batch of queries with their passages, of all ranks; each rank answers for its own queries.

    Every objective's total is the mean over the R queries of this rank (or the same number on all ranks, where it is a
    function of the whole batch), so that the mean of the ranks' gradients is that of one process with the whole batch.
    """

    queries: Embedded
    """Q"""
    passages: Embedded
    """P = Q * G; rows ``q * G`` to ``q * G + G - 1`` belong to query q, and the first of them is its positive."""
    group_size: int = 1
    """G"""
    rows: slice = field(default_factory=lambda: slice(None))
    """The queries of this rank, R of them."""
    in_batch: bool = True
    """Whether other queries' passages count as negatives."""
    teacher_scores_RG: Tensor | None = None
    """A reranker's scores of each query's own passages."""
    teacher_queries_RE: Tensor | None = None
    """A teacher's dense embeddings of this rank's queries, and below of their passages."""
    teacher_passages_RGE: Tensor | None = None
    query_keys_Q: Tensor | None = None
    """int64 hashes of the texts: equal keys are equal texts, which are never each other's negatives."""
    passage_keys_P: Tensor | None = None

    def block(self, first: int, last: int) -> PairBatch:
        """The same batch, of which only this rank's queries from `first` to `last` are to be answered for."""
        start = self.rows.indices(len(self.queries))[0]
        own = slice(first, last)
        return replace(
            self,
            rows=slice(start + first, start + last),
            teacher_scores_RG=None if self.teacher_scores_RG is None else self.teacher_scores_RG[own],
            teacher_queries_RE=None if self.teacher_queries_RE is None else self.teacher_queries_RE[own],
            teacher_passages_RGE=None if self.teacher_passages_RGE is None else self.teacher_passages_RGE[own],
        )

    @property
    def row_numbers(self) -> Tensor:
        """(R,) numbers of this rank's queries."""
        return torch.arange(len(self.queries), device=self.queries.leaves()[0].device)[self.rows]


@dataclass(frozen=True, slots=True)
class Losses:
    """A loss and what it is made of."""

    total: Tensor
    """Scalar, differentiable."""
    parts: Mapping[str, Tensor]
    """Named components, before weighting; detached scalars, for the log."""


class Objective(Protocol):
    """A loss over a batch of pairs; an `nn.Module` where it has parameters of its own, such as a learnt temperature.

    An attribute ``by_query = False`` says that the losses of some queries do not add up to that of all, so that they
    must not be taken in blocks.
    """

    def __call__(self, batch: PairBatch) -> Losses:
        """The loss of this rank's queries."""
        ...


def gather_packed(offsets: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """New offsets for `rows` of a packed array, and the positions of their elements in it."""
    starts, lengths = offsets[:-1][rows], offsets.diff()[rows]
    fresh = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    where = torch.arange(int(fresh[-1]), device=offsets.device)
    return fresh, where + torch.repeat_interleave(starts - fresh[:-1], lengths)


def join_offsets(parts: Sequence[Tensor]) -> Tensor:
    """The offsets of packed arrays put one after the other."""
    lengths = torch.cat([part.diff() for part in parts])
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])


def _join_sparse(parts: Sequence[Sparse]) -> Sparse | None:
    if not parts:
        return None
    tokens = [part for part in parts if isinstance(part, TokenWeights)]
    if not tokens:
        return torch.cat([part for part in parts if isinstance(part, Tensor)])
    return replace(
        tokens[0],
        weights_T=torch.cat([part.weights_T for part in tokens]),
        ids_T=torch.cat([part.ids_T for part in tokens]),
        offsets=join_offsets([part.offsets for part in tokens]),
    )
