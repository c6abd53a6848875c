"""Recipe, model and examples -> trained model: what a recipe's fields mean, put into the parts of the training room."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from trine.data.examples import Source
from trine.data.memory import MemoryModel, ModelShape
from trine.data.sampling import Sampling
from trine.errors import UsageError
from trine.models.adapters import merge_adapters
from trine.models.devices import seeded
from trine.models.encoder import Encoder
from trine.models.reranker import Reranker
from trine.objectives import ranking
from trine.objectives.base import Losses, PairBatch
from trine.objectives.embedding import EmbeddingObjective
from trine.recipes.config import PairRecipe, Recipe, RerankerRecipe
from trine.recipes.measuring import METRIC
from trine.recipes.prepare import finished, fresh_prefixes
from trine.recipes.start import ready
from trine.recipes.teachers import TeacherVectors
from trine.training import checkpoints
from trine.training.batches import Ingredient, PairBatches, Pairing, Step
from trine.training.drawing import Grouping
from trine.training.embedding import embedder, recompute_activations
from trine.training.loop import Summary, train
from trine.training.ranks import OneProcess
from trine.training.reranking import RankingLoss, RerankingBatch, RerankingBatches, reranker_step
from trine.training.settings import LoopSettings
from trine.training.steps import cached_step, full_step
from trine.training.trackers import JsonlTracker, Tracker
from trine.types import MODES, Example

CHUNK_TOKENS = {"cpu": 4096, "cuda": 65_536}
"""Tokens of one chunk in training where the recipe leaves it open: a few caches' worth, or a GPU's multiprocessors."""
FREE = ("save_every", "keep", "log_every", "chunk_tokens")
"""Fields that may change when a run is resumed. Chunks decide dropout masks, but no more than a seed does."""
LOG = "log.jsonl"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a run needs besides recipe, model and examples."""

    folder: Path
    """Of the run: checkpoints and log."""
    evaluate: Callable[[Any], Mapping[str, float]] | None = None
    """Trained model -> metrics, `METRIC` among them."""
    trackers: Sequence[Tracker] = ()
    """Besides the log file."""
    ranks: OneProcess = field(default_factory=OneProcess)
    teacher: TeacherVectors | None = None
    identity: Mapping[str, Any] = field(default_factory=dict)
    """What else the run depends on."""

    def every_tracker(self) -> list[Tracker]:
        """The log file and the others."""
        return [JsonlTracker(self.folder / LOG), *self.trackers]


def train_encoder(
    encoder: Encoder, sources: Sequence[Source | Ingredient], *, recipe: PairRecipe, surroundings: Surroundings
) -> tuple[Encoder, Summary]:
    """Train an encoder on queries and passages; its weights change in place, and the result has them.

    Args:
        encoder: what to start from; missing heads are added.
        sources: examples; those that other examples' weights or prompts apply to as `Ingredient`.
        recipe: how.
        surroundings: where, measured by what, with whom.

    Raises:
        UsageError: recipe, model and examples do not fit.
        TrainingError: the run cannot go on; the same call resumes it.
    """
    before, around = encoder, surroundings
    encoder = ready(encoder, recipe)
    batches = PairBatches(
        sources,
        encoder=encoder,
        sampling=_sampling(recipe, encoder, around.ranks),
        pairing=_pairing(recipe, encoder),
        modes=recipe.modes,
        rank=around.ranks.rank,
    )
    if recipe.gradient_checkpointing:
        recompute_activations(encoder)
    if recipe.freeze_backbone:
        encoder.backbone.requires_grad_(False)
    module = nn.ModuleDict({"encoder": encoder, "objective": objective_of(recipe, encoder, around.teacher)})
    whole = _sharded(module, encoder, recipe, around.ranks)
    objective: Any = module["objective"]
    if around.teacher is not None:
        objective = _Taught(module["objective"], around.teacher)
    embed = embedder(
        encoder,
        modes=recipe.modes,
        width=encoder.dimensions.get("sparse", 0),
        precision=precision_of(recipe, encoder.device),
    )
    step = cached_step if recipe.cached else full_step

    def take(batch: Step) -> Losses:
        return step(embed, batch.work, objective=objective, ranks=around.ranks)

    prefixes = [f"encoder.{prefix}" for prefix in fresh_prefixes(before, encoder) if recipe.fresh_learning_rate != 1]
    settings = loop_settings(
        recipe,
        examples=sum(len(part.source if isinstance(part, Ingredient) else part) for part in sources),
        measured=around.evaluate is not None,
        multipliers=dict.fromkeys(prefixes, recipe.fresh_learning_rate),
        steps=batches.total_steps,
    )
    try:
        summary = run_loop(module, encoder, batches, step=take, settings=settings, recipe=recipe, around=around)
    finally:
        batches.close()
    take_best(whole, module, summary)
    result: Any = whole["encoder"].requires_grad_(True)
    merge_adapters(result)
    return finished(result, recipe, text=before.config.text), summary


