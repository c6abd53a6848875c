"""How small embeddings can be: precisions measured, and the best one for a budget.

With judgements a precision is measured by nDCG@10. Without, by its agreement with full precision: nDCG@10 where the
ten best of full precision are graded 10 to 1. Intervals of the difference to full precision are paired, as everywhere
in `trine.evaluation.significance`.

Shapes: Q queries, S settings, R resamples.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision import Precision
from trine.encoding.progress import progress_bar
from trine.errors import UsageError
from trine.evaluation.beir import Dataset
from trine.evaluation.bench import Clock
from trine.evaluation.cache import encode_cached
from trine.evaluation.metrics import as_run, mean, measure_all
from trine.evaluation.results import machine
from trine.evaluation.significance import Difference, Interval, difference, interval, resampled_means
from trine.evaluation.size_corpus import Corpus, content
from trine.evaluation.size_scores import PartScores, Pool, rankings, scan_vectors, score_vectors, search_part
from trine.types import MODES, Embeddings, FloatArray, Mode, Qrels, Run, TextEncoder

METRIC = "ndcg@10"
LOSS = 0.01
"""nDCG that a smaller setting may lose against the best that fits."""
_CUTOFF = 10
_STEP = 0.01
"""Agreement by which a larger precision of a part has to be better, to be combined with the others'."""
_LEAST_DIMENSIONS = 32
_TOPS = (128, 64, 32)


@dataclass(frozen=True, slots=True)
class Setting:
    """One precision, what it takes and what it finds."""

    precision: Precision
    nbytes: Mapping[Mode, float]
    """Bytes per document of each representation that is kept."""
    shared_bytes: int
    """Bytes kept once, whatever the number of documents."""
    value: Interval
    """nDCG@10."""
    gap: Difference
    """This setting minus full precision."""
    overlap: float
    """Share of the ten best of full precision that are among the ten best."""
    per_query: FloatArray = field(repr=False)
    """(Q,) nDCG@10."""

    @property
    def per_document(self) -> float:
        """Bytes per document of all representations."""
        return float(sum(self.nbytes.values()))

    def total(self, documents: int) -> int:
        """Bytes of so many documents."""
        return round(self.per_document * documents) + self.shared_bytes


