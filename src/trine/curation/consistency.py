"""E5's consistency filter: a model trained on noisy pairs says which of them it believes.

Source: E5, arXiv 2212.03533, section 3: a pair stays if its passage ranks in the top 2 for its query among 1,000,000
random passages. Networks fit clean labels before noisy ones.

Shapes: N examples, P positives of all examples, S passages of the pool, B pairs of a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.curation.texts import canonical
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.scoring import score, weights_of
from trine.tables import unknown
from trine.types import MODES, Embeddings, Example, Mode, TextEncoder

Mask: TypeAlias = NDArray[np.bool_]

_PAIRS_ENCODED = 4096
"""Pairs in hand at a time."""
_PAIRS_SCORED = 1024
_PASSAGES_SCORED = 8192
"""Pairs and pool passages scored at a time: 32 MiB of float32 per mode."""
_OWN_BLOCK = 32
"""Pairs whose own scores are read off the diagonal of one block."""
_TOLERANCE = 1e-6
"""Scores closer than this share of their size are equal: two matrix products give one text scores 1e-7 apart."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """What a pair must stand."""

    top: int = 2
    """Worst rank that is kept. The published 2 is for a pool of a million: in a smaller pool the same rank is easier,
    and `Consistent.chance` says how much."""
    pool: int = 1_000_000
    """Random passages to compete with, at most; the texts there are, where they are fewer."""
    modes: tuple[Mode, ...] = ("dense",)
    """Representations that score; several are summed with `weights`."""
    weights: str | Mapping[Mode, float] | None = None
    """A name in `trine.scoring.WEIGHTS` or a weight for each of `modes`, where they are several; None is "m3". Sums of
    raw scores can be compared block by block; fusions that normalise would need the whole pool's scores at once."""
    seed: int = 0
    """Draws the pool."""

    def __post_init__(self) -> None:
        """Refuse what cannot work or has no effect."""
        if self.top < 1 or self.pool < 1:
            raise UsageError(f"Consistency has top {self.top} and pool {self.pool}; both must be at least 1")
        if not self.modes or len(set(self.modes)) < len(self.modes):
            raise UsageError(f"Consistency.modes is {self.modes}; name one or more of {MODES}, each once")
        for mode in self.modes:
            if mode not in MODES:
                raise unknown(mode, MODES, kind="mode")
        if self.weights is None:
            return
        if len(self.modes) == 1:
            raise UsageError(f"weights have no effect on the single mode {self.modes[0]!r}; leave them out")
        given = weights_of(self.weights)
        if not isinstance(self.weights, str) and set(given) != set(self.modes):
            raise UsageError(f"weights are given for {sorted(given)}, modes are {self.modes}; give one for each mode")

    @property
    def mode_weights(self) -> Mapping[Mode, float]:
        """The weight of each mode."""
        if len(self.modes) == 1:
            return {self.modes[0]: 1.0}
        given = weights_of(self.weights or "m3")
        return {mode: given[mode] for mode in self.modes}


@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """How the pairs of one source stood the filter."""

    pairs: int
    kept: int
    median_rank: float

    @property
    def share(self) -> float:
        """Kept share of the pairs."""
        return self.kept / self.pairs if self.pairs else 0.0


