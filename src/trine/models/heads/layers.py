"""The layers between token states and embeddings, built from their configuration."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from trine.errors import CheckpointError
from trine.models import config as schema

ACTIVATIONS: dict[schema.Activation, type[nn.Module]] = {
    "identity": nn.Identity,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "sigmoid": nn.Sigmoid,
}


class Projection(nn.Module):
    """A linear layer with an activation and, where asked, a residual path."""

    def __init__(self, config: schema.Projection) -> None:
        super().__init__()
        self.linear = nn.Linear(config.in_features, config.out_features, bias=config.bias)
        self.activation = ACTIVATIONS[config.activation]()
        self.shortcut: nn.Module | None = None
        if config.residual:
            same = config.in_features == config.out_features
            self.shortcut = nn.Identity() if same else nn.Linear(config.in_features, config.out_features, bias=False)

    def forward(self, states: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        result: Tensor = self.activation(self.linear(states))
        return result if self.shortcut is None else result + self.shortcut(states)


class Normalize(nn.Module):
    """Scaling of the last dimension to unit length; a zero vector stays zero."""

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return torch.nn.functional.normalize(states, dim=-1)


class Truncate(nn.Module):
    """The first dimensions only."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, states: Tensor) -> Tensor:
        """(..., D) -> (..., size)"""
        return states[..., : self.size]


def build(layers: Sequence[schema.Layer]) -> nn.Sequential:
    """The layers as modules, with weights still to be loaded."""
    return nn.Sequential(*(_module(layer) for layer in layers))


def width_after(layers: Sequence[schema.Layer], width: int) -> int:
    """Dimensions of the output when the input has `width`.

    Raises:
        CheckpointError: a layer is made for another width than the one before it gives.
    """
    for layer in layers:
        if isinstance(layer, schema.Projection):
            _check_width(layer.in_features, width, "projection")
            width = layer.out_features
        elif isinstance(layer, schema.LayerNorm):
            _check_width(layer.size, width, "layer norm")
        elif isinstance(layer, schema.Truncate):
            width = min(width, layer.size)
    return width


def _check_width(wanted: int, given: int, what: str) -> None:
    if wanted != given:
        raise CheckpointError(f"a {what} wants {wanted} dimensions, but the layers before it give {given}")


def _module(layer: schema.Layer) -> nn.Module:
    if isinstance(layer, schema.Projection):
        return Projection(layer)
    if isinstance(layer, schema.LayerNorm):
        return nn.LayerNorm(layer.size, eps=layer.epsilon)
    return Truncate(layer.size) if isinstance(layer, schema.Truncate) else Normalize()
