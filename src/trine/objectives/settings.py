"""The settings of the embedding objective, and which of them go together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from trine.errors import UsageError
from trine.objectives.contrastive import BLOCKS, Block, Negatives, Partition
from trine.objectives.matryoshka import check_widths
from trine.tables import unknown
from trine.types import MODES, Mode

ScoreDistillation: TypeAlias = Literal["kl", "listnet", "margin_mse", "ranked"]
EmbeddingDistillation: TypeAlias = Literal["cosine", "geometry"]

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 10.0
"""Bounds of a learnt temperature; the lower is CLIP's (arXiv 2103.00020, section 2.5: scale at most 100)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingSettings:
    """What the objective is made of; a setting without effect beside the others is refused.

    Raises:
        UsageError: a value that cannot be used, or that would have no effect.
    """

    modes: tuple[Mode, ...] = ("dense",)
    temperature: float = 0.02
    """Every similarity is divided by it."""
    learn_temperature: bool = False
    """Start from `temperature` and learn its logarithm."""
    contrastive_weight: float = 1.0
    """Of the contrastive loss; E5 takes 0.2 beside distillation."""
    blocks: tuple[Block, ...] = ("query_passage",)
    """What enters the denominator; all four is GTE's improved loss."""
    partition: Partition = "joint"
    false_negative_margin: float | None = None
    """Drop candidates that score above the positive's score plus this."""
    false_negative_ratio: float | None = None
    """Drop candidates that score above this times the positive's score."""
    focal: float = 0.0
    """Exponent of the focal weight."""
    hardness: float = 0.0
    """Strength of the weight ``exp(strength * similarity)`` of negatives."""
    hardness_negatives: Negatives = "hard"
    distillation: ScoreDistillation | None = None
    """From a reranker's scores."""
    distillation_weight: float = 1.0
    teacher_temperature: float = 1.0
    ensemble: bool | None = None
    """Whether the heads' summed score has a loss of its own; None means where there are two or more."""
    self_distillation: bool = False
    """Whether the summed score teaches every head."""
    mode_weights: Mapping[Mode, float] | None = None
    """Of the heads' losses; None means BGE-M3's 1, 0.1, 1."""
    ensemble_weights: Mapping[Mode, float] | None = None
    """Of the heads' scores in the sum; None means BGE-M3's 1, 0.3, 1."""
    matryoshka_widths: tuple[int, ...] = ()
    """Dense dimensions to train; the loss of each is added."""
    matryoshka_weights: tuple[float, ...] = ()
    query_flops: float = 0.0
    """Weight of the FLOPS regulariser of the queries' sparse weights."""
    passage_flops: float = 0.0
    spread_out: float = 0.0
    """Weight of the mean squared cosine between queries, plus that between positives."""
    embedding_distillation: EmbeddingDistillation | None = None
    """From a teacher's embeddings; at full width. "geometry" compares the texts of one rank with each other."""
    embedding_distillation_weight: float = 1.0
    projection: tuple[int, int] | None = None
    """Widths of the student and the teacher where a linear layer shall lead from one to the other."""

    def __post_init__(self) -> None:
        """Refuse what cannot be used."""
        _check_names(self)
        _check_numbers(self)
        _check_combinations(self)

    @property
    def scored(self) -> bool:
        """Whether any loss sees similarities."""
        return bool(self.contrastive_weight or self.distillation or self.self_distillation)

    @property
    def summed(self) -> bool:
        """Whether the heads' scores are summed."""
        return len(self.modes) > 1 if self.ensemble is None else self.ensemble

    @property
    def judge(self) -> Mode:
        """The representation whose similarities say how hard or how suspect a candidate is.

        One for every head, as it is the text that is so. Cosines first, as margins are meant for them.
        """
        order: tuple[Mode, ...] = ("dense", "multi_vector", "sparse")
        return next(mode for mode in order if mode in self.modes)


def _check_names(settings: EmbeddingSettings) -> None:
    for kind, given, known in (
        ("mode", settings.modes, MODES),
        ("block", settings.blocks, BLOCKS),
        ("partition", [settings.partition], get_args(Partition)),
        ("choice of hardness_negatives", [settings.hardness_negatives], get_args(Negatives)),
        ("distillation", [settings.distillation or "kl"], get_args(ScoreDistillation)),
        (
            "embedding_distillation",
            [settings.embedding_distillation or "cosine"],
            get_args(EmbeddingDistillation),
        ),
    ):
        _check_known(kind, given, known)
    for name, values in (("modes", settings.modes), ("blocks", settings.blocks)):
        if not values or len(set(values)) < len(values):
            raise UsageError(f"{name} must be one or more, all different, not {list(values)}")
    for name, weights in (("mode_weights", settings.mode_weights), ("ensemble_weights", settings.ensemble_weights)):
        if weights is not None and set(weights) != set(settings.modes):
            raise UsageError(
                f"{name} are for {sorted(weights)} and the modes are {list(settings.modes)}; give one each"
            )


