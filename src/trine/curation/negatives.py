"""Hard negatives: passages that a retriever ranks high for a query and that are still no answer to it.

Source: positive-aware mining, NV-Retriever, arXiv 2407.15831, section 4: of the candidates that score over 95 % of the
positive's score (PercPos) most are answers nobody marked.

Shapes: N examples, C candidates of one query.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.curation.duplicates import MinHashIndex, NearDuplicates
from trine.curation.retrievers import Retriever
from trine.curation.texts import canonical
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import Example

Mask: TypeAlias = NDArray[np.bool_]
Sampling: TypeAlias = Literal["top", "random"]
Short: TypeAlias = Literal["keep", "fill", "drop"]
SAMPLINGS: tuple[Sampling, ...] = ("top", "random")
SHORTS: tuple[Short, ...] = ("keep", "fill", "drop")

_QUERIES = 256
"""Queries searched at a time."""


@dataclass(frozen=True, slots=True)
class Mining:
    """Which candidates may become negatives; a limit that is None does not apply.

    In this order: the positives go, with everything spelled like one; ranks outside the window; what is spelled like
    the query, a negative that is there already or a better candidate; scores over `most_score`; scores within a margin
    of the positive's; near copies of a positive. Of the rest, `negatives` are taken.
    """

    negatives: int = 7
    """Wanted per example, those it already has included."""
    window: tuple[int, int] = (1, 100)
    """First and last rank, counted from 1 without the positives."""
    most_score: float | None = None
    absolute_margin: float | None = None
    """Drops what scores over the positive's score less this."""
    relative_margin: float | None = 0.05
    """Drops what scores over the positive's score less this share of it: 0.05 is PercPos 95 %. Needs a retriever whose
    scores have a natural zero."""
    near_copy: float | None = 0.8
    """Drops what shares at least this part of its shingles (Jaccard, 5 characters) with a positive."""
    sampling: Sampling = "top"
    """Take the best of the rest, or draw from all of it."""
    short: Short = "keep"
    """Fewer left than wanted: keep the example with those, fill up with random passages, or drop the example."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        first, last = self.window
        if self.negatives < 1:
            raise UsageError(f"Mining.negatives is {self.negatives}; it must be at least 1")
        if not 1 <= first <= last:
            raise UsageError(
                f"Mining.window is {self.window}; ranks start at 1 and the first must not be over the last"
            )
        if self.sampling not in SAMPLINGS:
            raise unknown(self.sampling, SAMPLINGS, kind="sampling")
        if self.short not in SHORTS:
            raise unknown(self.short, SHORTS, kind="way with too few negatives")
        for name in ("absolute_margin", "relative_margin"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"Mining.{name} is {value}; it must be 0 or more, or None")
        if self.near_copy is not None and not 0 < self.near_copy <= 1:
            raise UsageError(f"Mining.near_copy is {self.near_copy}; it must be over 0 and at most 1, or None")


@dataclass(frozen=True, slots=True)
class Candidates:
    """What was found for one query, best first, without its positives."""

    ids: NDArray[np.int64]
    """(C,)"""
    scores: NDArray[np.float32]
    """(C,)"""
    positive: float
    """The positive's score by the same retriever; the least of several positives'."""

    def only(self, mask: Mask) -> Candidates:
        """Those that the mask keeps."""
        return Candidates(self.ids[mask], self.scores[mask], self.positive)


@dataclass(frozen=True, slots=True)
class Mined:
    """Examples with negatives, and what became of the candidates."""

    examples: tuple[Example, ...]
    kept: Mask
    """(N,) over the examples given; False where the example was dropped for want of negatives."""
    mined: NDArray[np.int64]
    """(N,) negatives taken from the retriever's candidates."""
    filled: NDArray[np.int64]
    """(N,) negatives drawn at random in place of missing ones."""
    candidates: int
    """Found up to the window's last rank, for all queries together, the positives left out."""
    dropped: Mapping[str, int]
    """Rule -> candidates that it was the first to drop; "not drawn" are those that passed, but were too many."""
    retriever: str
    settings: Mining

    def summary(self) -> dict[str, Any]:
        """Counts per rule and settings, ready for JSON."""
        wanted = self.settings.negatives
        return {
            "examples": len(self.kept),
            "kept": len(self.examples),
            "short": int(sum(len(example.negatives) < wanted for example in self.examples)),
            "mined": int(self.mined.sum()),
            "filled": int(self.filled.sum()),
            "candidates": self.candidates,
            "dropped": dict(self.dropped),
            "retriever": self.retriever,
            "settings": asdict(self.settings),
        }


