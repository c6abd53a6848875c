"""What a recipe starts from: a model read as it asks, attending, dropping out and adapted as it asks."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
from torch import nn

from trine.errors import CheckpointError, UsageError
from trine.models.adapters import add_adapters, has_adapters
from trine.models.backbone import Backbone
from trine.models.checkpoints import CHECKPOINTS, LoadOptions, read
from trine.models.encoder import Encoder
from trine.models.sources import locate
from trine.recipes.config import EncoderRecipe, PairRecipe, PretrainingRecipe
from trine.recipes.prepare import prepared, rebuilt


def start_encoder(name: str | None, *, recipe: EncoderRecipe, device: str = "auto") -> Encoder:
    """Load a model to train, in float32; a bare transformer, a language model for instance, gets the recipe's pooling.

    Args:
        name: a folder, a hub id, or None for the default model.
        recipe: what will train it.
        device: as in `Encoder.load`.

    Raises:
        CheckpointError: the model cannot be loaded, or neither it nor the recipe says its pooling.
    """
    pooling = recipe.pooling if isinstance(recipe, PairRecipe | PretrainingRecipe) else None
    pooling = pooling if pooling is not None and _bare(name) else None
    return Encoder.load(name, pooling=pooling, device=device, dtype="float32")


def ready(encoder: Encoder, recipe: PairRecipe) -> Encoder:
    """An encoder as a recipe trains it, over the same weights.

    Raises:
        UsageError: the model lacks what the recipe asks for.
    """
    result = attending(prepared(encoder, recipe), recipe)
    config = result.config
    text: dict[str, Any] = {}
    if recipe.instruction_prompt is not None:
        text["instruction_prompt"] = recipe.instruction_prompt
    if recipe.append_eos:
        text["last_id"] = _end(encoder)
    if text:
        config = msgspec.structs.replace(config, text=msgspec.structs.replace(config.text, **text))
    if recipe.pool_prompt is not None and config.dense is not None:
        dense = msgspec.structs.replace(config.dense, include_prompt=recipe.pool_prompt)
        config = msgspec.structs.replace(config, dense=dense)
    if config != result.config:
        result = rebuilt(result, config)
    if recipe.dropout and not _dropouts(result.backbone):
        raise UsageError(
            f"dropout={recipe.dropout} has no effect: {type(result.backbone.model).__name__} has no such layers; set "
            "dropout=none and, for the attention weights of a decoder, attention_dropout"
        )
    adapt_backbone(result.backbone, recipe)
    return result


def attending(encoder: Encoder, recipe: EncoderRecipe) -> Encoder:
    """The encoder with the attention and the attention dropout that a recipe asks for, over the same weights.

    Raises:
        UsageError: the model cannot attend so, or has no such dropout.
    """
    backbone = encoder.backbone
    if recipe.attention_dropout is not None:
        set_attention_dropout(backbone, recipe.attention_dropout)
    if recipe.attention is None or recipe.attention == encoder.config.attention:
        return encoder
    switched = Backbone(backbone.model, masked_lm=backbone.masked_lm, attention=recipe.attention)
    return rebuilt(encoder, msgspec.structs.replace(encoder.config, attention=recipe.attention), backbone=switched)


def adapt_backbone(backbone: Backbone, recipe: EncoderRecipe) -> None:
    """Put the recipe's adapters in; those of a run that is taken up again stay."""
    if recipe.lora_rank and not has_adapters(backbone):
        add_adapters(
            backbone,
            rank=recipe.lora_rank,
            alpha=recipe.lora_alpha,
            dropout=recipe.lora_dropout,
            seed=recipe.seed,
        )


def set_attention_dropout(module: nn.Module, share: float) -> None:
    """Set the dropout of attention weights where a model keeps it as a number of its attention modules, as decoders do.

    Raises:
        UsageError: `share` is not in [0, 1), or no module keeps one.
    """
    if not 0 <= share < 1:
        raise UsageError(f"attention_dropout must be at least 0 and below 1, got {share}")
    kept = (float, int)  # a module of that name is set by `dropout`
    found: list[Any] = [part for part in module.modules() if isinstance(getattr(part, "attention_dropout", None), kept)]
    if not found and share:
        raise UsageError("attention_dropout has no effect: the model keeps none apart from other dropout; set dropout")
    for part in found:
        part.attention_dropout = share


def with_language_model(encoder: Encoder) -> Encoder:
    """The encoder, over the same weights, with the language-model head of its checkpoint, which it is loaded without.

    A head that is tied to the input embeddings is left out: the embeddings are there. A transformer that was never
    trained has none to be missed.

    Raises:
        CheckpointError: the checkpoint has no such head.
    """
    backbone = encoder.backbone
    tied = backbone.model.config.tie_word_embeddings
    if backbone.masked_lm or tied or encoder.config.origin == "fresh":
        return encoder
    folder, known_as = locate(encoder.name)
    checkpoint = read(folder, LoadOptions(pooling="mean" if _bare(encoder.name) else None), name=known_as)
    try:
        loaded = Backbone.load(checkpoint.backbone, masked_lm=True, dtype=encoder.dtype, ignored=checkpoint.ignored)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error} This objective needs the language model's own head; start from the language model itself."
        ) from error
    whole = loaded.model
    setattr(whole, whole.base_model_prefix, backbone.model)
    joined = Backbone(whole.to(encoder.device), masked_lm=True, attention=backbone.attention)
    return rebuilt(encoder, encoder.config, backbone=joined)


def _bare(name: str | Path | None) -> bool:
    """Whether a folder's layout is that of a transformer alone."""
    folder, _ = locate(name)
    modules: dict[str, Any] = {layout: importlib.import_module(module) for layout, module in CHECKPOINTS.items()}
    return next((layout for layout, module in modules.items() if module.matches(folder)), None) == "plain"


def _end(encoder: Encoder) -> int:
    number = encoder.tokenizer.eos_token_id
    if number is None:
        raise UsageError("append_eos has no effect: the tokenizer has no end-of-sequence token")
    return int(number)


def _dropouts(module: nn.Module) -> list[nn.Dropout]:
    return [part for part in module.modules() if isinstance(part, nn.Dropout)]
