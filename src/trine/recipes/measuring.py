"""A model before and after: every mode and their fusions on one judged set, and whether the gain is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trine.evaluation.beir import Dataset
from trine.evaluation.evaluate import evaluate
from trine.evaluation.significance import Difference, paired_bootstrap
from trine.models.encoder import Encoder
from trine.types import MODES, Mode

METRIC = "ndcg@10"
"""By which training is judged, and models are compared."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """nDCG@10 of the systems of a model."""

    values: Mapping[str, float]
    """System -> mean over the queries."""
    per_query: Mapping[str, Mapping[str, float]]
    """System -> query -> value."""
    own: tuple[str, ...]
    """The systems of the model alone; the others have BM25 in them."""

    @property
    def best(self) -> str:
        """The model's own system with the highest mean; the first of equals."""
        return max(self.own, key=lambda name: self.values[name])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        per_query = {name: dict(values) for name, values in self.per_query.items()}
        return {"values": dict(self.values), "per_query": per_query, "own": list(self.own)}

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> Measurement:
        """What `to_dict` gave."""
        return Measurement(content["values"], content["per_query"], tuple(content["own"]))


def measure(data: Dataset, encoder: Encoder, *, bm25: bool = True, progress: bool = False) -> Measurement:
    """Measure every mode of a model and their fusions; modes that were never trained, too.

    Args:
        data: what is asked and judged.
        encoder: the model.
        bm25: whether BM25, alone and fused with the model, stands beside it.
        progress: show a bar.
    """
    report = evaluate(data, encoder, systems=systems_of(encoder.modes, bm25=bm25), metrics=[METRIC], progress=progress)
    return Measurement(
        values={result.system.name: result.metrics[METRIC].mean for result in report.results},
        per_query={result.system.name: dict(result.per_query[METRIC]) for result in report.results},
        own=tuple(result.system.name for result in report.results if "bm25" not in result.system.retrievers),
    )


def systems_of(modes: Sequence[Mode], *, bm25: bool) -> list[str]:
    """Every mode alone, all together, and with BM25 as a search does it by default."""
    names = [str(mode) for mode in MODES if mode in modes]
    if len(names) > 1:
        names += ["all:m3", "all:zscore"]
    return [*names, "bm25", "all+bm25:zscore"] if bm25 else names


def gain(before: Measurement, after: Measurement, system: str) -> Difference:
    """How far a system of `after` is over the best of `before`'s own, query by query.

    The best of `before` is chosen on these very queries, which favours `before`; `system` must have been chosen on
    others.
    """
    return difference(after.per_query[system], before.per_query[before.best])


def difference(first: Mapping[str, float], second: Mapping[str, float]) -> Difference:
    """How far the first values are over the second, query by query."""
    queries = sorted(first)
    return paired_bootstrap([first[query] for query in queries], [second[query] for query in queries])


def table(before: Measurement, after: Measurement) -> list[str]:
    """Lines of a table, a system a line."""
    names = [*dict.fromkeys([*before.values, *after.values])]
    rows = [
        ("nDCG@10", "start", "adapted"),
        *((name, _cell(before.values.get(name)), _cell(after.values.get(name))) for name in names),
    ]
    width = max(len(row[0]) for row in rows)
    return [f"{name:{width}}  {one:>7}  {other:>7}".rstrip() for name, one, other in rows]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
