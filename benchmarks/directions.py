"""Whether the directions that the papers report show at small scale: several seeds, held-out Korean test sets.

    python benchmarks/directions.py EXPERIMENT... --data FOLDER --work FOLDER [--seeds 0 1 2] [--table]

DATA holds pairs/, corpora/ and eval/ in the layouts that `small_world/world.py` names. Models and results stay in WORK,
so that an interrupted run goes on. The table gives nDCG@10 over all test queries and seeds, and its difference to the
arm in the first line with a 95 % interval over resampled seeds and queries.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from small_world.experiments import EXPERIMENTS
from small_world.lab import Lab, Results, matrix, resampled
from small_world.world import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="*", help=f"{', '.join(EXPERIMENTS)}; none: all")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only print what is there")
    asked = parser.parse_args()
    names = asked.experiments or list(EXPERIMENTS)
    for name in names:
        if name not in EXPERIMENTS:
            parser.error(f"no experiment called {name!r}; there are {', '.join(EXPERIMENTS)}")
    if not asked.table:
        world = build(asked.data, asked.work / "world")
        for seed in asked.seeds:
            for name in names:
                EXPERIMENTS[name][0](Lab(world, asked.work, seed), Results(asked.work, name))
    for name in names:
        show(name, Results(asked.work, name))


def show(name: str, results: Results) -> None:
    found = {arm: matrix(by_seed) for arm, by_seed in results.read().items()}
    if not found:
        return
    base = EXPERIMENTS[name][1]
    print(f"\n## {name}\n\n| arm | system | seeds | nDCG@10 | difference |\n|---|---|---|---|---|")
    for (arm, system), values in sorted(found.items(), key=lambda item: (item[0][0] != base, item[0])):
        other = found.get((base, system)) if arm != base else None
        if arm == base == "reranker" or base == "mcls":
            other = None if system == first(found) else found[(base, first(found))]
        gap = ""
        if other is not None and other.shape == values.shape:
            mean, low, high = resampled(values - other)
            gap = f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"
        print(f"| {arm} | {system} | {len(values)} | {values.mean():.3f} | {gap} |")


def first(found: dict) -> str:
    return next(system for _, system in found)


if __name__ == "__main__":
    main()
