"""Lexical scores: the inner product of two texts' sparse weights, from the tokens that they share.

s(q, p) = sum_v q_v p_v, where a text's weight of v is the maximum (or sum) over its tokens with the id v: BGE-M3 (arXiv
2402.03216, section 3.2), SPLADE (arXiv 2107.05720). Weights that stand by token never become rows of the vocabulary's
width: queries are taken in blocks, only the ids of a block become columns, and the backward pass makes them anew.

Shapes: Q queries, P passages, G passages of a query, V vocabulary, T tokens of all texts together, E entries (text, id)
after equal ids of a text became one, C ids that occur in a block of B queries.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trine.errors import UsageError
from trine.objectives.base import Sparse, TokenWeights
from trine.objectives.late_interaction import group_size

BLOCK = 256
"""Queries whose ids form one table: 256 of 40 tokens fill at most 10 MiB in float32."""

_SLICE = 1 << 22
"""Products held at a time in the backward pass."""


class Entries(NamedTuple):
    """Sparse rows in coordinate form, ordered by text and id, no pair twice."""

    texts_E: Tensor
    ids_E: Tensor
    weights_E: Tensor
    """Differentiable."""


def pooled(weights: TokenWeights) -> Entries:
    """Make one of the equal ids within a text.

    Where maxima tie, each of them receives an equal share of the gradient, as in `torch.amax`.
    """
    owners_T = torch.repeat_interleave(torch.arange(len(weights), device=weights.ids_T.device), weights.offsets.diff())
    keys_E, where_T = torch.unique(owners_T * weights.width + weights.ids_T, return_inverse=True)
    empty_E = weights.weights_T.new_zeros(len(keys_E))
    if weights.pooling == "max":
        weights_E = empty_E.scatter_reduce(0, where_T, weights.weights_T, "amax", include_self=False)
    else:
        weights_E = empty_E.scatter_add(0, where_T, weights.weights_T)
    return Entries(keys_E // weights.width, keys_E % weights.width, weights_E)


def lexical_scores(queries: Sparse, passages: Sparse, *, block: int = BLOCK) -> Tensor:
    """Scores of every query with every passage.

    Either side may be weights by token or (N, V). Differentiable once where both stand by token.

    Args:
        queries: Q texts.
        passages: P texts of the same vocabulary.
        block: queries taken together.

    Returns:
        (Q, P).

    Raises:
        UsageError: the sides have unequal vocabularies.
    """
    _check(queries, passages)
    if isinstance(queries, TokenWeights):
        if isinstance(passages, TokenWeights):
            return _between_entries(
                pooled(queries), pooled(passages), counts=(len(queries), len(passages)), block=block
            )
        return _with_rows(pooled(queries), passages, count=len(queries), block=block)
    if isinstance(passages, TokenWeights):
        return _with_rows(pooled(passages), queries, count=len(passages), block=block).T
    return queries @ passages.T


def lexical_pairs(queries: Sparse, passages: Sparse) -> Tensor:
    """Scores of each query with its own passages alone, without the matrix of all.

    Args:
        queries: Q texts.
        passages: Q * G texts; ``q * G`` to ``q * G + G - 1`` belong to query q.

    Returns:
        (Q, G).

    Raises:
        UsageError: the sides have unequal vocabularies, or the groups unequal sizes.
    """
    _check(queries, passages)
    size = group_size(len(queries), len(passages))
    if isinstance(queries, Tensor) and isinstance(passages, Tensor):
        return (passages.view(len(queries), size, passages.shape[1]) @ queries[:, :, None])[:, :, 0]
    if isinstance(passages, TokenWeights):
        right = pooled(passages)
        products_E = right.weights_E * _looked_up(queries, right.texts_E // max(size, 1), right.ids_E)
        texts_E = right.texts_E
    else:
        assert isinstance(queries, TokenWeights)
        left = pooled(queries)
        texts_E = (left.texts_E[:, None] * size + torch.arange(size, device=left.texts_E.device)).flatten()
        weights_E = left.weights_E.repeat_interleave(size)
        products_E = weights_E * passages[texts_E, left.ids_E.repeat_interleave(size)]
    flat_P = products_E.new_zeros(len(passages)).index_add(0, texts_E, products_E)
    return flat_P.view(len(queries), size)


def _check(queries: Sparse, passages: Sparse) -> None:
    left, right = width(queries), width(passages)
    if left != right:
        raise UsageError(
            f"the queries' sparse weights are over {left} ids and the passages' over {right}; "
            "both must come from one model"
        )


def width(weights: Sparse) -> int:
    """V."""
    return weights.shape[1] if isinstance(weights, Tensor) else weights.width


def _looked_up(weights: Sparse, texts_E: Tensor, ids_E: Tensor) -> Tensor:
    """(E,) weights of the given ids in the given texts, 0 where a text has none."""
    if isinstance(weights, Tensor):
        return weights[texts_E, ids_E]
    entries = pooled(weights)
    if not len(entries.ids_E):
        return entries.weights_E.sum() * ids_E.to(entries.weights_E.dtype)
    wanted_E = texts_E * weights.width + ids_E
    keys = entries.texts_E * weights.width + entries.ids_E
    where_E = torch.searchsorted(keys, wanted_E).clamp(max=len(keys) - 1)
    return entries.weights_E[where_E] * (keys[where_E] == wanted_E)


def _with_rows(entries: Entries, rows_NV: Tensor, *, count: int, block: int) -> Tensor:
    """(count, N) products of token weights with rows that already have the vocabulary's width."""
    parts = []
    for start in range(0, count, block):
        end = min(start + block, count)
        table = _table(entries, start=start, end=end)
        parts.append((rows_NV[:, table.ids_C] @ table.fill(entries.weights_E)).T)
    return torch.cat(parts) if parts else rows_NV.new_zeros(0, len(rows_NV))


