"""Running text -> token arrays, for masked language modelling and RetroMAE.

Shapes: N sequences, T tokens of all sequences together.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trine.data.examples import Source
from trine.data.sampling import Draw, Part, Sampler, Sampling
from trine.errors import UsageError
from trine.models.encoder import Encoder
from trine.models.tokenization import Tokens, clean
from trine.tables import unknown
from trine.training.ahead import Ahead
from trine.training.batches import Ingredient, step_seed

Long = Literal["cut", "truncate", "window"]
_LONG = ("cut", "truncate", "window")
_SAMPLE = 128
_SAMPLE_CHARACTERS = 2000


@dataclass(frozen=True, slots=True)
class Texts:
    """How running text becomes sequences."""

    max_length: int | None = None
    """Tokens of a sequence, special tokens included; None is the model's."""
    long: Long = "window"
    """Of a longer text: "window" takes one stretch of tokens, another in each epoch; "truncate" the beginning; "cut"
    all of it, as several sequences."""
    pack: bool = False
    """Join the batch's texts into full sequences, with the model's separator between them. For masked language
    modelling; not where the sentence vector counts (RetroMAE)."""
    shortest: int = 1
    """Tokens below which a piece of a text that was cut is dropped; a whole text never is."""

    def __post_init__(self) -> None:
        """Refuse what has no effect."""
        if self.long not in _LONG:
            raise unknown(self.long, _LONG, kind="way to treat a long text")
        if self.shortest > 1 and self.long != "cut":
            raise UsageError(f"shortest={self.shortest} has no effect with long={self.long!r}")


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Sequences of this rank."""

    sequences: Tokens
    """N of them."""
    seed: int
    """For masks and dropout: the same in every run with the same settings, another in each step and rank."""
    step: int
    source: str

    @property
    def tokens(self) -> int:
        """Of all sequences."""
        return len(self.sequences.ids)


class TextBatches(Iterator[TextBatch]):
    """Batches of token sequences without end, or until the sampling says so.

    What is said of `PairBatches` holds: one batch ahead in a thread, and exactly resumable. The texts are the queries
    of the examples (in format "text" query and positive are the same).
    """

    def __init__(
        self,
        ingredients: Sequence[Ingredient | Source],
        *,
        encoder: Encoder,
        sampling: Sampling,
        texts: Texts | None = None,
        rank: int = 0,
    ) -> None:
        """Prepare to draw.

        Args:
            ingredients: sources and their weights.
            encoder: whose tokenizer is used.
            sampling: batch sizes count texts.
            texts: length, and what happens to longer texts.
            rank: of this process.

        Raises:
            UsageError: settings that contradict each other, or a length that leaves no room for text.
        """
        if not 0 <= rank < sampling.ranks:
            raise UsageError(f"rank {rank} is not one of the {sampling.ranks} ranks of the sampling")
        self._mix = [part if isinstance(part, Ingredient) else Ingredient(part) for part in ingredients]
        for part in self._mix:
            if part.group_size is not None or not part.in_batch or part.query_prompt or part.passage_prompt:
                raise UsageError(f"source {part.source.name!r}: running text takes weight and cap only")
        self._texts, self._sampling, self._rank = texts or Texts(), sampling, rank
        self._tokenizer = copy.deepcopy(encoder.tokenizer)
        self._frame = _Frame.of(self._tokenizer)
        limit = encoder.text.config.max_length
        self.max_length = limit if self._texts.max_length is None else self._texts.max_length
        """Tokens of a sequence, special tokens included."""
        if not self._frame.size < self.max_length <= limit:
            raise UsageError(
                f"max_length {self.max_length} must be above the {self._frame.size} special tokens "
                f"and at most the model's {limit}"
            )
        self.sampler = Sampler([self._part(part) for part in self._mix], sampling=sampling)
        self._ahead = Ahead(self.sampler, self._prepare)
        self.cut_texts = 0
        """Texts of this rank that were longer than `max_length` so far."""

    @property
    def total_steps(self) -> int | None:
        """Batches until the end; None where there is none."""
        return self.sampler.total_steps

    def __iter__(self) -> TextBatches:
        return self

    def __next__(self) -> TextBatch:
        draw, (tokens, cut) = self._ahead.next()
        self.cut_texts += cut
        seed = step_seed(self._sampling.seed, step=draw.step, rank=self._rank)
        return TextBatch(tokens, seed, draw.step, self._mix[draw.source].source.name)

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch most recently handed out, as JSON."""
        return {**self._ahead.state(), "cut": self.cut_texts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to that position.

        Raises:
            UsageError: it was taken with other sources, content, seed or batch sizes.
        """
        self._ahead.load(state)
        self.cut_texts = int(state["cut"])

    def close(self) -> None:
        """End the thread that prepares; the position stays."""
        self._ahead.close()

    def _part(self, part: Ingredient) -> Part:
        source = part.source
        sample = [
            source[int(row)].query[:_SAMPLE_CHARACTERS]
            for row in np.unique(np.linspace(0, len(source) - 1, _SAMPLE).astype(np.int64))
        ]
        rate = sum(map(len, self._bare(sample))) / sum(map(len, sample))
        lengths = np.ceil(source.facts.lengths[:, 0] * rate).astype(np.int64) + self._frame.size
        if self._texts.long != "cut":
            lengths = np.minimum(lengths, self.max_length)
        keys = source.facts.keys[:, :1]
        return Part(source.name, lengths, keys=keys, weight=part.weight, cap=part.cap, fingerprint=source.fingerprint)

    def _bare(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without special tokens, nothing cut."""
        encoded = self._tokenizer(
            [clean(text) for text in texts],
            add_special_tokens=False,
            truncation=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        rows: list[list[int]] = encoded["input_ids"]
        return rows

    def _prepare(self, draw: Draw) -> tuple[Tokens, int]:
        own = draw.share(self._rank, ranks=self._sampling.ranks)
        source = self._mix[draw.source].source
        rows, epochs = draw.rows[own], draw.epochs[own]
        bare = self._bare([source[int(row)].query for row in rows])
        room = self.max_length - self._frame.size
        pieces: list[list[int]] = []
        for ids, row, epoch in zip(bare, rows, epochs, strict=True):
            pieces += self._pieces(ids, room, [self._sampling.seed, draw.source, int(row), int(epoch)])
        if self._texts.pack:
            pieces = _packed(pieces, room, self._frame.separator)
        return self._frame.tokens(pieces), sum(len(ids) > room for ids in bare)

    def _pieces(self, ids: list[int], room: int, seed: list[int]) -> list[list[int]]:
        if len(ids) <= room or self._texts.long == "truncate":
            return [ids[:room]]
        if self._texts.long == "window":
            start = int(np.random.default_rng(seed).integers(len(ids) - room + 1))
            return [ids[start : start + room]]
        pieces = [ids[start : start + room] for start in range(0, len(ids), room)]
        return [piece for piece in pieces if len(piece) >= self._texts.shortest]


@dataclass(frozen=True, slots=True)
class _Frame:
    """The special tokens that a tokenizer puts around a text."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    padding_id: int

    @staticmethod
    def of(tokenizer: Any) -> _Frame:
        bare = tokenizer("a", add_special_tokens=False)["input_ids"]
        framed = tokenizer("a", add_special_tokens=True)["input_ids"]
        start = next(n for n in range(len(framed)) if framed[n : n + len(bare)] == bare)
        return _Frame(tuple(framed[:start]), tuple(framed[start + len(bare) :]), int(tokenizer.pad_token_id or 0))

    @property
    def size(self) -> int:
        return len(self.before) + len(self.after)

    @property
    def separator(self) -> tuple[int, ...]:
        """Between packed texts: what a text ends with, or else what it begins with."""
        return self.after or self.before

    def tokens(self, pieces: Sequence[Sequence[int]]) -> Tokens:
        rows: list[NDArray[np.int32]] = [np.array([*self.before, *ids, *self.after], np.int32) for ids in pieces]
        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return Tokens(
            ids=np.concatenate(rows),
            offsets=offsets,
            attended=np.ones(int(offsets[-1]), np.bool_),
            prompt_lengths=np.zeros(len(rows), np.int64),
            padding_id=self.padding_id,
        )


def _packed(pieces: Sequence[list[int]], room: int, separator: Sequence[int]) -> list[list[int]]:
    """Pieces one after the other while they fit into `room` tokens, with the separator between."""
    packed: list[list[int]] = []
    for piece in pieces:
        if packed and len(packed[-1]) + len(separator) + len(piece) <= room:
            packed[-1] = [*packed[-1], *separator, *piece]
        else:
            packed.append(list(piece))
    return packed