@dataclass(frozen=True, slots=True)
class Consistent:
    """The examples that a model agrees with, and the ranks that say so."""

    examples: tuple[Example, ...]
    """Those with a positive left; positives that failed are taken out, together with their scores."""
    kept: Mask
    """(N,) over the examples given."""
    kept_pairs: Mask
    """(P,) over their positives in order: rank at most `settings.top`."""
    ranks: NDArray[np.int64]
    """(P,) rank of each positive among itself and the pool, from 1; equal scores count against it."""
    offsets: NDArray[np.int64]
    """(N + 1,); example n owns ``ranks[offsets[n]:offsets[n + 1]]``."""
    sources: Mapping[str, SourceStatistics]
    pool: int
    """Passages in the pool."""
    encoder: str
    """Fingerprint."""
    settings: Consistency

    @property
    def chance(self) -> float:
        """Share of pairs that would be kept if the scores said nothing: top / (pool + 1)."""
        return min(self.settings.top / (self.pool + 1), 1.0)

    def summary(self) -> dict[str, Any]:
        """Counts per source and settings, ready for JSON."""
        return {
            "examples": len(self.kept),
            "kept": len(self.examples),
            "pairs": len(self.ranks),
            "kept_pairs": int(self.kept_pairs.sum()),
            "pool": self.pool,
            "chance": self.chance,
            "sources": {name: {**asdict(row), "share": row.share} for name, row in self.sources.items()},
            "encoder": self.encoder,
            "settings": asdict(self.settings),
        }


def consistency_filter(
    examples: Sequence[Example],
    encoder: TextEncoder,
    *,
    settings: Consistency | None = None,
    sources: Sequence[str] | None = None,
    passages: Sequence[str] | None = None,
    progress: bool = False,
) -> Consistent:
    """Keep the pairs whose passage ranks in the top among itself and a pool of random passages for its query.

    All pairs meet the same pool. Passages of the pool that are one of the example's own positives under another
    spelling (`trine.curation.texts.canonical`) do not compete. A tie counts against the pair, so that a collapsed model
    keeps nothing. Every text is encoded once; besides the pool's embeddings, memory depends neither on N nor on N times
    the pool.

    Args:
        examples: N examples.
        encoder: trained on these same pairs, noise and all, for not more than an epoch or so.
        settings: rank, pool and modes.
        sources: N names, for the statistics; None counts all as one, "all".
        passages: what the pool is drawn from; None draws from the positives themselves.
        progress: show a bar.

    Raises:
        UsageError: no examples, sources of another number, or a mode that the encoder does not give.
    """
    chosen = settings or Consistency()
    names = _checked_sources(examples, sources)
    for mode in chosen.modes:
        if mode not in encoder.dimensions:
            raise UsageError(f"the encoder gives {sorted(encoder.dimensions)}, not {mode!r}; choose other modes")
    pool = _Pool(draw_pool(examples if passages is None else passages, size=chosen.pool, seed=chosen.seed), chosen)
    with progress_bar("Consistency", total=len(pool) + len(examples), shown=progress) as advance:
        pool.encode(encoder, advance)
        ranks = [np.zeros(0, np.int64)]
        for start in range(0, len(examples), _PAIRS_ENCODED):
            block = examples[start : start + _PAIRS_ENCODED]
            ranks.append(_ranks(block, encoder, pool))
            advance(len(block))
    return _result(examples, np.concatenate(ranks), names=names, pool=pool, encoder=encoder.fingerprint)


def draw_pool(texts: Sequence[Example] | Sequence[str], *, size: int, seed: int) -> list[str]:
    """`size` different texts at random, each canonical spelling once, in the order given; all, where there are fewer.

    Of examples, their positives.
    """
    flat = (text for item in texts for text in (item.positives if isinstance(item, Example) else (item,)))
    unique: dict[str, str] = {}
    for text in flat:
        unique.setdefault(canonical(text), text)
    distinct = list(unique.values())
    if len(distinct) <= size:
        return distinct
    drawn = np.sort(np.random.default_rng(seed).choice(len(distinct), size, replace=False))
    return [distinct[number] for number in drawn]


