"""The sparse head: one weight a token, or one weight a vocabulary entry.

Shapes: B texts, L tokens, H hidden size, V vocabulary, C entries of a chunk of it.
Sources: BGE-M3 (arXiv 2402.03216, section 3.2), SPLADE v2 (arXiv 2109.10086, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from trine.models.backbone import Prediction
from trine.models.config import SparseConfig
from trine.types import Kind, SparseRows

LOGITS_LIMIT = 1 << 24
"""Logits of one chunk of the vocabulary: 64 MiB of float32."""


@dataclass(frozen=True, slots=True)
class SparseTensors:
    """Weights before they are packed; differentiable."""

    weights: Tensor
    """(B, L) where `ids` is given, else (B, V); zero means absent."""
    ids_BL: Tensor | None
    pooling: Literal["max", "sum"] = "max"
    """How the weights of equal ids become one, where `ids_BL` is given."""


class SparseHead(nn.Module):
    """Turns token states or masked-language-model logits into weights over the vocabulary."""

    dropped: Tensor

    def __init__(self, config: SparseConfig, *, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.width = config.width
        self.linear = nn.Linear(hidden_size, 1) if config.source == "token_linear" else None
        needs_table = "static" in (config.source, config.query_source)
        self.table = nn.Parameter(torch.zeros(config.width)) if needs_table else None
        self.register_buffer("dropped", torch.tensor(config.dropped_ids, dtype=torch.long), persistent=False)

    def source(self, kind: Kind) -> str:
        """Where the weights of this side come from."""
        return (self.config.query_source or self.config.source) if kind == "query" else self.config.source

    def forward(
        self,
        *,
        ids_BL: Tensor,
        mask_BL: Tensor,
        states_BLH: Tensor | None,
        prediction: Prediction | None,
        kind: Kind,
    ) -> SparseTensors:
        """Weigh the tokens; special tokens and padding get zero."""
        source = self.source(kind)
        if source == "masked_lm":
            assert prediction is not None
            return SparseTensors(self._vocabulary_weights(prediction, mask_BL), None)
        kept_BL = mask_BL & ~torch.isin(ids_BL, self.dropped)
        if source == "static":
            assert self.table is not None
            # A static weight counts once, however often its word occurs: the largest of equal numbers.
            return SparseTensors(self.table[ids_BL] * kept_BL, ids_BL, "max")
        assert self.linear is not None
        assert states_BLH is not None
        weights_BL = torch.relu(self.linear(states_BLH)).squeeze(-1)
        return SparseTensors(weights_BL * kept_BL, ids_BL, self.config.pooling)

    def _vocabulary_weights(self, prediction: Prediction, mask_BL: Tensor) -> Tensor:
        if self.config.pooling == "max":
            # Both functions rise, so that the largest logit gives the largest weight.
            weights_BV = _saturated(largest_logits(prediction, mask_BL), self.config.log1p)
        else:
            weights_BV = _summed_weights(prediction, mask_BL, log1p=self.config.log1p)
        if len(self.dropped):
            weights_BV = weights_BV.index_fill(1, self.dropped, 0.0)
        return weights_BV

    def rows(self, tensors: SparseTensors) -> SparseRows:
        """Pack into CSR: the largest weight (or the sum) of each id, zeros left out."""
        weights = tensors.weights.detach().float().cpu().numpy()
        if tensors.ids_BL is None:
            row, ids = np.nonzero(weights)
            return self._csr(len(weights), row, ids, weights[row, ids])
        row, column = np.nonzero(weights)
        ids = tensors.ids_BL.cpu().numpy()[row, column].astype(np.int64)
        key = row * self.width + ids
        order = np.argsort(key, kind="stable")
        key, values = key[order], weights[row, column][order]
        first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.zeros(0, np.int64)
        reduce = np.maximum if tensors.pooling == "max" else np.add
        values = reduce.reduceat(values, first) if len(first) else values
        return self._csr(len(weights), key[first] // self.width, key[first] % self.width, values)

    def _csr(
        self, count: int, row: NDArray[np.int64], ids: NDArray[np.int64], values: NDArray[np.float32]
    ) -> SparseRows:
        offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=count))]).astype(np.int64)
        return SparseRows(offsets, ids.astype(np.int32), values.astype(np.float32), self.width)


def largest_logits(prediction: Prediction, mask_BL: Tensor, *, chunk: int | None = None) -> Tensor:
    """(B, V) the largest logit of each vocabulary entry over the tokens that `mask_BL` marks; -inf where it marks none.

    Memory holds the logits of one chunk of the vocabulary, in the backward pass none at all.

    Args:
        prediction: of the masked-language-model head.
        mask_BL: tokens that count.
        chunk: vocabulary entries at a time; None allows `LOGITS_LIMIT` logits.
    """
    if prediction.weight_VH is None:
        return prediction.logits.masked_fill(~mask_BL[:, :, None], float("-inf")).amax(dim=1)
    found: Tensor = _LargestLogits.apply(
        prediction.states_BLH, mask_BL, prediction.weight_VH, prediction.bias_V, chunk or _entries(mask_BL)
    )
    return found


def _entries(mask_BL: Tensor) -> int:
    return max(LOGITS_LIMIT // max(mask_BL.numel(), 1), 1)


def _saturated(weights: Tensor, log1p: int) -> Tensor:
    weights = torch.relu(weights)
    for _ in range(log1p):
        weights = torch.log1p(weights)
    return weights


def _summed_weights(prediction: Prediction, mask_BL: Tensor, *, log1p: int) -> Tensor:
    """(B, V) sums over tokens; a chunk of the vocabulary is computed again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    def summed(states_BLH: Tensor, weight_CH: Tensor | None, bias_C: Tensor | None) -> Tensor:
        logits_BLC = Prediction(states_BLH, weight_CH, bias_C).logits
        return (_saturated(logits_BLC, log1p) * mask_BL[:, :, None]).sum(dim=1)

    if prediction.weight_VH is None:
        return summed(prediction.states_BLH, None, None)
    size = _entries(mask_BL)
    weights = prediction.weight_VH.split(size)
    biases: Any = [None] * len(weights) if prediction.bias_V is None else prediction.bias_V.split(size)
    parts = [
        checkpoint(summed, prediction.states_BLH, weight_CH, bias_C, use_reentrant=False, preserve_rng_state=False)
        for weight_CH, bias_C in zip(weights, biases, strict=True)
    ]
    return torch.cat(parts, dim=1)


