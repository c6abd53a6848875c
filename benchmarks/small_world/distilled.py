"""A larger embedder into a small encoder: quality with and without the teacher, and what each costs; English."""

from __future__ import annotations

import random
import time
from pathlib import Path

import msgspec
import numpy as np
import transformers

from small_world.lab import CONTRASTIVE, METRIC, Lab, Results, Scores, scratch_folder
from small_world.world import normal, rows, subset
from trine.data.examples import ExampleList
from trine.evaluation.beir import read_beir
from trine.evaluation.evaluate import evaluate
from trine.models.config import Normalize, Truncate
from trine.models.encoder import Encoder
from trine.models.fresh import fresh_encoder
from trine.models.sources import DEFAULT, locate
from trine.recipes.config import recipe
from trine.recipes.teachers import TeacherVectors, teacher_vectors
from trine.recipes.training import Surroundings, train_encoder
from trine.types import Example

TESTS = {"squad-dev-en": (300, 1200), "scifact-en": (300, 1000)}
"""Test set -> queries and passages kept."""
PAIRS = {"squad_ft": 4000, "medquad": 3000, "openstax_psychology": 1000}
"""Source -> most pairs taken."""
LABELS = {"contrastive_weight": 1.0, "embedding_distillation": None}
# Squared differences of cosines are some hundredths, the contrastive loss is about 3.
GEOMETRY = {"embedding_distillation": "geometry", "embedding_distillation_weight": 100.0}
ARMS = {
    "no teacher": LABELS,
    "teacher's vectors": {
        "contrastive_weight": 0.0,
        "embedding_distillation": "cosine",
        "embedding_distillation_weight": 1.0,
    },
    "teacher's geometry": {"contrastive_weight": 0.0, **GEOMETRY},
    "labels and geometry": {**LABELS, **GEOMETRY},
    "labels and geometry, prefixes": {**LABELS, **GEOMETRY, "matryoshka": (32, 64)},
}


def distillation(lab: Lab, results: Results) -> None:
    """The same encoder, pairs and steps, with and without the default model as teacher."""
    teacher = Encoder.load(None, device="cpu")
    tests = [_test(lab, name) for name in TESTS]
    results.run("the teacher itself", lab.seed, lambda: _measured(tests, teacher))
    sources = _sources(lab, tests)
    taught = teacher_vectors(teacher, sources, folder=lab.work / "teacher-en")
    for arm, changes in ARMS.items():

        def make(arm: str = arm, changes: dict = changes) -> Scores:
            student = _student(lab, arm, changes, sources, taught)
            prefixes = changes.get("matryoshka", ())
            return _measured(tests, student) | {
                f"dense, {size} dimensions": _measured(tests, _cut(student, size))["dense"] for size in prefixes
            }

        results.run(arm, lab.seed, make)
    results.note("cost", lab.seed, _cost(lab, teacher, sources, taught))


def _student(lab: Lab, arm: str, changes: dict, sources: list[ExampleList], taught: TeacherVectors) -> Encoder:
    def make() -> Encoder:
        tokenizer = transformers.AutoTokenizer.from_pretrained(locate(DEFAULT)[0])
        shape = {"layers": 2, "hidden": 128, "heads": 4, "feed_forward": 512, "max_length": 256}
        start = fresh_encoder(tokenizer, modes=["dense"], pooling="mean", seed=lab.seed, **shape)
        chosen = recipe("distill_small", {**CONTRASTIVE, "steps": 200, "seed": lab.seed, **changes})
        needed = taught if changes["embedding_distillation"] else None
        with scratch_folder() as folder:
            around = Surroundings(folder=folder, teacher=needed)
            return train_encoder(start, sources, recipe=chosen, surroundings=around)[0]

    return lab.kept(f"student, {arm}", make)


def _cut(encoder: Encoder, size: int) -> Encoder:
    """The encoder with the first `size` dimensions of its vectors."""
    dense = encoder.config.dense
    layers = (*(layer for layer in dense.layers if not isinstance(layer, Normalize)), Truncate(size), Normalize())
    config = msgspec.structs.replace(encoder.config, dense=msgspec.structs.replace(dense, layers=layers))
    return Encoder(config, backbone=encoder.backbone, tokenizer=encoder.tokenizer, name=f"{size}").eval()


def _sources(lab: Lab, tests: list[Path]) -> list[ExampleList]:
    known = {
        normal(row["text"])[:200]
        for folder in tests
        for name in ("queries", "corpus")
        for row in rows(folder / f"{name}.jsonl")
    }
    found = []
    for name, most in PAIRS.items():
        pairs = [
            Example(query=row["query"], positives=(row["positive"],))
            for row in rows(lab.data / "pairs" / f"{name}.jsonl.xz")
            if row["lang"] == "en"
            and normal(row["query"])[:200] not in known
            and normal(row["positive"])[:200] not in known
        ]
        random.Random(0).shuffle(pairs)
        found.append(ExampleList(pairs[:most], name=name))
    return found


def _test(lab: Lab, name: str) -> Path:
    folder = lab.work / "english-tests"
    if not (folder / name / "qrels.tsv").is_file():
        queries, passages = TESTS[name]
        subset(lab.data / "eval" / f"{name}.tar.xz", folder, name, queries=queries, passages=passages)
    return folder / name


def _measured(tests: list[Path], encoder: Encoder) -> Scores:
    found: dict[str, float] = {}
    for folder in tests:
        report = evaluate(read_beir(folder), encoder, systems=["dense"], metrics=[METRIC])
        found |= {f"{folder.name}/{query}": value for query, value in report.results[0].per_query[METRIC].items()}
    return {"dense": found}


def _cost(lab: Lab, teacher: Encoder, sources: list[ExampleList], taught: TeacherVectors) -> dict[str, float]:
    """Texts a second of both, in turns, on one thread; parameters; bytes of a vector in float32."""
    student = _student(lab, "no teacher", LABELS, sources, taught)
    texts = [example.positives[0][:600] for example in list(sources[0])[:256]]
    seconds: dict[str, list[float]] = {"teacher": [], "student": []}
    for _ in range(5):
        for name, model in (("teacher", teacher), ("student", student)):
            start = time.process_time()
            model.encode(texts, modes=["dense"])
            seconds[name].append(time.process_time() - start)
    ratios = np.array(seconds["teacher"]) / np.array(seconds["student"])
    return {
        "teacher_texts_per_second": len(texts) / float(np.median(seconds["teacher"])),
        "student_texts_per_second": len(texts) / float(np.median(seconds["student"])),
        "ratio": float(np.median(ratios)),
        "ratio_low": float(ratios.min()),
        "ratio_high": float(ratios.max()),
        "teacher_parameters": sum(one.numel() for one in teacher.parameters()),
        "student_parameters": sum(one.numel() for one in student.parameters()),
    }