class _Pool:
    """The passages that every pair competes with, encoded once."""

    def __init__(self, texts: Sequence[str], settings: Consistency) -> None:
        if not texts:
            raise UsageError("the pool is empty; give passages, or examples with positives")
        self.texts = texts
        self.settings = settings
        self.number_of = {canonical(text): number for number, text in enumerate(texts)}
        self._parts: list[Embeddings] = []

    def __len__(self) -> int:
        return len(self.texts)

    def encode(self, encoder: TextEncoder, advance: Callable[[int], None]) -> None:
        for start in range(0, len(self.texts), _PASSAGES_SCORED):
            block = self.texts[start : start + _PASSAGES_SCORED]
            self._parts.append(encoder.encode(block, kind="passage", modes=self.settings.modes))
            advance(len(block))

    def fused(self, queries: Embeddings, passages: Embeddings) -> NDArray[np.float32]:
        return score(queries, passages, weights=self.settings.mode_weights).fused

    def rivals(self, queries: Embeddings, own_B: NDArray[np.float32], spared: Sequence[set[int]]) -> NDArray[np.int64]:
        """(B,) passages that score as high as `own_B` or higher, without the `spared` ones of each pair."""
        limits_B1 = (own_B - _TOLERANCE * np.maximum(np.abs(own_B), 1))[:, None]
        rows = np.repeat(np.arange(len(spared)), [len(numbers) for numbers in spared])
        columns = np.array([number for numbers in spared for number in numbers], np.int64)
        count_B = np.zeros(len(own_B), np.int64)
        start = 0
        for part in self._parts:
            beats_BS = ~(self.fused(queries, part) < limits_B1)
            inside = (columns >= start) & (columns < start + len(part))
            beats_BS[rows[inside], columns[inside] - start] = False
            count_B += beats_BS.sum(axis=1)
            start += len(part)
        return count_B

    def passages(self, texts: Sequence[str], encoder: TextEncoder) -> Embeddings:
        """Embeddings of any texts; those in the pool are not encoded again."""
        fresh = [text for text in dict.fromkeys(texts) if not self._holds(text)]
        encoded = encoder.encode(fresh, kind="passage", modes=self.settings.modes) if fresh else None
        held = sorted({self.number_of[canonical(text)] for text in texts if self._holds(text)})
        blocks = [self._take(held)] if held else []
        together = Embeddings.concatenate([*blocks, *([encoded] if encoded is not None else [])])
        rows = {self.texts[number]: row for row, number in enumerate(held)}
        rows.update({text: len(held) + row for row, text in enumerate(fresh)})
        return together.take(np.array([rows[text] for text in texts], np.int64))

    def _holds(self, text: str) -> bool:
        number = self.number_of.get(canonical(text))
        return number is not None and self.texts[number] == text

    def _take(self, numbers: Sequence[int]) -> Embeddings:
        wanted, parts = np.array(numbers), []
        for block, part in enumerate(self._parts):
            first = block * _PASSAGES_SCORED
            inside = wanted[(wanted >= first) & (wanted < first + len(part))] - first
            if len(inside):
                parts.append(part.take(inside))
        return Embeddings.concatenate(parts)


def _ranks(examples: Sequence[Example], encoder: TextEncoder, pool: _Pool) -> NDArray[np.int64]:
    """(pairs,) the rank of each positive of the examples, in order."""
    counts = [len(example.positives) for example in examples]
    owner = np.repeat(np.arange(len(examples)), counts)
    queries = encoder.encode([example.query for example in examples], kind="query", modes=pool.settings.modes)
    positives = pool.passages([text for example in examples for text in example.positives], encoder)
    spared = [_numbers(example, pool) for example in examples]
    ranks = np.zeros(len(owner), np.int64)
    for start in range(0, len(owner), _PAIRS_SCORED):
        span = slice(start, min(start + _PAIRS_SCORED, len(owner)))
        asked, mine = queries.take(owner[span]), positives.take(span)
        own = np.concatenate(
            [
                np.diagonal(pool.fused(left, right))
                for left, right in zip(asked.split(_OWN_BLOCK), mine.split(_OWN_BLOCK), strict=True)
            ]
        )
        if not np.isfinite(own).all():
            raise UsageError("the encoder gives scores that are not finite numbers; check the checkpoint")
        ranks[span] = 1 + pool.rivals(asked, own, [spared[number] for number in owner[span]])
    return ranks


def _numbers(example: Example, pool: _Pool) -> set[int]:
    """Numbers in the pool of the example's own positives."""
    found = (pool.number_of.get(canonical(text)) for text in example.positives)
    return {number for number in found if number is not None}