def mine_negatives(
    examples: Sequence[Example], retriever: Retriever, *, settings: Mining | None = None, progress: bool = False
) -> Mined:
    """Give every example hard negatives from the retriever's passages.

    Positives of other examples with the same query count as positives, too. Negatives that an example already has stay
    in front and are not taken again; where new ones join them, their teacher scores go. Scores of the positives come
    from the retriever, which must hold them: build it from a corpus that includes all positives.

    Args:
        examples: N examples.
        retriever: see `trine.curation.retrievers`.
        settings: the rules.
        progress: show a bar.

    Raises:
        UsageError: no positive of an example is among the passages, or a relative margin on scores without a zero.
    """
    chosen = settings or Mining()
    if chosen.relative_margin is not None and not retriever.ratio_scale:
        raise UsageError(
            f"relative_margin is {chosen.relative_margin}, but the scores of {retriever.name} have no natural zero, "
            'so a share of one means nothing; use fusion="weighted", or relative_margin=None with an absolute_margin'
        )
    miner = _Miner(examples, retriever, chosen)
    with progress_bar("Negatives", total=len(examples), shown=progress) as advance:
        for start in range(0, len(examples), _QUERIES):
            miner.mine(range(start, min(start + _QUERIES, len(examples))))
            advance(min(_QUERIES, len(examples) - start))
    return miner.result()


def random_negatives(
    examples: Sequence[Example], passages: Sequence[str], *, count: int = 7, seed: int = 0
) -> tuple[Example, ...]:
    """The baseline: `count` different passages at random for each example, never a positive of its query.

    Negatives that an example already has count and stay in front. Example number n depends on `seed` and n alone.

    Raises:
        UsageError: there are not enough passages.
    """
    corpus = _Corpus(passages)
    wanted = _positives_of_queries(examples)
    result = []
    for number, example in enumerate(examples):
        banned = wanted[canonical(example.query)] | set(map(canonical, example.negatives))
        missing = max(count - len(example.negatives), 0)
        drawn = draw_random(corpus.spellings, missing, banned=banned, generator=_generator(seed, number))
        if len(drawn) < missing:
            raise UsageError(
                f"example {number} ({example.query[:60]!r}) needs {missing} random negatives, and {len(drawn)} of "
                f"{len(passages)} passages are different texts and none of its positives; give more passages"
            )
        result.append(_with_negatives(example, [passages[chosen] for chosen in drawn]))
    return tuple(result)


def within_window(candidates: Candidates, window: tuple[int, int]) -> Mask:
    """Candidates whose rank, from 1, lies in the window."""
    ranks_C = np.arange(1, len(candidates.ids) + 1)
    mask: Mask = (ranks_C >= window[0]) & (ranks_C <= window[1])
    return mask


def under_score(candidates: Candidates, most: float) -> Mask:
    """Candidates that score at most `most`."""
    mask: Mask = candidates.scores <= most
    return mask


def under_absolute_margin(candidates: Candidates, margin: float) -> Mask:
    """Candidates that score at most the positive's score less `margin`."""
    mask: Mask = candidates.scores <= candidates.positive - margin
    return mask


def under_relative_margin(candidates: Candidates, margin: float) -> Mask:
    """Candidates that score at most the positive's score less a share of its size; the limit is lower than a negative
    score of the positive, too.
    """
    mask: Mask = candidates.scores <= candidates.positive - margin * abs(candidates.positive)
    return mask