@dataclass(frozen=True, slots=True)
class SizeReport:
    """What was measured, and what it says."""

    dataset: str
    model: str
    judged: bool
    """Whether judgements decided; else agreement with full precision did."""
    queries_from: str
    """See `trine.evaluation.size_corpus.Corpus`."""
    sampled: int
    """Documents that were measured on."""
    queries: int
    documents: int
    """Documents that totals are for."""
    budget: int | None
    """Bytes."""
    loss: float
    """nDCG that the recommended setting may be behind the best that fits."""
    settings: tuple[Setting, ...]
    """Full precision first, then by falling size."""
    recommended: Setting | None
    """None where nothing fits."""
    machine: Mapping[str, str]
    seconds: Mapping[str, float]

    @property
    def full(self) -> Setting:
        """Full precision."""
        return self.settings[0]

    @property
    def front(self) -> list[Setting]:
        """Settings that no smaller one equals, by rising size."""
        return front(self.settings)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in plain containers."""
        best = {setting.precision for setting in self.front}
        chosen = None if self.recommended is None else self.recommended.precision
        rows: list[dict[str, Any]] = [
            {
                "name": setting.precision.name,
                "precision": asdict(setting.precision),
                "bytes_per_document": {**setting.nbytes, "all": setting.per_document},
                "shared_bytes": setting.shared_bytes,
                "total_bytes": setting.total(self.documents),
                METRIC: asdict(setting.value),
                "difference": asdict(setting.gap),
                "overlap@10": setting.overlap,
                "on_front": setting.precision in best,
                "fits": self.budget is None or setting.total(self.documents) <= self.budget,
                "recommended": setting.precision == chosen,
            }
            for setting in self.settings
        ]
        names = ("dataset", "model", "judged", "queries_from", "sampled", "queries", "documents", "budget", "loss")
        return {
            **{name: getattr(self, name) for name in names},
            "recommended": None if self.recommended is None else self.recommended.precision.name,
            "settings": rows,
            "machine": dict(self.machine),
            "seconds": dict(self.seconds),
        }


def measure_sizes(
    corpus: Corpus,
    encoder: TextEncoder,
    *,
    documents: int | None = None,
    budget: int | None = None,
    loss: float = LOSS,
    modes: Sequence[Mode] | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: bool = False,
    seed: int = 0,
) -> SizeReport:
    """Measure what every usual precision of a model's embeddings takes and loses, and recommend one.

    Each representation is measured at every usual precision, the others in full; then combinations of what is best of
    each at its size, representations left out included. Search is that of `Collection.search` without BM25: dense and
    sparse find 100 candidates each, multi-vectors score them, z-scores are summed.

    Args:
        corpus: what `trine.evaluation.size_corpus.read_corpus` read.
        encoder: a model.
        documents: how many the totals and the budget are for; None for as many as the corpus has.
        budget: bytes; None for no limit.
        loss: see `recommend`.
        modes: representations to measure; None for all of the model.
        cache: folder in which embeddings are kept.
        progress: show progress on standard error.
        seed: of the bootstrap.

    Raises:
        UsageError: a number is out of range, the model lacks a mode, or a vector is not finite.
    """
    if documents is not None and documents < 1 or budget is not None and budget < 1:
        raise UsageError(f"documents is {documents} and budget {budget}; both are at least 1")
    held = [mode for mode in MODES if mode in encoder.dimensions and (modes is None or mode in modes)]
    if not held or (modes is not None and set(modes) - set(held)):
        raise UsageError(f"modes {modes} are asked for; the model gives {', '.join(encoder.dimensions)}")
    data, clock = corpus.data, Clock()
    encode = partial(encode_cached, encoder, modes=held, folder=cache, progress=progress)
    with clock.time("encode"):
        queries = encode([query.text for query in data.queries], kind="query")
        passages = encode([content(document) for document in data.corpus], kind="passage")
    with clock.time("measure"):
        measured = _Measured(data, queries, passages, progress=progress)
        settings = summarize(measured.combinations(), len(passages), seed=seed)
    total = corpus.whole if documents is None else documents
    return SizeReport(
        dataset=data.name,
        model=str(getattr(encoder, "name", "") or encoder.fingerprint),
        judged=bool(data.qrels),
        queries_from=corpus.queries,
        sampled=len(data.corpus),
        queries=len(data.queries),
        documents=total,
        budget=budget,
        loss=loss,
        settings=settings,
        recommended=recommend(settings, documents=total, budget=budget, loss=loss, seed=seed),
        machine=machine(),
        seconds=clock.seconds,
    )


def usual_precisions(embeddings: Embeddings) -> dict[Mode, list[Precision]]:
    """What is tried of each representation alone, full precision first."""
    found: dict[Mode, list[Precision]] = {}
    for mode in embeddings.modes:
        full = Precision.full([mode])
        found[mode] = [full, *(replace(full, **changes) for changes in _TRIED[mode](embeddings))]
    return found


def front(settings: Sequence[Setting]) -> list[Setting]:
    """Settings that no smaller one equals, by rising size: where one more byte finds more."""
    chosen: list[Setting] = []
    for setting in sorted(settings, key=lambda each: (each.per_document, -each.value.mean)):
        if not chosen or setting.value.mean > chosen[-1].value.mean:
            chosen.append(setting)
    return chosen


def recommend(
    settings: Sequence[Setting], *, documents: int, budget: int | None = None, loss: float = LOSS, seed: int = 0
) -> Setting | None:
    """The smallest setting that fits and is, by its interval, at most `loss` behind the best that fits.

    So a small setting has to show that it is good enough: with few queries intervals are wide, and the best mean of
    those that fit is recommended itself.

    Returns:
        None where nothing fits.

    Raises:
        UsageError: `loss` is below 0.
    """
    if loss < 0:
        raise UsageError(f"loss is {loss}; it is at least 0")
    fitting = [each for each in settings if budget is None or each.total(documents) <= budget]
    if not fitting:
        return None
    best = max(fitting, key=lambda each: (each.value.mean, -each.total(documents)))
    gaps_QS = np.stack([each.per_query - best.per_query for each in fitting], axis=1)
    means_RS = resampled_means(gaps_QS, seed=seed)
    enough = [
        each for number, each in enumerate(fitting) if difference(gaps_QS[:, number], means_RS[:, number]).low >= -loss
    ]
    return min(enough, key=lambda each: (each.total(documents), -each.value.mean))


@dataclass(frozen=True, slots=True)
class Combination:
    """A precision with its values per query, before means are taken."""

    precision: Precision
    parts: Sequence[PartScores]
    values: FloatArray
    """(Q,) nDCG@10."""
    overlaps: FloatArray
    """(Q,) share of the ten best of full precision."""


def summarize(combinations: Sequence[Combination], documents: int, *, seed: int = 0) -> tuple[Setting, ...]:
    """Means, intervals and differences to the first combination; that one first, then by falling size."""
    values_QS = np.stack([each.values for each in combinations], axis=1)
    means_RS = resampled_means(values_QS, seed=seed)
    settings = [
        Setting(
            each.precision,
            {part.precision.modes[0]: part.nbytes / documents for part in each.parts},
            sum(part.shared_bytes for part in each.parts),
            interval(values_QS[:, at], means_RS[:, at]),
            difference(values_QS[:, at] - values_QS[:, 0], means_RS[:, at] - means_RS[:, 0]),
            float(each.overlaps.mean()),
            each.values,
        )
        for at, each in enumerate(combinations)
    ]
    return (settings[0], *sorted(settings[1:], key=lambda setting: -setting.per_document))


class _Measured:
    """Every part at every usual precision, and the combinations of them."""

    def __init__(self, data: Dataset, queries: Embeddings, passages: Embeddings, *, progress: bool) -> None:
        self.names, self.qrels = [query.id for query in data.queries], data.qrels
        self.documents = [document.id for document in data.corpus]
        tried = usual_precisions(passages)
        total = sum(len(rows) for mode, rows in tried.items() if mode != "multi_vector") + len(passages)
        with progress_bar("measuring", total=total, shown=progress) as advance:
            self.parts: dict[Mode, list[PartScores]] = {}
            for mode in ("dense", "sparse"):
                for precision in tried.get(mode, []):
                    self.parts.setdefault(mode, []).append(search_part(precision, queries, passages))
                    advance(1)
            self.scanned = [] if self.parts else [scan_vectors(queries, passages)]
            searches = [part for rows in self.parts.values() for part in rows] + self.scanned
            self.pool = Pool.of(searches, len(queries))
            if "multi_vector" in tried:
                vectors = score_vectors(tried["multi_vector"], queries, passages, self.pool, advance=advance)
                self.parts["multi_vector"] = vectors

    def combinations(self) -> list[Combination]:
        """Full precision, one part changed at a time, then all combinations of each part's own front."""
        full = {mode: rows[0] for mode, rows in self.parts.items()}
        graded = _graded(self._run(full))
        chosen: dict[Precision, dict[Mode, PartScores]] = {_joined(full): full}
        for mode, rows in self.parts.items():
            for part in rows[1:]:
                changed = {**full, mode: part}
                chosen.setdefault(_joined(changed), changed)
        kept = {mode: self._worth(mode, rows, full) for mode, rows in self.parts.items()}
        for parts in _products(kept):
            if self.scanned or "dense" in parts or "sparse" in parts:
                chosen.setdefault(_joined(parts), parts)
        return [self._combined(precision, parts, graded) for precision, parts in chosen.items()]

    def _worth(self, mode: Mode, rows: Sequence[PartScores], full: Mapping[Mode, PartScores]) -> list[PartScores]:
        """Of one part, the precisions that agree with its full precision better than every smaller one does.

        By agreement and not by judgements: it differs less from query to query, so that luck does not choose.
        """
        finders = None if mode != "multi_vector" else [part for other, part in full.items() if other != mode]
        graded = _graded(self._run({mode: full[mode]}, finders=finders))
        chosen: list[PartScores] = []
        least = 0.0
        for part in sorted(rows, key=lambda each: each.nbytes):
            agreed = measure_all(self._run({mode: part}, finders=finders), graded, metrics=[METRIC])[METRIC]
            if (value := mean(agreed)) >= least:
                chosen.append(part)
                least = value + _STEP
        return chosen

    def _combined(self, precision: Precision, parts: Mapping[Mode, PartScores], graded: Qrels) -> Combination:
        values, overlaps = self._values(self._run(parts), graded)
        return Combination(precision, [*parts.values()], values, overlaps)

    def _values(self, run: Run, graded: Qrels) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        agreed = measure_all(run, graded, metrics=[METRIC, "recall@10"])
        judged = measure_all(run, self.qrels, metrics=[METRIC])[METRIC] if self.qrels else agreed[METRIC]
        order = self.names
        return np.array([judged[name] for name in order]), np.array([agreed["recall@10"][name] for name in order])

    def _run(self, parts: Mapping[Mode, PartScores], *, finders: Sequence[PartScores] | None = None) -> Run:
        """The ten best of every query."""
        searches = finders or [part for mode, part in parts.items() if mode != "multi_vector"] or self.scanned
        found = rankings(parts, self.pool, searches, k=_CUTOFF)
        return {
            name: as_run([self.documents[number] for number in numbers], scores)
            for name, (numbers, scores) in zip(self.names, found, strict=True)
        }


