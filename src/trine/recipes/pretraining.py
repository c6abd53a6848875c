"""A pre-training recipe, a model and running text -> a backbone that makes better sentence vectors."""

from __future__ import annotations

from collections.abc import Sequence

from trine.data.examples import Source
from trine.data.sampling import Sampling
from trine.errors import UsageError
from trine.models.adapters import merge_adapters
from trine.models.encoder import Encoder
from trine.objectives.base import Losses
from trine.objectives.masked_lm import Masking
from trine.recipes.config import PretrainingRecipe
from trine.recipes.start import adapt_backbone, attending, with_language_model
from trine.recipes.training import Surroundings, chunk_tokens, loop_settings, precision_of, run_loop, take_best
from trine.training.batches import Ingredient
from trine.training.embedding import recompute_activations
from trine.training.loop import Summary
from trine.training.pretraining import SHIFTED, Pretraining, PretrainingModel, token_step
from trine.training.text_batches import TextBatch, TextBatches, Texts


def pretrain(
    encoder: Encoder,
    sources: Sequence[Source | Ingredient],
    *,
    recipe: PretrainingRecipe,
    surroundings: Surroundings,
) -> tuple[Encoder, Summary]:
    """Train an encoder's backbone on running text; its weights change in place, its heads stay as they are.

    Args:
        encoder: what to start from.
        sources: texts, as the queries of examples.
        recipe: how.
        surroundings: where, measured by what, with whom.

    Raises:
        UsageError: recipe, model and texts do not fit.
        TrainingError: the run cannot go on; the same call resumes it.
    """
    around = surroundings
    longest = encoder.config.text.max_length
    if recipe.max_length > longest:
        raise UsageError(
            f"recipe {recipe.name} trains on {recipe.max_length} tokens, but {encoder.name or 'the model'} reads "
            f"{longest}; set max_length, or extend its positions first (trine convert --max-length)"
        )
    if recipe.parallel == "fsdp":
        raise UsageError("pre-training shares its embeddings with the output layer and cannot be sharded; use ddp")
    batches = TextBatches(
        sources,
        encoder=encoder,
        sampling=Sampling(
            batch_size=recipe.batch_size,
            exponent=recipe.size_exponent,
            boundaries=None if recipe.length_buckets else (0,),
            seed=recipe.seed,
            ranks=around.ranks.size,
        ),
        texts=Texts(max_length=recipe.max_length),
        rank=around.ranks.rank,
    )
    encoder = attending(encoder, recipe)
    if recipe.objective in SHIFTED:
        encoder = with_language_model(encoder)
    adapt_backbone(encoder.backbone, recipe)
    if recipe.gradient_checkpointing:
        recompute_activations(encoder)
    model = PretrainingModel(encoder, settings_of(recipe), seed=recipe.seed)
    budget, precision = chunk_tokens(recipe, encoder.device), precision_of(recipe, encoder.device)

    def take(batch: TextBatch) -> Losses:
        chunks = model.chunks(batch.sequences, seeds=batch.seed, budget=budget, dropout_seed=batch.seed)
        return token_step(model, chunks, ranks=around.ranks, precision=precision)

    settings = loop_settings(
        recipe,
        examples=sum(len(part.source if isinstance(part, Ingredient) else part) for part in sources),
        measured=around.evaluate is not None,
    )
    try:
        summary = run_loop(model, encoder, batches, step=take, settings=settings, recipe=recipe, around=around)
    finally:
        batches.close()
    take_best(model, model, summary)
    merge_adapters(model.backbone)
    return model.to_encoder(), summary


def settings_of(recipe: PretrainingRecipe) -> Pretraining:
    """The objective that a recipe's fields describe."""
    shares = {"random_share": 0.0, "kept_share": 0.0} if recipe.mask_all else {}
    # LLM2Vec hides pieces of words, as its authors' code does.
    masking = Masking(recipe.encoder_mask, whole_word=recipe.objective not in SHIFTED, **shares)
    if recipe.objective in ("mlm", *SHIFTED):
        return Pretraining(objective=recipe.objective, masking=masking)
    return Pretraining(
        objective=recipe.objective,
        masking=masking,
        pooling=recipe.pooling,
        decoder_rate=recipe.decoder_mask,
        enhanced=recipe.enhanced,
        decoder_layers=recipe.decoder_layers,
        bag_of_words_weight=recipe.bag_of_words_weight,
    )
