"""The retrieval metric while a model trains, and before and after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from trine.evaluation.beir import Dataset, read_beir
from trine.evaluation.evaluate import evaluate
from trine.evaluation.significance import Difference
from trine.models.encoder import Encoder
from trine.recipes.measuring import METRIC, difference
from trine.types import Mode


@dataclass(frozen=True, slots=True)
class Measured:
    """nDCG@10 of every mode, and of their sum where there are several."""

    values: Mapping[str, float]
    """System -> mean over queries; under `METRIC` that of the system which decides."""
    per_query: Mapping[str, Mapping[str, float]]
    """System -> query -> value."""
    main: str
    """The system that decides: the sum of all modes, or the only mode."""


class Validation:
    """A judged set that training must not have seen."""

    def __init__(self, data: Dataset | str | Path) -> None:
        self.data = data if isinstance(data, Dataset) else read_beir(data)

    def measure(self, encoder: Encoder, modes: Sequence[Mode] | None = None) -> Measured:
        """Evaluate an encoder as it is now.

        Args:
            encoder: may be in training; its weights may have changed since it was measured last.
            modes: those that count; None for all that were ever trained.
        """
        trained = [mode for mode in encoder.modes if mode not in encoder.config.untrained]
        wanted = encoder.chosen_modes(modes or trained or None)
        systems = [*wanted, f"{'+'.join(wanted)}:m3"] if len(wanted) > 1 else list(wanted)
        # Weights that change have none that holds, and those cut among ranks cannot be read one by one.
        encoder.__dict__["fingerprint"] = "in training"
        try:
            results = evaluate(self.data, encoder, systems=systems, metrics=[METRIC]).results
        finally:
            del encoder.__dict__["fingerprint"]
        values = {result.system.name: result.metrics[METRIC].mean for result in results}
        per_query = {result.system.name: dict(result.per_query[METRIC]) for result in results}
        main = results[-1].system.name
        return Measured({**values, METRIC: values[main]}, per_query, main)


def gain(before: Measured, after: Measured) -> Difference:
    """How much better the deciding system of `after` is than that of `before`, over the same queries."""
    return difference(after.per_query[after.main], before.per_query[before.main])
