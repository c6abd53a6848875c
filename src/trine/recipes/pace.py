"""How a model is adapted by default: the recipes of both stages, and as many steps as data and time allow."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trine.data.examples import Source
from trine.errors import UsageError
from trine.models.encoder import Encoder
from trine.recipes.config import LENGTHS, PairRecipe, changed, recipe
from trine.recipes.training import LOG, Surroundings, steps_of, train_encoder
from trine.tables import unknown

STAGES = ("stage1", "stage2")
EVALUATIONS = 5
"""Measurements on the validation set in a stage."""
_PROBE_STEPS, _PROBE_BATCH = 3, 16
_LEAST_STEPS, _FEW_STEPS = 10, 100
_LEAST_BATCH = 16
_LEARNING_RATES = ((40_000_000, 3e-4), (150_000_000, 1e-4), (400_000_000, 3e-5))
"""Parameters up to which a learning rate holds, those of the tokens' embeddings left out; above them, 1e-5. E5's fall
in the same way from small to large (arXiv 2212.03533, section 4.2 and appendix)."""


def settings_of(given: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Stage -> its settings, out of ``stage1.KEY``, ``stage2.KEY`` and, for both, ``KEY``.

    Raises:
        UnknownName: another word than these before the dot.
    """
    found: dict[str, dict[str, str]] = {stage: {} for stage in STAGES}
    for name, value in sorted(given.items(), key=lambda item: "." in item[0]):
        stage, dot, key = name.partition(".")
        if dot and stage not in STAGES:
            raise unknown(stage, STAGES, kind="stage")
        for chosen in [stage] if dot else STAGES:
            found[chosen][key if dot else name] = value
    return found


def first_recipe(encoder: Encoder, *, examples: int, settings: Mapping[str, str], seed: int) -> PairRecipe:
    """Stage 1: contrastive training on noisy pairs, as E5's, with the model's own prompts and pooling."""
    own: dict[str, Any] = {"query_prompt": None, "passage_prompt": None}
    own["pooling"] = None if "dense" in encoder.modes else "mean"
    return _filled("e5_pretrain_small", encoder, examples, own, settings, seed)


def second_recipe(encoder: Encoder, *, examples: int, settings: Mapping[str, str], seed: int) -> PairRecipe:
    """Stage 2: all three heads with mined negatives and self-knowledge distillation, as BGE-M3's."""
    own: dict[str, Any] = {"pooling": None if "dense" in encoder.modes else "mean"}
    return _filled("bge_m3_small", encoder, examples, own, settings, seed)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a recipe trains here."""

    tokens_per_second: float
    tokens_per_example: float

    def seconds(self, batch_size: int) -> float:
        """Of a step."""
        return batch_size * self.tokens_per_example / self.tokens_per_second


def measured_pace(encoder: Encoder, sources: Sequence[Source], chosen: PairRecipe, folder: Path) -> Pace:
    """Train a few small steps; the encoder's weights change."""
    shutil.rmtree(folder, ignore_errors=True)
    batch = min(_PROBE_BATCH, chosen.batch_size)
    changes = {"steps": _PROBE_STEPS, "batch_size": batch, "log_every": 1, "length_buckets": False}
    _, summary = train_encoder(
        encoder, sources, recipe=changed(chosen, changes), surroundings=Surroundings(folder=folder)
    )
    last = json.loads((folder / LOG).read_text(encoding="utf-8").splitlines()[-1])
    shutil.rmtree(folder)
    return Pace(last["tokens_per_second"], summary.tokens / (_PROBE_STEPS * batch))


def fitted(
    chosen: PairRecipe, settings: Mapping[str, str], *, examples: int, epochs: float, seconds: float, pace: Pace
) -> dict[str, int]:
    """`batch_size` and `steps` for `seconds` of training, and at most `epochs` over the examples; some steps at least.

    Where there is time for few steps, they become smaller and more, unless the batch was set by hand.
    """
    size = chosen.batch_size

    def fitting() -> int:
        return min(math.ceil(epochs * examples / size), int(seconds / pace.seconds(size)))

    while "batch_size" not in settings and size > _LEAST_BATCH and fitting() < _FEW_STEPS:
        size //= 2
    return {"batch_size": size, "steps": max(fitting(), _LEAST_STEPS)}


def has_length(settings: Mapping[str, str]) -> bool:
    """Whether the length of training was set by hand."""
    return any(key in settings for key in LENGTHS)


def with_intervals(chosen: PairRecipe, settings: Mapping[str, str], *, examples: int) -> PairRecipe:
    """The recipe with a few measurements and checkpoints over its steps, but for what was set by hand."""
    every = max(math.ceil(steps_of(chosen, examples) / EVALUATIONS), 1)
    own = {"evaluate_every": every, "save_every": every, "log_every": max(every // 5, 1), "keep": 1}
    return changed(chosen, {key: value for key, value in own.items() if key not in settings})


def _filled(
    name: str, encoder: Encoder, examples: int, own: Mapping[str, Any], settings: Mapping[str, str], seed: int
) -> PairRecipe:
    longest = encoder.config.text.max_length
    base = recipe(name)
    assert isinstance(base, PairRecipe)
    defaults = {
        "steps": 1,
        "batch_size": batch_size(examples),
        "learning_rate": learning_rate(encoder),
        "query_length": min(64, longest),
        "passage_length": min(256, longest),
        "seed": seed,
    }
    return changed(changed(base, {**defaults, **own}), settings)


def batch_size(examples: int) -> int:
    """The power of two that is an eighth of the examples, from 8 to 64: an epoch has some steps, however few they are.

    Raises:
        UsageError: no examples.
    """
    if examples < 1:
        raise UsageError("there are no examples to train on")
    return int(min(max(2 ** int(math.log2(max(examples / 8, 1))), 8), 64))


def learning_rate(encoder: Encoder) -> float:
    """Lower for larger models."""
    embedded: int = encoder.backbone.vocabulary_size * encoder.backbone.hidden_size
    size = sum(parameter.numel() for parameter in encoder.backbone.parameters()) - embedded
    return next((rate for most, rate in _LEARNING_RATES if size <= most), 1e-5)
