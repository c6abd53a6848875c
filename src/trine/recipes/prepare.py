"""A loaded model made ready for a recipe: the heads, prompts, pooling and dropout that it asks for."""

from __future__ import annotations

from typing import Any

import msgspec
import torch

from trine.errors import UsageError
from trine.models.backbone import Backbone
from trine.models.config import DenseConfig, EncoderConfig, Normalize, TextConfig
from trine.models.encoder import Encoder
from trine.models.fresh import with_heads
from trine.recipes.config import PairRecipe
from trine.types import Mode


def prepared(encoder: Encoder, recipe: PairRecipe) -> Encoder:
    """An encoder with what the recipe trains, over the same weights; heads that were never trained begin anew.

    It cuts texts at the recipe's lengths; `finished` gives it its own back.

    Raises:
        UsageError: texts of the recipe are longer than the model can read.
    """
    longest = max(recipe.query_length, recipe.passage_length)
    if longest > encoder.config.text.max_length:
        raise UsageError(
            f"recipe {recipe.name} trains on up to {longest} tokens, but {encoder.name or 'the model'} reads "
            f"{encoder.config.text.max_length}; set query_length and passage_length, or extend its positions first "
            "(trine convert --max-length)"
        )
    stale: set[Mode] = set(encoder.config.untrained) - {"dense"}
    bare = rebuilt(encoder, _configured(encoder.config, recipe, stale))
    missing = [mode for mode in recipe.modes if mode not in bare.modes]
    result = with_heads(bare, modes=missing, vector_width=recipe.vector_width, seed=recipe.seed) if missing else bare
    if recipe.dropout is not None:
        set_dropout(result, recipe.dropout)
    return result.float()


def finished(encoder: Encoder, recipe: PairRecipe, *, text: TextConfig) -> Encoder:
    """The trained encoder: it reads texts as long as before (`text`), and its trained heads bear no mark any more."""
    untrained = tuple(mode for mode in encoder.config.untrained if mode not in recipe.modes)
    own = msgspec.structs.replace(
        encoder.config.text, query_max_length=text.query_max_length, passage_max_length=text.passage_max_length
    )
    config = msgspec.structs.replace(encoder.config, untrained=untrained, text=own, origin="trained")
    return rebuilt(encoder, config).eval()


def rebuilt(encoder: Encoder, config: EncoderConfig, *, backbone: Backbone | None = None) -> Encoder:
    """An encoder of the same weights under another configuration, or over another backbone."""
    result = Encoder(config, backbone=backbone or encoder.backbone, tokenizer=encoder.tokenizer, name=encoder.name)
    for mode in result.modes:
        if mode in encoder.modes:
            getattr(result, mode).load_state_dict(getattr(encoder, mode).state_dict())
    return result.to(device=encoder.device, dtype=encoder.dtype).train(encoder.training)


def fresh_prefixes(before: Encoder, after: Encoder) -> tuple[str, ...]:
    """Names of the heads that `after` has and `before` had not, or had untrained."""
    return tuple(
        f"{mode}."
        for mode in after.modes
        if mode not in before.modes or (mode in before.config.untrained and mode != "dense")
    )


def set_dropout(module: torch.nn.Module, share: float) -> None:
    """Set every dropout of a model.

    Raises:
        UsageError: `share` is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise UsageError(f"dropout must be at least 0 and below 1, got {share}")
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = share


def _configured(config: EncoderConfig, recipe: PairRecipe, stale: set[Mode]) -> EncoderConfig:
    prompts = {"query": recipe.query_prompt, "passage": recipe.passage_prompt}
    given = {kind: prompt for kind, prompt in prompts.items() if prompt is not None}
    changes: dict[str, Any] = {
        "text": msgspec.structs.replace(
            config.text,
            prompts={**config.text.prompts, **given},
            query_max_length=recipe.query_length,
            passage_max_length=recipe.passage_length,
        ),
        "untrained": tuple(mode for mode in config.untrained if mode not in stale),
        "scripts": (),
        **{str(mode): None for mode in stale},
    }
    if recipe.pooling is not None:
        changes["dense"] = (
            DenseConfig(pooling=(recipe.pooling,), layers=(Normalize(),))
            if config.dense is None
            else msgspec.structs.replace(config.dense, pooling=(recipe.pooling,))
        )
    return msgspec.structs.replace(config, **changes)
