"""What an instruction in front of every text costs a decoder: nothing in front, computed once, computed for each text.

python benchmarks/prefix.py [--texts 128] [--rounds 5] [--layers 6] [--hidden 384]

The decoder is a random one of Qwen3's form: what is measured is the cost, which weights do not change. Times are of the
process's CPU, so that a busy machine disturbs less.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
import transformers
from common import machine, paired, ratio, save, texts

from trine.encoding import engine
from trine.models.fresh import fresh_encoder
from trine.models.sources import DEFAULT, locate

INSTRUCTION = (
    "Instruct: Given a question about the operation of a computer system, retrieve the passages of the handbook that "
    "answer it\nQuery: "
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    tokenizer = transformers.AutoTokenizer.from_pretrained(locate(DEFAULT)[0])
    encoder = fresh_encoder(
        tokenizer,
        modes=["dense"],
        pooling="mean",
        layers=options.layers,
        hidden=options.hidden,
        heads=options.hidden // 64,
        feed_forward=4 * options.hidden,
        max_length=512,
        architecture="qwen3",
    )
    everything = texts()
    sample = [everything[i] for i in np.random.default_rng(0).permutation(len(everything))[: options.texts]]
    least = engine.LEAST_PREFIX

    def run(prompt: str, *, shared: bool = True) -> np.ndarray:
        engine.LEAST_PREFIX = least if shared else 1 << 30
        return encoder.encode(sample, prompt=prompt).dense

    sides = {
        "the texts alone": lambda: run(""),
        "instruction, computed once": lambda: run(INSTRUCTION),
        "instruction, for each text": lambda: run(INSTRUCTION, shared=False),
    }
    error = float(np.abs(run(INSTRUCTION) - run(INSTRUCTION, shared=False)).max())
    computed = {name: tokens_computed(encoder, side) for name, side in sides.items()}
    seconds = paired(sides, rounds=options.rounds, clock=time.process_time)
    alone = "the texts alone"
    results = {}
    print(f"{len(sample)} texts; vectors with and without the shared prefix differ by {error:.1e}")
    for name in sides:
        cost = ratio(seconds[name], seconds[alone])
        results[name] = {"tokens": computed[name], "seconds": statistics.median(seconds[name]), "cost": cost}
        print(
            f"  {name:28} {computed[name] / len(sample):6.1f} tokens a text, x{computed[name] / computed[alone]:.3f}; "
            f"time x{cost['median']:.3f} ({cost['low']:.3f} to {cost['high']:.3f})"
        )
    facts = machine()
    print(facts)
    save("prefix", {"machine": facts, "difference": error, "results": results})


def tokens_computed(encoder, side) -> int:
    """Tokens that pass through the transformer, padding included."""
    counted = []
    hook = encoder.backbone.model.get_input_embeddings().register_forward_hook(
        lambda module, arguments, output: counted.append(arguments[0].numel())
    )
    side()
    hook.remove()
    return sum(counted)


if __name__ == "__main__":
    main()
