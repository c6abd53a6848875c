"""What every experiment does: make a small model, train it by a recipe, measure it on the held-out sets."""

from __future__ import annotations

import json
import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import transformers

from small_world.world import build, rows
from trine.data.examples import ExampleList, open_examples
from trine.evaluation.beir import read_beir
from trine.evaluation.evaluate import evaluate
from trine.models.encoder import Encoder
from trine.models.fresh import fresh_encoder
from trine.recipes.config import recipe
from trine.recipes.pretraining import pretrain
from trine.recipes.training import Surroundings, train_encoder
from trine.types import Example

SHAPE = {"layers": 2, "hidden": 128, "heads": 4, "feed_forward": 512, "max_length": 128}
METRIC = "ndcg@10"
Scores = dict[str, dict[str, float]]
"""System -> "set/query" -> nDCG@10."""
BySeed = Mapping[int, Mapping[str, float]]
"""Seed -> query -> value."""

CONTRASTIVE = {
    "batch_size": 64,
    "learning_rate": 2e-3,
    "query_length": 24,
    "passage_length": 96,
    "temperature": 0.05,
    "query_prompt": "",
    "passage_prompt": "",
    "pooling": None,
    "cached": False,
    "dropout": 0.0,
    "save_every": 100_000,
    "chunk_tokens": 2048,
}


class Lab:
    """One seed's bench: models are made once and kept in the work folder."""

    def __init__(self, data: Path, work: Path, seed: int) -> None:
        torch.set_num_threads(1)
        self.data, self.work, self.seed = data, work, seed
        self.world = build(data, work / "world")

    @cached_property
    def tokenizer(self):
        return transformers.AutoTokenizer.from_pretrained(self.world.tokenizer)

    def fresh(self, *, pooling: str = "mean", modes: Sequence[str] = ("dense",)) -> Encoder:
        return fresh_encoder(self.tokenizer, modes=modes, pooling=pooling, seed=self.seed, vector_width=32, **SHAPE)

    def pairs(self, limit: int | None = None) -> dict[str, list[Example]]:
        """Source -> examples; at most `limit` of all together, in proportion, drawn by this seed."""
        found = {path.stem: list(open_examples(path)) for path in self.world.pairs}
        if limit is None:
            return found
        total = sum(map(len, found.values()))
        draw = np.random.default_rng(self.seed)
        return {
            name: [part[i] for i in draw.permutation(len(part))[: limit * len(part) // total]]
            for name, part in found.items()
        }

    def contrast(
        self, encoder: Encoder, pairs: Mapping[str, Sequence[Example]], name: str = "e5_pretrain_small", **settings
    ):
        """Train on pairs by a recipe."""
        chosen = recipe(name, {**CONTRASTIVE, "seed": self.seed, **settings})
        sources = [ExampleList(part, name=source) for source, part in pairs.items() if len(part)]
        with scratch_folder() as folder:
            return train_encoder(encoder, sources, recipe=chosen, surroundings=Surroundings(folder=folder))[0]

    def pretrained(self, objective: str, *, steps: int) -> Encoder:
        """A fresh model after pre-training on running text."""

        def make() -> Encoder:
            settings = {
                "objective": objective,
                "steps": steps,
                "batch_size": 48,
                "learning_rate": 1e-3,
                "max_length": 96,
                "seed": self.seed,
                "save_every": 100_000,
                "chunk_tokens": 2048,
            }
            encoder = self.fresh(pooling="cls")
            with scratch_folder() as folder:
                around = Surroundings(folder=folder)
                source = open_examples(self.world.text)
                return pretrain(encoder, [source], recipe=recipe("retromae_small", settings), surroundings=around)[0]

        return self.kept(f"{objective}-{steps}", make)

    def base(self) -> Encoder:
        """The start of later stages: trained on all pairs with in-batch negatives."""
        return self.kept("base", lambda: self.contrast(self.fresh(), self.pairs(), steps=150))

    def kept(self, name: str, make: Callable[[], Encoder]) -> Encoder:
        folder = self.work / "models" / f"{name}-{self.seed}"
        if not folder.is_dir():
            make().save(folder)
        return Encoder.load(folder, device="cpu")

    def measure(self, encoder: Encoder, systems: Sequence[str] = ("dense",)) -> Scores:
        """nDCG@10 of every query of the held-out sets."""
        found: Scores = {}
        for folder in self.world.tests:
            for result in evaluate(read_beir(folder), encoder, systems=systems, metrics=[METRIC]).results:
                values = result.per_query[METRIC]
                found.setdefault(result.system.name, {}).update({f"{folder.name}/{q}": v for q, v in values.items()})
        return found


class scratch_folder:
    """A folder that goes away."""

    def __enter__(self) -> Path:
        self.path = Path(tempfile.mkdtemp())
        return self.path

    def __exit__(self, *_) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class Results:
    """Arms that are done, on disk, so that a stopped experiment goes on."""

    def __init__(self, work: Path, experiment: str) -> None:
        self.folder = work / "results" / experiment
        self.folder.mkdir(parents=True, exist_ok=True)

    def has(self, arm: str, seed: int) -> bool:
        return (self.folder / f"{arm}.{seed}.json").is_file()

    def run(self, arm: str, seed: int, make: Callable[[], Scores]) -> None:
        if not self.has(arm, seed):
            path = self.folder / f"{arm}.{seed}.json"
            path.write_text(json.dumps(make()))
            print(f"{self.folder.name}: {arm}, seed {seed}", flush=True)

    def note(self, name: str, seed: int, facts: object) -> None:
        (self.folder / f"{name}.{seed}.note").write_text(json.dumps(facts))

    def read(self) -> dict[tuple[str, str], dict[int, dict[str, float]]]:
        """(arm, system) -> seed -> query -> value."""
        found: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
        for path in sorted(self.folder.glob("*.json")):
            arm, seed, _ = path.name.rsplit(".", 2)
            for system, values in json.loads(path.read_text()).items():
                found.setdefault((arm, system), {})[int(seed)] = values
        return found


def matrix(by_seed: BySeed) -> np.ndarray:
    """(S, Q), seeds and queries sorted."""
    queries = sorted(next(iter(by_seed.values())))
    return np.array([[by_seed[seed][query] for query in queries] for seed in sorted(by_seed)])


def resampled(values_SQ: np.ndarray, *, resamples: int = 4000) -> tuple[float, float, float]:
    """Mean, and the bounds of its 95 % interval: seeds and queries are both drawn with replacement."""
    draw = np.random.default_rng(0)
    count, queries = values_SQ.shape
    means = np.empty(resamples)
    for number in range(resamples):
        seeds = draw.integers(count, size=count)
        weights = np.bincount(draw.integers(queries, size=queries), minlength=queries)
        means[number] = (values_SQ[seeds].mean(0) * weights).sum() / queries
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values_SQ.mean()), float(low), float(high)


def text_of(path: Path) -> dict[str, str]:
    """Passage id -> what is embedded."""
    return {row["_id"]: f"{row['title']}\n{row['text']}" if row.get("title") else row["text"] for row in rows(path)}


def stable(text: str) -> int:
    return zlib.crc32(text.encode())
