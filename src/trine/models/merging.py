"""LoRA adapters in peft's files, added to the weights they were trained for; loading needs no peft.

Source: LoRA (arXiv 2106.09685, section 4.1), rank-stabilised LoRA (arXiv 2312.03732).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from trine.errors import CheckpointError
from trine.models.files import read_json, read_tensors

if TYPE_CHECKING:
    from torch import Tensor

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_REFUSED = {
    "use_dora": "DoRA scales the weights anew",
    "lora_bias": "it has biases of its own",
    "modules_to_save": "it brings whole modules of its own",
    "trainable_token_indices": "it brings token embeddings of its own",
    "megatron_config": "its layers are split for Megatron",
}
"""Settings that mean more than ``W + scale * B A``."""

_KEY = re.compile(r"^base_model\.model\.(?P<path>.+)\.lora_(?P<part>[AB])\.weight$")


def merge_lora(model: Any, folder: Path) -> None:
    """Add an adapter to a model's weights in place: ``W + scale * B A``, computed in float32.

    The order of several adapters matters where weights are rounded, and where one was trained on the merged other.

    Args:
        model: a transformers model, with or without the head that the adapter was trained with.
        folder: holds adapter_config.json and adapter_model.safetensors (or .bin).

    Raises:
        CheckpointError: the files are incomplete, mean more than LoRA, or belong to another model.
    """
    config = read_json(folder / CONFIG)
    _check(config, folder)
    pairs = _pairs(read_tensors(folder / WEIGHTS, folder / "adapter_model.bin"), folder)
    modules = dict(model.named_modules())
    for path, (first, second) in pairs.items():
        weight = _weight(model, modules, path, folder)
        delta = second.float() @ first.float() * _scale(config, path, rank=len(first))
        delta = delta.T if config.get("fan_in_fan_out") else delta
        if delta.shape != weight.shape:
            raise CheckpointError(
                f"{folder}: the adapter changes {path} by a matrix of shape {tuple(delta.shape)}, the weight has "
                f"{tuple(weight.shape)}; it was made for another model"
            )
        with torch.no_grad():
            weight.copy_(weight.float() + delta.to(weight.device))


def _check(config: Mapping[str, Any], folder: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{folder / CONFIG}: peft_type is {kind!r}; trine merges 'LORA' only")
    for key, meaning in _REFUSED.items():
        if config.get(key):
            raise CheckpointError(
                f"{folder / CONFIG}: {key} is {config[key]!r}: {meaning}; merge it with peft's merge_and_unload and "
                "load the saved model"
            )
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{folder / CONFIG}: bias is {config['bias']!r}; trine merges adapters without biases")


def _pairs(tensors: Mapping[str, Tensor], folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """(A, B) of each layer, by the path under the model that was wrapped."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise CheckpointError(
                f"{folder / WEIGHTS}: {key} is no LoRA matrix of a linear layer; trine merges no other"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{folder / WEIGHTS}: {key} holds NaN or infinite values")
        found.setdefault(match["path"], {})[match["part"]] = tensor
    broken = sorted(path for path, parts in found.items() if parts.keys() != {"A", "B"})
    if broken or not found:
        raise CheckpointError(f"{folder / WEIGHTS}: {broken[0] if broken else 'the file'} lacks matrices A and B")
    return {path: (parts["A"], parts["B"]) for path, parts in found.items()}


def _weight(model: Any, modules: Mapping[str, Any], path: str, folder: Path) -> Tensor:
    """The weight that the adapter means, whether or not either model has a head around the transformer."""
    prefix = f"{model.base_model_prefix}."
    for name in (path, prefix + path, path.removeprefix(prefix), path.removeprefix("model.")):
        weight = getattr(modules.get(name), "weight", None)
        if isinstance(weight, torch.Tensor):
            return weight
    raise CheckpointError(
        f"{folder / WEIGHTS}: the adapter changes {path}, which {type(model).__name__} does not have; it was made for "
        "another model"
    )


def _scale(config: Mapping[str, Any], path: str, *, rank: int) -> float:
    alpha = config.get("lora_alpha", 8)
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", path):
            alpha = own
            break
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
