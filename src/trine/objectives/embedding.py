"""The objective of embedding models: every published way to train them, as settings of one loss.

Shapes: Q queries of the whole batch, R queries of this rank, G passages of a query, P = Q * G passages, N candidates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from trine.errors import UsageError
from trine.objectives import distillation, m3
from trine.objectives.base import Embedded, Losses, PairBatch
from trine.objectives.candidates import counted, own_passages, similarities, targets, without
from trine.objectives.contrastive import (
    Block,
    Candidates,
    bidirectional,
    chosen,
    false_negatives,
    hardness,
    own_group,
)
from trine.objectives.matryoshka import matryoshka
from trine.objectives.regularization import flops, spread_out
from trine.objectives.settings import LEAST_TEMPERATURE, MOST_TEMPERATURE, EmbeddingSettings
from trine.tables import unknown
from trine.types import Mode


class EmbeddingObjective(nn.Module):
    """Embeddings of a batch of pairs -> loss.

    InfoNCE, E5, GTE, Qwen3-Embedding, EmbeddingGemma, BGE-M3 and SPLADE differ in settings only. SimCSE (arXiv
    2104.08821) is this with each query's own text as its passage, embedded under another dropout mask.

    With one head the loss is ``contrastive_weight * contrastive + distillation_weight * distillation``. With several,
    it is the mean of the heads' weighted losses, or BGE-M3's unified loss (`trine.objectives.m3`). Weighted
    regularisers are added. The result's parts are named after what they are, before weighting.

    Args:
        settings: all of them; or give them one by one, as keywords.

    Raises:
        UsageError: unknown or useless settings.
    """

    def __init__(self, settings: EmbeddingSettings | None = None, **options: Any) -> None:
        super().__init__()
        known = [field.name for field in fields(EmbeddingSettings)]
        for name in options:
            if name not in known:
                raise unknown(name, known, kind="setting of the embedding objective")
        if settings is not None and options:
            raise UsageError(f"give settings or single options, not both: {sorted(options)}")
        self.settings = settings or EmbeddingSettings(**options)
        self.log_scale = (
            nn.Parameter(torch.tensor(-math.log(self.settings.temperature)))
            if self.settings.learn_temperature
            else None
        )
        self.projection = nn.Linear(*self.settings.projection) if self.settings.projection else None

    @property
    def by_query(self) -> bool:
        """Whether the losses of some queries add up to that of all; geometry compares the texts with each other."""
        return self.settings.embedding_distillation != "geometry"

    @property
    def temperature(self) -> Tensor | float:
        """What similarities are divided by; a tensor with a gradient where it is learnt."""
        return self.settings.temperature if self.log_scale is None else torch.exp(-self.log_scale)

    def forward(self, batch: PairBatch) -> Losses:
        """The loss of this rank's queries.

        Raises:
            UsageError: the batch lacks what the settings need.
        """
        settings = self.settings
        if self.log_scale is not None:
            # Clamping the value inside the graph would stop its gradient for good once a step went past the bound.
            with torch.no_grad():
                self.log_scale.clamp_(-math.log(MOST_TEMPERATURE), -math.log(LEAST_TEMPERATURE))
        found: list[tuple[float, Losses]] = []
        if settings.scored:
            found.append((1.0, self._scored(batch)))
        for name, weight, loss in self._added(batch):
            found.append((weight, Losses(loss, {name: loss.detach()})))
        parts = {name: value for _, losses in found for name, value in losses.parts.items()}
        if self.log_scale is not None:
            parts["temperature"] = torch.exp(-self.log_scale).detach()
        return Losses(torch.stack([weight * losses.total for weight, losses in found]).sum(), parts)

    def _scored(self, batch: PairBatch) -> Losses:
        settings = self.settings
        fixed = {
            mode: similarities(batch, mode=mode, blocks=settings.blocks)
            for mode in settings.modes
            if mode != "dense" or not settings.matryoshka_widths
        }
        if not settings.matryoshka_widths:
            return self._of_similarities(fixed, batch)

        def of_dense(queries_QD: Tensor, passages_PD: Tensor) -> Losses:
            narrow = replace(batch, queries=Embedded(queries_QD), passages=Embedded(passages_PD))
            dense = similarities(narrow, mode="dense", blocks=settings.blocks)
            return self._of_similarities({"dense": dense, **fixed}, batch)

        queries_QD, passages_PD = batch.queries.dense_ND, batch.passages.dense_ND
        if queries_QD is None or passages_PD is None:
            raise UsageError("matryoshka_widths need dense embeddings, and the batch has none; compute that mode")
        return matryoshka(
            of_dense,
            (queries_QD, passages_PD),
            widths=settings.matryoshka_widths,
            weights=settings.matryoshka_weights or None,
        )

    def _of_similarities(self, found: Mapping[Mode, Mapping[Block, Tensor]], batch: PairBatch) -> Losses:
        settings, temperature = self.settings, self.temperature
        rules = _rules(settings, found[settings.judge], batch)
        losses = {mode: self._head(blocks, rules, batch, temperature) for mode, blocks in found.items()}
        if len(losses) == 1:
            return next(iter(losses.values()))
        weights = settings.mode_weights or m3.WEIGHTS
        detail = {f"{mode}_{name}": value for mode, head in losses.items() for name, value in head.parts.items()}
        hard = {mode: head.total for mode, head in losses.items()}
        if not settings.summed:
            total = torch.stack([weights[mode] * loss for mode, loss in hard.items()]).sum() / len(hard)
            return Losses(total, detail)
        shares = settings.ensemble_weights or m3.ENSEMBLE_WEIGHTS
        names = found[settings.judge]
        together = {
            block: m3.ensemble({mode: blocks[block] for mode, blocks in found.items()}, weights=shares)
            for block in names
        }
        ensemble = self._head(together, rules, batch, temperature)
        detail |= {f"ensemble_{name}": value for name, value in ensemble.parts.items()}
        distilled = None
        if settings.self_distillation:
            logits = {mode: rules.logits(blocks["query_passage"] / temperature) for mode, blocks in found.items()}
            teacher_RN = rules.logits(together["query_passage"] / temperature)
            distilled = m3.self_distillation(logits, teacher_RN, weights=weights)
        result = m3.unified(hard, ensemble.total, weights=weights, distilled=distilled)
        return Losses(result.total, {**result.parts, **detail})

    def _head(
        self, blocks: Mapping[Block, Tensor], rules: _Rules, batch: PairBatch, temperature: Tensor | float
    ) -> Losses:
        """The loss of one head's similarities, or of the heads' sum."""
        settings, targets_R = self.settings, targets(batch)
        terms: dict[str, tuple[float, Tensor]] = {}
        if settings.contrastive_weight:
            contrastive = bidirectional(
                [
                    Candidates(scores_RN, rules.counted[block], rules.bonus.get(block))
                    for block, scores_RN in blocks.items()
                ],
                positives_R=chosen(blocks["query_passage"], targets_R),
                temperature=temperature,
                partition=settings.partition,
                focal=settings.focal,
            )
            terms["contrastive"] = settings.contrastive_weight, contrastive
        if settings.distillation:
            loss = self._distilled(blocks["query_passage"] / temperature, rules, batch)
            terms["distillation"] = settings.distillation_weight, loss
        if not terms:
            return Losses(blocks["query_passage"].sum() * 0, {})
        total = torch.stack([weight * loss for weight, loss in terms.values()]).sum()
        return Losses(total, {name: loss.detach() for name, (_, loss) in terms.items()})

    def _distilled(self, logits_RN: Tensor, rules: _Rules, batch: PairBatch) -> Tensor:
        kind, warmth = self.settings.distillation, self.settings.teacher_temperature
        teacher_RG = batch.teacher_scores_RG
        if teacher_RG is None or teacher_RG.shape[1] != batch.group_size:
            shape = None if teacher_RG is None else tuple(teacher_RG.shape)
            raise UsageError(
                f"distillation={kind!r} needs a teacher's score of each of the {batch.group_size} passages of a query, "
                f"and the batch has {shape}; add positive_scores and negative_scores, or leave distillation out"
            )
        targets_R = targets(batch)
        if kind == "ranked":
            own_RN = own_group(logits_RN, targets_R, group_size=batch.group_size)
            return distillation.ranked_kd(
                rules.logits(logits_RN, always_RN=own_RN), teacher_RG, targets_R=targets_R, teacher_temperature=warmth
            )
        steps_G = torch.arange(batch.group_size, device=logits_RN.device)
        own_RG = logits_RN.gather(1, targets_R[:, None] + steps_G)
        if kind == "margin_mse":
            return distillation.margin_mse(own_RG, teacher_RG)
        how = distillation.kl_divergence if kind == "kl" else distillation.listnet
        return how(own_RG, teacher_RG, teacher_temperature=warmth)

    def _added(self, batch: PairBatch) -> list[tuple[str, float, Tensor]]:
        """Name, weight and value of what is added to the loss of the similarities."""
        settings, found = self.settings, []
        for name, weight, side in (
            ("query_flops", settings.query_flops, batch.queries),
            ("passage_flops", settings.passage_flops, batch.passages),
        ):
            if weight:
                if side.sparse is None:
                    raise UsageError(f"{name} needs sparse embeddings, and the batch has none; compute that mode")
                found.append((name, weight, flops(side.sparse)))
        if settings.spread_out:
            queries_QD, passages_PD = _dense(batch)
            value = spread_out(queries_QD) + spread_out(passages_PD[:: batch.group_size])
            found.append(("spread_out", settings.spread_out, value))
        if settings.embedding_distillation:
            loss = self._followed(batch)
            found.append(("embedding_distillation", settings.embedding_distillation_weight, loss))
        return found

    def _followed(self, batch: PairBatch) -> Tensor:
        queries_QD, passages_PD = _dense(batch)
        pairs = [(queries_QD[batch.row_numbers], batch.teacher_queries_RE)]
        pairs.append((passages_PD[own_passages(batch)], batch.teacher_passages_RGE))
        known = [(student, teacher.flatten(0, -2)) for student, teacher in pairs if teacher is not None]
        if not known:
            raise UsageError(
                f"embedding_distillation={self.settings.embedding_distillation!r} needs a teacher's embeddings of the "
                "queries or the passages, and the batch has neither; compute them, or leave it out"
            )
        student_ND, teacher_NE = torch.cat([left for left, _ in known]), torch.cat([right for _, right in known])
        if self.settings.embedding_distillation == "geometry":
            return distillation.geometry(student_ND, teacher_NE)
        projected_NE = student_ND if self.projection is None else self.projection(student_ND)
        if projected_NE.shape != teacher_NE.shape:
            raise UsageError(
                f"the student's embeddings are {tuple(projected_NE.shape)} and the teacher's "
                f"{tuple(teacher_NE.shape)}; set projection=({student_ND.shape[1]}, {teacher_NE.shape[1]})"
            )
        return distillation.cosine_distance(projected_NE, teacher_NE)


@dataclass(frozen=True, slots=True)
class _Rules:
    """Which candidates count, and what is added to their logits: the same for every head."""

    counted: Mapping[Block, Tensor | None]
    bonus: Mapping[Block, Tensor]

    def logits(self, logits_RN: Tensor, *, always_RN: Tensor | None = None) -> Tensor:
        counted_RN = self.counted["query_passage"]
        if counted_RN is None:
            return logits_RN
        dropped_RN = ~counted_RN if always_RN is None else ~(counted_RN | always_RN)
        return logits_RN.masked_fill(dropped_RN, -torch.inf)


def _rules(settings: EmbeddingSettings, scores: Mapping[Block, Tensor], batch: PairBatch) -> _Rules:
    targets_R = targets(batch)
    kept = counted(batch, blocks=settings.blocks)
    margin, ratio = settings.false_negative_margin, settings.false_negative_ratio
    if margin is not None or ratio is not None:
        positives_R = chosen(scores["query_passage"], targets_R)
        always = {"query_passage": targets_R, "passage_query": batch.row_numbers}
        for block, scores_RN in scores.items():
            suspect_RN = false_negatives(scores_RN, positives_R, margin=margin, ratio=ratio)
            kept[block] = without(kept[block], suspect_RN, kept_R=always.get(block))
    bonus: dict[Block, Tensor] = {}
    if settings.hardness:
        bonus["query_passage"] = hardness(
            scores["query_passage"],
            targets_R,
            group_size=batch.group_size,
            strength=settings.hardness,
            negatives=settings.hardness_negatives,
        )
    return _Rules(kept, bonus)


def _dense(batch: PairBatch) -> tuple[Tensor, Tensor]:
    queries_QD, passages_PD = batch.queries.dense_ND, batch.passages.dense_ND
    if queries_QD is None or passages_PD is None:
        raise UsageError("the objective needs dense embeddings, and the batch has none; compute that mode")
    return queries_QD, passages_PD