def _between_entries(left: Entries, right: Entries, *, counts: tuple[int, int], block: int) -> Tensor:
    parts = []
    for start in range(0, counts[0], block):
        end = min(start + block, counts[0])
        parts.append(_Products.apply(left.weights_E, right.weights_E, left, right, (start, end, counts[1])))
    return torch.cat(parts) if parts else left.weights_E.new_zeros(0, counts[1])


class _Table(NamedTuple):
    """The ids of a block of queries as columns, and where the block's entries stand among them."""

    ids_C: Tensor
    first: int
    end: int
    """The block's entries are ``first:end``."""
    columns: Tensor
    rows: Tensor
    size: int
    """B"""

    def fill(self, weights_E: Tensor) -> Tensor:
        """(C, B) weights of all entries -> the block's table."""
        empty_CB = weights_E.new_zeros(len(self.ids_C), self.size)
        return empty_CB.index_put((self.columns, self.rows), weights_E[self.first : self.end])


def _table(entries: Entries, *, start: int, end: int) -> _Table:
    bounds = torch.searchsorted(entries.texts_E, entries.texts_E.new_tensor([start, end])).tolist()
    span = slice(*bounds)
    ids_C, columns = torch.unique(entries.ids_E[span], return_inverse=True)
    return _Table(ids_C, bounds[0], bounds[1], columns, entries.texts_E[span] - start, end - start)


class _Matches(NamedTuple):
    """The passages' entries whose ids occur in a block of queries; the order of `Entries` stays."""

    where_M: Tensor
    """Their numbers among all entries."""
    columns_M: Tensor
    texts_M: Tensor


def _matches(entries: Entries, ids_C: Tensor) -> _Matches:
    places_E = torch.searchsorted(ids_C, entries.ids_E).clamp(max=len(ids_C) - 1)
    where_M = (ids_C[places_E] == entries.ids_E).nonzero()[:, 0]
    return _Matches(where_M, places_E[where_M], entries.texts_E[where_M])


class _Products(torch.autograd.Function):
    """(B, P) inner products of a block of queries with all passages.

    The work grows with the passages' matching entries times B, not with P * C * B as in a product of dense tables.
    """

    @staticmethod
    def forward(
        ctx: Any, left_E: Tensor, right_E: Tensor, left: Entries, right: Entries, block: tuple[int, int, int]
    ) -> Tensor:
        start, end, passages = block
        ctx.save_for_backward(left_E, right_E, left.texts_E, left.ids_E, right.texts_E, right.ids_E)
        ctx.block = block
        table = _table(left, start=start, end=end)
        if not len(table.ids_C) or not len(right_E):
            return left_E.new_zeros(end - start, passages)
        found = _matches(right, table.ids_C)
        starts_P = torch.searchsorted(found.texts_M, torch.arange(passages, device=left_E.device))
        scores_PB = F.embedding_bag(
            found.columns_M, table.fill(left_E), starts_P, per_sample_weights=right_E[found.where_M], mode="sum"
        )
        return scores_PB.T.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_BP: Tensor) -> tuple[Tensor | None, ...]:
        left_E, right_E, left_texts, left_ids, right_texts, right_ids = ctx.saved_tensors
        start, end, _ = ctx.block
        left_gradient_E, right_gradient_E = torch.zeros_like(left_E), torch.zeros_like(right_E)
        table = _table(Entries(left_texts, left_ids, left_E), start=start, end=end)
        if len(table.ids_C) and len(right_E):
            gradient_PB = gradient_BP.T.contiguous()
            found = _matches(Entries(right_texts, right_ids, right_E), table.ids_C)
            filled_CB = table.fill(left_E)
            step = max(_SLICE // table.size, 1)
            for part in torch.arange(len(found.where_M), device=left_E.device).split(step):
                products = filled_CB[found.columns_M[part]] * gradient_PB[found.texts_M[part]]
                right_gradient_E[found.where_M[part]] = products.sum(dim=1)
            by_column, order_M = found.columns_M.sort(stable=True)
            starts_C = torch.searchsorted(by_column, torch.arange(len(table.ids_C), device=left_E.device))
            gradient_CB = F.embedding_bag(
                found.texts_M[order_M],
                gradient_PB,
                starts_C,
                per_sample_weights=right_E[found.where_M][order_M],
                mode="sum",
            )
            left_gradient_E[table.first : table.end] = gradient_CB[table.columns, table.rows]
        return left_gradient_E, right_gradient_E, None, None, None