def no_near_copy(candidates: Candidates, copies: Iterable[int]) -> Mask:
    """Candidates that are not among the ids of near copies of a positive."""
    mask: Mask = ~np.isin(candidates.ids, np.array(sorted(copies), np.int64))
    return mask


def draw(candidates: Candidates, count: int, *, sampling: Sampling, generator: np.random.Generator) -> Mask:
    """The `count` best, or as many at random; all, where there are fewer."""
    mask = np.zeros(len(candidates.ids), bool)
    if sampling == "top" or len(mask) <= count:
        mask[:count] = True
    else:
        mask[generator.choice(len(mask), count, replace=False)] = True
    return mask


def draw_random(
    spellings: Sequence[str], count: int, *, banned: Iterable[str], generator: np.random.Generator
) -> list[int]:
    """Numbers of `count` different texts that are not `banned`; fewer, where there are not as many."""
    taken, numbers = set(banned), []
    if not count:
        return []
    for number in _shuffled(len(spellings), count + len(taken), generator):
        if spellings[number] not in taken:
            taken.add(spellings[number])
            numbers.append(number)
            if len(numbers) == count:
                break
    return numbers


def _shuffled(total: int, few: int, generator: np.random.Generator) -> Iterable[int]:
    """All numbers below `total` in random order; the first ones are drawn without shuffling the whole."""
    seen: set[int] = set()
    for number in generator.integers(0, total, 4 * few).tolist():
        if number not in seen:
            seen.add(number)
            yield number
    for number in generator.permutation(total).tolist():
        if number not in seen:
            yield number


class _Corpus:
    """Passages with what tells them apart, worked out when it is first needed."""

    def __init__(self, passages: Sequence[str]) -> None:
        self.passages = passages
        self.spellings = [canonical(text) for text in passages]
        self.ids_of: dict[str, list[int]] = defaultdict(list)
        for number, spelling in enumerate(self.spellings):
            self.ids_of[spelling].append(number)


