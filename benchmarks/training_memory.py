"""Peak memory of training: one unified M3 step beside FlagEmbedding's, and gradient caching at two batch sizes.

TRINE_FLAGEMBEDDING_PYTHON=.venv-flagembedding/bin/python \\
    python benchmarks/training_memory.py [--only m3|cached] [--quick]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common import machine, save
from training_data import Corpus, Job, Lengths, Process, write

MODES = ("dense", "sparse", "multi_vector")
GROUP = 8
PARTS = ("m3", "cached")
QUERY, PASSAGE = Lengths(16, spread=0.5, most=32), Lengths(80)
SHORT_QUERY, SHORT_PASSAGE = Lengths(12, spread=0.5, most=32), Lengths(20, most=128)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--small", type=int, default=64)
    parser.add_argument("--large", type=int, default=4096)
    parser.add_argument("--chunk-tokens", type=int, default=1024, help="of trine, padding included")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=PARTS, help="this comparison alone")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.batches, options.large = options.batches[:1], 256

    from transformers import AutoTokenizer

    from trine.models.sources import DEFAULT, locate

    plain = locate(DEFAULT)[0]
    corpus = Corpus(AutoTokenizer.from_pretrained(plain))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {}
        if options.only != "cached":
            model = m3_folder(plain, folder / "m3")
            results["m3"] = against_flag_embedding(folder, corpus, options, model=model)
        if options.only != "m3":
            results["cached"] = two_batch_sizes(folder, corpus, options, model=plain)
    if options.quick or options.only:
        return
    facts = machine() | {"threads": options.threads}
    print(facts)
    save("training_memory", {"machine": facts, "results": results})


def m3_folder(source: Path, target: Path) -> Path:
    """MiniLM with fresh M3 heads, as FlagEmbedding lays a model out; it wants an end token, which BERT calls [SEP]."""
    import torch

    target.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(source / name, target / name)
    settings = json.loads((target / "tokenizer_config.json").read_text()) | {"eos_token": "[SEP]"}
    (target / "tokenizer_config.json").write_text(json.dumps(settings))
    hidden = json.loads((target / "config.json").read_text())["hidden_size"]
    torch.manual_seed(0)
    for stem, width in (("colbert_linear", hidden), ("sparse_linear", 1)):
        torch.save(torch.nn.Linear(hidden, width).state_dict(), target / f"{stem}.pt")
    return target


def against_flag_embedding(folder: Path, corpus: Corpus, options: argparse.Namespace, *, model: Path) -> object:
    python = os.environ.get("TRINE_FLAGEMBEDDING_PYTHON")
    if not python:
        print("TRINE_FLAGEMBEDDING_PYTHON names no interpreter with FlagEmbedding 1.4: its half is left out")
        return None
    sides = {
        "FlagEmbedding": (False, {"worker": "training_flagembedding.py", "python": python}),
        "trine, full_step": (False, {"python": sys.executable}),
        "trine, cached_step": (True, {"python": sys.executable}),
    }

    def job(name: str, data: Path, size: int) -> Job:
        return Job(
            name.partition(",")[0],
            str(data),
            str(model),
            size,
            cached=sides[name][0],
            group_size=GROUP,
            modes=MODES,
            chunk_tokens=options.chunk_tokens,
            threads=options.threads,
        )

    # Of one length, because padding takes part in FlagEmbedding's MaxSim.
    same = corpus.pairs(4, query=Lengths(20, spread=0), passage=Lengths(60, spread=0), group_size=GROUP)
    data = write(folder / "one-length.jsonl", same)
    losses = {name: first_loss(job(name, data, 4), **how) for name, (_, how) in sides.items()}
    spread = max(losses.values()) - min(losses.values())
    print(f"\nunified M3 step with self-distillation, {GROUP} passages a query, float32, dropout on")
    print(f"without dropout, on texts of one length, the losses ({losses['FlagEmbedding']:.3f}) differ by {spread:.1e}")
    results = []
    for size in options.batches:
        # As many rows as a batch holds, so that every side trains on the same texts.
        rows = corpus.pairs(size, query=QUERY, passage=PASSAGE, group_size=GROUP)
        data = write(folder / f"m3-{size}.jsonl", rows)
        found = {name: measured(job(name, data, size), steps=2, **how) for name, (_, how) in sides.items()}
        theirs = found["FlagEmbedding"]
        print(f"batch {size}: {theirs['tokens']:.0f} tokens")
        for name, numbers in found.items():
            print(f"  {name:20} {described(numbers)}   {share(numbers, theirs)} of FlagEmbedding's")
        results.append({"batch": size, "sides": found})
    return {"losses": losses, "batches": results}


def two_batch_sizes(folder: Path, corpus: Corpus, options: argparse.Namespace, *, model: Path) -> object:
    """The same texts in all: the larger batch's, of which the smaller takes its own."""
    rows = corpus.pairs(options.large, query=SHORT_QUERY, passage=SHORT_PASSAGE)
    data = str(write(folder / "pairs.jsonl", rows))
    print("\ncached_step, dense, InfoNCE, float32, dropout on")
    found = {}
    for size in (options.small, options.large):
        job = Job(
            "trine",
            data,
            str(model),
            size,
            cached=True,
            chunk_tokens=options.chunk_tokens,
            threads=options.threads,
        )
        # As many texts pass at either size: what malloc cannot give back grows with the chunks, whatever the batch.
        found[size] = measured(job, steps=options.large // size, python=sys.executable)
        print(f"  batch {size:5} {described(found[size])}")
    small, large = found[options.small], found[options.large]
    print(f"  batch {options.large} over batch {options.small}: {share(large, small)}")
    return found


def measured(job: Job, *, steps: int, **how: str) -> dict[str, float]:
    """Peak of a process that takes some steps, and its rate."""
    process = Process(job, **how)
    taken = [process.step() for _ in range(steps)]
    memory = process.memory()
    process.close()
    tokens, cpu = (sum(step[key] for step in taken) for key in ("tokens", "cpu"))
    return {
        "tokens": tokens / steps,
        "loaded": memory["loaded"],
        "peak": memory["peak"],
        "growth": memory["peak"] - memory["loaded"],
        "tokens_per_cpu_second": tokens / cpu,
    }


def first_loss(job: Job, **how: str) -> float:
    """Without dropout, where every side must find the same."""
    process = Process(replace(job, dropout=0.0), **how)
    loss = process.step()["loss"]
    process.close()
    return loss


def described(numbers: dict[str, float]) -> str:
    return (
        f"peak {numbers['peak']:6.0f} MiB, {numbers['growth']:6.0f} over the loaded model, "
        f"{numbers['tokens_per_cpu_second']:5.0f} tokens a CPU second"
    )


def share(numbers: dict[str, float], of: dict[str, float]) -> str:
    return f"{numbers['peak'] / of['peak']:.2f} ({numbers['growth'] / of['growth']:.2f} of the growth)"


if __name__ == "__main__":
    main()
