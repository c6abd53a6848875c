"""Late interaction: every query vector finds its best passage vector, and the query's score is the mean of those.

s(q, p) = 1/|q| sum_i max_j <q_i, p_j>. ColBERT (Khattab and Zaharia, arXiv 2004.12832, section 3.3) with the mean over
query vectors of BGE-M3 (arXiv 2402.03216, section 3.2). The similarities of all token pairs never exist at once: they
are made in blocks, and only the places of the maxima are kept for the backward pass.

Shapes: Q queries, P passages, S query vectors and T passage vectors of all texts together, d dimensions, G passages of
a query, B passages of a block, L vectors of the longest text of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from trine.errors import UsageError
from trine.objectives.base import TokenVectors

BLOCK = 1 << 23
"""Similarities that exist at a time: 32 MiB in float32."""

_TILE = 8192
"""Query vectors of a block at most, so that one passage of 8192 tokens stays within a few blocks."""


def maxsim(queries: TokenVectors, passages: TokenVectors, *, block: int = BLOCK) -> Tensor:
    """Scores of every query with every passage.

    A text without vectors scores 0. Where maxima tie, one of them receives the gradient. Half precision is multiplied
    as it is and summed in float32. Differentiable once.

    Args:
        queries: Q texts.
        passages: P texts, in the same dimensions and type.
        block: similarities held at a time; kept for backward are the inputs and one integer per query vector and
            passage, 2 bytes while no passage has more than 32767 vectors.

    Returns:
        (Q, P), float32 or float64.
    """
    _check(queries, passages)
    scores_QP: Tensor = _MaxSim.apply(
        queries.values_Td, passages.values_Td, queries.offsets, passages.offsets, max(block, 1)
    )
    return scores_QP


def maxsim_pairs(queries: TokenVectors, passages: TokenVectors, *, block: int = BLOCK) -> Tensor:
    """Scores of each query with its own passages alone, without the matrix of all.

    Args:
        queries: Q texts.
        passages: Q * G texts; ``q * G`` to ``q * G + G - 1`` belong to query q.
        block: similarities held at a time.

    Returns:
        (Q, G), as `maxsim` has them.

    Raises:
        UsageError: the number of passages is not a multiple of that of queries.
    """
    _check(queries, passages)
    group_size(len(queries), len(passages))
    scores_QG: Tensor = _MaxSimPairs.apply(
        queries.values_Td, passages.values_Td, queries.offsets, passages.offsets, max(block, 1)
    )
    return scores_QG


def group_size(queries: int, passages: int) -> int:
    """Passages of each query.

    Raises:
        UsageError: the number of passages is not a multiple of that of queries.
    """
    if passages % max(queries, 1):
        raise UsageError(
            f"{passages} passages cannot be shared out evenly among {queries} queries; give each query as many passages"
        )
    return passages // max(queries, 1)


class _MaxSim(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_Sd: Tensor, passage_Td: Tensor, query_offsets: Tensor, passage_offsets: Tensor, block: int
    ) -> Tensor:
        found_SP = torch.zeros(
            len(query_Sd), len(passage_offsets) - 1, dtype=_integer(passage_offsets), device=query_Sd.device
        )
        scores_QP = query_Sd.new_zeros(len(query_offsets) - 1, found_SP.shape[1], dtype=_wide(query_Sd).dtype)
        for members_B, where_BL in _blocks_by_length(passage_offsets, rows=min(len(query_Sd), _TILE), block=block):
            last_B = passage_offsets.diff()[members_B] - 1
            block_Xd = passage_Td[where_BL.flatten()]
            best = []
            for tile_Sd in query_Sd.split(_TILE):
                best_SB, at_SB = (tile_Sd @ block_Xd.T).view(len(tile_Sd), *where_BL.shape).max(dim=2)
                best.append(_wide(best_SB))
                start = sum(map(len, best[:-1]))
                found_SP[start : start + len(tile_Sd), members_B] = torch.minimum(at_SB, last_B).to(found_SP.dtype)
            scores_QP[:, members_B] = _mean_of_each(torch.cat(best), query_offsets)
        ctx.save_for_backward(query_Sd, passage_Td, query_offsets, passage_offsets, found_SP)
        ctx.block = block
        return scores_QP

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_QP: Tensor) -> tuple[Tensor | None, ...]:
        query_Sd, passage_Td, query_offsets, passage_offsets, found_SP = ctx.saved_tensors
        query_gradient_Sd = torch.zeros_like(_wide(query_Sd))
        passage_gradient_Td = torch.zeros_like(_wide(passage_Td))
        owners_S = _owners(query_offsets)
        share_QP = _share(gradient_QP, query_offsets) * (passage_offsets.diff() > 0)
        wide_query_Sd, wide_passage_Td = _wide(query_Sd), _wide(passage_Td)
        step = max(ctx.block // max(len(query_Sd), 1), 1)
        begins = passage_offsets.tolist()
        for start in range(0, found_SP.shape[1], step):
            offsets = passage_offsets[start : start + step + 1]
            first, end = begins[start], begins[start + len(offsets) - 1]
            if first == end or not len(query_Sd):
                continue
            rows_SB = (found_SP[:, start : start + step] + (offsets[:-1] - first)).clamp(max=end - first - 1)
            weights_SB = share_QP[:, start : start + step][owners_S]
            part_Td = wide_passage_Td[first:end]
            query_gradient_Sd += F.embedding_bag(rows_SB, part_Td, per_sample_weights=weights_SB, mode="sum")
            passage_gradient_Td[first:end] = _gathered(rows_SB, weights_SB, wide_query_Sd, length=end - first)
        return query_gradient_Sd.to(query_Sd.dtype), passage_gradient_Td.to(passage_Td.dtype), None, None, None


class _MaxSimPairs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_Sd: Tensor, passage_Td: Tensor, query_offsets: Tensor, passage_offsets: Tensor, block: int
    ) -> Tensor:
        count = len(query_offsets) - 1
        size = (len(passage_offsets) - 1) // max(count, 1)
        found_SG = torch.zeros(len(query_Sd), size, dtype=torch.int64, device=query_Sd.device)
        best_SG = torch.zeros(len(query_Sd), size, dtype=_wide(query_Sd).dtype, device=query_Sd.device)
        begins = query_offsets.tolist()
        for start, end, widest, tallest in _blocks_of_groups(query_offsets, passage_offsets, size=size, block=block):
            rows_BL = _padded(query_offsets, torch.arange(start, end, device=query_Sd.device), longest=widest)
            own = torch.arange(start * size, end * size, device=query_Sd.device)
            where_XL = _padded(passage_offsets, own, longest=tallest)
            left_BLd = query_Sd[rows_BL.clamp(max=len(query_Sd) - 1)]
            right_BXd = passage_Td[where_XL.clamp(max=len(passage_Td) - 1)].view(end - start, -1, query_Sd.shape[1])
            scores_BLGM = (left_BLd @ right_BXd.mT).view(*rows_BL.shape, size, -1)
            values_BLG, at_BLG = scores_BLGM.max(dim=3)
            lengths_BG = passage_offsets.diff()[own].view(-1, 1, size)
            at_BLG = torch.minimum(at_BLG, lengths_BG - 1).clamp(min=0) + passage_offsets[own].view(-1, 1, size)
            real_BL = torch.arange(rows_BL.shape[1], device=query_Sd.device) < query_offsets.diff()[start:end, None]
            span = slice(begins[start], begins[end])
            best_SG[span] = (_wide(values_BLG) * (lengths_BG > 0))[real_BL]
            found_SG[span] = at_BLG.clamp(max=len(passage_Td) - 1)[real_BL]
        ctx.save_for_backward(query_Sd, passage_Td, query_offsets, passage_offsets, found_SG)
        return _mean_of_each(best_SG, query_offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_QG: Tensor) -> tuple[Tensor | None, ...]:
        query_Sd, passage_Td, query_offsets, passage_offsets, found_SG = ctx.saved_tensors
        if not len(query_Sd) or not len(passage_Td):
            return torch.zeros_like(query_Sd), torch.zeros_like(passage_Td), None, None, None
        present_QG = (passage_offsets.diff() > 0).view_as(gradient_QG)
        weights_SG = (_share(gradient_QG, query_offsets) * present_QG)[_owners(query_offsets)]
        query_gradient_Sd = F.embedding_bag(found_SG, _wide(passage_Td), per_sample_weights=weights_SG, mode="sum")
        passage_gradient_Td = _gathered(found_SG, weights_SG, _wide(query_Sd), length=len(passage_Td))
        return query_gradient_Sd.to(query_Sd.dtype), passage_gradient_Td.to(passage_Td.dtype), None, None, None


def _check(queries: TokenVectors, passages: TokenVectors) -> None:
    left, right = queries.values_Td, passages.values_Td
    if left.shape[1] != right.shape[1] or left.dtype != right.dtype:
        raise UsageError(
            f"query vectors are ({left.shape[1]}-dimensional, {left.dtype}) and passage vectors ({right.shape[1]}-"
            f"dimensional, {right.dtype}); both must come from one model in one type"
        )


def _wide(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _integer(offsets: Tensor) -> torch.dtype:
    longest = int(offsets.diff().max()) if len(offsets) > 1 else 0
    return torch.int16 if longest <= torch.iinfo(torch.int16).max else torch.int32


def _owners(offsets: Tensor) -> Tensor:
    """(S,) the text that each vector belongs to."""
    return torch.repeat_interleave(torch.arange(len(offsets) - 1, device=offsets.device), offsets.diff())


def _share(gradient_QP: Tensor, query_offsets: Tensor) -> Tensor:
    """What reaches each vector of a query through the mean over its vectors."""
    return gradient_QP / query_offsets.diff().clamp(min=1)[:, None]


def _mean_of_each(values_SP: Tensor, offsets: Tensor) -> Tensor:
    """(Q, P) means over each text's rows, 0 where there are none.

    embedding_bag sums in a fixed order on every device, which index_add does not.
    """
    if not len(values_SP):
        return values_SP.new_zeros(len(offsets) - 1, values_SP.shape[1])
    rows_S = torch.arange(len(values_SP), device=values_SP.device)
    return F.embedding_bag(rows_S, values_SP, offsets, mode="mean", include_last_offset=True)


def _gathered(rows_SB: Tensor, weights_SB: Tensor, query_Sd: Tensor, *, length: int) -> Tensor:
    """(T, d) sums of the weighted query vectors that chose each of the T rows.

    Sorting and summing took 30 ms where scattering ones into a matrix and multiplying took 110 (1024 query vectors,
    256 passages of 128 vectors, one core), and unlike index_add it is deterministic on a GPU.
    """
    sorted_X, order_X = rows_SB.flatten().to(torch.int32).sort(stable=True)
    starts_T = torch.searchsorted(sorted_X, torch.arange(length, device=rows_SB.device, dtype=torch.int32))
    return F.embedding_bag(
        order_X // rows_SB.shape[1],
        query_Sd,
        starts_T,
        per_sample_weights=weights_SB.flatten()[order_X],
        mode="sum",
    )


def _padded(offsets: Tensor, texts_B: Tensor, *, longest: int) -> Tensor:
    """(B, L) places of the texts' rows in the packed array; a shorter text repeats its last row.

    No maximum changes by that, and nothing has to be masked.
    """
    lengths_B = offsets.diff()[texts_B]
    steps_L = torch.arange(longest, device=offsets.device)
    return offsets[texts_B][:, None] + torch.minimum(steps_L, (lengths_B - 1).clamp(min=0)[:, None])


def _blocks_by_length(offsets: Tensor, *, rows: int, block: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Texts of similar length and their padded places; texts without vectors are left out."""
    lengths, order = offsets.diff().sort(stable=True)
    sizes = lengths.tolist()
    start = sum(size == 0 for size in sizes) if rows else len(sizes)
    while start < len(sizes):
        end = start + 1
        while end < len(sizes) and (end + 1 - start) * sizes[end] * rows <= block:
            end += 1
        yield order[start:end], _padded(offsets, order[start:end], longest=sizes[end - 1])
        start = end


def _blocks_of_groups(
    query_offsets: Tensor, passage_offsets: Tensor, *, size: int, block: int
) -> Iterator[tuple[int, int, int, int]]:
    """Consecutive queries whose padded similarities fit into `block`: first, end, longest query and passage."""
    left = query_offsets.diff().tolist()
    right = passage_offsets.diff().view(-1, size).max(dim=1).values.tolist() if size else []
    start = 0
    while start < len(right):
        end, widest, tallest = start + 1, left[start], right[start]
        while end < len(right):
            wider, taller = max(widest, left[end]), max(tallest, right[end])
            if (end + 1 - start) * wider * taller * size > block:
                break
            end, widest, tallest = end + 1, wider, taller
        if widest and tallest:
            yield start, end, widest, tallest
        start = end