class _Miner:
    def __init__(self, examples: Sequence[Example], retriever: Retriever, settings: Mining) -> None:
        self.examples, self.retriever, self.settings = examples, retriever, settings
        self.corpus = _Corpus(retriever.passages)
        self.positives = _positives_of_queries(examples)
        self.copies = MinHashIndex(NearDuplicates(similarity=settings.near_copy or 1.0))
        for spelling in self.corpus.spellings if settings.near_copy is not None else ():
            self.copies.add(spelling)
        self.new: list[list[str]] = []
        self.mined = np.zeros(len(examples), np.int64)
        self.filled = np.zeros(len(examples), np.int64)
        self.found = 0
        self.dropped: Counter[str] = Counter()

    def mine(self, numbers: range) -> None:
        block = [self.examples[number] for number in numbers]
        held = [self._held(self.positives[canonical(example.query)]) for example in block]
        own = [self._own(number) for number in numbers]
        last = self.settings.window[1]
        depth = last + max((len(ids) for ids in held), default=0)
        ranking = self.retriever.search([example.query for example in block], k=depth, include=held)
        for row, number in enumerate(numbers):
            ids, scores = ranking.row(row)
            positive = float(scores[np.isin(ids, own[row])].min())
            # No further than the window, so that the counts do not depend on which queries are searched together.
            others = np.flatnonzero(~np.isin(ids, held[row]))[:last]
            self._choose(number, Candidates(ids[others], scores[others], positive))

    def result(self) -> Mined:
        wanted, drops = self.settings.negatives, self.settings.short == "drop"
        full = [_with_negatives(example, new) for example, new in zip(self.examples, self.new, strict=True)]
        kept = np.array([not drops or len(example.negatives) >= wanted for example in full], bool)
        return Mined(
            examples=tuple(example for example, keep in zip(full, kept, strict=True) if keep),
            kept=kept,
            mined=self.mined,
            filled=self.filled,
            candidates=self.found,
            dropped=dict(self.dropped),
            retriever=self.retriever.name,
            settings=self.settings,
        )

    def _held(self, spellings: Iterable[str]) -> NDArray[np.int64]:
        return np.array(sorted(number for name in spellings for number in self.corpus.ids_of.get(name, ())), np.int64)

    def _own(self, number: int) -> NDArray[np.int64]:
        example = self.examples[number]
        ids = self._held(set(map(canonical, example.positives)))
        if not len(ids):
            raise UsageError(
                f"no positive of example {number} ({example.query[:60]!r}) is among the {len(self.corpus.passages)} "
                "passages of the retriever; build it from a corpus that includes the positives"
            )
        return ids

    def _choose(self, number: int, found: Candidates) -> None:
        example, settings = self.examples[number], self.settings
        self.found += len(found.ids)
        left = found
        for reason, rule in self._rules(example):
            mask = rule(left)
            self.dropped[reason] += int((~mask).sum())
            left = left.only(mask)
        missing = max(settings.negatives - len(example.negatives), 0)
        taken = left.only(draw(left, missing, sampling=settings.sampling, generator=_generator(settings.seed, number)))
        self.dropped["not drawn"] += len(left.ids) - len(taken.ids)
        new = [self.corpus.passages[chosen] for chosen in taken.ids.tolist()]
        self.mined[number] = len(new)
        if settings.short == "fill" and len(new) < missing:
            fill = self._random(number, new, missing - len(new))
            self.filled[number] = len(fill)
            new += fill
        self.new.append(new)

    def _rules(self, example: Example) -> Iterable[tuple[str, Any]]:
        """Name and mask of each rule that applies, in order."""
        settings = self.settings
        yield "window", lambda left: within_window(left, settings.window)
        yield "repeated", lambda left: self._first_of_each(left, example)
        if settings.most_score is not None:
            yield "score", lambda left: under_score(left, settings.most_score)
        if settings.absolute_margin is not None:
            yield "absolute margin", lambda left: under_absolute_margin(left, settings.absolute_margin)
        if settings.relative_margin is not None:
            yield "relative margin", lambda left: under_relative_margin(left, settings.relative_margin)
        if settings.near_copy is not None:
            yield "near copy", lambda left: self._no_near_copy(left, example)

    def _first_of_each(self, left: Candidates, example: Example) -> Mask:
        """Candidates that are no copy of an earlier one, of a negative that is there already, or of the query."""
        seen = {canonical(example.query), *map(canonical, example.negatives)}
        mask = np.zeros(len(left.ids), bool)
        for place, number in enumerate(left.ids.tolist()):
            mask[place] = self.corpus.spellings[number] not in seen
            seen.add(self.corpus.spellings[number])
        return mask

    def _no_near_copy(self, left: Candidates, example: Example) -> Mask:
        # Asking the index for the copies of the few positives costs less than comparing every candidate with them:
        # 1,500 queries with 50 candidates each of 1,000 characters took 50 s the other way.
        texts = self.positives[canonical(example.query)]
        return no_near_copy(left, {number for text in texts for number, _ in self.copies.near(text)})

    def _random(self, number: int, new: Sequence[str], count: int) -> list[str]:
        example = self.examples[number]
        banned = self.positives[canonical(example.query)] | set(map(canonical, [*example.negatives, *new]))
        generator = _generator(self.settings.seed, number)
        drawn = draw_random(self.corpus.spellings, count, banned=banned, generator=generator)
        return [self.corpus.passages[chosen] for chosen in drawn]


def _positives_of_queries(examples: Sequence[Example]) -> Mapping[str, set[str]]:
    """Query -> its positives in all examples, in canonical spelling."""
    found: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        found[canonical(example.query)].update(map(canonical, example.positives))
    return found


def _with_negatives(example: Example, new: Sequence[str]) -> Example:
    if not new:
        return example
    return replace(example, negatives=(*example.negatives, *new), negative_scores=())


def _generator(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng((seed, number))
