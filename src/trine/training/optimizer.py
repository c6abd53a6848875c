"""AdamW over named parameters: which decay, which learn faster, and a state that is kept by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from trine.errors import CheckpointError, UsageError
from trine.tables import unknown
from trine.training.schedules import factor
from trine.training.settings import LoopSettings

State = dict[str, dict[str, Tensor]]
"""parameter -> name -> tensor"""


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name; one that is used in two places comes once.

    Raises:
        UsageError: there is none.
    """
    found = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not found:
        raise UsageError("the module has no parameter that learns; set requires_grad on those that should")
    return found


class Optimizer:
    """AdamW (arXiv 1711.05101) with the schedule, multipliers and decay that settings ask for."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: LoopSettings) -> None:
        self.parameters = parameters
        self.settings = settings
        groups: dict[tuple[float, float, type], list[nn.Parameter]] = {}
        for name, parameter in parameters.items():
            decay = settings.weight_decay if parameter.ndim > 1 else 0.0
            # One kernel takes no shards together with whole parameters.
            key = (_multiplier(name, settings.multipliers), decay, type(parameter.data))
            groups.setdefault(key, []).append(parameter)
        for prefix in settings.multipliers:
            if not any(name.startswith(prefix) for name in parameters):
                raise unknown(prefix, {_beginning(name) for name in parameters}, kind="beginning of a parameter's name")
        self.adam = torch.optim.AdamW(
            [
                {"params": members, "multiplier": multiplier, "weight_decay": decay}
                for (multiplier, decay, _), members in groups.items()
            ],
            lr=settings.learning_rate,
            betas=settings.betas,
            eps=settings.epsilon,
            # One pass over the weights instead of ten.
            fused=all(parameter.device.type in ("cpu", "cuda", "mps") for parameter in parameters.values()),
        )

    def learning_rate(self, step: int) -> float:
        """Of step number `step`, from 0, before multipliers."""
        settings = self.settings
        share = factor(settings.schedule, step, steps=settings.steps, warmup=settings.warmup_steps)
        return settings.learning_rate * share

    def take(self, step: int) -> None:
        """Follow the gradients, at the rate of step number `step`."""
        for group in self.adam.param_groups:
            group["lr"] = self.learning_rate(step) * group["multiplier"]
        self.adam.step()

    def clear(self) -> None:
        """Forget the gradients."""
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> State:
        """What it remembers, by the parameters' names; a parameter that never had a gradient is left out."""
        return {
            name: dict(self.adam.state[parameter])
            for name, parameter in self.parameters.items()
            if parameter in self.adam.state
        }

    def load(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Remember what `state` says; tensors stay as they are given, so they must lie where the parameters do.

        Raises:
            CheckpointError: it holds a parameter that the module has not.
        """
        foreign = sorted(state.keys() - self.parameters.keys())
        if foreign:
            raise CheckpointError(f"the optimizer's state holds {foreign[0]!r}, which the module has not")
        self.adam.state.clear()
        for name, values in state.items():
            self.adam.state[self.parameters[name]] = dict(values)


def _multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    fitting = [prefix for prefix in multipliers if name.startswith(prefix)]
    return multipliers[max(fitting, key=len)] if fitting else 1.0


def _beginning(name: str) -> str:
    """The first two parts of a parameter's name, without its own."""
    *parts, own = name.split(".")
    return f"{'.'.join(parts[:2])}." if parts else own
