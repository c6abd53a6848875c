"""What every layout's reader gives: a configuration, where the backbone lies, and the head weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trine.errors import CheckpointError, UsageError
from trine.models.config import EncoderConfig, TextConfig
from trine.models.files import quiet_transformers, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from trine.models.encoder import Encoder

HEADS = ("dense.", "sparse.", "multi_vector.")

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)
"""Any of them holds a vocabulary. Without one transformers makes a tokenizer that knows its special tokens only."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """What a caller may say about a checkpoint; a reader that cannot use a given option raises."""

    layout: str | None = None
    profile: str | None = None
    pooling: str | None = None
    prompts: Mapping[str, str] | None = None
    adapter: str | Path | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model on disk, read but not yet put together."""

    config: EncoderConfig
    backbone: Path
    """Folder with config.json and the transformer's weights."""
    head_weights: Mapping[str, Tensor] = field(default_factory=dict)
    """By the encoder's parameter names: "dense.layers.0.linear.weight", "sparse.linear.weight", ..."""
    tokenizer_folder: Path | None = None
    """None: beside the backbone."""
    ignored: tuple[str, ...] = ()
    """Prefixes of weights in the backbone's file that a head owns."""
    adapters: tuple[Path, ...] = ()
    """Folders of LoRA adapters that are merged into the backbone, in this order."""

    def tokenizer(self) -> Any:
        """The tokenizer, fast kind; offsets are needed for explanation."""
        import transformers

        folder = self.tokenizer_folder or self.backbone
        if not any((folder / name).is_file() for name in TOKENIZER_FILES):
            raise CheckpointError(
                f"{folder}: the tokenizer is missing; one of {', '.join(TOKENIZER_FILES)} must be there"
            )
        try:
            with quiet_transformers():
                tokenizer = transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except Exception as error:  # a broken file can raise anything, from OSError to KeyError
            raise CheckpointError(
                f"{folder}: the tokenizer cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not tokenizer.is_fast:
            raise CheckpointError(f"{folder}: has only a slow tokenizer; add its tokenizer.json")
        return tokenizer

    def fill(self, encoder: Encoder) -> None:
        """Copy the head weights in; all that the heads need, nothing else, all finite."""
        import torch

        needed = {key: tensor for key, tensor in encoder.state_dict().items() if key.startswith(HEADS)}
        missing, surplus = sorted(needed.keys() - self.head_weights), sorted(self.head_weights.keys() - needed)
        if missing or surplus:
            raise CheckpointError(
                f"{self.backbone}: head weights do not fit the configuration; missing: {missing or 'none'}; "
                f"unknown: {surplus or 'none'}"
            )
        for key, tensor in self.head_weights.items():
            if tensor.shape != needed[key].shape:
                raise CheckpointError(
                    f"{self.backbone}: {key} has shape {tuple(tensor.shape)}, the configuration says "
                    f"{tuple(needed[key].shape)}"
                )
            if not bool(torch.isfinite(tensor).all()):
                raise CheckpointError(f"{self.backbone}: {key} holds NaN or infinite values")
            with torch.no_grad():
                needed[key].copy_(tensor)


def declared_ends(checkpoint: Checkpoint) -> TextConfig:
    """The text part with the special tokens that tokenizer_config.json asks for around every text.

    e5-mistral-7b-instruct says add_bos_token and add_eos_token there, but its tokenizer.json puts only <s>. Before 5,
    transformers followed the first file; now it follows the second, and the last word is pooled in place of </s>.
    """
    text = checkpoint.config.text
    said = read_json((checkpoint.tokenizer_folder or checkpoint.backbone) / "tokenizer_config.json", default={})
    if said.get("add_eos_token") is not True or text.last_id is not None:
        return text
    tokenizer = checkpoint.tokenizer()
    first = tokenizer.bos_token_id if said.get("add_bos_token") and text.first_id is None else text.first_id
    return msgspec.structs.replace(text, first_id=first, last_id=tokenizer.eos_token_id)


def refuse_pooling(options: LoadOptions, folder: Path) -> None:
    """Pooling can be told only of a checkpoint that does not say it itself."""
    if options.pooling is not None:
        raise UsageError(
            f"pooling={options.pooling!r} has no effect: {folder} says its own pooling; leave it out, or read the bare "
            "transformer with layout='plain'"
        )


def sequence_limit(folder: Path, backbone: Path) -> int:
    """Longest input in tokens: the sentence-transformers settings, else the tokenizer's limit cut to the positions.

    Raises:
        CheckpointError: no file says a limit.
    """
    declared = sentence_settings(folder).get("max_seq_length")
    if declared:
        return int(declared)
    config = read_json(backbone / "config.json")
    positions = int(config.get("max_position_embeddings") or 0)
    if config.get("model_type") in OFFSET_POSITIONS:
        positions -= int(config.get("pad_token_id") or 0) + 1
    limit = int(read_json(backbone / "tokenizer_config.json", default={}).get("model_max_length") or 0)
    limits = [number for number in (positions, limit) if 0 < number < 10**9]
    if not limits:
        raise CheckpointError(f"{backbone}: neither config.json nor tokenizer_config.json says the longest input")
    return min(limits)


def sentence_settings(folder: Path) -> dict[str, Any]:
    """What sentence-transformers says of its transformer; version 1 named the file after the architecture."""
    for stem in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"):
        settings: dict[str, Any] = read_json(folder / f"sentence_{stem}_config.json", default={})
        if settings:
            return settings
    return {}


OFFSET_POSITIONS = frozenset({"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "data2vec-text"})
"""Model types whose positions start at the padding id + 1, so that fewer tokens fit than there are positions."""


def special_ids(tokenizer: Any) -> tuple[int, ...]:
    """Ids that never carry a sparse weight: BOS or CLS, EOS or SEP, padding, unknown (BGE-M3's list)."""
    ids = (
        tokenizer.bos_token_id,
        tokenizer.cls_token_id,
        tokenizer.sep_token_id,
        tokenizer.eos_token_id,
        tokenizer.pad_token_id,
        tokenizer.unk_token_id,
    )
    return tuple(sorted({int(number) for number in ids if number is not None}))
