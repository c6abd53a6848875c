"""What every benchmark shares: the machine in one line, paired runs, ratios with intervals, results as JSON."""

from __future__ import annotations

import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

OUT = Path(__file__).parent / "out"
DOCUMENTS = Path(__file__).parent.parent / "demo" / "documents"


def machine() -> dict[str, object]:
    import torch

    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = ("trine", "torch", "transformers", "sentence-transformers", "numpy", "qdrant-edge-py")
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def paired(
    sides: dict[str, Callable[[], object]],
    *,
    rounds: int,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, `rounds` times, the sides in random order within a round; one warm-up each."""
    for run in sides.values():
        run()
    order = random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name in order.sample(list(sides), len(sides)):
            start = clock()
            sides[name]()
            seconds[name].append(clock() - start)
    return seconds


def ratio(slow: list[float], fast: list[float]) -> dict[str, float]:
    """Median of the per-round ratios and their range."""
    ratios = sorted(a / b for a, b in zip(slow, fast, strict=True))
    return {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}


def save(name: str, result: object) -> None:
    OUT.mkdir(exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    print(f"saved {path}")


def texts() -> list[str]:
    """Paragraphs of the demo's Markdown, both languages, at least 20 characters each."""
    found = []
    for path in sorted(DOCUMENTS.rglob("*.md")):
        found += [part.strip() for part in path.read_text(encoding="utf-8").split("\n\n") if len(part.strip()) >= 20]
    return found