def train_reranker(
    reranker: Reranker, examples: Sequence[Example], *, recipe: RerankerRecipe, surroundings: Surroundings
) -> tuple[Reranker, Summary]:
    """Train a cross-encoder on queries with candidates; its weights change in place.

    Args:
        reranker: what to start from.
        examples: each with a positive and a negative at least.
        recipe: how.
        surroundings: where, measured by what, with whom.

    Raises:
        UsageError: recipe, model and examples do not fit.
        TrainingError: the run cannot go on; the same call resumes it.
    """
    around = surroundings
    taught = recipe.loss in ("kl", "margin_mse")
    batches = RerankingBatches(
        reranker,
        examples,
        group_size=recipe.group_size,
        batch_size=recipe.batch_size,
        teacher=taught,
        seed=recipe.seed,
        rank=around.ranks.rank,
        ranks=around.ranks.size,
    )
    if recipe.gradient_checkpointing:
        raise UsageError("gradient_checkpointing works for encoders; train a reranker with smaller chunk_tokens")
    module = nn.ModuleDict({"reranker": reranker})
    whole = _sharded(module, reranker, recipe, around.ranks)

    def take(batch: RerankingBatch) -> Losses:
        return reranker_step(
            reranker,
            batch,
            loss=_ranking_loss(recipe),
            device=reranker.device,
            budget=chunk_tokens(recipe, reranker.device),
            precision=precision_of(recipe, reranker.device),
            ranks=around.ranks,
        )

    settings = loop_settings(recipe, examples=len(examples), measured=around.evaluate is not None)
    summary = run_loop(module, reranker, batches, step=take, settings=settings, recipe=recipe, around=around)
    take_best(whole, module, summary)
    result: Any = whole["reranker"]
    return result.trained().eval(), summary


