"""Contrastive losses on score matrices: InfoNCE, the four blocks of GTE, and the masks and weights that others added.

Shapes: Q queries of the whole batch, R queries of this rank, P = Q * G passages, G passages of a query, N candidates
of a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from trine.errors import UsageError

Block: TypeAlias = Literal["query_passage", "query_query", "passage_query", "passage_passage"]
"""Which similarities enter the denominator: of a query with all passages, of it with the other queries, of its positive
with all queries, of its positive with other queries' passages."""
BLOCKS: tuple[Block, ...] = ("query_passage", "query_query", "passage_query", "passage_passage")
Partition: TypeAlias = Literal["joint", "separate"]
Negatives: TypeAlias = Literal["hard", "in_batch", "all"]
"""A query's own negatives, those of other queries, or both."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """One block of similarities, not yet divided by a temperature."""

    scores_RN: Tensor
    counted_RN: Tensor | None = None
    """True where a candidate enters the denominator; None means everywhere."""
    bonus_RN: Tensor | None = None
    """Added to the logits after the division: the logarithm of each candidate's weight."""

    def logits(self, temperature: Tensor | float) -> Tensor:
        """(R, N), minus infinity where a candidate does not count."""
        logits_RN = self.scores_RN / temperature
        if self.bonus_RN is not None:
            logits_RN = logits_RN + self.bonus_RN
        return logits_RN if self.counted_RN is None else logits_RN.masked_fill(~self.counted_RN, -torch.inf)


def info_nce(
    scores_RN: Tensor,
    targets_R: Tensor,
    *,
    temperature: Tensor | float = 1.0,
    counted_RN: Tensor | None = None,
    focal: float = 0.0,
) -> Tensor:
    """Cross-entropy of the positive among the candidates (van den Oord et al., arXiv 1807.03748, equation 4).

    E5 (arXiv 2212.03533, section 4.2) and BGE-M3 (arXiv 2402.03216, equation 2) train with it.

    Args:
        scores_RN: similarities.
        targets_R: column of each row's positive.
        temperature: the scores are divided by it; a tensor where it is learnt.
        counted_RN: true for candidates that enter the denominator; the positive always does.
        focal: exponent of the focal weight, as in `bidirectional`.

    Returns:
        The mean over rows.
    """
    if counted_RN is not None:
        counted_RN = counted_RN.scatter(1, targets_R[:, None], True)
    return bidirectional(
        [Candidates(scores_RN, counted_RN)],
        positives_R=chosen(scores_RN, targets_R),
        temperature=temperature,
        focal=focal,
    )


def bidirectional(
    blocks: Sequence[Candidates],
    *,
    positives_R: Tensor,
    temperature: Tensor | float = 1.0,
    partition: Partition = "joint",
    focal: float = 0.0,
) -> Tensor:
    """The improved contrastive loss: mean over rows of ``log Z - s+ / temperature`` with Z over all blocks.

    GTE (arXiv 2308.03281, section 3.3) has all four blocks in one Z, and so counts the positive once in query_passage
    and once in passage_query. "separate" is the mean of one cross-entropy a block (jina-embeddings-v2, arXiv
    2310.19923), for the two blocks that hold the positive.

    Args:
        blocks: every one that enters.
        positives_R: similarity of each query with its positive.
        temperature: the scores are divided by it.
        partition: one sum over all blocks, or one a block.
        focal: gamma of the weight ``(1 - p)^gamma`` with p the softmax share of the positive, through which gradients
            flow (focal loss, arXiv 1708.02002; KaLM-Embedding-V2, arXiv 2506.20923, with 0.5). 0 leaves it out.
    """
    positives_R = positives_R / temperature
    logits = [block.logits(temperature) for block in blocks]
    if partition == "joint":
        partitions_R = torch.logsumexp(torch.cat(logits, dim=1) if len(logits) > 1 else logits[0], dim=1)
    else:
        partitions_R = torch.stack([torch.logsumexp(part_RN, dim=1) for part_RN in logits]).mean(dim=0)
    losses_R = partitions_R - positives_R
    if focal:
        # 1 - p as -expm1(-loss) keeps its digits where p is near 1, and the bound keeps the power's slope finite at 0.
        losses_R = (-torch.expm1(-losses_R)).clamp(min=torch.finfo(losses_R.dtype).eps) ** focal * losses_R
    return losses_R.mean()


def chosen(scores_RN: Tensor, targets_R: Tensor) -> Tensor:
    """(R,) the scores of the positives."""
    return scores_RN.gather(1, targets_R[:, None])[:, 0]


def false_negatives(
    scores_RN: Tensor, positives_R: Tensor, *, margin: float | None = None, ratio: float | None = None
) -> Tensor:
    """(R, N) true for candidates that score so high that they are probably unlabelled positives.

    Args:
        scores_RN: similarities of the candidates.
        positives_R: similarity of each query with its positive.
        margin: suspect above ``s+ + margin`` (Qwen3-Embedding, arXiv 2506.05176, section 3.2, with 0.1).
        ratio: suspect above ``ratio * s+`` (positive-aware mining of NV-Retriever, arXiv 2407.15831, with 0.95).

    Raises:
        UsageError: neither or both are given.
    """
    if (margin is None) == (ratio is None):
        raise UsageError(f"give one of margin and ratio, not margin={margin} and ratio={ratio}")
    bound_R = positives_R.detach() * (ratio or 1.0) + (margin or 0.0)
    return scores_RN.detach() > bound_R[:, None]


def hardness(
    scores_RN: Tensor, targets_R: Tensor, *, group_size: int, strength: float, negatives: Negatives = "hard"
) -> Tensor:
    """(R, N) logarithms of the negatives' weights ``exp(strength * similarity)``, without gradient.

    EmbeddingGemma (arXiv 2509.20354, section 2.2) weights a query's own negatives with strength 5; LLaVE (arXiv
    2503.04812, equation 5) those in the batch with 9.

    Args:
        scores_RN: similarities of queries with passages.
        targets_R: column of each row's positive; its own negatives follow.
        group_size: G.
        strength: of the weight.
        negatives: which are weighted.
    """
    own_RN = own_group(scores_RN, targets_R, group_size=group_size)
    weighted_RN = {"hard": own_RN, "in_batch": ~own_RN, "all": torch.ones_like(own_RN)}[negatives]
    weighted_RN = weighted_RN.scatter(1, targets_R[:, None], False)
    return strength * scores_RN.detach() * weighted_RN


def own_group(scores_RN: Tensor, targets_R: Tensor, *, group_size: int) -> Tensor:
    """(R, N) true for the passages of the row's own query."""
    columns_N = torch.arange(scores_RN.shape[1], device=scores_RN.device)
    return (columns_N >= targets_R[:, None]) & (columns_N < targets_R[:, None] + group_size)


def equal_texts(keys_R: Tensor | None, keys_N: Tensor | None) -> Tensor | None:
    """(R, N) true where both keys are equal; None where a side has none."""
    return None if keys_R is None or keys_N is None else keys_R[:, None] == keys_N[None, :]


def soft_cross_entropy(logits_RN: Tensor, shares_RN: Tensor) -> Tensor:
    """Mean over rows of the cross-entropy with a distribution over the candidates.

    A candidate whose logit is minus infinity counts nothing; its share must be 0.
    """
    return -(shares_RN * F.log_softmax(logits_RN, dim=1).masked_fill(logits_RN == -torch.inf, 0)).sum(dim=1).mean()
