"""Seconds and modules of the ways in: `import trine`, `trine --help`, each in fresh processes.

python benchmarks/startup.py [--rounds 10]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from common import machine, save

TRINE = str(Path(sysconfig.get_path("scripts")) / "trine")
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import trine": [sys.executable, "-c", "import trine"],
    "trine --help": [TRINE, "--help"],
    "trine search --help": [TRINE, "search", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for number in range(rounds + 1):
        for name, command in COMMANDS.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            if number:  # the first round warms the disk cache
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, median in medians.items():
        print(f"{name:24} {median:.3f} s  (over the bare interpreter: {median - medians['python -c pass']:.3f} s)")
    save("startup", {"machine": machine(), "median_seconds": medians, "seconds": seconds})


if __name__ == "__main__":
    main()
