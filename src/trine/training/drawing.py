"""An example -> the texts of one step: which positive, which negatives, in which order the pieces of a long passage.

Everything is drawn from (seed, source, example, epoch) alone: it does not matter which process draws it, or when.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trine.data.examples import Source, text_key
from trine.data.graphemes import grapheme_cut
from trine.errors import DataError, UsageError
from trine.tables import unknown

Fill = Literal["random", "repeat"]
_TRIES = 8
_SHUFFLED_FROM = 100
"""Code points above which a passage may be shuffled (FlagEmbedding's threshold)."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """How an example becomes a query and `group_size` passages."""

    group_size: int = 1
    """G: one positive and G - 1 negatives."""
    fill: Fill = "random"
    """Where an example has too few negatives: "random" takes positives of other examples of the source, no longer than
    the batch's group; "repeat" takes its own again (and others' only where it has none)."""
    shuffle_probability: float = 0.0
    """Chance that a positive above 100 code points is cut in three and put together in another order (Chen et al.,
    BGE-M3, section 3.5, use 0.002 against a bias towards the beginnings of passages)."""
    teacher_scores: bool = False
    """Whether the examples' scores go into the batch; every example must then have them, and negatives only repeat."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.group_size < 1:
            raise UsageError(f"group_size must be at least 1 (the positive), not {self.group_size}")
        if self.fill not in ("random", "repeat"):
            raise unknown(self.fill, ("random", "repeat"), kind="way to fill up negatives")
        if not 0 <= self.shuffle_probability <= 1:
            raise UsageError(f"shuffle_probability must lie between 0 and 1, not {self.shuffle_probability}")
        if self.teacher_scores and self.group_size < 2:
            raise UsageError("teacher_scores compare passages; group_size must be at least 2")


@dataclass(frozen=True, slots=True)
class Group:
    """The texts of one example for one step."""

    query: str
    passages: tuple[str, ...]
    """G, the positive first."""
    scores: tuple[float, ...]
    """G teacher scores, or none."""
    query_key: int
    passage_keys: tuple[int, ...]
    """Hashes of the passages as they were before shuffling."""
    query_prompt: str | None
    passage_prompt: str | None


class Drawer:
    """Draws groups from one source."""

    def __init__(self, source: Source, *, grouping: Grouping, lengths: NDArray[np.int64], seed: int) -> None:
        self.source, self.grouping, self.seed = source, grouping, seed
        self._tag = zlib.crc32(source.name.encode("utf-8", "surrogatepass"))
        self._order = np.argsort(lengths, kind="stable")
        self._sorted = lengths[self._order]
        if grouping.teacher_scores:
            self._require_scores()

    def _require_scores(self) -> None:
        facts = self.source.facts
        lacking = np.flatnonzero(~facts.scored | (facts.negatives == 0))
        if len(lacking):
            raise DataError(
                f"{self.source.where(int(lacking[0]))}: teacher scores are asked for, and this example has not a score "
                f"for each of its passages, or no negatives ({len(lacking)} such examples in {self.source.name}); "
                "score them first, or train this source without teacher_scores"
            )

    def __call__(self, row: int, *, epoch: int, length: int) -> Group:
        """One example's texts in one epoch; fillers have up to `length` estimated tokens."""
        example = self.source[row]
        generator = np.random.default_rng([self.seed, self._tag, row, epoch])
        # All positives in turn before any comes again, each example beginning elsewhere.
        first = np.random.default_rng([self.seed, self._tag, row]).integers(len(example.positives))
        chosen = int(first + epoch) % len(example.positives)
        numbers = _negatives(len(example.negatives), self.grouping, generator)
        texts = [example.positives[chosen], *(example.negatives[number] for number in numbers)]
        scores: tuple[float, ...] = ()
        if self.grouping.teacher_scores:
            scores = (example.positive_scores[chosen], *(example.negative_scores[number] for number in numbers))
        own = {text_key(text) for text in example.positives}
        keys = [text_key(text) for text in texts]
        while len(texts) < self.grouping.group_size:
            text, key = self._filler({*own, *keys, text_key(example.query)}, generator, length)
            texts.append(text)
            keys.append(key)
        if len(texts[0]) > _SHUFFLED_FROM and generator.random() < self.grouping.shuffle_probability:
            texts[0] = shuffled(texts[0], generator)
        return Group(
            query=example.query,
            passages=tuple(texts),
            scores=scores,
            query_key=text_key(example.query),
            passage_keys=tuple(keys),
            query_prompt=example.query_prompt,
            passage_prompt=example.passage_prompt,
        )

    def _filler(self, taken: set[int], generator: np.random.Generator, length: int) -> tuple[str, int]:
        """Another example's positive that is none of the texts already there, if a few tries find one."""
        candidates = max(int(np.searchsorted(self._sorted, length, side="right")), 1)
        text, key = "", 0
        for _ in range(_TRIES):
            text = self.source[int(self._order[generator.integers(candidates)])].positives[0]
            key = text_key(text)
            if key not in taken:
                break
        return text, key


def shuffled(text: str, generator: np.random.Generator) -> str:
    """The text cut in three near-equal pieces between what a reader sees as characters, in another order."""
    first = grapheme_cut(text, len(text) // 3, after=0)
    second = grapheme_cut(text, 2 * len(text) // 3, after=first)
    pieces = (text[:first], text[first:second], text[second:])
    orders = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    return " ".join(pieces[number] for number in orders[int(generator.integers(len(orders)))])


def _negatives(count: int, grouping: Grouping, generator: np.random.Generator) -> list[int]:
    """Numbers of the example's own negatives: none twice before all were taken."""
    wanted = grouping.group_size - 1
    if count == 0:
        return []
    rounds = -(-wanted // count) if grouping.fill == "repeat" or grouping.teacher_scores else 1
    found = [int(number) for _ in range(rounds) for number in generator.permutation(count)]
    return found[:wanted]
