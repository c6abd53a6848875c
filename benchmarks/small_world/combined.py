"""Heads together, and a reranker on top: what is added to the best that one head finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np

from small_world.lab import METRIC, Lab, Results, Scores, text_of
from small_world.world import rows
from trine.curation.negatives import Mining, mine_negatives
from trine.curation.retrievers import EncoderRetriever
from trine.evaluation.beir import read_beir
from trine.evaluation.evaluate import evaluate
from trine.evaluation.metrics import measure
from trine.models.encoder import Encoder
from trine.models.reranker import Reranker
from trine.recipes.config import recipe
from trine.recipes.training import Surroundings, train_reranker
from trine.scoring import score_mode
from trine.types import MODES, Example

_WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
_DEPTH = 10
_QUERIES = 250


def head_sums(encoder: Encoder, folders: list[Path]) -> dict[str, Scores]:
    """Arm -> scores: each head; and their weighted sum, the weights of a set chosen on the other sets."""
    grid = [(dense, sparse, 1.0) for dense, sparse in itertools.product(_WEIGHTS, _WEIGHTS)]
    by_set = [_all_sums(encoder, folder, [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), *grid]) for folder in folders]
    found: dict[str, dict[str, float]] = {"dense": {}, "sparse": {}, "multi_vector": {}, "sum": {}}
    for number, (folder, values) in enumerate(zip(folders, by_set, strict=True)):
        others = [part for place, part in enumerate(by_set) if place != number]
        best = max(grid, key=lambda weights: np.mean([np.mean(list(part[weights].values())) for part in others]))
        own = {"dense": (1.0, 0.0, 0.0), "sparse": (0.0, 1.0, 0.0), "multi_vector": (0.0, 0.0, 1.0), "sum": best}
        for name, weights in own.items():
            found[name].update({f"{folder.name}/{query}": value for query, value in values[weights].items()})
    return {name: {"held out": values} for name, values in found.items()}


def _all_sums(encoder: Encoder, folder: Path, weightings: list[tuple[float, ...]]) -> dict[tuple, dict[str, float]]:
    data, texts = read_beir(folder), text_of(folder / "corpus.jsonl")
    queries = [query for query in data.queries if query.id in data.qrels]
    left = encoder.encode([query.text for query in queries], kind="query")
    right = encoder.encode(list(texts.values()))
    heads = [score_mode(left, right, mode) for mode in MODES]
    found = {}
    for weights in weightings:
        total = sum(weight * scores for weight, scores in zip(weights, heads, strict=True))
        run = {}
        for row, query in zip(total, queries, strict=True):
            best = np.argpartition(-row, 10)[:10]
            ids = list(texts)
            run[query.id] = {ids[place]: float(row[place]) for place in best}
        found[weights] = measure(run, data.qrels, metric=METRIC)
    return found


def reranker(lab: Lab, results: Results) -> None:
    """A cross-encoder over the best 10 of the fused run, alone and added to it; English, from pre-trained layers."""
    names = {"fused": "fused", "reranked": "reranked", "reranked + fused": "both"}
    if all(results.has(arm, lab.seed) for arm in names):
        return
    found = _reranked(lab, _trained(lab))
    for arm in names:
        results.run(arm, lab.seed, lambda arm=arm: {"held out": found[arm]})


def _trained(lab: Lab) -> Reranker:
    folder = lab.work / "models" / f"reranker-en-{lab.seed}"
    if not folder.is_dir():
        base = Encoder.load(None, device="cpu")
        examples = [
            Example(query=row["query"], positives=(row["positive"],))
            for row in rows(lab.data / "pairs/squad_ft.jsonl.xz")
        ]
        passages = list(dict.fromkeys(one.positives[0] for one in examples))
        settings = Mining(negatives=2, window=(1, 30), short="fill", seed=lab.seed)
        order = np.random.default_rng(lab.seed).permutation(len(examples))[:1200]
        mined = mine_negatives(
            [examples[number] for number in order], EncoderRetriever(base, passages, mode="dense"), settings=settings
        )
        chosen = recipe(
            "reranker_small",
            {
                "steps": 100,
                "batch_size": 8,
                "group_size": 3,
                "max_length": 160,
                "precision": "bfloat16",
                "seed": lab.seed,
                "save_every": 100_000,
                "evaluate_every": 100_000,
            },
        )
        start = Reranker.from_backbone(base, max_length=160, seed=lab.seed)
        around = Surroundings(folder=lab.work / "runs" / f"reranker-en-{lab.seed}")
        trained, _ = train_reranker(start, list(mined.examples), recipe=chosen, surroundings=around)
        trained.save(folder)
    return Reranker.load(folder, device="cpu")


def _reranked(lab: Lab, model: Reranker) -> dict[str, dict[str, float]]:
    folder = _english(lab)
    data, texts = read_beir(folder), text_of(folder / "corpus.jsonl")
    report = evaluate(data, Encoder.load(None, device="cpu"), systems=["all:zscore"], metrics=[METRIC])
    run = next(iter(report.runs.values()))
    asked = {query.id: query.text for query in data.queries}
    top = {query: sorted(run[query], key=lambda one: -run[query][one])[:_DEPTH] for query in run}
    scores = iter(model.score([(asked[query], texts[one]) for query in top for one in top[query]]).tolist())
    reranked = {query: {one: next(scores) for one in top[query]} for query in top}
    both = {
        query: dict(
            zip(
                top[query],
                _standard([run[query][one] for one in top[query]]) + _standard(list(reranked[query].values())),
                strict=True,
            )
        )
        for query in top
    }
    runs = {"fused": run, "reranked": reranked, "reranked + fused": both}
    return {name: measure(one, report.qrels, metric=METRIC) for name, one in runs.items()}


def _english(lab: Lab) -> Path:
    """Questions of SQuAD's development set, whose articles the training questions are not about."""
    folder = lab.work / "english"
    if not (folder / "squad-dev-en" / "qrels.tsv").is_file():
        from small_world.world import subset

        subset(lab.data / "eval" / "squad-dev-en.tar.xz", folder, "squad-dev-en", queries=_QUERIES, passages=2000)
    return folder / "squad-dev-en"


def _standard(values: list[float]) -> np.ndarray:
    array = np.array(values)
    return (array - array.mean()) / (array.std() + 1e-9)
