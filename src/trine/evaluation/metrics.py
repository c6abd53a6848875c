"""Retrieval metrics over runs and qrels, with trec_eval's arithmetic.

Every metric sees a query as two lists of relevance grades: those of the documents found, best first, and those of all
judged documents. A grade of 1 or more is relevant; an unjudged document counts as grade 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.tables import unknown
from trine.types import Qrels, Run

Grades: TypeAlias = Sequence[int]
Metric: TypeAlias = Callable[[Grades, Grades, int | None], float]
"""Grades found, grades judged, cutoff (None: everything found) -> value in [0, 1]."""

DEFAULT_METRICS: tuple[str, ...] = ("ndcg@10", "recall@100", "mrr@10")

_NAME = re.compile(r"([a-z_]+)(?:@([0-9]+))?")


def measure(run: Run, qrels: Qrels, *, metric: str) -> dict[str, float]:
    """Value of one metric for every judged query.

    The queries are those of `qrels`: a judged query that the run lacks scores 0, and queries without judgements are
    left out, as ``trec_eval -c`` has it. So is the order: by score in single precision, equal scores by falling
    document id, whatever order the run holds its documents in.

    Args:
        run: query id -> document id -> score.
        qrels: query id -> document id -> grade.
        metric: a name in `METRICS`, with or without a cutoff: "ndcg@10", "recall@100", "map".

    Raises:
        UnknownName: no metric has that name; the message suggests the nearest.
        UsageError: the cutoff is 0, or a score is not a finite number.
    """
    return measure_all(run, qrels, metrics=[metric])[metric]


def measure_all(run: Run, qrels: Qrels, *, metrics: Iterable[str] = DEFAULT_METRICS) -> dict[str, dict[str, float]]:
    """`measure` for several metrics, sorting the run once: metric name -> query id -> value."""
    parsed = {name: parse_metric(name) for name in metrics}
    values: dict[str, dict[str, float]] = {name: {} for name in parsed}
    for query, judged in qrels.items():
        found = [judged.get(document, 0) for document in ranked(run.get(query, {}), query=query)]
        grades = list(judged.values())
        for name, (function, cutoff) in parsed.items():
            values[name][query] = function(found, grades, cutoff)
    return values


def mean(values: Mapping[str, float]) -> float:
    """Mean over the queries of what `measure` returns.

    Raises:
        UsageError: there is no query.
    """
    if not values:
        raise UsageError("a mean over no queries: the qrels hold none")
    return math.fsum(values.values()) / len(values)


def parse_metric(name: str) -> tuple[Metric, int | None]:
    """Function and cutoff behind a name such as "ndcg@10".

    Raises:
        UnknownName: no metric has that name; the message suggests the nearest.
        UsageError: the cutoff is not a whole number above 0.
    """
    stem, _, cutoff = name.partition("@")
    if stem not in METRICS:
        raise unknown(name, [f"{known}@10" if cutoff else known for known in METRICS], kind="metric")
    match = _NAME.fullmatch(name)
    if match is None or match[2] is not None and int(match[2]) < 1:
        raise UsageError(f"metric {name!r}: the cutoff after @ is a whole number above 0, as in {stem}@10")
    return METRICS[stem], None if match[2] is None else int(match[2])


def ranked(scores: Mapping[str, float], *, query: str = "") -> list[str]:
    """Document ids in trec_eval's order: by falling single-precision score, equal scores by falling id.

    `query` only serves the message of an error.
    """
    if not scores:
        return []
    single = _single(scores.values())
    if not np.isfinite(single).all():
        document = list(scores)[int(np.flatnonzero(~np.isfinite(single))[0])]
        raise UsageError(f"query {query!r}, document {document!r}: score {scores[document]} has no place in a ranking")
    return [document for _, document in sorted(zip(single.tolist(), scores, strict=True), reverse=True)]


def as_run(documents: Sequence[str], scores: Iterable[float]) -> dict[str, float]:
    """One query's ranking as run entries whose scores alone give back the order.

    Tools disagree on equal scores (trec_eval takes the falling id, MS MARCO's script the rising one), and single
    precision makes more of them equal; a score that is not below the one before it is moved to the next lower
    single-precision number.

    Args:
        documents: ids, best first, none twice.
        scores: their finite scores.

    Raises:
        UsageError: a score is not finite in single precision.
    """
    single = _single(scores)
    if not np.isfinite(single).all():
        raise UsageError(f"a ranking holds a score that single precision cannot: {single[~np.isfinite(single)][0]}")
    entries: dict[str, float] = {}
    above = np.float32(np.inf)
    for document, score in zip(documents, single, strict=True):
        above = score if score < above else np.nextafter(above, np.float32(-np.inf))
        entries[document] = float(above)
    return entries


def ndcg(found: Grades, judged: Grades, cutoff: int | None) -> float:
    """Normalised discounted cumulative gain, with the grade itself as gain and no gain below 0.

    Source: Järvelin & Kekäläinen, TOIS 20(4), 2002, with the discount log2(rank + 1) of trec_eval's ndcg_cut.
    """
    best = _discounted(sorted(judged, reverse=True), cutoff)
    return _discounted(found, cutoff) / best if best else 0.0


def recall(found: Grades, judged: Grades, cutoff: int | None) -> float:
    """Share of the relevant documents that was found."""
    relevant = _relevant(judged, None)
    return _relevant(found, cutoff) / relevant if relevant else 0.0


def precision(found: Grades, judged: Grades, cutoff: int | None) -> float:
    """Share of relevant documents among the first `cutoff` ranks, empty ranks included."""
    ranks = len(found) if cutoff is None else cutoff
    return _relevant(found, cutoff) / ranks if ranks else 0.0


def success(found: Grades, judged: Grades, cutoff: int | None) -> float:
    """1 if any relevant document was found, else 0."""
    return float(_relevant(found, cutoff) > 0)


def reciprocal_rank(found: Grades, judged: Grades, cutoff: int | None) -> float:
    """1 / rank of the first relevant document, 0 if there is none."""
    return next((1 / rank for rank, grade in enumerate(islice(found, cutoff), 1) if grade > 0), 0.0)


def average_precision(found: Grades, judged: Grades, cutoff: int | None) -> float:
    """Mean over all relevant documents of the precision at their rank, 0 for those not found."""
    relevant, hits, total = _relevant(judged, None), 0, 0.0
    for rank, grade in enumerate(islice(found, cutoff), 1):
        if grade > 0:
            hits += 1
            total += hits / rank
    return total / relevant if relevant else 0.0


def _single(scores: Iterable[float]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.array([*scores], np.float64).astype(np.float32)


def _discounted(grades: Grades, cutoff: int | None) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(islice(grades, cutoff), 1) if grade > 0)


def _relevant(grades: Grades, cutoff: int | None) -> int:
    return sum(grade > 0 for grade in islice(grades, cutoff))


METRICS: Mapping[str, Metric] = {
    "ndcg": ndcg,
    "recall": recall,
    "mrr": reciprocal_rank,
    "map": average_precision,
    "precision": precision,
    "success": success,
}
