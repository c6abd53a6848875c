"""Examples -> the work of a step: drawn, tokenised, cut into chunks, with all that the objective must know.

Shapes: N texts, T tokens of all texts together, Q queries of all ranks, R of this rank, G passages of a query,
P = Q * G passages.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trine.data.examples import Facts, Source
from trine.data.sampling import Draw, Part, Sampler, Sampling
from trine.errors import UsageError
from trine.models.encoder import Encoder
from trine.models.tokenization import TextTokenizer, Tokens
from trine.objectives.base import Embedded, PairBatch
from trine.training.ahead import Ahead
from trine.training.drawing import Drawer, Group, Grouping
from trine.training.embedding import chunks
from trine.training.steps import Work
from trine.types import Kind, Mode

_SAMPLE = 128
"""Texts of a source that are tokenised to learn how many code points it has to a token."""
_SAMPLE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Ingredient:
    """A source in the mix."""

    source: Source
    weight: float = 1.0
    """Factor on its share of the examples."""
    cap: int | None = None
    """It counts as having at most so many examples in the mix."""
    in_batch: bool = True
    """Whether other queries' passages are negatives; False for sources whose passages repeat or overlap."""
    group_size: int | None = None
    """Passages of a query, in place of the general number."""
    query_prompt: str | None = None
    """In place of the model's own; an example's own goes before both."""
    passage_prompt: str | None = None


@dataclass(frozen=True, slots=True)
class Pairing:
    """How drawn examples become the work of a step."""

    grouping: Grouping = Grouping()
    chunk_tokens: int | None = None
    """Tokens that pass through the model together, padding included; None takes each side whole."""
    twins: bool = False
    """Each query's passage is the query itself under other dropout (Gao et al., SimCSE, EMNLP 2021, section 3), both
    as passages."""
    distinct: bool = True
    """Whether a text must not come twice in a batch, where that can be avoided."""


