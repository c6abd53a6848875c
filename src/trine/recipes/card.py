"""What is written beside a trained model: the whole record for machines, and a card for people."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from trine.models.files import read_json, write_json
from trine.recipes.config import Recipe

RECORD = "training.json"
CARD = "README.md"
PACKAGES = ("trine", "torch", "transformers", "tokenizers", "numpy")


@dataclass(frozen=True, slots=True)
class Data:
    """A source that a model was trained on."""

    name: str
    path: str
    format: str
    examples: int
    fingerprint: str
    """Hash of its content."""
    licence: str = ""
    """As told; empty where nobody said."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One training run."""

    recipe: Mapping[str, Any]
    """All fields, as they were used."""
    start: str
    """Name of the model that it began from."""
    start_fingerprint: str
    data: Sequence[Data]
    steps: int
    """Optimiser steps taken."""
    seconds: float
    """On the clock."""
    metrics: Mapping[str, Mapping[str, float]]
    """"before" and "after" on the validation set; empty where none was given."""
    versions: Mapping[str, str]
    ranks: int = 1


def stage(recipe: Recipe, **facts: Any) -> Stage:
    """A stage with the recipe's fields and the versions of what it ran on."""
    return Stage(recipe=msgspec.to_builtins(recipe), versions=versions(), **facts)


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def earlier_stages(folder: str | Path | None) -> list[dict[str, Any]]:
    """The record of a model folder's earlier training; empty where it has none."""
    path = None if folder is None else Path(folder).expanduser() / RECORD
    return list(read_json(path).get("stages", [])) if path is not None and path.is_file() else []


def write_record(folder: Path, *, last: Stage, earlier: Sequence[Mapping[str, Any]], title: str, use: str) -> None:
    """Write `training.json` and the card into a model's folder.

    Args:
        folder: of the model, whole but for these two.
        last: the stage that ended just now.
        earlier: stages before it, as their record has them.
        title: the card's heading.
        use: Python code that loads the model and uses it.
    """
    stages = [*earlier, asdict(last)]
    write_json(folder / RECORD, {"format": 1, "stages": stages})
    (folder / CARD).write_text(card(stages, title=title, use=use), encoding="utf-8")


def card(stages: Sequence[Mapping[str, Any]], *, title: str, use: str) -> str:
    """The model card in Markdown: what it is, how to use it, every stage of its training and its data."""
    lines = ["---", "library_name: trine", "---", "", f"# {title}", "", "```python", use.strip(), "```", ""]
    for number, one in enumerate(stages, start=1):
        recipe = one["recipe"]
        lines += [f"## Stage {number}: {recipe['name']}", ""]
        lines += [f"After {recipe['source']}. Started from `{one['start']}`; {one['steps']:,} steps with"]
        lines += [f"{recipe['batch_size']:,} examples, seed {recipe['seed']}.", ""]
        lines += _metrics(one["metrics"])
        lines += ["| data | examples | licence | hash |", "|---|---|---|---|"]
        lines += [
            "| {name} | {examples:,} | {licence} | {fingerprint:.12} |".format(
                **{**data, "licence": data["licence"] or "not stated"}
            )
            for data in one["data"]
        ]
        lines.append("")
    lines += [f"Every setting, hash and version is in `{RECORD}`.", ""]
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not metrics:
        return ["It was not measured on a validation set.", ""]
    columns = list(metrics)
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    rows = [
        f"| {name} | "
        + " | ".join(f"{metrics[column][name]:.4f}" if name in metrics[column] else "" for column in columns)
        + " |"
        for name in names
    ]
    return [f"| validation | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *rows, ""]
