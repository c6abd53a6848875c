"""BAAI/bge-m3's layout: a transformer with `sparse_linear` and `colbert_linear` beside it (.pt or .safetensors).

Source: arXiv 2402.03216, section 3.2; FlagEmbedding's file names.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trine.errors import CheckpointError, UsageError
from trine.models.checkpoints import sentence_transformers as dense_layout
from trine.models.checkpoints.base import Checkpoint, LoadOptions, refuse_pooling, sequence_limit
from trine.models.config import (
    DenseConfig,
    EncoderConfig,
    MultiVectorConfig,
    Normalize,
    Projection,
    SparseConfig,
    TextConfig,
)
from trine.models.files import read_json, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from trine.models.encoder import Encoder

SPARSE, MULTI_VECTOR = "sparse_linear", "colbert_linear"


def matches(folder: Path) -> bool:
    """Whether one of the two head files is there; a missing second one is then an error, not another layout."""
    return any(
        (folder / f"{stem}{suffix}").is_file() for stem in (SPARSE, MULTI_VECTOR) for suffix in (".safetensors", ".pt")
    )


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Read both heads; the dense part follows the sentence-transformers files, or is CLS where they are gone."""
    refuse_pooling(options, folder)
    sparse, multi_vector = _head(folder, SPARSE), _head(folder, MULTI_VECTOR)
    if (folder / "modules.json").is_file():
        dense = dense_layout.read_dense(folder)
    else:
        # FlagEmbedding drops the sentence-transformers files when it saves; its M3 models pool CLS.
        text = TextConfig(max_length=sequence_limit(folder, folder))
        dense = Checkpoint(
            EncoderConfig(text=text, dense=DenseConfig(pooling=("cls",), layers=(Normalize(),))), backbone=folder
        )
    if multi_vector["weight"].dim() != 2:
        shape = tuple(multi_vector["weight"].shape)
        raise CheckpointError(f"{folder / MULTI_VECTOR}: weight has shape {shape}, should be (d, hidden size)")
    width, hidden = multi_vector["weight"].shape
    config = msgspec.structs.replace(
        dense.config,
        sparse=SparseConfig(
            source="token_linear",
            width=int(read_json(dense.backbone / "config.json")["vocab_size"]),
            dropped_ids=dropped_ids(dense.tokenizer()),
        ),
        multi_vector=MultiVectorConfig(
            layers=(Projection(in_features=hidden, out_features=width), Normalize()), drop_first=True
        ),
    )
    weights = dict(dense.head_weights)
    weights |= {f"sparse.linear.{name}": tensor for name, tensor in sparse.items()}
    weights |= {f"multi_vector.layers.0.linear.{name}": tensor for name, tensor in multi_vector.items()}
    return replace(dense, config=config, head_weights=weights)


def dropped_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids that FlagEmbedding gives no sparse weight: CLS, EOS, padding, unknown; a SEP that is no EOS keeps its own."""
    ids = (tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return tuple(sorted({int(number) for number in ids if number is not None}))


def write(encoder: Encoder, folder: Path) -> Path:
    """Write an encoder that FlagEmbedding's BGEM3FlagModel loads with the same three embeddings.

    Raises:
        UsageError: a head is missing or of a form that the layout cannot express.
    """
    config = encoder.config
    sparse, multi_vector, dense = config.sparse, config.multi_vector, config.dense
    _require(
        sparse is not None
        and sparse.source == "token_linear"
        and sparse.query_source is None
        and sparse.pooling == "max"
        and sparse.dropped_ids == dropped_ids(encoder.tokenizer),
        "a token_linear sparse head, the largest weight of each id, and none for CLS, EOS, padding and unknown",
    )
    shape = multi_vector.layers if multi_vector is not None else ()
    _require(
        len(shape) == 2 and isinstance(shape[0], Projection) and shape[0].bias and isinstance(shape[1], Normalize),
        "a multi-vector head of one projection with bias and a normalisation",
    )
    _require(
        multi_vector is not None
        and multi_vector.drop_first
        and not multi_vector.dropped_query_ids
        and not multi_vector.dropped_passage_ids,
        "multi-vectors for all tokens but the first",
    )
    _require(
        dense is not None and dense.pooling == ("cls",) and dense.layers == (Normalize(),),
        "a dense head of the CLS state, normalised, without projection",
    )
    _require(not any(config.text.prompts.values()), "no prompts, which its reader knows nothing of")
    return dense_layout.write(encoder, folder, extra=_write_heads)


def _write_heads(encoder: Encoder, work: Path) -> None:
    import torch

    state = {key: tensor.detach().cpu().clone() for key, tensor in encoder.state_dict().items()}
    for stem, prefix in ((SPARSE, "sparse.linear."), (MULTI_VECTOR, "multi_vector.layers.0.linear.")):
        torch.save({name: state[prefix + name] for name in ("weight", "bias")}, work / f"{stem}.pt")


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise UsageError(f"the bge_m3 layout wants {what}; save in trine's own layout instead")


def _head(folder: Path, stem: str) -> dict[str, Tensor]:
    tensors = read_tensors(folder / f"{stem}.safetensors", folder / f"{stem}.pt")
    if tensors.keys() != {"weight", "bias"}:
        raise CheckpointError(f"{folder / stem}: expected weight and bias, found {sorted(tensors)}")
    return tensors
