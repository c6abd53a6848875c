"""Sparse and multi-vector heads without training, for a dense model: corpus statistics, token states as they are.

This makes a dense checkpoint usable in all three modes. It is no substitute for trained heads, and every encoder made
so lists the modes in `untrained`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from trine.errors import CheckpointError
from trine.models.checkpoints.base import Checkpoint, special_ids
from trine.models.config import MultiVectorConfig, Normalize, SparseConfig
from trine.models.files import read_tensors

if TYPE_CHECKING:
    from torch import Tensor


LARGEST = 0.3
"""Weight of the rarest id; bge-m3's own README shows weights from .04 to .34."""


def term_weights(texts: Iterable[str], tokenizer: Any, *, batch: int = 1000) -> NDArray[np.float32]:
    """(V,) weights from the inverse document frequency ``ln((N - n + .5) / (n + .5))`` of each vocabulary id.

    Query and passage carry the same weights, so their square roots stand in the table and a shared id adds its whole
    idf to the score (Robertson and Zaragoza 2009, section 3.1). An id in more than half of the texts weighs nothing:
    so do most of the single letters into which a tokenizer without Korean words takes Hangul apart. Ids that no text
    holds get the largest weight. The scale is that of trained lexical weights, so that weighted sums stay balanced.
    """
    import itertools

    frequency = np.zeros(len(tokenizer), np.int64)
    count = 0
    source = iter(texts)
    while part := list(itertools.islice(source, batch)):
        for row in tokenizer(part, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]:
            frequency[np.unique(row).astype(np.int64)] += 1
        count += len(part)
    idf = np.maximum(np.log((count - frequency + 0.5) / (frequency + 0.5)), 0)
    return np.asarray(LARGEST * np.sqrt(idf / idf.max()), np.float32)


def with_untrained_heads(checkpoint: Checkpoint, table: Tensor, *, scripts: tuple[str, ...]) -> Checkpoint:
    """The checkpoint with a static sparse head of these weights and the normalised token states as multi-vectors.

    Args:
        checkpoint: a dense model.
        table: (V,) from `term_weights`.
        scripts: writing systems that the dense model was trained on.
    """
    tokenizer = checkpoint.tokenizer()
    special = special_ids(tokenizer)
    if len(table) != len(tokenizer):
        raise CheckpointError(f"{len(table)} term weights do not fit a vocabulary of {len(tokenizer)}")
    config = msgspec.structs.replace(
        checkpoint.config,
        sparse=SparseConfig(source="static", width=len(table), dropped_ids=special),
        multi_vector=MultiVectorConfig(layers=(Normalize(),), dropped_query_ids=special, dropped_passage_ids=special),
        untrained=("sparse", "multi_vector"),
        scripts=scripts,
    )
    return Checkpoint(
        config,
        backbone=checkpoint.backbone,
        head_weights={**checkpoint.head_weights, "sparse.table": table.float()},
        tokenizer_folder=checkpoint.tokenizer_folder,
    )


def default_table() -> Tensor:
    """Term weights for the vocabulary of the default model, shipped with the package (`tools/term_weights.py`)."""
    return read_tensors(Path(__file__).parent / "assets" / "term_weights.safetensors")["weights"]