def _checked_sources(examples: Sequence[Example], sources: Sequence[str] | None) -> Sequence[str]:
    if not examples:
        raise UsageError("there are no examples to filter")
    bare = next((number for number, example in enumerate(examples) if not example.positives), None)
    if bare is not None:
        raise UsageError(f"example {bare} ({examples[bare].query[:60]!r}) has no positive; every example needs one")
    names = ["all"] * len(examples) if sources is None else sources
    if len(names) != len(examples):
        raise UsageError(f"{len(names)} sources are given for {len(examples)} examples; give one for each")
    return names


def _result(
    examples: Sequence[Example], ranks: NDArray[np.int64], *, names: Sequence[str], pool: _Pool, encoder: str
) -> Consistent:
    offsets = np.cumsum([0, *(len(example.positives) for example in examples)], dtype=np.int64)
    passed = ranks <= pool.settings.top
    trimmed = [
        _with_positives(example, passed[first:last])
        for example, first, last in zip(examples, offsets[:-1], offsets[1:], strict=True)
    ]
    return Consistent(
        examples=tuple(example for example in trimmed if example.positives),
        kept=np.array([bool(example.positives) for example in trimmed], bool),
        kept_pairs=passed,
        ranks=ranks,
        offsets=offsets,
        sources=_statistics(names, offsets, ranks, passed),
        pool=len(pool),
        encoder=encoder,
        settings=pool.settings,
    )


def _with_positives(example: Example, passed: Mask) -> Example:
    return replace(
        example,
        positives=tuple(text for text, keep in zip(example.positives, passed, strict=True) if keep),
        positive_scores=tuple(
            value for value, keep in zip(example.positive_scores, passed, strict=bool(example.positive_scores)) if keep
        ),
    )


def _statistics(
    names: Sequence[str], offsets: NDArray[np.int64], ranks: NDArray[np.int64], passed: Mask
) -> dict[str, SourceStatistics]:
    of_pair = np.repeat(np.array(names, object), np.diff(offsets))
    rows = {}
    for name in dict.fromkeys(names):
        mine = of_pair == name
        rows[name] = SourceStatistics(int(mine.sum()), int(passed[mine].sum()), float(np.median(ranks[mine])))
    return rows


@dataclass(frozen=True, slots=True)
class NoiseFound:
    """How well a filter told known noise from clean pairs; a share of nothing is NaN."""

    noise: int
    clean: int
    dropped_noise: int
    dropped_clean: int

    @property
    def precision(self) -> float:
        """Share of noise in what was dropped."""
        return _share(self.dropped_noise, self.dropped_noise + self.dropped_clean)

    @property
    def recall(self) -> float:
        """Share of the noise that was dropped."""
        return _share(self.dropped_noise, self.noise)

    @property
    def clean_kept(self) -> float:
        """Share of the clean pairs that were kept."""
        return _share(self.clean - self.dropped_clean, self.clean)

    def summary(self) -> dict[str, Any]:
        """Counts and shares, ready for JSON; a share of nothing is None."""
        shares = {name: getattr(self, name) for name in ("precision", "recall", "clean_kept")}
        return asdict(self) | {name: None if math.isnan(value) else value for name, value in shares.items()}


def noise_found(kept: Sequence[bool] | Mask, noisy: Sequence[bool] | Mask) -> NoiseFound:
    """Compare what a filter kept with what is known to be noise, such as passages that were shuffled on purpose."""
    stays, bad = np.asarray(kept, bool), np.asarray(noisy, bool)
    if stays.shape != bad.shape:
        raise UsageError(f"kept has the shape {stays.shape}, noisy {bad.shape}; give one value per pair in both")
    return NoiseFound(
        noise=int(bad.sum()),
        clean=int((~bad).sum()),
        dropped_noise=int((bad & ~stays).sum()),
        dropped_clean=int((~bad & ~stays).sum()),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
