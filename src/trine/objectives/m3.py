"""BGE-M3's unified loss with self-knowledge distillation: the heads' summed score teaches each of them.

Chen et al., arXiv 2402.03216 (version 4), section 3.3: with x over the heads, ensemble score S = sum_x e_x S_x,
hard loss L = (sum_x w_x L(S_x) + L(S)) / (heads + 1), distillation L' = sum_x w_x CE(softmax(stopped S), S_x) / heads,
and the loss (L + L') / 2.

Shapes: R queries of this rank, N candidates of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from trine.errors import UsageError
from trine.objectives.base import Losses
from trine.objectives.contrastive import soft_cross_entropy
from trine.types import Mode

WEIGHTS: Mapping[Mode, float] = {"dense": 1.0, "sparse": 0.1, "multi_vector": 1.0}
"""Of the heads' losses; the sparse head starts from random weights, and its early loss is large."""
ENSEMBLE_WEIGHTS: Mapping[Mode, float] = {"dense": 1.0, "sparse": 0.3, "multi_vector": 1.0}
"""Of the heads' scores in the ensemble."""


def ensemble(scores: Mapping[Mode, Tensor], *, weights: Mapping[Mode, float] = ENSEMBLE_WEIGHTS) -> Tensor:
    """(R, N) weighted sum of the heads' scores."""
    parts = [weights[mode] * scores_RN for mode, scores_RN in scores.items()]
    return torch.stack(parts).sum(dim=0)


def unified(
    hard: Mapping[Mode, Tensor],
    ensemble_hard: Tensor,
    *,
    weights: Mapping[Mode, float] = WEIGHTS,
    distilled: Losses | None = None,
) -> Losses:
    """Put the parts together.

    Args:
        hard: each head's loss.
        ensemble_hard: that of the ensemble score.
        weights: of the heads.
        distilled: from `self_distillation`; None leaves it out, and the loss is L alone.
    """
    total = sum((weights[mode] * loss for mode, loss in hard.items()), ensemble_hard) / (len(hard) + 1)
    parts = {str(mode): loss.detach() for mode, loss in hard.items()} | {"ensemble": ensemble_hard.detach()}
    if distilled is None:
        return Losses(total, parts)
    return Losses((total + distilled.total) / 2, {**parts, **distilled.parts})


def self_distillation(
    logits: Mapping[Mode, Tensor], ensemble_logits_RN: Tensor, *, weights: Mapping[Mode, float] = WEIGHTS
) -> Losses:
    """Cross-entropy of every head with the ensemble's softmax, through which no gradient flows.

    The candidates may be those of all ranks, of the batch, or a query's own group alone.

    Args:
        logits: (R, N) of each head, divided by the temperature, minus infinity where a candidate does not count.
        ensemble_logits_RN: of the ensemble, over the same candidates.
        weights: of the heads.
    """
    shares_RN = torch.softmax(ensemble_logits_RN.detach(), dim=1)
    losses = {mode: soft_cross_entropy(logits_RN, shares_RN) for mode, logits_RN in logits.items()}
    total = torch.stack([weights[mode] * loss for mode, loss in losses.items()]).sum() / len(losses)
    return Losses(total, {f"self_{mode}": loss.detach() for mode, loss in losses.items()})


def m3_loss(
    scores: Mapping[Mode, Tensor],
    loss: Callable[[Tensor], Tensor],
    *,
    temperature: Tensor | float = 0.02,
    weights: Mapping[Mode, float] = WEIGHTS,
    ensemble_weights: Mapping[Mode, float] = ENSEMBLE_WEIGHTS,
    self_distill: bool = True,
    counted_RN: Tensor | None = None,
) -> Losses:
    """The whole loss from score matrices, for any two or more heads.

    Args:
        scores: (R, N) of each head, over the same candidates.
        loss: (R, N) logits -> scalar: `info_nce`, or one that learns from a reranker's scores.
        temperature: the scores are divided by it.
        weights: of the heads' losses.
        ensemble_weights: of the heads' scores.
        self_distill: off leaves the hard loss L.
        counted_RN: true for candidates that count.

    Raises:
        UsageError: fewer than two heads: the ensemble would be the head itself.
    """
    if len(scores) < 2:
        raise UsageError(f"the unified loss needs two heads or more, not {list(scores)}; use info_nce for one")
    logits = {mode: scores_RN / temperature for mode, scores_RN in scores.items()}
    together_RN = ensemble(logits, weights=ensemble_weights)
    if counted_RN is not None:
        logits = {mode: logits_RN.masked_fill(~counted_RN, -torch.inf) for mode, logits_RN in logits.items()}
        together_RN = together_RN.masked_fill(~counted_RN, -torch.inf)
    distilled = self_distillation(logits, together_RN, weights=weights) if self_distill else None
    hard = {mode: loss(logits_RN) for mode, logits_RN in logits.items()}
    return unified(hard, loss(together_RN), weights=weights, distilled=distilled)
