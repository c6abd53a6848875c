"""Many pairs of texts -> logits: sorted by tokens, batched by a token budget, results in input order.

Shapes: N pairs, B pairs of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from trine.encoding.batches import TokenBudget, without_dropout
from trine.encoding.engine import BATCH_TOKENS, WINDOW, pad
from trine.encoding.progress import progress_bar
from trine.errors import UsageError

if TYPE_CHECKING:
    from trine.models.reranker import Reranker
    from trine.models.tokenization import Tokens


class PairEngine:
    """Scores pairs with a cross-encoder, on any device."""

    def __init__(self, reranker: Reranker, *, batch_tokens: int | None = None) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise UsageError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.reranker = reranker
        self.budget = TokenBudget(batch_tokens or BATCH_TOKENS.get(reranker.device.type, 1024))

    def logits(self, pairs: Sequence[tuple[str, str]], *, progress: bool = False) -> NDArray[np.float32]:
        """(N,) the logit of each (query, passage)."""
        tokenizer = self.reranker.pairs
        queries = tokenizer.ids(query for query, _ in pairs)
        result_N = np.zeros(len(pairs), np.float32)
        with progress_bar("scoring", total=len(pairs), shown=progress) as advance, without_dropout(self.reranker):
            for start in range(0, len(pairs), WINDOW):
                window = pairs[start : start + WINDOW]
                passages = tokenizer.ids(passage for _, passage in window)
                tokens = tokenizer.join([(queries[query], passages[passage]) for query, passage in window])
                self._fill(result_N[start : start + WINDOW], tokens)
                advance(len(window))
        return result_N

    def _fill(self, logits_N: NDArray[np.float32], tokens: Tokens) -> None:
        def forward(rows: NDArray[np.int64]) -> None:
            with torch.inference_mode():
                batch = pad(tokens, rows, kind="passage", device=self.reranker.device)
                logits_N[rows] = self.reranker(batch).float().cpu().numpy()

        for rows in self.budget.batches(tokens.lengths):
            self.budget.run(rows, forward)
