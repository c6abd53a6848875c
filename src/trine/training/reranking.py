"""Training a reranker: examples -> groups of pairs -> gradients.

A group is a query with G candidates, of which the first is relevant. Chunks hold whole groups, so that a loss that is a
mean over queries, whatever it compares within a group, adds up over chunks exactly: one forward and one backward pass
a chunk, and no more memory than the largest chunk takes.

Shapes: B queries, G candidates of each, L tokens of a batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trine.data.examples import ExampleList, Source
from trine.data.sampling import Part, Sampler, Sampling
from trine.encoding.batches import TokenBudget
from trine.encoding.engine import pad
from trine.errors import DataError, UsageError
from trine.models.devices import seeded
from trine.models.encoder import Batch
from trine.models.reranker import Reranker
from trine.models.rerankers.pairs import PairTokenizer
from trine.models.tokenization import Tokens
from trine.objectives.base import Losses
from trine.training.batches import step_seed
from trine.training.drawing import Drawer, Fill, Group, Grouping
from trine.training.steps import OneRank, Ranks
from trine.types import Example

_SAMPLE = 128
"""Examples that are tokenised to learn how many code points there are to a token."""
_SAMPLE_CHARACTERS = 2000

RankingLoss: TypeAlias = Callable[[Tensor, Tensor | None], Tensor]
"""Logits (B, G), the relevant candidate first, and a teacher's scores (B, G) or None -> the mean over the B queries."""


@dataclass(frozen=True, slots=True)
class RerankingBatch:
    """B queries of this rank with their candidates."""

    pairs: Tokens
    """B * G pairs; rows ``q * G`` to ``q * G + G - 1`` belong to query q, and the first of them is relevant."""
    group_size: int
    """G"""
    teacher_scores_BG: NDArray[np.float32] | None = None
    seed: int = 0
    """Of dropout; chunk number k draws from ``seed + k``."""

    def __len__(self) -> int:
        return len(self.pairs.lengths) // self.group_size

    @property
    def tokens(self) -> int:
        """Of all pairs, padding left out."""
        return len(self.pairs.ids)


