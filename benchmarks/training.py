"""Tokens per second and peak memory of training beside sentence-transformers: same weights, texts, batch, optimizer.

Each side has a process of its own; within a round every side takes a step, in random order. Seconds are CPU seconds,
as other work may share the machine; wall-clock ratios are printed too.

python benchmarks/training.py [--batch 16] [--rounds 5] [--threads 1] [--quick]
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common import machine, ratio, save
from training_data import MIXED, Corpus, Job, Lengths, Process, write

PEER = "sentence-transformers"
SETTINGS = {
    "mixed, plain loss": {},
    "mixed, cached loss": {"cached": True},
    "mixed, plain loss, bfloat16": {"precision": "bfloat16"},
    "mixed, cached loss, bfloat16": {"cached": True, "precision": "bfloat16"},
    "paragraphs, plain loss": {"data": "paragraphs"},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch", type=int, default=16, help="pairs")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--chunk-tokens", type=int, default=1024, help="of trine, padding included")
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="only this; may be given again")
    parser.add_argument("--quick", action="store_true", help="batches of 8, 2 rounds, float32")
    options = parser.parse_args()
    chosen = options.setting or list(SETTINGS)
    if options.quick:
        options.batch, options.rounds, chosen = 8, 2, chosen[:2]

    from transformers import AutoTokenizer

    from trine.models.sources import DEFAULT, locate

    model = str(locate(DEFAULT)[0])
    corpus = Corpus(AutoTokenizer.from_pretrained(model))
    results = {}
    with tempfile.TemporaryDirectory() as name:
        files = {
            "mixed": write(Path(name) / "mixed.jsonl", corpus.pairs(1024, query=MIXED, passage=MIXED)),
            "paragraphs": write(Path(name) / "paragraphs.jsonl", corpus.as_they_stand(1024)),
            "agreement": write(Path(name) / "agreement.jsonl", corpus.pairs(8, query=Lengths(20), passage=Lengths(40))),
        }
        common = {"model": model, "chunk_tokens": options.chunk_tokens, "threads": options.threads}
        agreement(Job(PEER, str(files["agreement"]), batch_size=8, dropout=0.0, **common))
        for title in chosen:
            setting = dict(SETTINGS[title])
            data = str(files[setting.pop("data", "mixed")])
            peer = Job(PEER, data, batch_size=options.batch, **common, **setting)
            results[title] = compared(title, peer, rounds=options.rounds)
    if options.quick:
        return
    facts = machine() | {"threads": options.threads}
    print(facts)
    save("training", {"machine": facts, "batch": options.batch, "results": results})


def agreement(peer: Job) -> None:
    """Without dropout, on one batch, all must find the same loss."""
    losses = []
    for job in (
        peer,
        replace(peer, cached=True),
        replace(peer, side="trine"),
        replace(peer, side="trine", cached=True),
    ):
        process = Process(job, python=sys.executable)
        losses.append(process.step()["loss"])
        process.close()
    print(f"without dropout the losses ({losses[0]:.3f}) differ by {max(losses) - min(losses):.1e}")


def compared(title: str, peer: Job, *, rounds: int) -> dict[str, object]:
    ours = replace(peer, side="trine")
    jobs = {PEER: peer, "trine, random batches": ours, "trine, by length": replace(ours, bucketed=True)}
    processes = {name: Process(job, python=sys.executable) for name, job in jobs.items()}
    for process in processes.values():
        process.step()
    order, taken = random.Random(0), {name: [] for name in jobs}
    for _ in range(rounds):
        for name in order.sample(list(jobs), len(jobs)):
            taken[name].append(processes[name].step())
    memory = {name: process.memory() for name, process in processes.items()}
    for process in processes.values():
        process.close()
    print(f"\n{title}: {peer.batch_size} pairs a step, {rounds} rounds")
    found = {}
    for name, steps in taken.items():
        found[name] = summary(steps, taken[PEER]) | memory[name]
        print(f"  {name:22} {described(found[name])}")
    return found


def summary(steps: list[dict[str, float]], peer: list[dict[str, float]]) -> dict[str, object]:
    tokens, cpu = (sum(step[key] for step in steps) for key in ("tokens", "cpu"))
    found: dict[str, object] = {"tokens": tokens, "tokens_per_cpu_second": tokens / cpu}
    for clock in ("cpu", "wall"):
        costs = [[step[clock] / step["tokens"] for step in side] for side in (peer, steps)]
        found[f"speed_up_{clock}"] = ratio(*costs)
    return found


def described(numbers: dict) -> str:
    cpu, wall = numbers["speed_up_cpu"], numbers["speed_up_wall"]
    return (
        f"{numbers['tokens']:6.0f} tokens, {numbers['tokens_per_cpu_second']:5.0f} a CPU second, "
        f"x{cpu['median']:.2f} ({cpu['low']:.2f} to {cpu['high']:.2f}; by the clock x{wall['median']:.2f}); "
        f"peak {numbers['peak']:5.0f} MiB, {numbers['peak'] - numbers['loaded']:5.0f} over the loaded model"
    )


if __name__ == "__main__":
    main()
