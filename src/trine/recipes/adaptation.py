"""What adapting a model to documents takes, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trine.curation.output import plain
from trine.evaluation.significance import Difference
from trine.recipes.domain import Division
from trine.recipes.measuring import Measurement, table


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What to adapt, to what, and where to."""

    documents: Sequence[str]
    """Files, folders and patterns."""
    out: Path
    model: str | None = None
    """Folder or hub id to start from; None for the default model."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of the recipes: ``stage1.KEY``, ``stage2.KEY``, or ``KEY`` for both."""
    held_out: Path | None = None
    """A judged set in BEIR's layout in place of held-out documents."""
    division: Division = field(default_factory=Division)
    minutes: float = 45
    """For everything; steps are chosen so that it fits about."""
    keep_worse: bool = False
    """Write the model even where it is not better."""
    device: str = "auto"
    progress: bool = False


@dataclass(frozen=True, slots=True)
class Adapted:
    """What came of it."""

    folder: Path | None
    """Of the model; None where it is not better, and was not written."""
    target: Path
    """Where the model goes where it is better."""
    working: Path
    """Pairs, negatives, judged sets and, where the model was not written, the stages' models."""
    before: Measurement
    after: Measurement
    system: str
    """The system of the adapted model that decides: its best on the validation documents."""
    gain: Difference
    """Of that system over the best of the start's, on the held-out queries."""
    stages: Mapping[str, Mapping[str, Any]]
    """Stage -> its counts and settings."""
    seconds: float
    """Of all stages, those of earlier calls included."""

    @property
    def better(self) -> bool:
        """Whether the interval of the gain lies above 0."""
        return self.gain.low > 0

    @property
    def skipped(self) -> list[Mapping[str, Any]]:
        """Files that could not be read, with the reasons."""
        return list(self.stages["domain"]["documents"]["skipped"])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        content: dict[str, Any] = plain(
            {
                "folder": self.folder,
                "working_folder": self.working,
                "better": self.better,
                "gain": asdict(self.gain),
                "system": self.system,
                "start_system": self.before.best,
                "before": dict(self.before.values),
                "after": dict(self.after.values),
                "stages": self.stages,
                "seconds": round(self.seconds, 1),
            }
        )
        return content

    def lines(self) -> list[str]:
        """For people: counts, table and verdict."""
        domain, filtered = self.stages["domain"], self.stages["filter"]
        training, test = domain["training"], domain["held_out"]
        verdict = "better" if self.better else "NOT better: the interval does not lie above 0"
        gap = self.gain
        return [
            f"{domain['documents']['kept']:,} documents, {domain['weak_pairs']['pairs']:,} weak pairs; "
            f"{training['pairs']:,} to train on, {filtered['kept']:,} of them after the filter",
            f"held out: {test['queries']:,} queries over {test['corpus']:,} passages",
            "",
            *table(self.before, self.after),
            "",
            f"gain {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}): adapted {self.system} over the start's best, "
            f"{self.before.best}",
            f"The adapted model is {verdict}. {self.seconds / 60:.0f} minutes.",
            *self._bm25(),
        ]

    def _bm25(self) -> list[str]:
        """A word where whoever searches these documents does better without a model."""
        reached = self.after.values.get("bm25", 0.0)
        if reached <= max(value for name, value in self.after.values.items() if name != "bm25"):
            return []
        return [f"BM25 alone finds more here ({reached:.4f}): search with --mode bm25, or start from a stronger model."]
