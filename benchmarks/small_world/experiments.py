"""The directions that the papers report, each as arms that differ in one thing."""

from __future__ import annotations

import random
from dataclasses import replace
from unittest import mock

import numpy as np
import torch

from small_world.combined import head_sums, reranker
from small_world.decoders import decoders, decoders_supervised, instructions
from small_world.distilled import distillation
from small_world.lab import METRIC, Lab, Results, Scores
from trine.curation.consistency import Consistency, consistency_filter, noise_found
from trine.curation.negatives import Mining, mine_negatives, random_negatives
from trine.curation.retrievers import EncoderRetriever
from trine.curation.teacher import teacher_scores
from trine.evaluation.beir import read_beir
from trine.evaluation.evaluate import evaluate
from trine.models.encoder import Encoder
from trine.models.long_text import extend_positions, with_mcls
from trine.types import Example

ALL = ("dense", "sparse", "multi_vector", "all:m3")


def _cls(lab: Lab, arm: str) -> Encoder:
    """Contrastive training under CLS pooling, after pre-training or none; higher rates than this stall it."""

    def make() -> Encoder:
        start = lab.fresh(pooling="cls") if arm == "none" else lab.pretrained(arm, steps=200)
        return lab.contrast(start, lab.pairs(), steps=150, learning_rate=5e-4)

    return lab.kept(f"cls-{arm}", make)


def pretraining(lab: Lab, results: Results) -> None:
    """RetroMAE > MLM > nothing, before the same contrastive training; CLS pooling, equal tokens."""
    for arm in ("none", "mlm", "retromae"):

        def make(arm: str = arm) -> Scores:
            return lab.measure(_cls(lab, arm))

        results.run(arm, lab.seed, make)


