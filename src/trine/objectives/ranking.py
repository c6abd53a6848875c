"""Losses of rerankers: scores of a query's passages -> scalar.

Shapes: B queries, G passages of a query.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trine.objectives import distillation


def pointwise(scores_BG: Tensor, labels_BG: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy of each pair by itself (monoBERT, arXiv 1901.04085, section 2).

    Args:
        scores_BG: logits.
        labels_BG: relevance from 0 to 1; None means that the first passage is the positive and the others are not.
    """
    if labels_BG is None:
        labels_BG = torch.zeros_like(scores_BG)
        labels_BG[:, 0] = 1
    return F.binary_cross_entropy_with_logits(scores_BG, labels_BG.to(scores_BG.dtype))


def listwise(scores_BG: Tensor) -> Tensor:
    """Mean cross-entropy of the first passage among the group (localised contrastive estimation, arXiv 2101.08751).

    bge-reranker trains with it.

    Args:
        scores_BG: logits, positive first.
    """
    targets_B = torch.zeros(len(scores_BG), dtype=torch.int64, device=scores_BG.device)
    return F.cross_entropy(scores_BG, targets_B)


def listnet(scores_BG: Tensor, teacher_BG: Tensor, *, teacher_temperature: float = 1.0) -> Tensor:
    """Mean cross-entropy with the softmax of a teacher's scores or of graded labels (ListNet, Cao et al., ICML 2007).

    Args:
        scores_BG: logits.
        teacher_BG: the teacher's scores; they receive no gradient.
        teacher_temperature: the teacher's scores are divided by it.
    """
    return distillation.listnet(scores_BG, teacher_BG, teacher_temperature=teacher_temperature)


def kl_divergence(scores_BG: Tensor, teacher_BG: Tensor, *, teacher_temperature: float = 1.0) -> Tensor:
    """Mean KL(teacher || student): `listnet` less the teacher's entropy, so that 0 is perfect.

    Args:
        scores_BG: logits.
        teacher_BG: the teacher's scores; they receive no gradient.
        teacher_temperature: the teacher's scores are divided by it.
    """
    return distillation.kl_divergence(scores_BG, teacher_BG, teacher_temperature=teacher_temperature)


def margin_mse(scores_BG: Tensor, teacher_BG: Tensor) -> Tensor:
    """Mean squared difference of the margins between the first passage and the others (arXiv 2010.02666, section 3).

    Args:
        scores_BG: logits, positive first.
        teacher_BG: the teacher's scores.
    """
    return distillation.margin_mse(scores_BG, teacher_BG)


def lambda_loss(scores_BG: Tensor, grades_BG: Tensor, *, sharpness: float = 1.0) -> Tensor:
    """Pairwise logistic loss, each pair weighted by what its exchange would change in nDCG (LambdaRank).

    Burges, MSR-TR-2010-82, section 4: the sum over pairs i above j in grade of ``|delta nDCG| log2(1 + exp(-sharpness
    (s_i - s_j)))``, with gains ``2^grade - 1`` and the ranks that the scores have now. The mean over queries; a query
    whose grades are all equal counts 0.

    Args:
        scores_BG: logits.
        grades_BG: relevance, 0 or more.
        sharpness: slope of the logistic.
    """
    gains_BG = torch.exp2(grades_BG.to(scores_BG.dtype)) - 1
    ranks_BG = scores_BG.detach().argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    discounts_BG = 1 / torch.log2(ranks_BG.to(scores_BG.dtype) + 2)
    places_G = torch.arange(scores_BG.shape[1], device=scores_BG.device, dtype=scores_BG.dtype)
    ideal_B = (gains_BG.sort(dim=1, descending=True).values / torch.log2(places_G + 2)).sum(dim=1)
    changes_BGG = _differences(gains_BG).abs() * _differences(discounts_BG).abs()
    above_BGG = grades_BG[:, :, None] > grades_BG[:, None, :]
    losses_BGG = F.softplus(-sharpness * _differences(scores_BG)) / torch.log(scores_BG.new_tensor(2.0))
    sums_B = (losses_BGG * changes_BGG * above_BGG).sum(dim=(1, 2))
    return (sums_B / ideal_B.clamp(min=torch.finfo(ideal_B.dtype).tiny)).mean()


def _differences(values_BG: Tensor) -> Tensor:
    """(B, G, G) each value less each other."""
    return values_BG[:, :, None] - values_BG[:, None, :]