class RerankingBatches(Iterator[RerankingBatch]):
    """Batches of groups without end, texts of like length together.

    `state_dict` is the position after the batch most recently handed out; a fresh instance that loads it gives the same
    batches, with the same dropout, as this one would.
    """

    def __init__(
        self,
        reranker: Reranker,
        examples: Source | Sequence[Example],
        *,
        group_size: int = 8,
        batch_size: int = 16,
        teacher: bool = False,
        fill: Fill = "random",
        seed: int = 0,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """Prepare to draw.

        Args:
            reranker: whose tokenizer, lengths and query prompt are used.
            examples: a source, or examples in memory.
            group_size: candidates of a query, G: one of its positives and G - 1 negatives.
            batch_size: queries of one batch, of all ranks together.
            teacher: whether batches carry the examples' scores, which all of them must then have.
            fill: where an example has too few negatives: "random" takes other examples' positives, "repeat" its own
                again; with a teacher they always repeat.
            seed: of shuffling, drawing and dropout.
            rank: the number of this process among `ranks`.
            ranks: how many processes share the batches.

        Raises:
            UsageError: no examples, or sizes that make no batch.
            DataError: a teacher's scores are asked for and an example lacks them.
        """
        if group_size < 2:
            raise UsageError(f"group_size is {group_size}; a reranker compares at least 2 candidates of a query")
        if not 0 <= rank < ranks:
            raise UsageError(f"rank {rank} is not one of the {ranks} ranks")
        if not len(examples):
            raise UsageError("there are no examples to train on")
        if not hasattr(examples, "facts"):
            examples = ExampleList(examples, name="examples")
        self._source = cast(Source, examples)
        self._prompt = reranker.config.query_prompt
        # Rust tokenizers refuse to change their truncation while another thread uses them.
        self._pairs = PairTokenizer(copy.deepcopy(reranker.tokenizer), reranker.config)
        self._group_size, self._teacher, self._rank = group_size, teacher, rank
        self._sampling = Sampling(batch_size=batch_size, seed=seed, ranks=ranks)
        lengths_N = _estimated(self._source, self._pairs)
        self._draw = Drawer(
            self._source,
            grouping=Grouping(group_size=group_size, fill=fill, teacher_scores=teacher),
            lengths=lengths_N,
            seed=seed,
        )
        part = Part(name=self._source.name, lengths=lengths_N, fingerprint=self._source.fingerprint)
        self.sampler = Sampler([part], sampling=self._sampling)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RerankingBatch:
        draw = next(self.sampler)
        own = draw.share(self._rank, ranks=self._sampling.ranks)
        groups = [
            self._checked(int(row), self._draw(int(row), epoch=int(epoch), length=draw.length))
            for row, epoch in zip(draw.rows[own], draw.epochs[own], strict=True)
        ]
        queries = [self._query(group) for group in groups for _ in group.passages]
        passages = [(group.passage_prompt or "") + text for group in groups for text in group.passages]
        return RerankingBatch(
            pairs=self._pairs(queries, passages),
            group_size=self._group_size,
            teacher_scores_BG=np.asarray([group.scores for group in groups], np.float32) if self._teacher else None,
            seed=step_seed(self._sampling.seed, step=draw.step, rank=self._rank),
        )

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch most recently handed out, as JSON."""
        return {**self.sampler.state_dict(), "group_size": self._group_size, "teacher": self._teacher}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to that position.

        Raises:
            UsageError: it was taken with other examples, sizes or seed.
        """
        for name, own in (("group_size", self._group_size), ("teacher", self._teacher)):
            if state[name] != own:
                raise UsageError(f"the position was taken with {name} {state[name]}, now it is {own}; resume with it")
        self.sampler.load_state_dict(state)

    def _query(self, group: Group) -> str:
        return (self._prompt if group.query_prompt is None else group.query_prompt) + group.query

    def _checked(self, row: int, group: Group) -> Group:
        if not all(text.strip() for text in (group.query, *group.passages)):
            raise DataError(
                f"{self._source.where(row)}: a blank text is among the query and its passages; leave it out"
            )
        return group


def reranker_step(
    score: Callable[[Batch], Tensor],
    batch: RerankingBatch,
    *,
    loss: RankingLoss,
    device: torch.device,
    budget: int | None = None,
    precision: torch.dtype | None = None,
    ranks: Ranks | None = None,
) -> Losses:
    """Add the gradients of one batch to the parameters, chunk by chunk.

    Args:
        score: a `Reranker`, or one wrapped for several ranks.
        batch: groups of pairs.
        loss: a mean over queries.
        device: to compute on.
        budget: tokens of one chunk, padding included; a group is never split, however large. None takes all at once.
        precision: of autocast; None computes in the weights' own.
        ranks: the other processes; the mean of their gradients is that of the whole batch.
    """
    ranks = ranks or OneRank()
    if not len(batch):
        raise UsageError("the batch holds no queries")
    chunks = list(_chunks(batch, budget))
    total = torch.zeros((), device=device)
    for number, groups in enumerate(chunks):
        rows = (groups[:, None] * batch.group_size + np.arange(batch.group_size)).ravel()
        inputs = pad(batch.pairs, rows, kind="passage", device=device)
        last = number == len(chunks) - 1
        with ranks.holding_gradients(not last), seeded(batch.seed + number, device):
            with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
                logits_BG = score(inputs).view(len(groups), batch.group_size)
            part = loss(logits_BG.float(), _teacher(batch, groups, device)) * (len(groups) / len(batch))
            part.backward()
        total += part.detach()
    return Losses(total, {"ranking": total})


def _chunks(batch: RerankingBatch, budget: int | None) -> Iterator[NDArray[np.int64]]:
    """Numbers of the queries of each chunk, those with the longest pairs first."""
    if budget is None:
        yield np.arange(len(batch))
        return
    longest_B = batch.pairs.lengths.reshape(-1, batch.group_size).max(axis=1)
    yield from TokenBudget(budget).batches(longest_B * batch.group_size)


def _teacher(batch: RerankingBatch, groups: NDArray[np.int64], device: torch.device) -> Tensor | None:
    if batch.teacher_scores_BG is None:
        return None
    return torch.from_numpy(batch.teacher_scores_BG[groups]).to(device)


def _estimated(source: Source, pairs: PairTokenizer) -> NDArray[np.int64]:
    """(N,) tokens of each example's longest pair, from code points and the tokens of a sample."""
    rows = np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(np.int64))
    sample = [
        text[:_SAMPLE_CHARACTERS] for row in rows for text in (source[int(row)].query, source[int(row)].positives[0])
    ]
    characters = sum(len(text) for text in sample)
    found = pairs.ids(sample)
    tokens = sum(len(found[text]) for text in sample)
    estimate_N = np.ceil(source.facts.lengths.sum(axis=1) * (tokens / max(characters, 1))).astype(np.int64)
    return np.asarray(np.clip(estimate_N, 1, pairs.config.max_length), np.int64)