def _check_known(kind: str, given: Iterable[str], known: Iterable[str]) -> None:
    for name in given:
        if name not in known:
            raise unknown(name, known, kind=kind)


_NOT_NEGATIVE = (
    "contrastive_weight",
    "focal",
    "hardness",
    "distillation_weight",
    "query_flops",
    "passage_flops",
    "spread_out",
    "embedding_distillation_weight",
)


def _check_numbers(settings: EmbeddingSettings) -> None:
    for name in ("temperature", "teacher_temperature"):
        value = getattr(settings, name)
        if not 0 < value < math.inf:
            raise UsageError(f"{name} must be positive, not {value}")
    for name in _NOT_NEGATIVE:
        value = getattr(settings, name)
        if not 0 <= value < math.inf:
            raise UsageError(f"{name} must be 0 or more, not {value}")
    if settings.learn_temperature and not LEAST_TEMPERATURE <= settings.temperature <= MOST_TEMPERATURE:
        raise UsageError(
            f"a learnt temperature stays from {LEAST_TEMPERATURE} to {MOST_TEMPERATURE}, and starts at "
            f"{settings.temperature}; choose one within, or leave it fixed"
        )
    for name, weights in (("mode_weights", settings.mode_weights), ("ensemble_weights", settings.ensemble_weights)):
        if weights is not None and not all(0 <= weight < math.inf for weight in weights.values()):
            raise UsageError(f"{name} must be 0 or more, not {dict(weights)}")
    if settings.matryoshka_widths:
        check_widths(settings.matryoshka_widths, settings.matryoshka_weights or None)


def _check_combinations(settings: EmbeddingSettings) -> None:
    """Every setting that differs from its default must change something."""
    for name, needed, works in _conditions(settings):
        if getattr(settings, name) != EmbeddingSettings.__dataclass_fields__[name].default and not works:
            raise UsageError(f"{name}={getattr(settings, name)!r} has no effect without {needed}; set both or neither")
    if settings.false_negative_margin is not None and settings.false_negative_ratio is not None:
        raise UsageError("give one of false_negative_margin and false_negative_ratio, not both")
    if "query_passage" not in settings.blocks:
        raise UsageError(
            f"blocks must hold 'query_passage', which holds the positive, not {list(settings.blocks)} alone"
        )
    if settings.partition == "separate" and set(settings.blocks) != {"query_passage", "passage_query"}:
        raise UsageError(
            "partition='separate' is for blocks=('query_passage', 'passage_query'), the two that hold the positive, "
            f"not {list(settings.blocks)}"
        )
    if not (settings.scored or settings.embedding_distillation):
        raise UsageError("nothing to learn from: contrastive_weight is 0, and there is no distillation")
    if not settings.scored and settings.modes != ("dense",):
        raise UsageError(
            "with contrastive_weight=0 and no distillation, only dense embeddings are trained, not "
            f"{list(settings.modes)}"
        )


def _conditions(settings: EmbeddingSettings) -> Iterable[tuple[str, str, bool]]:
    """(setting, what it needs, whether that is there)."""
    contrastive = settings.contrastive_weight > 0
    masked = contrastive or settings.distillation == "ranked" or settings.self_distillation
    several = len(settings.modes) > 1
    dense, sparse = "dense" in settings.modes, "sparse" in settings.modes
    softened = settings.distillation not in (None, "margin_mse")
    yield from (
        ("learn_temperature", "a loss on similarities", settings.scored),
        ("blocks", "contrastive_weight", contrastive),
        ("partition", "contrastive_weight", contrastive),
        ("focal", "contrastive_weight", contrastive),
        ("hardness", "contrastive_weight", contrastive),
        ("hardness_negatives", "hardness", settings.hardness > 0),
        ("false_negative_margin", "a loss with in-batch negatives", masked),
        ("false_negative_ratio", "a loss with in-batch negatives", masked),
        ("distillation_weight", "distillation", settings.distillation is not None),
        ("teacher_temperature", "distillation by softmax (kl, listnet, ranked)", softened),
        ("ensemble", "two modes or more", several),
        ("self_distillation", "two modes or more and their ensemble", several and settings.summed),
        ("mode_weights", "two modes or more", several),
        ("ensemble_weights", "two modes or more and their ensemble", several and settings.summed),
        ("matryoshka_widths", "the dense mode and a loss on similarities", dense and settings.scored),
        ("matryoshka_weights", "matryoshka_widths", bool(settings.matryoshka_widths)),
        ("query_flops", "the sparse mode", sparse),
        ("passage_flops", "the sparse mode", sparse),
        ("spread_out", "the dense mode", dense),
        ("embedding_distillation", "the dense mode", dense),
        ("embedding_distillation_weight", "embedding_distillation", settings.embedding_distillation is not None),
        ("projection", "embedding_distillation='cosine'", settings.embedding_distillation == "cosine"),
    )
