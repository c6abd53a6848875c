"""The multi-vector head: one vector a token, scored by MaxSim.

Shapes: B texts, L tokens, H hidden size, d dimensions, T tokens of all texts.
Sources: ColBERT (arXiv 2004.12832, section 3.2), BGE-M3 (arXiv 2402.03216, section 3.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from trine.models.config import MultiVectorConfig
from trine.models.heads import layers
from trine.types import Kind


class MultiVectorHead(nn.Module):
    """Token states through layers; which tokens keep a vector depends on their ids alone."""

    def __init__(self, config: MultiVectorConfig, *, hidden_size: int) -> None:
        super().__init__()
        self.config = config
        self.layers = layers.build(config.layers)
        self.width = layers.width_after(config.layers, hidden_size)

    def forward(self, states_BLH: Tensor) -> Tensor:
        """(B, L, H) -> (B, L, d)"""
        vectors_BLd: Tensor = self.layers(states_BLH)
        return vectors_BLd

    def kept(self, ids_T: NDArray[np.int32], starts: NDArray[np.int64], *, kind: Kind) -> NDArray[np.bool_]:
        """Which of the T tokens keep their vector.

        Args:
            ids_T: tokens of all texts, one text after the other, no padding.
            starts: position of each text's first token.
            kind: decides which ids are dropped.
        """
        dropped = self.config.dropped_query_ids if kind == "query" else self.config.dropped_passage_ids
        kept_T = ~np.isin(ids_T, dropped) if dropped else np.ones(len(ids_T), np.bool_)
        if self.config.drop_first:
            kept_T[starts] = False
        return kept_T