class _LargestLogits(torch.autograd.Function):
    """The maximum keeps one token for each text and entry: its gradient needs no logits and has no factor L."""

    @staticmethod
    def forward(
        ctx: Any, states_BLH: Tensor, mask_BL: Tensor, weight_VH: Tensor, bias_V: Tensor | None, size: int
    ) -> Tensor:
        values, places = [], []
        for start in range(0, len(weight_VH), size):
            span = slice(start, start + size)
            bias_C = None if bias_V is None else bias_V[span]
            logits_BLC = nn.functional.linear(states_BLH, weight_VH[span], bias_C)
            found = logits_BLC.masked_fill_(~mask_BL[:, :, None], float("-inf")).max(dim=1)
            values.append(found.values)
            places.append(found.indices.to(torch.int32))
        ctx.save_for_backward(states_BLH, weight_VH, bias_V, torch.cat(places, dim=1))
        return torch.cat(values, dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states_BLH, weight_VH, bias_V, place_BV = ctx.saved_tensors
        (gradient_BV,) = gradients
        wide = torch.promote_types(states_BLH.dtype, torch.float32)
        for_states, for_weight = torch.zeros_like(states_BLH, dtype=wide), torch.zeros_like(weight_VH, dtype=wide)
        for row, gradient_V in enumerate(gradient_BV.to(wide)):
            entries = gradient_V.nonzero().squeeze(1)
            for part in entries.split(max(LOGITS_LIMIT // max(weight_VH.shape[1], 1), 1)):
                pulls, places = gradient_V[part][:, None], place_BV[row, part].long()
                for_weight.index_add_(0, part, pulls * states_BLH[row, places])
                for_states[row].index_add_(0, places, pulls * weight_VH[part])
        for_bias = None if bias_V is None else gradient_BV.sum(dim=0).to(bias_V.dtype)
        return for_states.to(states_BLH.dtype), None, for_weight.to(weight_VH.dtype), for_bias, None
