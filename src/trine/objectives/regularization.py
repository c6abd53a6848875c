"""Regularisers: few active ids for sparse embeddings, and dense embeddings spread over the sphere.

Shapes: N texts, V vocabulary, D dimensions, E entries (text, id).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from trine.objectives.base import Sparse
from trine.objectives.lexical import pooled


def flops(weights: Sparse) -> Tensor:
    """Expected multiplications of a sparse inner product: the sum over ids of the squared mean absolute weight.

    Paria et al., arXiv 2004.05665, section 4; SPLADE (arXiv 2107.05720, section 3.2) weights it separately for queries
    and passages. Weights by token are summed by id and never spread over the vocabulary.

    Args:
        weights: of N texts.
    """
    if isinstance(weights, Tensor):
        return weights.abs().mean(dim=0).square().sum()
    entries = pooled(weights)
    ids, where_E = torch.unique(entries.ids_E, return_inverse=True)
    sums = entries.weights_E.new_zeros(len(ids)).index_add(0, where_E, entries.weights_E.abs())
    return (sums / max(len(weights), 1)).square().sum()


def spread_out(dense_ND: Tensor) -> Tensor:
    """Mean squared cosine of different texts, 0 for fewer than two.

    EmbeddingGemma (arXiv 2509.20354, section 2.2) and jina-embeddings-v5 (arXiv 2602.15547) call it GOR.

    Args:
        dense_ND: embeddings of N texts of one side.
    """
    return _moments(dense_ND).second


def orthogonal(dense_ND: Tensor) -> Tensor:
    """Global orthogonal regularisation as first published (Zhang et al., arXiv 1708.06320, section 3).

    The squared mean cosine of different texts, plus what their mean squared cosine has above 1 / D, that of directions
    drawn uniformly.

    Args:
        dense_ND: embeddings of N texts of one side.
    """
    moments = _moments(dense_ND)
    return moments.first.square() + (moments.second - 1 / dense_ND.shape[1]).clamp(min=0)


class _Moments(NamedTuple):
    first: Tensor
    second: Tensor


def _moments(dense_ND: Tensor) -> _Moments:
    unit_ND = F.normalize(dense_ND, dim=1)
    count = len(unit_ND)
    pairs = max(count * (count - 1), 1)
    lengths_N = unit_ND.square().sum(dim=1)
    # Both Gram matrices have the same sum of squares; the smaller keeps 32,768 texts from making 4 GiB of cosines.
    gram = unit_ND @ unit_ND.T if count <= unit_ND.shape[1] else unit_ND.T @ unit_ND
    return _Moments(
        (unit_ND.sum(dim=0).square().sum() - lengths_N.sum()) / pairs,
        (gram.square().sum() - lengths_N.square().sum()) / pairs,
    )