def _graded(run: Run) -> Qrels:
    """The ten best of each query as judgements, graded 10 to 1."""
    return {query: {name: _CUTOFF - at for at, name in enumerate(found)} for query, found in run.items()}


def _products(kept: Mapping[Mode, Sequence[PartScores]]) -> list[dict[Mode, PartScores]]:
    """One precision of each part, or none of it, in all combinations but that of nothing."""
    found: list[dict[Mode, PartScores]] = [{}]
    for mode, rows in kept.items():
        found += [{**parts, mode: row} for parts in found for row in rows]
    return found[1:]


def _joined(parts: Mapping[Mode, PartScores]) -> Precision:
    """The precision of all parts together."""
    given = {mode: part.precision for mode, part in parts.items()}
    dense, sparse, vectors = given.get("dense"), given.get("sparse"), given.get("multi_vector")
    joined = Precision.full(given)
    if dense is not None:
        joined = replace(joined, dense=dense.dense, dimensions=dense.dimensions, rescore=dense.rescore)
    if sparse is not None:
        joined = replace(
            joined,
            sparse=sparse.sparse,
            sparse_top=sparse.sparse_top,
            sparse_threshold=sparse.sparse_threshold,
        )
    if vectors is not None:
        joined = replace(joined, multi_vector=vectors.multi_vector, pool=vectors.pool)
    return joined


