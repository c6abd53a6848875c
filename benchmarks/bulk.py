"""A bulk job against `Encoder.encode` of the same texts in one list: tokens per second, and memory over more texts.

python benchmarks/bulk.py [--texts 2000] [--more 4] [--threads 1] [--workers 2]

Every side runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
from common import machine, save, texts

SHARD_TEXTS = 512


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--more", type=int, default=4, help="also with so many times the texts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(side(**json.loads(options.side))))
        return
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        for count in (options.texts, options.texts * options.more):
            source = Path(folder) / f"{count}.jsonl"
            write(source, count)
            for name, workers in (("one list", 0), ("bulk", 1), ("bulk", options.workers)):
                out = f"{folder}/{count}-{workers}"
                found = measured(options.threads, source=str(source), out=out, workers=workers)
                label = f"{count} texts, {name}" + (f", {workers} workers" if workers > 1 else "")
                results[label] = found
                print(
                    f"{label:32} {found['tokens_per_second']:8.0f} tokens/s {found['peak_mib']:7.0f} MiB more than "
                    f"with the model loaded; taken up again when done: {found['again']:.2f} s"
                )
    facts = machine()
    print(facts)
    save("bulk", {"machine": facts, "threads": options.threads, "results": results})


def write(path: Path, count: int) -> None:
    pool, rng = texts(), np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as stream:
        for number in range(count):
            text = pool[rng.integers(len(pool))]
            stream.write(json.dumps({"id": number, "text": text}, ensure_ascii=False) + "\n")


def measured(threads: int, **what: object) -> dict[str, float]:
    command = [sys.executable, __file__, "--side", json.dumps(what | {"threads": threads})]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout.splitlines()[-1])


def load(threads: int, device: str):
    import torch

    from trine import Encoder

    torch.set_num_threads(threads)
    encoder = Encoder.load(device=device)
    encoder.encode(["warm up"], modes=["dense"])
    return encoder


def side(source: str, out: str, workers: int, threads: int) -> dict[str, float]:
    encoder = load(threads, "cpu")
    rows = [json.loads(line)["text"] for line in Path(source).read_text("utf-8").split("\n") if line]
    tokens = int(
        sum(encoder.text(rows[at : at + 512], kind="passage").lengths.sum() for at in range(0, len(rows), 512))
    )
    if workers:
        del rows
    before = peak()
    seconds, again = timed(encoder, None if workers else rows, source, out, workers, threads)
    return {"tokens_per_second": tokens / seconds, "seconds": seconds, "peak_mib": peak() - before, "again": again}


def timed(encoder, rows, source, out, workers, threads) -> tuple[float, float]:
    if rows is not None:
        start = time.perf_counter()
        encoder.encode(rows, modes=["dense"])
        return time.perf_counter() - start, 0.0
    from trine.encoding.bulk import Settings, encode_files

    ready = (lambda device: encoder) if workers == 1 else partial(load, threads)
    run = partial(
        encode_files,
        source,
        out,
        load=ready,
        devices=("cpu",) * workers,
        settings=Settings(modes=("dense",), shard_texts=SHARD_TEXTS),
    )
    report = run()
    start = time.perf_counter()
    run()
    return report.seconds, time.perf_counter() - start


def peak() -> float:
    own, children = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(own, children) / 1024


if __name__ == "__main__":
    main()
