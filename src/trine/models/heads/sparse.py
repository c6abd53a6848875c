"""The sparse head: one weight a token, or one weight a vocabulary entry.

Shapes: B texts, L tokens, H hidden size, V vocabulary.
Sources: BGE-M3 (arXiv 2402.03216, section 3.2), SPLADE v2 (arXiv 2109.10086, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trine.models.config import SparseConfig
from trine.types import Kind, SparseRows


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
        self, *, ids_BL: Tensor, mask_BL: Tensor, states_BLH: Tensor | None, logits_BLV: Tensor | None, kind: Kind
    ) -> SparseTensors:
        """Weigh the tokens; special tokens and padding get zero."""
        source = self.source(kind)
        if source == "masked_lm":
            assert logits_BLV is not None
            return SparseTensors(self._vocabulary_weights(logits_BLV, mask_BL), None)
        kept_BL = mask_BL & ~torch.isin(ids_BL, self.dropped)
        if source == "static":
            assert self.table is not None
            # A static weight counts once, however often its word occurs: the largest of equal numbers.
            return SparseTensors(self.table[ids_BL] * kept_BL, ids_BL, "max")
        assert self.linear is not None
        assert states_BLH is not None
        weights_BL = torch.relu(self.linear(states_BLH)).squeeze(-1)
        return SparseTensors(weights_BL * kept_BL, ids_BL, self.config.pooling)

    def _vocabulary_weights(self, logits_BLV: Tensor, mask_BL: Tensor) -> Tensor:
        weights_BLV = torch.relu(logits_BLV) * mask_BL[:, :, None]
        for _ in range(self.config.log1p):
            weights_BLV = torch.log1p(weights_BLV)
        weights_BV = weights_BLV.amax(dim=1) if self.config.pooling == "max" else weights_BLV.sum(dim=1)
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
