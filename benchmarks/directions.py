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

from small_world.experiments import BESIDES, EXPERIMENTS
from small_world.lab import BySeed, Lab, Results, matrix, resampled


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
        for seed in asked.seeds:
            for name in names:
                EXPERIMENTS[name][0](Lab(asked.data, asked.work, seed), Results(asked.work, name))
    for name in names:
        show(name, Results(asked.work, name))


def show(name: str, results: Results) -> None:
    """Every arm and system, and its gap to the base arm; then the pairs that are compared besides."""
    found = results.read()
    if not found:
        return
    base = EXPERIMENTS[name][1]
    within = {arm for arm, _ in found} == {base}
    print(f"\n## {name}\n\n| arm | system | seeds | nDCG@10 | difference |\n|---|---|---|---|---|")
    for (arm, system), by_seed in sorted(found.items(), key=lambda item: (item[0][0] != base, item[0])):
        other = next(iter(found.values())) if within else found.get((base, system), {})
        print(f"| {arm} | {system} | {len(by_seed)} | {matrix(by_seed).mean():.3f} | {gap(by_seed, other)} |")
    rows = [
        f"| {arm} | {other} | {system} | {gap(found[arm, system], found[other, system])} |"
        for arm, other in BESIDES.get(name, ())
        for system in dict.fromkeys(system for each, system in found if each == arm)
        if (other, system) in found
    ]
    if rows:
        print("\n| arm | against | system | difference |\n|---|---|---|---|", *rows, sep="\n")


def gap(one: BySeed, other: BySeed) -> str:
    """Mean difference and its interval, over the seeds that both have."""
    seeds = one.keys() & other.keys()
    if not seeds or one is other:
        return ""
    mean, low, high = resampled(matrix({at: one[at] for at in seeds}) - matrix({at: other[at] for at in seeds}))
    return f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
