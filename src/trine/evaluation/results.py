"""What an evaluation found: runs turned into numbers, with the facts that they depend on."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from trine.errors import UsageError
from trine.evaluation.beir import write_qrels, write_run
from trine.evaluation.metrics import measure_all
from trine.evaluation.significance import (
    CONFIDENCE,
    RESAMPLES,
    Difference,
    Interval,
    difference,
    interval,
    resampled_means,
)
from trine.evaluation.systems import System
from trine.types import Qrels, Run, Scalar


@dataclass(frozen=True, slots=True)
class Result:
    """One system's values."""

    system: System
    metrics: Mapping[str, Interval]
    """Metric name -> mean over the judged queries, with its interval."""
    per_query: Mapping[str, Mapping[str, float]]
    """Metric name -> query id -> value."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two systems over the same queries: `system` minus `other`."""

    system: str
    other: str
    metric: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class Counts:
    """Sizes of what was searched, and what the judgements name but the data lack."""

    documents: int
    passages: int
    """As many as documents where each is embedded whole."""
    queries: int
    judged: int
    """Queries that have judgements and were searched."""
    missing_queries: int = 0
    """Judged queries without a text: they score 0 in every mean."""
    missing_documents: int = 0
    """Judged documents that the corpus lacks: they count as relevant and cannot be found."""


@dataclass(frozen=True, slots=True)
class Report:
    """An evaluation's outcome."""

    dataset: str
    counts: Counts
    model: str
    """Fingerprint of the encoder; empty without one."""
    metrics: tuple[str, ...]
    """The first is the one that plots show and that decides which system is best."""
    results: tuple[Result, ...]
    baseline: str
    """Name of the system that every other is compared with: "bm25" where it was run, else the first."""
    comparisons: tuple[Comparison, ...]
    """Every system with the baseline and with the best one, for every metric."""
    settings: Mapping[str, Scalar]
    machine: Mapping[str, str]
    seconds: Mapping[str, float]
    """Wall time of each stage."""
    runs: Mapping[str, Run] = field(repr=False)
    """System name -> run."""
    qrels: Qrels = field(repr=False)

    @property
    def best(self) -> str:
        """Name of the system with the highest mean of the first metric; the earlier one where several have it."""
        return max(self.results, key=lambda result: result.metrics[self.metrics[0]].mean).system.name

    def result(self, system: str) -> Result:
        """The values of the system of that name.

        Raises:
            UsageError: it was not evaluated.
        """
        for result in self.results:
            if result.system.name == system:
                return result
        held = ", ".join(result.system.name for result in self.results)
        raise UsageError(f"no system called {system!r} in this report; it holds {held}")

    def compare(self, system: str, other: str, *, metric: str | None = None) -> Difference | None:
        """The comparison of `system` with the baseline or the best one; None for a system with itself.

        `metric` None means the first one.
        """
        wanted = (system, other, metric or self.metrics[0])
        found = (item for item in self.comparisons if (item.system, item.other, item.metric) == wanted)
        return next((item.difference for item in found), None)

    def to_json(self) -> str:
        """Everything but the runs and judgements, as strict JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=1)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the runs and judgements, in plain containers."""
        return {
            "dataset": self.dataset,
            "counts": asdict(self.counts),
            "model": self.model,
            "metrics": list(self.metrics),
            "best": self.best,
            "baseline": self.baseline,
            "systems": [
                {
                    **asdict(result.system),
                    "metrics": {name: asdict(value) for name, value in result.metrics.items()},
                    "per_query": {name: dict(values) for name, values in result.per_query.items()},
                }
                for result in self.results
            ],
            "comparisons": [
                {"system": item.system, "other": item.other, "metric": item.metric, **asdict(item.difference)}
                for item in self.comparisons
            ],
            "settings": dict(self.settings),
            "machine": dict(self.machine),
            "seconds": dict(self.seconds),
        }

    def write_runs(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write every run as ``<system>.trec``, and ``qrels.trec`` beside them, for other tools to check the numbers.

        Raises:
            DataError: an id holds white space, which TREC's files cannot carry.
        """
        root = Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        paths = [root / f"{result.system.slug}.trec" for result in self.results]
        for path, result in zip(paths, self.results, strict=True):
            write_run(path, self.runs[result.system.name], f"trine-{result.system.slug}")
        write_qrels(root / "qrels.trec", self.qrels)
        return [*paths, root / "qrels.trec"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report says beside the numbers."""

    dataset: str
    counts: Counts
    model: str
    settings: Mapping[str, Scalar]
    seconds: Mapping[str, float]


def summarize(
    runs: Mapping[str, Run],
    qrels: Qrels,
    *,
    systems: Sequence[System],
    metrics: Sequence[str],
    facts: Facts,
    seed: int = 0,
) -> Report:
    """Turn runs into a report: means, intervals, and every system against the baseline and the best one.

    Args:
        runs: system name -> run.
        qrels: the judged queries over which means are taken.
        systems: what to report, in this order.
        metrics: names as `trine.evaluation.metrics.parse_metric` reads them; the first is the main one.
        facts: what the numbers depend on.
        seed: of the bootstrap.

    Raises:
        UsageError: no metric, no judged query, or a name that cannot be read.
    """
    if not metrics or isinstance(metrics, str):
        raise UsageError(f"metrics is a list of names such as ['ndcg@10']; got {metrics!r}")
    if not qrels:
        raise UsageError("no judged queries; there is nothing to average")
    names = [system.name for system in systems]
    values = {name: measure_all(runs[name], qrels, metrics=metrics) for name in names}
    columns = {metric: np.array([[*values[name][metric].values()] for name in names]).T for metric in values[names[0]]}
    # One call for all systems and metrics: the same draws everywhere.
    width = len(names)
    means_RS = resampled_means(np.hstack([*columns.values()]), seed=seed)
    resampled = {metric: means_RS[:, at * width : (at + 1) * width] for at, metric in enumerate(columns)}
    results = tuple(
        Result(
            system,
            {metric: interval(columns[metric][:, at], resampled[metric][:, at]) for metric in columns},
            values[system.name],
        )
        for at, system in enumerate(systems)
    )
    main = np.array([result.metrics[metrics[0]].mean for result in results])
    baseline = names.index("bm25") if "bm25" in names else 0
    comparisons = tuple(
        Comparison(name, names[other], metric, _gap(columns[metric], resampled[metric], at, other))
        for other in dict.fromkeys((baseline, int(main.argmax())))
        for metric in columns
        for at, name in enumerate(names)
        if at != other
    )
    settings = {**facts.settings, "resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": seed}
    return Report(
        dataset=facts.dataset,
        counts=facts.counts,
        model=facts.model,
        metrics=tuple(columns),
        results=results,
        baseline=names[baseline],
        comparisons=comparisons,
        settings=settings,
        machine=machine(),
        seconds=facts.seconds,
        runs=runs,
        qrels=qrels,
    )


def machine() -> dict[str, str]:
    """The machine and the versions of what computes on it."""
    found = {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }
    for package in ("trine", "numpy", "torch", "transformers"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _gap(values_QS: np.ndarray[Any, Any], means_RS: np.ndarray[Any, Any], one: int, other: int) -> Difference:
    return difference(values_QS[:, one] - values_QS[:, other], means_RS[:, one] - means_RS[:, other])