@dataclass(frozen=True, slots=True)
class Step:
    """One batch of this rank."""

    work: Work
    tokens: int
    """Of this rank, both sides, without padding."""
    queries: int
    """Of this rank."""
    step: int
    """From 0."""
    source: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Texts longer than the model."""

    queries: int = 0
    passages: int = 0
    first: str = ""
    """Where the first of them was."""


@dataclass(frozen=True, slots=True)
class _Prepared:
    groups: Sequence[Group]
    """Of all ranks."""
    queries: Tokens
    """Of this rank, as is the rest."""
    passages: Tokens
    cut: Cut


class PairBatches(Iterator[Step]):
    """Batches of queries and passages without end, or until the sampling says so.

    Texts are read and tokenised one batch ahead in a thread. `state_dict` is the position after the batch most recently
    handed out; a fresh instance that loads it gives the same batches, with the same dropout, as this one would.
    """

    def __init__(
        self,
        ingredients: Sequence[Ingredient | Source],
        *,
        encoder: Encoder,
        sampling: Sampling,
        pairing: Pairing | None = None,
        modes: Sequence[Mode] | None = None,
        rank: int = 0,
    ) -> None:
        """Prepare to draw.

        Args:
            ingredients: sources, with what distinguishes them in the mix.
            encoder: tokenizes, and says which tokens count; not run here.
            sampling: batch sizes, mix, seed and ranks.
            pairing: groups, chunks, and the like.
            modes: representations that will be trained; None for all that the encoder has.
            rank: of this process, below ``sampling.ranks``.

        Raises:
            UsageError: settings that contradict each other.
            DataError: teacher scores are asked for and a source lacks them.
        """
        if not 0 <= rank < sampling.ranks:
            raise UsageError(f"rank {rank} is not one of the {sampling.ranks} ranks of the sampling")
        self._mix = [part if isinstance(part, Ingredient) else Ingredient(part) for part in ingredients]
        self._encoder, self._sampling, self._pairing = encoder, sampling, pairing or Pairing()
        self._rank, self._modes = rank, encoder.chosen_modes(modes)
        # Rust tokenizers refuse to change their truncation while another thread uses them.
        self._text = TextTokenizer(copy.deepcopy(encoder.tokenizer), encoder.config.text)
        parts, self._drawers, self._sizes = [], [], []
        for part in self._mix:
            grouping = self._grouping(part)
            lengths = self._lengths(part)
            parts.append(self._part(part, lengths))
            self._drawers.append(Drawer(part.source, grouping=grouping, lengths=lengths, seed=sampling.seed))
            self._sizes.append(grouping.group_size)
        self.sampler = Sampler(parts, sampling=sampling)
        self._ahead = Ahead(self.sampler, self._prepare)
        self.cut = Cut()
        """Texts of this rank that were cut to the model's length so far."""

    @property
    def total_steps(self) -> int | None:
        """Batches until the end; None where there is none."""
        return self.sampler.total_steps

    def __iter__(self) -> PairBatches:
        return self

    def __next__(self) -> Step:
        draw, prepared = self._ahead.next()
        cut = prepared.cut
        self.cut = Cut(self.cut.queries + cut.queries, self.cut.passages + cut.passages, self.cut.first or cut.first)
        return self._step(draw, prepared)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch most recently handed out, as JSON."""
        return {**self._ahead.state(), "cut": [self.cut.queries, self.cut.passages, self.cut.first]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to that position.

        Raises:
            UsageError: it was taken with other sources, content, seed or batch sizes.
        """
        self._ahead.load(state)
        self.cut = Cut(*state["cut"])

    def close(self) -> None:
        """End the thread that prepares; the position stays."""
        self._ahead.close()

    def _grouping(self, part: Ingredient) -> Grouping:
        grouping = self._pairing.grouping
        if part.group_size is not None:
            grouping = replace(grouping, group_size=part.group_size)
        if self._pairing.twins and (grouping.group_size > 1 or grouping.shuffle_probability):
            raise UsageError("twins pair each text with itself; group_size must be 1 and shuffle_probability 0")
        return grouping

    def _lengths(self, part: Ingredient) -> NDArray[np.int64]:
        """(N,) estimated tokens of each example's longest text, prompts included, cut at the model's length."""
        query_kind: Kind = "passage" if self._pairing.twins else "query"
        return np.maximum(
            _estimated(part.source, self._text, side=0, kind=query_kind, prompt=part.query_prompt),
            _estimated(part.source, self._text, side=1, kind="passage", prompt=part.passage_prompt),
        )

    def _part(self, part: Ingredient, lengths: NDArray[np.int64]) -> Part:
        facts: Facts = part.source.facts
        return Part(
            name=part.source.name,
            lengths=lengths,
            keys=facts.keys if self._pairing.distinct else None,
            weight=part.weight,
            cap=part.cap,
            fingerprint=part.source.fingerprint,
        )

    # -- in the thread: numbers -> texts -> tokens ---------------------------------------------------------------

    def _prepare(self, draw: Draw) -> _Prepared:
        draw_group = self._drawers[draw.source]
        # Every rank draws the texts of all, for their keys, but tokenises its own alone.
        groups = [
            draw_group(int(row), epoch=int(epoch), length=draw.length)
            for row, epoch in zip(draw.rows, draw.epochs, strict=True)
        ]
        own = draw.share(self._rank, ranks=self._sampling.ranks)
        part, mine = self._mix[draw.source], groups[own]
        kind: Kind = "passage" if self._pairing.twins else "query"
        texts = [group.query for group in mine]
        prompts = [part.query_prompt if group.query_prompt is None else group.query_prompt for group in mine]
        queries = tokenise(self._text, texts, prompts=prompts, kind=kind)
        long_queries = _cut_texts(self._text, texts, queries, prompts=prompts, kind=kind)
        passages, long_passages = queries, []
        if not self._pairing.twins:
            texts = [text for group in mine for text in group.passages]
            prompts = [
                part.passage_prompt if group.passage_prompt is None else group.passage_prompt
                for group in mine
                for _ in group.passages
            ]
            passages = tokenise(self._text, texts, prompts=prompts, kind="passage")
            long_passages = _cut_texts(self._text, texts, passages, prompts=prompts, kind="passage")
        first = min([*long_queries, *(number // len(mine[0].passages) for number in long_passages)], default=None)
        where = "" if first is None else part.source.where(int(draw.rows[own][first]))
        return _Prepared(groups, queries, passages, Cut(len(long_queries), len(long_passages), where))

    # -- in the caller's: tokens -> tensors ------------------------------------------------------------------------

    def _step(self, draw: Draw, prepared: _Prepared) -> Step:
        encoder, budget = self._encoder, self._pairing.chunk_tokens
        query_kind: Kind = "passage" if self._pairing.twins else "query"
        sides = []
        for number, (tokens, kind) in enumerate(((prepared.queries, query_kind), (prepared.passages, "passage"))):
            seed = step_seed(self._sampling.seed, step=draw.step, rank=self._rank, side=number)
            sides.append(chunks(encoder, tokens, kind=kind, modes=self._modes, budget=budget, seed=seed))
        return Step(
            work=Work(sides[0], sides[1], self._pair(draw, prepared.groups)),
            tokens=len(prepared.queries.ids) + len(prepared.passages.ids),
            queries=len(prepared.queries.lengths),
            step=draw.step,
            source=self._mix[draw.source].source.name,
        )

    def _pair(self, draw: Draw, groups: Sequence[Group]) -> _Pair:
        device, twins = self._encoder.device, self._pairing.twins
        own = draw.share(self._rank, ranks=self._sampling.ranks)
        query_keys = [group.query_key for group in groups]
        passage_keys = query_keys if twins else [key for group in groups for key in group.passage_keys]
        scores = [group.scores for group in groups[own]]
        return _Pair(
            PairBatch(
                queries=Embedded(),
                passages=Embedded(),
                group_size=self._sizes[draw.source],
                in_batch=self._mix[draw.source].in_batch,
                teacher_scores_RG=torch.tensor(scores, dtype=torch.float32, device=device) if scores[0] else None,
                query_keys_Q=torch.tensor(query_keys, dtype=torch.int64, device=device),
                passage_keys_P=torch.tensor(passage_keys, dtype=torch.int64, device=device),
            )
        )


@dataclass(frozen=True, slots=True)
class _Pair:
    """Puts embeddings into a batch that has all the rest; a class, so that it can be sent to another process."""

    rest: PairBatch

    def __call__(self, queries: Embedded, passages: Embedded, rows: slice) -> PairBatch:
        return replace(self.rest, queries=queries, passages=passages, rows=rows)


def step_seed(seed: int, *, step: int, rank: int, side: int = 0) -> int:
    """A seed for dropout that depends on the place in the run alone, below 2^62; chunks count up from it."""
    return int(np.random.SeedSequence([seed, step, rank, side]).generate_state(1, np.uint64)[0] >> 2)


def tokenise(text: TextTokenizer, texts: Sequence[str], *, prompts: Sequence[str | None], kind: Kind) -> Tokens:
    """Tokenise texts that have prompts of their own (None is the model's), in their order."""
    different = sorted(set(prompts), key=lambda prompt: (prompt is not None, prompt or ""))
    if len(different) == 1:
        return text(texts, kind=kind, prompt=different[0])
    order, parts = [], []
    for prompt in different:
        numbers = [number for number, own in enumerate(prompts) if own == prompt]
        order += numbers
        parts.append(text([texts[number] for number in numbers], kind=kind, prompt=prompt))
    return joined(parts, order=np.argsort(np.array(order, np.int64), kind="stable"))


def joined(parts: Sequence[Tokens], *, order: NDArray[np.int64]) -> Tokens:
    """The texts of all parts; text n of the result is text ``order[n]`` of the parts one after the other."""
    lengths = np.concatenate([part.lengths for part in parts])
    starts = np.cumsum(lengths) - lengths
    offsets = np.concatenate([[0], np.cumsum(lengths[order])]).astype(np.int64)
    where = np.arange(offsets[-1]) + np.repeat(starts[order] - offsets[:-1], lengths[order])
    return Tokens(
        ids=np.concatenate([part.ids for part in parts])[where],
        offsets=offsets,
        attended=np.concatenate([part.attended for part in parts])[where],
        prompt_lengths=np.concatenate([part.prompt_lengths for part in parts])[order],
        padding_id=parts[0].padding_id,
    )


def _cut_texts(
    text: TextTokenizer, texts: Sequence[str], tokens: Tokens, *, prompts: Sequence[str | None], kind: Kind
) -> list[int]:
    """Numbers of the texts that did not fit; only those that fill the room are looked at again."""
    room = text.max_length(kind)
    expansion = text.config.expansion if kind == "query" else None
    if expansion is not None:
        room = expansion.length if expansion.fixed else max(room, expansion.length)
    special = kind != "query" or text.config.query_special_tokens
    own = text.tokenizer.num_special_tokens_to_add(pair=False) * special + (kind in text.config.markers)
    return [
        number
        for number in np.flatnonzero(tokens.lengths >= room).tolist()
        if len(text.token_spans(_prefix(text, prompts[number], kind) + texts[number])) + own > room
    ]


def _prefix(text: TextTokenizer, prompt: str | None, kind: Kind) -> str:
    return text.prompt(kind) if prompt is None else prompt


def _estimated(source: Source, text: TextTokenizer, *, side: int, kind: Kind, prompt: str | None) -> NDArray[np.int64]:
    """(N,) tokens of the queries (side 0) or longest passages (side 1), from code points and a sample's tokens."""
    characters = tokens = 0
    for row in np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(np.int64)):
        example = source[int(row)]
        sample = (example.positives[0] if side else example.query)[:_SAMPLE_CHARACTERS]
        characters += len(sample)
        tokens += len(text.token_spans(sample))
    constant = int(text([""], kind=kind, prompt=prompt).lengths[0])
    estimate = np.ceil(source.facts.lengths[:, side] * (tokens / characters)).astype(np.int64) + constant
    return np.asarray(np.minimum(estimate, text.max_length(kind)), np.int64)
