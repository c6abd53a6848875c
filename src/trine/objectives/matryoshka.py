"""Matryoshka: the same objective on the first dimensions of dense embeddings, for several widths at once.

Kusupati et al., arXiv 2205.13147, section 3: the weighted sum of the losses of all widths, weights 1 by default.

Shapes: N texts, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from trine.errors import UsageError
from trine.objectives.base import Losses


def truncated(dense_ND: Tensor, width: int) -> Tensor:
    """(N, width) the first dimensions, at length one.

    Raises:
        UsageError: `width` is more than there is.
    """
    if not 0 < width <= dense_ND.shape[1]:
        raise UsageError(f"cannot cut {dense_ND.shape[1]} dimensions to {width}; choose from 1 to {dense_ND.shape[1]}")
    return F.normalize(dense_ND[:, :width], dim=1)


def matryoshka(
    objective: Callable[..., Losses],
    dense: Sequence[Tensor],
    *,
    widths: Sequence[int],
    weights: Sequence[float] | None = None,
) -> Losses:
    """Sum an objective over widths.

    Args:
        objective: takes as many (N, D) tensors as `dense` has, cut and normalised.
        dense: embeddings, such as those of queries and those of passages.
        widths: dimensions to keep, without repetition.
        weights: of each width's loss; 1 each by default.

    Returns:
        The weighted sum; its parts are those of the greatest width, and the loss of every width as ``width_<n>``.

    Raises:
        UsageError: the widths repeat, do not fit, or are not as many as the weights.
    """
    shares = check_widths(widths, weights)
    found = {width: objective(*(truncated(part_ND, width) for part_ND in dense)) for width in widths}
    total = torch.stack([share * found[width].total for share, width in zip(shares, widths, strict=True)]).sum()
    by_width = {f"width_{width}": losses.total.detach() for width, losses in found.items()}
    return Losses(total, {**found[max(widths)].parts, **by_width})


def check_widths(widths: Sequence[int], weights: Sequence[float] | None) -> list[float]:
    """The weights to use.

    Raises:
        UsageError: the widths repeat, are not positive, or are not as many as the weights.
    """
    if not widths or len(set(widths)) < len(widths) or min(widths) < 1:
        raise UsageError(f"matryoshka widths must be positive and all different, not {list(widths)}")
    if weights is not None and len(weights) != len(widths):
        raise UsageError(
            f"{len(weights)} matryoshka weights for {len(widths)} widths; give one each, or none for 1 each"
        )
    return [1.0] * len(widths) if weights is None else list(weights)
