"""What decides a run of the training loop, checked when it is made."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trine.errors import UsageError
from trine.tables import unknown
from trine.training.schedules import SCHEDULES

FREE = ("log_every", "save_every", "keep")
"""Settings that may change when a run is resumed: no weight depends on them."""


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How long, how fast and how carefully to train."""

    steps: int
    """Optimizer steps."""
    learning_rate: float
    """At the height of the schedule."""
    weight_decay: float = 0.01
    """Decoupled (AdamW, arXiv 1711.05101); matrices only, never biases, norms or single numbers."""
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = 1e-8
    warmup: float = 0.1
    """Below 1 the share of all steps while the learning rate rises, else their number."""
    schedule: str = "linear"
    """A name in `trine.training.schedules.SCHEDULES`."""
    max_grad_norm: float | None = 1.0
    """Longer gradients are scaled down to this length; None leaves them."""
    multipliers: Mapping[str, float] = field(default_factory=dict)
    """Beginning of a parameter's name -> factor on its learning rate; the longest that fits counts."""
    accumulate: int = 1
    """Batches of one optimizer step."""
    seed: int = 0
    save_every: int = 500
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 2
    """Newest checkpoints that stay, besides the best."""
    evaluate_every: int | None = None
    """Steps between evaluations; the last step is always evaluated. None where there is nothing to evaluate."""
    metric: str | None = None
    """Of what the evaluation gives, the number that the best checkpoint is the best of; higher is better."""
    patience: int | None = None
    """Evaluations in a row without a better one after which training ends."""
    log_every: int = 10
    max_skipped: int = 10
    """Steps in a row with a loss or gradient that is not finite, at which training ends."""

    def __post_init__(self) -> None:
        """Refuse values without meaning, and options that would have no effect.

        Raises:
            UsageError: naming the field, its value and what it may be.
        """
        self._check_numbers()
        if self.schedule not in SCHEDULES:
            raise unknown(self.schedule, SCHEDULES, kind="schedule")
        if self.warmup_steps >= self.steps and self.warmup:
            raise UsageError(f"warmup takes {self.warmup_steps} of {self.steps} steps; it must leave some")
        if (self.metric is None) != (self.evaluate_every is None):
            raise UsageError(
                f"evaluate_every={self.evaluate_every} and metric={self.metric!r} need each other: give both or neither"
            )
        if self.patience is not None and self.metric is None:
            raise UsageError(f"patience={self.patience} has no effect without evaluate_every and metric")

    def _check_numbers(self) -> None:
        for name in ("steps", "accumulate", "save_every", "keep", "log_every", "max_skipped"):
            _at_least(name, getattr(self, name), 1)
        for name in ("evaluate_every", "patience"):
            _at_least(name, 1 if getattr(self, name) is None else getattr(self, name), 1)
        for name in ("learning_rate", "epsilon"):
            _above(name, getattr(self, name), 0)
        _above("max_grad_norm", 1 if self.max_grad_norm is None else self.max_grad_norm, 0)
        for prefix, factor in self.multipliers.items():
            _above(f"multipliers[{prefix!r}]", factor, 0)
        for name in ("weight_decay", "warmup", "seed"):
            _at_least(name, getattr(self, name), 0)
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas must be at least 0 and below 1, got {self.betas}")

    @property
    def warmup_steps(self) -> int:
        """Steps while the learning rate rises."""
        return round(self.warmup * self.steps) if self.warmup < 1 else round(self.warmup)

    def as_json(self) -> dict[str, Any]:
        """The settings as JSON keeps them."""
        content: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return content


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps a run from being resumed: one line a value that differs, but for those that no weight depends on."""
    keys = sorted((before.keys() | now.keys()) - set(FREE))
    return [
        f"{key} was {before.get(key, 'not given')!r}, is {now.get(key, 'not given')!r}"
        for key in keys
        if before.get(key, _NONE) != now.get(key, _NONE)
    ]


_NONE = object()


def _at_least(name: str, value: float, least: float) -> None:
    if not value >= least:
        raise UsageError(f"{name} must be at least {least}, got {value}")


def _above(name: str, value: float, bound: float) -> None:
    if not value > bound:
        raise UsageError(f"{name} must be above {bound}, got {value}")
