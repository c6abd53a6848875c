"""Tokens -> differentiable embeddings: a side of the batch cut into chunks, and each chunk's forward pass.

Shapes: B texts and L tokens of a chunk, N texts, T tokens of all texts together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trine.encoding.engine import pad
from trine.models.encoder import Batch, Encoder, Representations
from trine.models.tokenization import Tokens
from trine.objectives.base import Embedded, Sparse, TokenVectors, TokenWeights
from trine.types import Kind, Mode


@dataclass(frozen=True, slots=True)
class Chunk:
    """Texts that pass through the model together."""

    batch: Batch
    rows: NDArray[np.int64]
    """(B,) their numbers on their side of the batch."""
    weighted_BL: Tensor | None
    """Tokens that may carry a sparse weight."""
    kept_BL: Tensor | None
    """Tokens that keep a multi-vector."""
    seed: int
    """Of dropout: the same chunk draws the same masks in every pass, and on whatever rank."""


def chunks(
    encoder: Encoder, tokens: Tokens, *, kind: Kind, modes: Sequence[Mode], budget: int | None, seed: int = 0
) -> list[Chunk]:
    """Cut one side of a batch into chunks of texts of similar length.

    Args:
        encoder: whose heads decide which tokens count.
        tokens: N texts.
        kind: decides the heads' rules.
        modes: representations that will be computed.
        budget: tokens of one chunk, padding included; None leaves the side whole, in its order.
        seed: chunk number k draws its dropout from ``seed + k``.
    """
    device = encoder.device
    result = []
    for number, rows in enumerate(_rows_by_budget(tokens.lengths, budget)):
        batch = pad(tokens, rows, kind=kind, device=device)
        weighted = kept = None
        if "sparse" in modes:
            assert encoder.sparse is not None
            weighted = batch.mask_BL & batch.attended_BL & ~torch.isin(batch.ids_BL, encoder.sparse.dropped)
        if "multi_vector" in modes:
            kept = torch.from_numpy(_kept(encoder, tokens, rows, kind, batch.mask_BL.shape[1])).to(device)
        result.append(Chunk(batch, rows, weighted, kept, seed + number))
    return result


def pack(output: Representations, chunk: Chunk, *, width: int) -> Embedded:
    """Drop the padding of one forward pass; sums and scores run in float32 whatever the model computed in.

    Args:
        output: of the encoder for `chunk`.
        chunk: the texts.
        width: vocabulary size V.
    """
    vectors = None
    if output.vectors_BLd is not None:
        assert chunk.kept_BL is not None
        vectors = TokenVectors(output.vectors_BLd[chunk.kept_BL].float(), _offsets(chunk.kept_BL))
    return Embedded(
        dense_ND=None if output.dense_BD is None else output.dense_BD.float(),
        sparse=_pack_sparse(output, chunk, width),
        vectors=vectors,
    )


def embedder(
    model: Callable[..., Representations], *, modes: Sequence[Mode], width: int, precision: torch.dtype | None = None
) -> Callable[[Chunk], Embedded]:
    """The forward pass of a chunk as a function.

    Args:
        model: an `Encoder`, or one wrapped for several ranks.
        modes: representations to compute.
        width: vocabulary size V.
        precision: of autocast; None computes in the weights' own.
    """

    def embed(chunk: Chunk) -> Embedded:
        device = chunk.batch.ids_BL.device.type
        with torch.autocast(device, dtype=precision, enabled=precision is not None):
            output = model(chunk.batch, modes)
        return pack(output, chunk, width=width)

    return embed


def _pack_sparse(output: Representations, chunk: Chunk, width: int) -> Sparse | None:
    tensors = output.sparse
    if tensors is None:
        return None
    if tensors.ids_BL is None:
        return tensors.weights.float()
    assert chunk.weighted_BL is not None
    keep = chunk.weighted_BL
    return TokenWeights(
        tensors.weights[keep].float(), tensors.ids_BL[keep], _offsets(keep), width=width, pooling=tensors.pooling
    )


def _offsets(keep_BL: Tensor) -> Tensor:
    counts_B = keep_BL.sum(dim=1)
    return torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])


def _kept(encoder: Encoder, tokens: Tokens, rows: NDArray[np.int64], kind: Kind, width: int) -> NDArray[np.bool_]:
    assert encoder.multi_vector is not None
    kept_BL = np.zeros((len(rows), width), np.bool_)
    for number, row in enumerate(rows):
        ids = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        kept_BL[number, : len(ids)] = encoder.multi_vector.kept(ids, np.zeros(1, np.int64), kind=kind)
    return kept_BL


def _rows_by_budget(lengths: NDArray[np.int64], budget: int | None) -> Iterator[NDArray[np.int64]]:
    if budget is None:
        yield np.arange(len(lengths))
        return
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(budget // int(lengths[order[start]]), 1)
        yield order[start : start + size]
        start += size
