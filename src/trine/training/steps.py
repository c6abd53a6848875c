"""Batch -> gradients: all at once, or chunk by chunk in memory that does not grow with the batch.

`cached_step` is gradient caching (Gao et al., arXiv 2101.06983, section 3.2): one pass without graph for the
embeddings, the loss and its gradient with respect to them, then one pass a chunk with graph. It costs one more forward
pass and gives the same gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from trine.models.devices import seeded
from trine.objectives.base import Embedded, Losses, Objective, PairBatch
from trine.training.embedding import Chunk

LIMIT = 1 << 21
"""Similarities of queries and passages held at a time: 8 MiB of float32, of which a loss makes some ten copies."""


class Ranks(Protocol):
    """What a step must know of other processes; `trine.training.distributed` has it, `OneRank` is the lack of it."""

    def gather(self, embedded: Embedded) -> tuple[Embedded, slice]:
        """The embeddings of all ranks, differentiable, and the rows of this one."""
        ...

    def holding_gradients(self, hold: bool) -> contextlib.AbstractContextManager[Any]:
        """While `hold`, gradients of backward passes pile up without being shared."""
        ...


class OneRank:
    """A single process."""

    def gather(self, embedded: Embedded) -> tuple[Embedded, slice]:
        """All there is."""
        return embedded, slice(None)

    def holding_gradients(self, hold: bool) -> contextlib.AbstractContextManager[Any]:
        """Nothing to hold."""
        return contextlib.nullcontext()


@dataclass(frozen=True, slots=True)
class Work:
    """One batch of this rank, ready to run."""

    queries: Sequence[Chunk]
    passages: Sequence[Chunk]
    pair: Callable[[Embedded, Embedded, slice], PairBatch]
    """Puts the embeddings of all ranks' queries and passages, and this rank's rows, together with what else the
    objective needs (teacher scores, keys)."""


def full_step(
    embed: Callable[[Chunk], Embedded], work: Work, *, objective: Objective, ranks: Ranks | None = None
) -> Losses:
    """Add the gradients of one batch to the parameters; memory grows with the batch."""
    ranks = ranks or OneRank()
    every = [*work.queries, *work.passages]
    parts = [_replayed(embed, chunk) for chunk in every]
    found = [part.with_leaves([leaf.detach() for leaf in part.leaves()]) for part in parts]
    losses = _loss_of(found, work, objective, ranks)
    for number, (part, cached) in enumerate(zip(parts, found, strict=True)):
        with ranks.holding_gradients(number < len(every) - 1):
            _pull_back(part, cached)
    return losses


def cached_step(
    embed: Callable[[Chunk], Embedded], work: Work, *, objective: Objective, ranks: Ranks | None = None
) -> Losses:
    """Add the gradients of one batch to the parameters; memory holds the graph of one chunk.

    For any objective that sees embeddings alone, with any heads. Dropout is drawn anew from each chunk's seed, so that
    both passes see the same masks, on every device.
    """
    ranks = ranks or OneRank()
    every = [*work.queries, *work.passages]
    with torch.no_grad():
        found = [_replayed(embed, chunk) for chunk in every]
    losses = _loss_of(found, work, objective, ranks)
    for number, (chunk, cached) in enumerate(zip(every, found, strict=True)):
        with ranks.holding_gradients(number < len(every) - 1):
            _pull_back(_replayed(embed, chunk), cached)
    return losses


def _loss_of(found: Sequence[Embedded], work: Work, objective: Objective, ranks: Ranks) -> Losses:
    """The loss of embeddings without graph; leaves its gradients at their leaves, and at the objective's parameters."""
    for part in found:
        for leaf in part.leaves():
            leaf.requires_grad_()
    cut = len(work.queries)
    queries, rows = ranks.gather(_in_order(found[:cut], work.queries))
    passages, _ = ranks.gather(_in_order(found[cut:], work.passages))
    both = (queries, passages)
    sides = [side.with_leaves([leaf.detach().requires_grad_() for leaf in side.leaves()]) for side in both]
    losses = _block_by_block(work.pair(sides[0], sides[1], rows), objective)
    for side, detached in zip(both, sides, strict=True):
        _pull_back(side, detached)
    return losses


def _block_by_block(batch: PairBatch, objective: Objective) -> Losses:
    """The loss and its gradients, some queries at a time: matrices of all queries and passages need not fit at once.

    An objective is the mean over its queries, or one number of the whole batch, so that its blocks add up.
    """
    count = len(batch.row_numbers)
    size = max(LIMIT // max(len(batch.passages), 1), 1) if getattr(objective, "by_query", True) else count
    sums: dict[str, Tensor] = {}
    for first in range(0, count, size):
        last = min(first + size, count)
        losses = objective(batch if size >= count else batch.block(first, last))
        share = (last - first) / count
        (losses.total * share).backward()
        for name, value in {"": losses.total.detach(), **losses.parts}.items():
            sums[name] = sums[name] + value * share if name in sums else value * share
    return Losses(sums.pop(""), sums)


def _pull_back(part: Embedded, cached: Embedded) -> None:
    """Carry the gradients of a chunk's embeddings back to the parameters."""
    pairs = [
        (new, old.grad)
        for new, old in zip(part.leaves(), cached.leaves(), strict=True)
        if old.grad is not None and new.requires_grad
    ]
    if pairs:
        tensors, gradients = zip(*pairs, strict=True)
        torch.autograd.backward(tensors, gradients)


def _in_order(parts: Sequence[Embedded], side: Sequence[Chunk]) -> Embedded:
    """The embeddings of a side in the order of its rows."""
    joined = Embedded.concatenate(parts)
    order = np.concatenate([chunk.rows for chunk in side])
    if np.array_equal(order, np.arange(len(order))):
        return joined
    return joined.take(torch.from_numpy(np.argsort(order)).to(joined.leaves()[0].device))


def _replayed(embed: Callable[[Chunk], Embedded], chunk: Chunk) -> Embedded:
    with seeded(chunk.seed, chunk.batch.ids_BL.device):
        return embed(chunk)
