"""Many texts -> embeddings: sorted by tokens, batched by a token budget, results in input order.

Shapes: N texts, T tokens of all texts, B texts and L tokens of a batch, D and d dimensions.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from trine.encoding.batches import TokenBudget, without_dropout
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.models.encoder import Batch, Encoder
from trine.models.prefixes import Prefix, take_prefix
from trine.models.tokenization import Tokens
from trine.types import Embeddings, Kind, Mode, PackedRows, SparseRows

WINDOW = 4096
"""Texts that are tokenised and sorted together; beyond some thousand, padding no longer shrinks."""

BATCH_TOKENS = {"cpu": 1024, "mps": 16384, "cuda": 65536}
"""A batch that fills the caches of a CPU core, or the multiprocessors of a GPU."""

LEAST_PREFIX = 4
"""Tokens from which on a prefix that all texts share is computed once."""

LOGITS_LIMIT = 1 << 26
"""Masked-LM logits of one batch: 256 MiB of float32."""


class TorchEngine:
    """The portable engine: padded batches through torch, on any device."""

    def __init__(self, encoder: Encoder, *, batch_tokens: int | None = None) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise UsageError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.encoder = encoder
        budget = batch_tokens or BATCH_TOKENS.get(encoder.device.type, 1024)
        if encoder.config.needs_masked_lm:
            budget = max(min(budget, LOGITS_LIMIT // encoder.backbone.vocabulary_size), 1)
        self.budget = TokenBudget(budget)

    def encode(
        self,
        texts: Sequence[str],
        *,
        kind: Kind = "passage",
        modes: Iterable[Mode] | None = None,
        prompt: str | None = None,
        progress: bool = False,
    ) -> Embeddings:
        """Embed a list of texts, in input order."""
        chosen = self.encoder.chosen_modes(modes)
        parts = []
        with progress_bar("encoding", total=len(texts), shown=progress) as advance:
            for start in range(0, max(len(texts), 1), WINDOW):
                parts.append(self._window(texts[start : start + WINDOW], kind, chosen, prompt))
                advance(len(parts[-1]))
        return parts[0] if len(parts) == 1 else Embeddings.concatenate(parts)

    def stream(
        self,
        texts: Iterable[str],
        *,
        kind: Kind = "passage",
        modes: Iterable[Mode] | None = None,
        prompt: str | None = None,
        window: int = WINDOW,
    ) -> Iterator[Embeddings]:
        """Embed without end: memory holds one window of texts and their embeddings."""
        if window < 1:
            raise UsageError(f"window must be at least 1, got {window}")
        chosen = self.encoder.chosen_modes(modes)
        source = iter(texts)
        pieces = iter(lambda: list(itertools.islice(source, window)), [])
        return (self._window(part, kind, chosen, prompt) for part in pieces)

    def _window(self, texts: Sequence[str], kind: Kind, modes: Sequence[Mode], prompt: str | None) -> Embeddings:
        tokens = self.encoder.text(texts, kind=kind, prompt=prompt)
        result = _Result(self.encoder, tokens, kind, modes)

        def forward(rows: NDArray[np.int64]) -> None:
            batch = pad(tokens, rows, kind=kind, device=self.encoder.device)
            result.take(rows, replace(batch, prefix=prefix))

        with without_dropout(self.encoder), torch.inference_mode():
            prefix = self._prefix(tokens)
            for rows in self.budget.batches(tokens.lengths - (0 if prefix is None else len(prefix))):
                self.budget.run(rows, forward)
        return result.finish()

    def _prefix(self, tokens: Tokens) -> Prefix | None:
        """What all texts begin with, where it is worth to be computed once."""
        length = shared_length(tokens)
        if length < LEAST_PREFIX:
            return None
        ids_P = torch.from_numpy(tokens.ids[:length].astype(np.int64)).to(self.encoder.device)
        return take_prefix(self.encoder.backbone, ids_P)


def shared_length(tokens: Tokens) -> int:
    """Tokens that all texts begin with, at most all but the last of the shortest; 0 for a single text."""
    if len(tokens.lengths) < 2:
        return 0
    most = int(tokens.lengths.min()) - 1
    if most < LEAST_PREFIX:
        return 0
    columns = tokens.offsets[:-1, None] + np.arange(most)
    same_P = (tokens.ids[columns] == tokens.ids[:most]).all(axis=0) & tokens.attended[columns].all(axis=0)
    return int(np.append(same_P, False).argmin())


def pad(tokens: Tokens, rows: NDArray[np.int64], *, kind: Kind, device: torch.device) -> Batch:
    """The given texts as one batch, padded on the right to the longest."""
    lengths = tokens.lengths[rows]
    column = np.arange(lengths.max())
    mask_BL = column[None, :] < lengths[:, None]
    where = np.minimum(tokens.offsets[rows][:, None] + column[None, :], len(tokens.ids) - 1)
    # The id under padding reaches no result; RoBERTa counts positions by it, so it is the tokenizer's own.
    return Batch(
        ids_BL=torch.from_numpy(np.where(mask_BL, tokens.ids[where], tokens.padding_id).astype(np.int64)).to(device),
        mask_BL=torch.from_numpy(mask_BL).to(device),
        attended_BL=torch.from_numpy(mask_BL & tokens.attended[where]).to(device),
        prompt_lengths_B=torch.from_numpy(tokens.prompt_lengths[rows]).to(device),
        kind=kind,
    )


class _Result:
    """The embeddings of one window, filled batch by batch, each batch straight into its place."""

    def __init__(self, encoder: Encoder, tokens: Tokens, kind: Kind, modes: Sequence[Mode]) -> None:
        self.encoder, self.modes, self.count = encoder, modes, len(tokens.lengths)
        self.dense_ND = np.zeros((self.count, encoder.dimensions.get("dense", 0)), np.float32)
        self.sparse: list[SparseRows] = []
        self.sparse_order: list[NDArray[np.int64]] = []
        if "multi_vector" in modes:
            assert encoder.multi_vector is not None
            self.kept_T = encoder.multi_vector.kept(tokens.ids, tokens.offsets[:-1], kind=kind)
            counts = np.concatenate([[0], np.cumsum(self.kept_T)])
            self.token_offsets = tokens.offsets
            self.vector_offsets = counts[tokens.offsets].astype(np.int64)
            self.vectors_Td = np.zeros((int(counts[-1]), encoder.multi_vector.width), np.float32)

    def take(self, rows: NDArray[np.int64], batch: Batch) -> None:
        """Run one batch and store what it gives."""
        output = self.encoder(batch, self.modes)
        if output.dense_BD is not None:
            self.dense_ND[rows] = output.dense_BD.float().cpu().numpy()
        if output.vectors_BLd is not None:
            self._take_vectors(rows, output.vectors_BLd, batch)
        # Last, because it appends: where memory runs out above, the same rows come a second time.
        if output.sparse is not None:
            assert self.encoder.sparse is not None
            self.sparse.append(self.encoder.sparse.rows(output.sparse))
            self.sparse_order.append(rows)

    def _take_vectors(self, rows: NDArray[np.int64], vectors_BLd: torch.Tensor, batch: Batch) -> None:
        kept_BL = np.zeros(batch.mask_BL.shape, np.bool_)
        for number, row in enumerate(rows):
            span = slice(self.token_offsets[row], self.token_offsets[row + 1])
            kept_BL[number, : span.stop - span.start] = self.kept_T[span]
        flat = vectors_BLd[torch.from_numpy(kept_BL).to(vectors_BLd.device)].float().cpu().numpy()
        counts = self.vector_offsets[rows + 1] - self.vector_offsets[rows]
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        where = np.arange(len(flat)) + np.repeat(self.vector_offsets[rows] - starts, counts)
        self.vectors_Td[where] = flat

    def finish(self) -> Embeddings:
        """The window's embeddings in input order."""
        sparse = multi_vector = None
        if "sparse" in self.modes:
            inverse = np.argsort(np.concatenate([np.zeros(0, np.int64), *self.sparse_order]))
            sparse = SparseRows.concatenate(self.sparse).take(inverse) if self.sparse else self._no_rows()
        if "multi_vector" in self.modes:
            multi_vector = PackedRows(self.vectors_Td, self.vector_offsets)
        return Embeddings(self.dense_ND if "dense" in self.modes else None, sparse, multi_vector)

    def _no_rows(self) -> SparseRows:
        return SparseRows.from_rows([], width=self.encoder.dimensions["sparse"])
