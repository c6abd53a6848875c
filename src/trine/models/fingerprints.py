"""A short name for a model's exact state."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn


def fingerprint(module: nn.Module, tokenizer: Any, *, settings: bytes) -> str:
    """Changes with any weight tensor, the settings or the vocabulary; the same on every device and dtype.

    Up to 256 values of each tensor go in, rounded to bfloat16, so that a model of gigabytes takes milliseconds.

    Args:
        module: the model.
        tokenizer: a transformers tokenizer.
        settings: whatever else decides the results.
    """
    digest = hashlib.sha256(settings)
    digest.update(repr(sorted(tokenizer.get_vocab().items())[:: max(len(tokenizer) // 4096, 1)]).encode())
    for name, tensor in sorted(module.state_dict().items()):
        flat = tensor.flatten()
        sample = flat[:: max(len(flat) // 256, 1)][:256].to("cpu", torch.bfloat16).float().numpy()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(sample.tobytes())
    return digest.hexdigest()[:32]