def _dense(embeddings: Embeddings) -> list[dict[str, Any]]:
    assert embeddings.dense is not None
    names = ("float16", "int8", "int8_calibrated", "int4", "residual4", "binary")
    unit = _unit(embeddings.dense)
    found: list[dict[str, Any]] = [{"dense": name} for name in names if unit or not name.startswith("residual")]
    found.append({"dense": "binary", "rescore": "int8"})
    width = embeddings.dense.shape[1]
    for dimensions in (width // 2, width // 4):
        if dimensions >= _LEAST_DIMENSIONS:
            found += [{"dense": name, "dimensions": dimensions} for name in ("int8", "binary")]
    return found


def _sparse(embeddings: Embeddings) -> list[dict[str, Any]]:
    assert embeddings.sparse is not None
    longest = int(np.diff(embeddings.sparse.offsets).max(initial=0))
    found: list[dict[str, Any]] = [{"sparse": "float16"}]
    if (embeddings.sparse.weights >= 0).all():
        found.append({"sparse": "uint8"})
    return found + [{"sparse": found[-1]["sparse"], "sparse_top": top} for top in _TOPS if top < longest]


def _vectors(embeddings: Embeddings) -> list[dict[str, Any]]:
    assert embeddings.multi_vector is not None
    names = ["float16", "int8", "int4", "binary"]
    if _unit(embeddings.multi_vector.values):
        names[3:3] = ["residual4", "residual2"]
    found: list[dict[str, Any]] = [{"multi_vector": name} for name in names]
    longest = int(np.diff(embeddings.multi_vector.offsets).max(initial=0))
    for factor in (2, 3):
        if longest > factor:
            found += [{"multi_vector": name, "pool": factor} for name in names[1:]]
    return found


def _unit(values: FloatArray) -> bool:
    """Whether the first thousand vectors have length 1 or are zeros, as residual codes need it."""
    lengths = np.linalg.norm(np.asarray(values[:1000], np.float64), axis=1)
    return bool(lengths.any() and (np.abs(lengths[lengths > 0] - 1) <= 1e-2).all())


_TRIED = {"dense": _dense, "sparse": _sparse, "multi_vector": _vectors}
"""Representation -> what is tried of it beside full precision, as changes to that."""