def consistency(lab: Lab, results: Results) -> None:
    """A model trained on half-wrong pairs finds the right ones; equal steps in all arms."""
    clean = lab.pairs(24_000)
    draw = random.Random(lab.seed)
    noisy: dict[str, list[Example]] = {}
    wrong: dict[str, list[bool]] = {}
    for name, part in clean.items():
        chosen = set(draw.sample(range(len(part)), len(part) // 2))
        order = sorted(chosen)
        moved = dict(zip(order, order[1:] + order[:1], strict=True))
        noisy[name] = [
            replace(one, positives=part[moved[number]].positives) if number in chosen else one
            for number, one in enumerate(part)
        ]
        wrong[name] = [number in chosen for number in range(len(part))]
    steps = {"steps": 300}
    trained: list[Encoder] = []

    def on_noise() -> Encoder:
        if not trained:
            trained.append(lab.kept("noise", lambda: lab.contrast(lab.fresh(), noisy, **steps)))
        return trained[0]

    results.run("unfiltered", lab.seed, lambda: lab.measure(on_noise()))
    names = [name for name, part in noisy.items() for _ in part]
    flat = [one for part in noisy.values() for one in part]

    def filtered() -> Scores:
        found = consistency_filter(
            flat, on_noise(), settings=Consistency(top=2, pool=4000, seed=lab.seed), sources=names
        )
        flags = [flag for part in wrong.values() for flag in part]
        results.note("filter", lab.seed, {**found.summary(), "noise": noise_found(found.kept, flags).summary()})
        kept: dict[str, list[Example]] = {}
        for name, one, keep in zip(names, flat, found.kept, strict=True):
            if keep:
                kept.setdefault(name, []).append(one)
        return lab.measure(lab.contrast(lab.fresh(), kept, **steps))

    results.run("filtered", lab.seed, filtered)
    right = {name: [one for one, bad in zip(part, wrong[name], strict=True) if not bad] for name, part in noisy.items()}
    results.run("only the right ones", lab.seed, lambda: lab.measure(lab.contrast(lab.fresh(), right, **steps)))


def batch(lab: Lab, results: Results) -> None:
    """Larger batches, at equal steps and at equal pairs; learning rate by the square root of the batch."""
    for size in (16, 64, 256):
        rate = 2e-3 * (size / 64) ** 0.5
        for name, steps in (("equal steps", 60), ("equal pairs", 3840 // size)):
            if size == 64 and name == "equal pairs":
                continue
            results.run(
                f"{name}, {size}",
                lab.seed,
                lambda size=size, steps=steps, rate=rate: lab.measure(
                    lab.contrast(lab.fresh(), lab.pairs(), steps=steps, batch_size=size, learning_rate=rate)
                ),
            )


def _mined(lab: Lab, kind: str, count: int = 3, limit: int = 5000) -> dict[str, list[Example]]:
    base = lab.base()
    result = {}
    for name, part in lab.pairs(limit).items():
        passages = list(dict.fromkeys(text for one in part for text in one.positives))
        if kind == "random":
            result[name] = list(random_negatives(part, passages, count=count, seed=lab.seed))
            continue
        rules = {"naive": {"relative_margin": None, "near_copy": None}, "positive-aware": {"relative_margin": 0.05}}[
            kind
        ]
        settings = Mining(negatives=count, window=(1, 50), short="fill", seed=lab.seed, **rules)
        result[name] = list(
            mine_negatives(part, EncoderRetriever(base, passages, mode="dense"), settings=settings).examples
        )
    return result


def negatives(lab: Lab, results: Results) -> None:
    """Mined positive-aware > mined naively > random, from the same start; and the start itself, trained as long."""
    # Without in-batch negatives: beside them, the choice of the own ones made no difference (docs/directions.md).
    tune = {"steps": 150, "batch_size": 16, "learning_rate": 5e-4, "group_size": 8, "in_batch": False}
    results.run("start", lab.seed, lambda: lab.measure(lab.base()))
    for kind in ("random", "naive", "positive-aware"):

        def make(kind: str = kind) -> Scores:
            return lab.measure(lab.contrast(lab.base(), _mined(lab, kind, count=7), **tune))

        results.run(kind, lab.seed, make)


M3 = {"steps": 150, "batch_size": 32, "learning_rate": 5e-4, "fresh_learning_rate": 4.0, "group_size": 2}


def _m3(lab: Lab, name: str, **settings) -> Encoder:
    def make() -> Encoder:
        mined = _mined(lab, "positive-aware", count=1, limit=5000)
        return lab.contrast(lab.base(), mined, "bge_m3_small", **{**M3, "vector_width": 32, **settings})

    return lab.kept(name, make)


def self_distillation(lab: Lab, results: Results) -> None:
    """Self-knowledge distillation rescues the sparse head, from random weights and from equal ones."""
    for on, name in ((False, "m3-alone"), (True, "m3")):
        arm = "with" if on else "without"
        results.run(arm, lab.seed, lambda on=on, name=name: lab.measure(_m3(lab, name, self_distillation=on), ALL))
        # As torch begins a linear layer, and FlagEmbedding the sparse head.
        with mock.patch("trine.models.fresh._begin_alike"):
            results.run(
                f"{arm}, random beginning",
                lab.seed,
                lambda on=on, name=name: lab.measure(_m3(lab, f"{name}-random", self_distillation=on), ALL),
            )


def fusion(lab: Lab, results: Results) -> None:
    """Dense + sparse + multi-vector > each alone."""
    arms = ("dense", "sparse", "multi_vector", "sum")
    if all(results.has(arm, lab.seed) for arm in arms):
        return
    found = head_sums(_m3(lab, "m3", self_distillation=True), lab.world.tests)
    for arm in arms:
        results.run(arm, lab.seed, lambda arm=arm: found[arm])


def score_distillation(lab: Lab, results: Results) -> None:
    """The same mined negatives, with and without a teacher's scores: the sum of the three heads of another model."""
    tune = {"steps": 100, "batch_size": 32, "learning_rate": 5e-4, "group_size": 4}

    def taught() -> dict[str, list[Example]]:
        teacher = _m3(lab, "m3", self_distillation=True)
        result = {}
        for name, part in _mined(lab, "positive-aware", count=3, limit=4000).items():
            path = lab.work / "teacher" / f"{name}-{lab.seed}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            found = teacher_scores(
                part, lambda pairs: _fused_scores(teacher, pairs), path=path, teacher=teacher.fingerprint
            )
            result[name] = list(found.examples)
        return result

    results.run(
        "labels",
        lab.seed,
        lambda: lab.measure(lab.contrast(lab.base(), _mined(lab, "positive-aware", count=3, limit=4000), **tune)),
    )
    results.run(
        "labels and scores",
        lab.seed,
        lambda: lab.measure(
            lab.contrast(
                lab.base(), taught(), "e5_finetune_small", **{**tune, "distillation": "kl", "contrastive_weight": 0.2}
            )
        ),
    )


def _fused_scores(encoder: Encoder, pairs) -> np.ndarray:
    """Dense + 0.3 sparse + multi-vector of each pair, divided by the training temperature."""
    queries = list(dict.fromkeys(query for query, _ in pairs))
    passages = list(dict.fromkeys(passage for _, passage in pairs))
    from trine.scoring import score_mode

    left, right = encoder.encode(queries, kind="query"), encoder.encode(passages)
    total = sum(
        weight * score_mode(left, right, mode)
        for mode, weight in (("dense", 1.0), ("sparse", 0.3), ("multi_vector", 1.0))
    )
    where_q, where_p = {t: i for i, t in enumerate(queries)}, {t: i for i, t in enumerate(passages)}
    return np.array([total[where_q[query], where_p[passage]] for query, passage in pairs]) / 0.05


def mcls(lab: Lab, results: Results) -> None:
    """Statutes of thousands of tokens under a model trained on 96: its one CLS, or one every so many tokens."""

    def make() -> Scores:
        encoder = _cls(lab, "none")
        data = read_beir(lab.world.long)
        found: Scores = {}
        short = evaluate(data, encoder, systems=["dense"], metrics=[METRIC])
        found["cut at 128 tokens"] = dict(short.results[0].per_query[METRIC])
        long = extend_positions(encoder, 2048, method="tile")
        for name, model in (("CLS, 2048 tokens", long), ("MCLS every 96, 2048 tokens", with_mcls(long, every=96))):
            values = evaluate(data, model, systems=["dense"], metrics=[METRIC]).results[0].per_query[METRIC]
            found[name] = dict(values)
        return found

    results.run("mcls", lab.seed, make)


EXPERIMENTS = {
    "pretraining": (pretraining, "none"),
    "consistency": (consistency, "unfiltered"),
    "batch": (batch, "equal steps, 16"),
    "negatives": (negatives, "random"),
    "self_distillation": (self_distillation, "without"),
    "score_distillation": (score_distillation, "labels"),
    "fusion": (fusion, "multi_vector"),
    "reranker": (reranker, "fused"),
    "distillation": (distillation, "no teacher"),
    "decoders": (decoders, "causal, mean"),
    "decoders_supervised": (decoders_supervised, "causal, last token"),
    "instructions": (instructions, "none"),
    "mcls": (mcls, "mcls"),
}
"""Name -> function, and the arm that the others are compared with."""

BESIDES = {
    "self_distillation": [("with, random beginning", "without, random beginning")],
    "decoders": [
        ("bidirectional, MNTP, mean", "bidirectional, mean"),
        ("bidirectional, SimCSE, mean", "bidirectional, mean"),
        ("bidirectional, MNTP, SimCSE, mean", "bidirectional, MNTP, mean"),
        ("bidirectional, MNTP, SimCSE, mean", "bidirectional, SimCSE, mean"),
        ("bidirectional, MNTP, SimCSE, mean", "causal, SimCSE, mean"),
    ],
    "instructions": [("instruction of another source", "instruction")],
}
"""Name -> other pairs to compare: an arm, and what it is compared with."""

torch.set_num_threads(1)
