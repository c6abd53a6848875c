"""Texts that say the same: exact copies, and near copies by MinHash and locality-sensitive hashing.

Sources: Broder, "On the resemblance and containment of documents", 1997 (MinHash); Leskovec, Rajaraman and Ullman,
"Mining of Massive Datasets", section 3.4 (bands). Applied to training text: Lee et al., arXiv 2107.06499, section 4.2.

Shapes: N texts, S shingles of a text, H hashes of a signature.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.curation.texts import Hashes, canonical, jaccard, shingles
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.types import Example

Signature = NDArray[np.uint32]

_LEAST_RECALL = 0.99
"""Of pairs that are just as similar as asked for, at least this share must meet in a band."""
_BLOCK = 4096
"""Shingles hashed at a time: 4 MiB with 128 hashes."""
_CACHED = 1024


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """When two texts are near copies of each other."""

    similarity: float = 0.8
    """Least share of common shingles (Jaccard) of two near copies."""
    characters: int = 5
    """Length of a shingle, spaces left out."""
    hashes: int = 128
    """Length of a signature: it only decides what is compared exactly, and so recall, never precision."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        if not 0 < self.similarity <= 1:
            raise UsageError(f"NearDuplicates.similarity is {self.similarity}; it must be over 0 and at most 1")
        if self.characters < 1 or self.hashes < 8:
            raise UsageError(
                f"NearDuplicates has characters {self.characters} and hashes {self.hashes}; "
                "they must be at least 1 and 8"
            )

    @property
    def band_rows(self) -> int:
        """Hashes per band: the most with which pairs of `similarity` still meet with a probability of 0.99."""
        rows = range(self.hashes, 1, -1)
        return next((count for count in rows if self.meeting_probability(self.similarity, count) >= _LEAST_RECALL), 1)

    def meeting_probability(self, similarity: float, rows: int | None = None) -> float:
        """Probability that two texts of `similarity` share a band of `rows` (None: `band_rows`) hashes."""
        count = rows or self.band_rows
        return 1 - (1 - similarity**count) ** (self.hashes // count)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which of N texts stand for which."""

    leaders: NDArray[np.int64]
    """(N,) number of the first text that each is a copy of; its own where it is kept."""
    similarities: NDArray[np.float64]
    """(N,) Jaccard similarity to the leader: 1 for kept texts and exact copies."""
    exact: NDArray[np.bool_]
    """(N,) whether it was dropped as an exact copy, under the canonical spelling."""
    settings: NearDuplicates

    @property
    def kept(self) -> NDArray[np.bool_]:
        """(N,) texts that are no copy of an earlier one."""
        mask: NDArray[np.bool_] = self.leaders == np.arange(len(self.leaders))
        return mask

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Texts that stand for others, each with its copies: numbers in order, leader first."""
        members: dict[int, list[int]] = defaultdict(list)
        for number, leader in enumerate(self.leaders.tolist()):
            members[leader].append(number)
        return tuple(tuple(group) for group in members.values() if len(group) > 1)

    def summary(self) -> dict[str, Any]:
        """Counts and settings, ready for JSON."""
        groups = self.groups
        return {
            "texts": len(self.leaders),
            "kept": int(self.kept.sum()),
            "exact": int(self.exact.sum()),
            "near": int((~self.kept & ~self.exact).sum()),
            "groups": len(groups),
            "largest_group": max(map(len, groups), default=0),
            "settings": asdict(self.settings),
        }


class MinHashIndex:
    """Texts that can be asked for their nearest near copy; answers are verified exactly, so precision is 1.

    The texts are held by reference and their shingles worked out again when needed: per text 4 bytes a hash and the
    band tables stay, about 3 KiB with 128 hashes. Adding or asking 1,000 characters takes about a millisecond.
    """

    def __init__(self, settings: NearDuplicates) -> None:
        self.settings = settings
        generator = np.random.default_rng(settings.seed)
        # Odd multipliers: multiply-shift hashing of Dietzfelbinger et al., 1997.
        self._multipliers_H = generator.integers(0, 2**64, settings.hashes, np.uint64) | np.uint64(1)
        self._offsets_H = generator.integers(0, 2**64, settings.hashes, np.uint64)
        self._rows = settings.band_rows
        self._bands: list[dict[bytes, list[int]]] = [{} for _ in range(settings.hashes // self._rows)]
        self._texts: list[str] = []
        self._signatures: list[Signature] = []
        self._cache: dict[int, Hashes] = {}

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> int:
        """Take up a text; its number, from 0."""
        return self._insert(text, self.signature(self._shingles(text)))

    def near(self, text: str) -> list[tuple[int, float]]:
        """Numbers and similarities of all texts held that are near enough, by rising number."""
        marks = self._shingles(text)
        return self._near(marks, self.signature(marks))

    def nearest(self, text: str) -> tuple[int, float] | None:
        """Number and similarity of the most similar text held that is near enough, the earliest among equals."""
        marks = self._shingles(text)
        return self._nearest(marks, self.signature(marks))

    def nearest_or_add(self, text: str) -> tuple[int, float] | None:
        """`nearest`, and `add` where there is none."""
        marks = self._shingles(text)
        signature = self.signature(marks)
        found = self._nearest(marks, signature)
        if found is None:
            self._insert(text, signature)
        return found

    def signature(self, marks_S: Hashes) -> Signature:
        """(H,) least hash of all shingles under each of H hash functions; two agree in a share as large as the Jaccard
        similarity, on average (Broder 1997).
        """
        least_H = np.full(self.settings.hashes, np.iinfo(np.uint32).max, np.uint32)
        for start in range(0, len(marks_S), _BLOCK):
            spread_SH = marks_S[start : start + _BLOCK, None] * self._multipliers_H + self._offsets_H
            least_H = np.minimum(least_H, (spread_SH >> np.uint64(32)).astype(np.uint32).min(axis=0))
        return least_H

    def _insert(self, text: str, signature: Signature) -> int:
        number = len(self._texts)
        self._texts.append(text)
        self._signatures.append(signature)
        for band, key in zip(self._bands, self._keys(signature), strict=True):
            band.setdefault(key, []).append(number)
        return number

    def _nearest(self, marks: Hashes, signature: Signature) -> tuple[int, float] | None:
        return max(self._near(marks, signature), key=lambda found: found[1], default=None)

    def _near(self, marks: Hashes, signature: Signature) -> list[tuple[int, float]]:
        if not len(marks):
            return []
        compared = ((number, jaccard(marks, self._held(number))) for number in self._candidates(signature))
        return [found for found in compared if found[1] >= self.settings.similarity]

    def _candidates(self, signature: Signature) -> list[int]:
        """Numbers that share a band and whose signature is within four standard errors of the similarity, ascending."""
        meets = (band.get(key, ()) for band, key in zip(self._bands, self._keys(signature), strict=True))
        numbers = sorted({number for found in meets for number in found})
        if not numbers:
            return []
        agreement = (np.stack([self._signatures[number] for number in numbers]) == signature).mean(axis=1)
        least = self.settings.similarity
        slack = 4 * np.sqrt(least * (1 - least) / self.settings.hashes)
        return [number for number, share in zip(numbers, agreement, strict=True) if share >= least - slack]

    def _keys(self, signature: Signature) -> list[bytes]:
        rows = self._rows
        return [signature[band * rows : (band + 1) * rows].tobytes() for band in range(len(self._bands))]

    def _shingles(self, text: str) -> Hashes:
        return shingles(text, characters=self.settings.characters)

    def _held(self, number: int) -> Hashes:
        if number not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.pop(next(iter(self._cache)))
            self._cache[number] = self._shingles(self._texts[number])
        return self._cache[number]


def find_duplicates(
    texts: Sequence[str], *, settings: NearDuplicates | None = None, near: bool = True, progress: bool = False
) -> Duplicates:
    """Find the texts that are copies of an earlier one.

    Every text that is dropped is as similar to a text that is kept as `settings` ask; copies of copies are not chained.

    Args:
        texts: N texts.
        settings: what a near copy is.
        near: False finds exact copies only (under `trine.curation.texts.canonical`).
        progress: show a bar.
    """
    chosen = settings or NearDuplicates()
    leaders = np.arange(len(texts))
    similarities = np.ones(len(texts))
    exact = np.zeros(len(texts), bool)
    first: dict[str, int] = {}
    index, held = MinHashIndex(chosen), []
    with progress_bar("Duplicates", total=len(texts), shown=progress) as advance:
        for number, text in enumerate(texts):
            spelling = canonical(text)
            earlier = first.setdefault(spelling, number)
            if earlier != number:
                # The first with this spelling may itself be a near copy of its leader.
                leaders[number], similarities[number] = leaders[earlier], similarities[earlier]
                exact[number] = True
            elif near:
                found = index.nearest_or_add(spelling)
                if found is None:
                    held.append(number)
                else:
                    leaders[number], similarities[number] = held[found[0]], found[1]
            advance(1)
    return Duplicates(leaders, similarities, exact, chosen)


@dataclass(frozen=True, slots=True)
class UniqueExamples:
    """Examples without the repeated ones."""

    examples: tuple[Example, ...]
    kept: NDArray[np.bool_]
    """(N,) over the examples given."""
    leaders: NDArray[np.int64]
    """(N,) number of the example that each repeats; its own where it is kept."""
    settings: NearDuplicates
    repeated: int = field(default=0)

    def summary(self) -> dict[str, Any]:
        """Counts and settings, ready for JSON."""
        return {
            "examples": len(self.kept),
            "kept": len(self.examples),
            "repeated": self.repeated,
            "settings": asdict(self.settings),
        }


def remove_repeated_examples(
    examples: Sequence[Example], *, settings: NearDuplicates | None = None, near: bool = True, progress: bool = False
) -> UniqueExamples:
    """Drop each example whose query and positives are both copies of those of one earlier example.

    One passage under two different queries stays twice, and so does one query with two different passages.
    """
    chosen = settings or NearDuplicates()
    queries = find_duplicates([example.query for example in examples], settings=chosen, near=near, progress=progress)
    positives = ["\n".join(example.positives) for example in examples]
    passages = find_duplicates(positives, settings=chosen, near=near, progress=progress)
    first: dict[tuple[int, int], int] = {}
    pairs = zip(queries.leaders.tolist(), passages.leaders.tolist(), strict=True)
    leaders = np.array([first.setdefault(pair, number) for number, pair in enumerate(pairs)], np.int64)
    kept = leaders == np.arange(len(examples))
    return UniqueExamples(
        examples=tuple(example for example, keep in zip(examples, kept, strict=True) if keep),
        kept=kept,
        leaders=leaders,
        settings=chosen,
        repeated=int((~kept).sum()),
    )
