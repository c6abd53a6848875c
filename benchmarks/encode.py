"""Tokens per second of `Encoder.encode` against sentence-transformers: same weights, same texts, same process.

python benchmarks/encode.py [--texts 600] [--rounds 5] [--threads 1]
"""

from __future__ import annotations

import argparse
import statistics

import numpy as np
import torch
from common import machine, paired, ratio, save, texts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--texts", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    from sentence_transformers import SentenceTransformer

    from trine import Encoder
    from trine.models.sources import DEFAULT, locate

    encoder = Encoder.load()
    peer = SentenceTransformer(str(locate(DEFAULT)[0]), device="cpu")
    rng = np.random.default_rng(0)
    everything = texts()
    sets = {
        "mixed": [everything[i] for i in rng.permutation(len(everything))[: options.texts]],
        "short": [" ".join(text.split()[:8]) for text in everything[: options.texts]],
    }
    results = {}
    for name, sample in sets.items():
        tokens = int(encoder.text(sample, kind="passage").lengths.sum())
        dense = encoder.encode(sample, modes=["dense"]).dense
        error = float(np.abs(dense - peer.encode(sample)).max())
        sides = {
            "sentence-transformers": lambda s=sample: peer.encode(s, batch_size=32),
            "trine, dense": lambda s=sample: encoder.encode(s, modes=["dense"]),
            "trine, all three": lambda s=sample: encoder.encode(s),
        }
        seconds = paired(sides, rounds=options.rounds)
        rates = {side: tokens / statistics.median(times) for side, times in seconds.items()}
        ratios = {side: ratio(seconds["sentence-transformers"], times) for side, times in seconds.items()}
        results[name] = {"tokens": tokens, "max_difference": error, "tokens_per_second": rates, "speed_up": ratios}
        print(f"\n{name}: {len(sample)} texts, {tokens} tokens; largest difference of a coordinate {error:.1e}")
        for side, rate in rates.items():
            r = ratios[side]
            print(f"  {side:24} {rate:8.0f} tokens/s   x{r['median']:.2f} ({r['low']:.2f} to {r['high']:.2f})")
    facts = machine()
    print(facts)
    save("encode", {"machine": facts, "results": results})


if __name__ == "__main__":
    main()
