"""Training examples that overlap the texts of a benchmark, found three ways and removed.

Sources: exact strings, E5, arXiv 2212.03533, section 3; n-grams, GPT-3, arXiv 2005.14165, appendix C (13 words); near
copies, `trine.curation.duplicates`.

Shapes: B n-grams of all benchmark texts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.curation.duplicates import MinHashIndex, NearDuplicates
from trine.curation.texts import Hashes, canonical_words, has_dense_letters, is_mostly_dense, ngram_hashes
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import Example

Reason: TypeAlias = Literal["exact", "ngram", "near_copy"]
Field: TypeAlias = Literal["query", "positives", "negatives"]
FIELDS: tuple[Field, ...] = ("query", "positives", "negatives")


@dataclass(frozen=True, slots=True)
class Overlap:
    """What counts as overlap between a training text and a benchmark text."""

    words: int = 13
    """Words in common, in a row, ignoring case and punctuation. Shorter benchmark texts are compared whole."""
    characters: int = 30
    """The same for a benchmark text that is mostly Hangul, kana or ideographs: letters and digits in a row. 13 English
    words have about 65, and a Korean letter says what `DENSE_WEIGHT` Latin ones do."""
    near: NearDuplicates | None = field(default_factory=NearDuplicates)
    """None leaves near copies in."""
    fields: tuple[Field, ...] = ("query", "positives")
    """What is looked at in an example."""

    def __post_init__(self) -> None:
        """Refuse lengths and fields that cannot work."""
        if self.words < 1 or self.characters < 1:
            raise UsageError(
                f"Overlap has words {self.words} and characters {self.characters}; both must be at least 1"
            )
        for name in self.fields:
            if name not in FIELDS:
                raise unknown(name, FIELDS, kind="field of an example")
        if not self.fields:
            raise UsageError(f"Overlap.fields is empty, so nothing would be looked at; name some of {FIELDS}")


@dataclass(frozen=True, slots=True)
class Finding:
    """Why an example was removed."""

    example: int
    """Number among the examples given."""
    field: Field
    reason: Reason
    benchmark: str
    """Name of the set."""
    benchmark_text: int
    """Number of the text in that set."""
    evidence: str
    """The shared words or characters in canonical spelling, or the similarity of a near copy."""


@dataclass(frozen=True, slots=True)
class Decontaminated:
    """Examples that share nothing with the benchmarks, and what was found in the others."""

    examples: tuple[Example, ...]
    kept: NDArray[np.bool_]
    """(N,) over the examples given."""
    findings: tuple[Finding, ...]
    """One for each example removed: the first overlap met, exact before n-grams before near copies."""
    benchmarks: Mapping[str, int]
    """Set -> texts compared."""
    settings: Overlap

    def summary(self) -> dict[str, Any]:
        """Counts and settings, ready for JSON."""
        return {
            "examples": len(self.kept),
            "kept": len(self.examples),
            "by_reason": dict(Counter(finding.reason for finding in self.findings)),
            "by_benchmark": dict(Counter(finding.benchmark for finding in self.findings)),
            "by_field": dict(Counter(finding.field for finding in self.findings)),
            "benchmarks": dict(self.benchmarks),
            "settings": asdict(self.settings),
        }


def decontaminate(
    examples: Sequence[Example],
    benchmarks: Mapping[str, Sequence[str]],
    *,
    settings: Overlap | None = None,
    progress: bool = False,
) -> Decontaminated:
    """Remove the examples that overlap a benchmark.

    Args:
        examples: N training examples.
        benchmarks: name of a set -> its texts: queries, and the passages that must not be seen in training.
        settings: what counts as overlap.
        progress: show a bar.
    """
    chosen = settings or Overlap()
    for name, texts in benchmarks.items():
        if isinstance(texts, str):
            raise UsageError(f"the texts of benchmark {name!r} are one string; give a list of strings")
    searcher = _Benchmarks(benchmarks, chosen)
    findings = []
    with progress_bar("Decontamination", total=len(examples), shown=progress) as advance:
        for number, example in enumerate(examples):
            found = next(_overlaps(example, number, searcher, chosen), None)
            if found is not None:
                findings.append(found)
            advance(1)
    kept = np.ones(len(examples), bool)
    kept[[finding.example for finding in findings]] = False
    return Decontaminated(
        examples=tuple(example for example, keep in zip(examples, kept, strict=True) if keep),
        kept=kept,
        findings=tuple(findings),
        benchmarks={name: len(texts) for name, texts in benchmarks.items()},
        settings=chosen,
    )


def _overlaps(example: Example, number: int, searcher: _Benchmarks, settings: Overlap) -> Iterator[Finding]:
    texts = {"query": (example.query,), "positives": example.positives, "negatives": example.negatives}
    for name in settings.fields:
        for text in texts[name]:
            found = searcher.find(text)
            if found is not None:
                where, reason, evidence = found
                yield Finding(number, name, reason, *searcher.source(where), evidence)


class _Benchmarks:
    """All benchmark texts, numbered through, prepared for look-up."""

    def __init__(self, benchmarks: Mapping[str, Sequence[str]], settings: Overlap) -> None:
        self._sources = [(name, number) for name, texts in benchmarks.items() for number in range(len(texts))]
        self._whole: dict[str, int] = {}
        self._near = MinHashIndex(settings.near) if settings.near else None
        by_words: list[tuple[int, Hashes]] = []
        by_characters: list[tuple[int, Hashes]] = []
        for where, text in enumerate(text for texts in benchmarks.values() for text in texts):
            words = canonical_words(text)
            self._whole.setdefault(" ".join(words), where)
            if is_mostly_dense(text):
                by_characters.append((where, ngram_hashes(_character_units("".join(words)), settings.characters)))
            else:
                by_words.append((where, ngram_hashes(_word_units(words), settings.words)))
            if self._near is not None:
                self._near.add(text)
        self._whole.pop("", None)
        self._words = _NgramTable(by_words, settings.words)
        self._characters = _NgramTable(by_characters, settings.characters)

    def source(self, where: int) -> tuple[str, int]:
        """Name of the set, and the number of the text in it."""
        return self._sources[where]

    def find(self, text: str) -> tuple[int, Reason, str] | None:
        words = canonical_words(text)
        joined = " ".join(words)
        if joined in self._whole:
            return self._whole[joined], "exact", joined
        found = self._words.find(_word_units(words))
        if found is not None:
            where, start = found
            return where, "ngram", " ".join(words[start : start + self._words.n])
        if has_dense_letters(text):
            run = "".join(words)
            found = self._characters.find(_character_units(run))
            if found is not None:
                where, start = found
                return where, "ngram", run[start : start + self._characters.n]
        near = self._near.nearest(text) if self._near is not None else None
        return None if near is None else (near[0], "near_copy", f"similarity {near[1]:.3f}")


class _NgramTable:
    """The n-grams of many texts: 16 bytes each. Two different ones agree with a chance of 2**-64."""

    def __init__(self, texts: Sequence[tuple[int, Hashes]], n: int) -> None:
        self.n = n
        hashes_B = np.concatenate([np.zeros(0, np.uint64), *(hashes for _, hashes in texts)])
        owners_B = np.repeat(
            np.array([where for where, _ in texts], np.int64), np.array([len(hashes) for _, hashes in texts], np.int64)
        )
        self._hashes, first = np.unique(hashes_B, return_index=True)
        self._owners = owners_B[first]

    def find(self, units: Hashes) -> tuple[int, int] | None:
        """A text that shares an n-gram with `units`, and where in `units` the first shared one starts."""
        wanted = ngram_hashes(units, self.n)
        if not len(wanted) or not len(self._hashes):
            return None
        where = np.minimum(np.searchsorted(self._hashes, wanted), len(self._hashes) - 1)
        hits = np.flatnonzero(self._hashes[where] == wanted)
        return (int(self._owners[where[hits[0]]]), int(hits[0])) if len(hits) else None


def _word_units(words: Sequence[str]) -> Hashes:
    return np.array([_word_hash(word) for word in words], np.uint64)


@lru_cache(maxsize=1 << 16)
def _word_hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")


def _character_units(run: str) -> Hashes:
    return np.frombuffer(run.encode("utf-32-le"), np.uint32).astype(np.uint64)
