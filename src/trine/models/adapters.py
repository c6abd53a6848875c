"""Low-rank adapters: a large backbone learns through small matrices beside its linear layers, by peft.

Source: Hu et al., "LoRA", arXiv 2106.09685, section 4; on all linear layers as in QLoRA (arXiv 2305.14314, section 4).
"""

from __future__ import annotations

import copy
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trine.errors import UsageError
from trine.models.backbone import Backbone
from trine.models.devices import seeded
from trine.models.files import fresh_folder
from trine.tables import missing_extra, unknown

_NAME = "default"
"""peft's own; it is no part of what `save_adapters` writes."""


def add_adapters(
    backbone: Backbone,
    *,
    rank: int = 16,
    alpha: float | None = None,
    dropout: float = 0.0,
    targets: Sequence[str] = (),
    seed: int = 0,
) -> tuple[str, ...]:
    """Put adapters beside linear layers, in place; afterwards they alone of the backbone learn.

    The vectors stay as they are until the first training step. A language-model head gets none.

    Args:
        backbone: of an encoder, or with a language-model head of its own.
        rank: r, the width of the adapters.
        alpha: their output is scaled by alpha / rank; None is twice the rank.
        dropout: of their input.
        targets: names of linear layers as the model calls them ("q_proj"); empty for all.
        seed: of their weights.

    Returns:
        The names of the layers that got one, each once ("down_proj", "gate_proj", ...).

    Raises:
        MissingExtra: peft is not installed.
        UsageError: the numbers make no sense, the backbone has adapters already, or no linear layer.
        UnknownName: a target that the model does not have.
    """
    if rank < 1 or not 0 <= dropout < 1:
        raise UsageError(f"rank must be at least 1 and dropout in [0, 1), got {rank} and {dropout}")
    if has_adapters(backbone):
        raise UsageError("the model has adapters already; merge them first (merge_adapters)")
    if importlib.util.find_spec("peft") is None:
        raise missing_extra("LoRA", "llm")
    from peft import LoraConfig, inject_adapter_in_model

    inside, outside = _linear_layers(backbone)
    known = sorted({name.rpartition(".")[2] for name in inside})
    for target in targets:
        if target not in known:
            raise unknown(target, known, kind="linear layer")
    wanted = tuple(sorted(set(targets))) or tuple(known)
    if not wanted:
        raise UsageError(f"{type(backbone.model).__name__} has no linear layers that adapters could go beside")
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,
        lora_dropout=dropout,
        target_modules=list(wanted),
        # By full name: a head may call its layers like the layers below it.
        exclude_modules="|".join(map(re.escape, outside)) or None,
    )
    with seeded(seed):
        inject_adapter_in_model(config, backbone.model, adapter_name=_NAME)
    return wanted


def has_adapters(module: nn.Module) -> bool:
    """Whether a module, an encoder for instance, has adapters that are not merged."""
    return any(_mergeable(part) for part in module.modules())


@torch.no_grad()
def merge_adapters(module: nn.Module) -> None:
    """Fold adapters into the weights beside them, in place: the same vectors without adapters.

    Only then can an encoder be saved or exported. All weights learn again. Weights of half precision are rounded once
    more by it.

    Args:
        module: an encoder, or a backbone; without adapters nothing happens.

    Raises:
        UsageError: a sum is not finite.
    """
    for name, part in list(module.named_modules()):
        if not _mergeable(part):
            continue
        layer: Any = part
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:
            raise UsageError(f"the adapter of {name} cannot be merged: {error}") from error
        module.set_submodule(name, layer.get_base_layer())
    for part in module.modules():
        # peft leaves the settings of its adapters there, and transformers' saving looks at them.
        part.__dict__.pop("peft_config", None)
    module.requires_grad_(True)


def save_adapters(backbone: Backbone, folder: str | Path, *, base: str = "") -> Path:
    """Write the adapters alone in peft's layout: ``PeftModel.from_pretrained(base, folder)`` takes them up.

    Args:
        backbone: with adapters.
        folder: for adapter_config.json and adapter_model.safetensors; it appears only when it is complete.
        base: folder or hub id of the model that they belong to, for those who load them.

    Raises:
        UsageError: there are no adapters, or `folder` is not empty.
    """
    if not has_adapters(backbone):
        raise UsageError("the model has no adapters to save; they may be merged already")
    from peft import LoraConfig, get_peft_model_state_dict
    from safetensors.torch import save_file

    found = get_peft_model_state_dict(backbone.model, adapter_name=_NAME)
    tensors = {f"base_model.model.{name}": tensor.detach().cpu().contiguous() for name, tensor in found.items()}
    config: LoraConfig = copy.copy(backbone.model.peft_config[_NAME])
    config.base_model_name_or_path, config.inference_mode = base or None, True
    with fresh_folder(Path(folder)) as work:
        config.save_pretrained(work)
        save_file(tensors, work / "adapter_model.safetensors", metadata={"format": "pt"})
    return Path(folder)


def _linear_layers(backbone: Backbone) -> tuple[list[str], list[str]]:
    """Full names of the linear layers of the transformer proper, and of the head on it."""
    model = backbone.model
    trunk = {id(part) for part in model.base_model.modules()}
    inside: list[str] = []
    outside: list[str] = []
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear):
            (inside if id(part) in trunk else outside).append(name)
    return inside, outside


def _mergeable(part: nn.Module) -> bool:
    # Nothing of peft is in a model where peft was never imported.
    return callable(getattr(part, "merge", None)) and callable(getattr(part, "get_base_layer", None))