def loop_settings(
    recipe: Recipe,
    *,
    examples: int,
    measured: bool,
    multipliers: Mapping[str, float] | None = None,
    steps: int | None = None,
) -> LoopSettings:
    """The loop's settings for a recipe over so many examples; `steps` is their number where batches vary in size."""
    steps = recipe.steps or steps or steps_of(recipe, examples)
    return LoopSettings(
        steps=steps,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        warmup=min(recipe.warmup, steps // 2) if recipe.warmup >= 1 else recipe.warmup,
        schedule=recipe.schedule,
        max_grad_norm=recipe.max_grad_norm,
        multipliers=dict(multipliers or {}),
        seed=recipe.seed,
        save_every=recipe.save_every,
        keep=recipe.keep,
        evaluate_every=recipe.evaluate_every if measured else None,
        metric=METRIC if measured else None,
        patience=recipe.patience if measured else None,
        log_every=recipe.log_every,
    )


def steps_of(recipe: Recipe, examples: int) -> int:
    """Steps of a recipe over so many examples, all batches being of one size."""
    return recipe.steps or max(math.ceil((recipe.epochs or 0) * examples / recipe.batch_size), 1)


def objective_of(recipe: PairRecipe, encoder: Encoder, teacher: TeacherVectors | None = None) -> EmbeddingObjective:
    """The objective that a recipe's fields describe."""
    several = len(recipe.modes) > 1
    follows = recipe.embedding_distillation
    if follows is not None and teacher is None:
        raise UsageError(f"recipe {recipe.name} follows a teacher's embeddings; say which model teaches")
    projection = None
    if follows == "cosine" and teacher is not None and teacher.width != encoder.dimensions["dense"]:
        projection = (encoder.dimensions["dense"], teacher.width)
    sparse = "sparse" in recipe.modes
    with seeded(recipe.seed):
        return EmbeddingObjective(
            modes=recipe.modes,
            temperature=recipe.temperature,
            learn_temperature=recipe.learn_temperature,
            contrastive_weight=recipe.contrastive_weight,
            blocks=recipe.blocks,
            false_negative_margin=recipe.false_negative_margin,
            distillation=recipe.distillation,
            distillation_weight=recipe.distillation_weight,
            self_distillation=recipe.self_distillation,
            mode_weights=_weights(recipe, recipe.mode_weights) if several else None,
            ensemble_weights=_weights(recipe, recipe.ensemble_weights) if several else None,
            matryoshka_widths=(encoder.dimensions["dense"], *recipe.matryoshka) if recipe.matryoshka else (),
            query_flops=recipe.flops_weight if sparse else 0.0,
            passage_flops=recipe.flops_weight if sparse else 0.0,
            spread_out=recipe.spread_weight,
            embedding_distillation=follows,
            embedding_distillation_weight=recipe.embedding_distillation_weight,
            projection=projection,
        ).to(encoder.device)


def _weights(recipe: PairRecipe, given: Sequence[float]) -> dict[Any, float]:
    return {mode: weight for mode, weight in zip(MODES, given, strict=True) if mode in recipe.modes}


def _sampling(recipe: PairRecipe, encoder: Encoder, ranks: OneProcess) -> Sampling:
    by_length = _size_at(recipe, encoder, ranks)
    boundaries: Sequence[int] | None = None if recipe.length_buckets else (0,)
    if recipe.length_batch_sizes:
        boundaries = [length for length, _ in recipe.length_batch_sizes]
    return Sampling(
        batch_size=recipe.batch_size if by_length is None else None,
        batch_size_at=by_length,
        exponent=recipe.size_exponent,
        boundaries=boundaries,
        seed=recipe.seed,
        ranks=ranks.size,
        max_epochs=math.ceil(recipe.epochs) if by_length is not None and recipe.epochs else None,
    )


def _size_at(recipe: PairRecipe, encoder: Encoder, ranks: OneProcess) -> Callable[[int], int] | None:
    """Queries of one rank by length, where the recipe lets the batch depend on it."""
    if recipe.length_batch_sizes:
        sizes = sorted(recipe.length_batch_sizes)
        return lambda length: max(next((n for most, n in sizes if length <= most), sizes[-1][1]) // ranks.size, 1)
    if recipe.memory_gigabytes is None:
        return None
    config = encoder.backbone.model.config
    shape = ModelShape(
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=config.num_attention_heads,
        intermediate=int(getattr(config, "intermediate_size", 4 * config.hidden_size)),
        bytes_per_value=4 if precision_of(recipe, encoder.device) is None else 2,
        gradient_checkpointing=recipe.gradient_checkpointing,
    )
    memory = MemoryModel.of_shape(shape, budget_bytes=recipe.memory_gigabytes * 1e9, query_length=recipe.query_length)
    return partial(memory.batch_size, group_size=recipe.group_size)


def _pairing(recipe: PairRecipe, encoder: Encoder) -> Pairing:
    return Pairing(
        grouping=Grouping(
            group_size=recipe.group_size,
            shuffle_probability=recipe.shuffle_text,
            teacher_scores=recipe.distillation is not None,
        ),
        chunk_tokens=chunk_tokens(recipe, encoder.device),
        twins=recipe.same_text,
    )


@dataclass(frozen=True, slots=True)
class _Taught:
    """An objective whose batches bring the teacher's embeddings along."""

    objective: Any
    teacher: TeacherVectors

    @property
    def by_query(self) -> bool:
        return bool(self.objective.by_query)

    def __call__(self, batch: PairBatch) -> Losses:
        losses: Losses = self.objective(self.teacher.beside(batch))
        return losses


def _ranking_loss(recipe: RerankerRecipe) -> RankingLoss:
    losses: dict[str, RankingLoss] = {
        "pointwise": lambda logits_BG, _: ranking.pointwise(logits_BG),
        "listwise": lambda logits_BG, _: ranking.listwise(logits_BG),
        "kl": partial(_kl, teacher_temperature=recipe.teacher_temperature),
        "margin_mse": lambda logits_BG, teacher_BG: ranking.margin_mse(logits_BG, _given(teacher_BG)),
    }
    return losses[recipe.loss]


def _kl(logits_BG: Tensor, teacher_BG: Tensor | None, *, teacher_temperature: float) -> Tensor:
    return ranking.kl_divergence(logits_BG, _given(teacher_BG), teacher_temperature=teacher_temperature)


def _given(teacher_BG: Tensor | None) -> Tensor:
    assert teacher_BG is not None  # the batches were asked for the teacher's scores
    return teacher_BG


def _sharded(module: nn.ModuleDict, model: nn.Module, recipe: Recipe, ranks: OneProcess) -> nn.ModuleDict:
    """Cut `model`, a part of `module`, among the ranks where the recipe says so; what is whole at the end."""
    if recipe.parallel != "fsdp" or ranks.size == 1:
        return module
    whole = copy.deepcopy(module)
    ranks.shard(model)
    return whole


def take_best(whole: nn.Module, module: nn.Module, summary: Summary) -> None:
    """Load the best weights, unless they are the last, which the module has."""
    if whole is not module or summary.best != summary.last:
        checkpoints.load_weights(whole, summary.best)


def run_loop(
    module: nn.Module,
    model: Any,
    batches: Any,
    *,
    step: Callable[[Any], Losses],
    settings: LoopSettings,
    recipe: Recipe,
    around: Surroundings,
) -> Summary:
    """Train `module`, measuring `model`; it ends with the last weights."""
    evaluate = None
    if around.evaluate is not None:
        evaluate = partial(around.evaluate, model)
    return train(
        module,
        batches=batches,
        step=step,
        settings=settings,
        folder=around.folder,
        evaluate=evaluate,
        trackers=around.every_tracker(),
        ranks=around.ranks,
        identity={**around.identity, **_deciding(recipe)},
    )


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """The recipe's fields as JSON keeps them, but for those that may change when a run is resumed."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(recipe))
    return {name: value for name, value in fields.items() if name not in FREE}


def chunk_tokens(recipe: Recipe, device: torch.device) -> int:
    """Tokens of a chunk: the recipe's, or the device's."""
    return recipe.chunk_tokens or CHUNK_TOKENS.get(device.type, 4096)


def precision_of(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """Of autocast; None computes in the weights' own."""
    if recipe.precision == "auto":
        return torch.bfloat16 if device.type == "cuda" else None
    return torch.bfloat16 if recipe.precision == "bfloat16" else None
