"""Losses that follow a teacher: its scores of a query's passages, or its embeddings.

Shapes: R queries of this rank, G passages of a query, N candidates or texts, D student and E teacher dimensions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from trine.objectives.contrastive import own_group, soft_cross_entropy


def kl_divergence(logits_RG: Tensor, teacher_RG: Tensor, *, teacher_temperature: float = 1.0) -> Tensor:
    """Mean over rows of KL(teacher || student), both softmaxes over the group.

    E5 (arXiv 2212.03533, section 4.3) adds 0.2 times the contrastive loss to it.

    Args:
        logits_RG: the student's scores, divided by its temperature.
        teacher_RG: the teacher's scores; they receive no gradient.
        teacher_temperature: the teacher's scores are divided by it.
    """
    shares_RG = torch.softmax(teacher_RG.detach() / teacher_temperature, dim=1)
    entropy_RG: Tensor = torch.special.entr(shares_RG)
    return soft_cross_entropy(logits_RG, shares_RG) - entropy_RG.sum(dim=1).mean()


def listnet(logits_RG: Tensor, teacher_RG: Tensor, *, teacher_temperature: float = 1.0) -> Tensor:
    """Mean over rows of the cross-entropy of the top-one distributions (ListNet, Cao et al., ICML 2007, section 4.2).

    Its gradient is that of `kl_divergence`, its value larger by the teacher's entropy; FlagEmbedding calls it kl_div.

    Args:
        logits_RG: the student's scores, divided by its temperature.
        teacher_RG: the teacher's scores; they receive no gradient.
        teacher_temperature: the teacher's scores are divided by it.
    """
    return soft_cross_entropy(logits_RG, torch.softmax(teacher_RG.detach() / teacher_temperature, dim=1))


def margin_mse(scores_RG: Tensor, teacher_RG: Tensor) -> Tensor:
    """Mean squared difference of the margins between the positive and each negative (Hofstaetter et al., arXiv
    2010.02666, section 3).

    Args:
        scores_RG: the student's scores, positive first, on the scale that shall reach the teacher's.
        teacher_RG: the teacher's scores.
    """
    margins_RN = scores_RG[:, :1] - scores_RG[:, 1:]
    teacher_margins_RN = teacher_RG[:, :1] - teacher_RG[:, 1:]
    return F.mse_loss(margins_RN, teacher_margins_RN.detach().to(margins_RN.dtype))


def ranked_kd(
    logits_RN: Tensor, teacher_RG: Tensor, *, targets_R: Tensor, teacher_temperature: float = 1.0, order: bool = True
) -> Tensor:
    """Listwise distillation that keeps the batch's other passages as negatives: BGE-M3's released code.

    Each own passage in turn is the target of a cross-entropy, weighted by the teacher's softmax over the group, while
    those that came before it are left out. The positive comes first, then the negatives from the teacher's best.

    Args:
        logits_RN: the student's scores of all candidates, divided by its temperature.
        teacher_RG: the teacher's scores of the query's own passages.
        targets_R: column of each row's positive; the rest of its group follows.
        teacher_temperature: the teacher's scores are divided by it.
        order: False takes the negatives as they stand, as FlagEmbedding 1.4 does (its m3_kd_loss).
    """
    shares_RG = torch.softmax(teacher_RG.detach() / teacher_temperature, dim=1)
    places_RG = torch.arange(shares_RG.shape[1], device=shares_RG.device).expand_as(shares_RG)
    if order:
        best_first = shares_RG[:, 1:].argsort(dim=1, descending=True, stable=True) + 1
        places_RG = torch.cat([places_RG[:, :1], best_first], dim=1)
    columns_RG = targets_R[:, None] + places_RG
    own_RN = own_group(logits_RN, targets_R, group_size=shares_RG.shape[1])
    # The least number instead of minus infinity: a row without others has a zero gradient there, not NaN.
    least = torch.finfo(logits_RN.dtype).min
    others_RG1 = torch.logsumexp(logits_RN.masked_fill(own_RN, least), dim=1)[:, None, None].expand(*places_RG.shape, 1)
    own_RG = logits_RN.gather(1, columns_RG)
    gone_GG = torch.ones(own_RG.shape[1], own_RG.shape[1], dtype=torch.bool, device=own_RG.device).tril(-1)
    left_RGG = own_RG[:, None, :].expand(-1, own_RG.shape[1], -1).masked_fill(gone_GG, -torch.inf)
    partitions_RG = torch.logsumexp(torch.cat([others_RG1, left_RGG], dim=2), dim=2)
    return (shares_RG.gather(1, places_RG) * (partitions_RG - own_RG)).sum(dim=1).mean()


def cosine_distance(student_NE: Tensor, teacher_NE: Tensor) -> Tensor:
    """Mean over texts of one minus the cosine with the teacher's embedding; label-free.

    jina-embeddings-v5 (arXiv 2602.15547, section 3), LEAF (arXiv 2509.12539).

    Args:
        student_NE: embeddings, projected to the teacher's width where that is another.
        teacher_NE: the teacher's embeddings of the same texts.
    """
    return (1 - F.cosine_similarity(student_NE, teacher_NE.detach().to(student_NE.dtype), dim=1)).mean()


def geometry(student_ND: Tensor, teacher_NE: Tensor) -> Tensor:
    """Mean squared difference of the two matrices of cosines between the texts of a batch, diagonal left out.

    Relational distillation (Park et al., arXiv 1904.05068, section 3) without a projection: the widths may differ.

    Args:
        student_ND: embeddings of N >= 2 texts.
        teacher_NE: the teacher's embeddings of the same texts.
    """
    student_ND = F.normalize(student_ND, dim=1)
    teacher_NE = F.normalize(teacher_NE.detach().to(student_ND.dtype), dim=1)
    difference_NN = student_ND @ student_ND.T - teacher_NE @ teacher_NE.T
    count = len(difference_NN)
    squares = difference_NN.square().sum() - difference_NN.diagonal().square().sum()
    return squares / max(count * (count - 1), 1)
