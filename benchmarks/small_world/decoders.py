"""A decoder trained from scratch becomes an embedder: the stages of LLM2Vec, labelled pairs, instructions."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace

import msgspec
import numpy as np
import transformers

from small_world.lab import CONTRASTIVE, METRIC, Lab, Results, Scores, scratch_folder, text_of
from trine.data.examples import ExampleList, open_examples
from trine.evaluation.beir import read_beir
from trine.evaluation.metrics import measure
from trine.models.config import DenseConfig
from trine.models.encoder import Encoder
from trine.models.fresh import fresh_encoder
from trine.recipes.config import PretrainingRecipe, recipe
from trine.recipes.pretraining import pretrain
from trine.recipes.start import attending
from trine.recipes.training import Surroundings, train_encoder
from trine.types import Example

SHAPE = {"layers": 2, "hidden": 128, "heads": 4, "feed_forward": 384, "max_length": 128, "architecture": "llama"}
POOLINGS = ("last_token", "mean", "weighted_mean")
STS = "klue-sts-dev-ko"
ALL_WEIGHTS = {"lora_rank": 0, "lora_alpha": None, "lora_dropout": 0.0}
"""In place of adapters, which leave out the embeddings: three quarters of these weights."""
TEXT = {"batch_size": 16, "max_length": 128, "chunk_tokens": 2048, "save_every": 100_000}
NEXT_TOKEN = {"objective": "next_token", "attention": None}
LANGUAGE_STEPS, MNTP_STEPS = 900, 200
SIMCSE = {
    **ALL_WEIGHTS,
    "steps": 100,
    "learning_rate": 1e-3,
    "query_length": 32,
    "passage_length": 32,
    "cached": False,
    "save_every": 100_000,
}
LABELLED = {
    **CONTRASTIVE,
    **ALL_WEIGHTS,
    "steps": 100,
    "batch_size": 32,
    "group_size": 1,
    "learning_rate": 1e-3,
    "query_length": 48,
    "precision": "float32",
}
TEMPLATE = "지시: {instruction}\n질의: "
INSTRUCTIONS = {
    "kolaw": "법령의 조문을 찾기",
    "msdocs_vs_ko_ht": "제품 설명서의 내용을 찾기",
    "msdocs_dynamics_ko": "제품 설명서의 내용을 찾기",
    "kobest_boolq_ft": "질문에 답하는 문단을 찾기",
}
"""By source of the training pairs."""
SOURCES = {"kolaw-article-ko": "kolaw", "msdocs-ko": "msdocs_dynamics_ko", "kobest-boolq-ko": "kobest_boolq_ft"}
"""Test set -> the source whose task it has."""


def decoders(lab: Lab, results: Results) -> None:
    """Without labels: what the mask, MNTP and SimCSE do, under three poolings."""
    models = {
        "random weights": lambda: _fresh(lab),
        "causal": lambda: _language_model(lab),
        "causal, as long": lambda: _longer(lab),
        "bidirectional": lambda: _switched(lab),
        "bidirectional, MNTP": lambda: _mntp(lab),
    }
    for name, make in models.items():
        _every_pooling(lab, results, name, make)
    starts = {"causal": _language_model, "bidirectional": _switched, "bidirectional, MNTP": _mntp}
    for name, start in starts.items():

        def simcse(name: str = name, start: Callable[[Lab], Encoder] = start) -> Scores:
            return _measured(lab, _simcse(lab, name, start))["mean"]

        results.run(f"{name}, SimCSE, mean", lab.seed, simcse)


def decoders_supervised(lab: Lab, results: Results) -> None:
    """The same labelled pairs from every start; no instruction."""
    for name, (_, pooling) in _starts().items():

        def make(name: str = name, pooling: str = pooling) -> Scores:
            return _measured(lab, _labelled(lab, name))[pooling]

        results.run(name, lab.seed, make)


def instructions(lab: Lab, results: Results) -> None:
    """An instruction for each source in front of the queries, or none; and that of another source."""
    chosen = {"causal, last token": "last_token", "bidirectional, MNTP, mean": "mean"}
    own = {name: TEMPLATE.format(instruction=INSTRUCTIONS[source]) for name, source in SOURCES.items()}
    names = list(own)
    other = {name: own[names[number - 1]] for number, name in enumerate(names)}
    arms: dict[str, tuple[bool, Mapping[str, str]]] = {
        "none": (False, {}),
        "instruction": (True, own),
        "instruction of another source": (True, other),
    }
    for arm, (instructed, prompts) in arms.items():

        def make(instructed: bool = instructed, prompts: Mapping[str, str] = prompts) -> Scores:
            found: Scores = {}
            for name, pooling in chosen.items():
                scores = _measured(lab, _labelled(lab, name, instructed=instructed), prompts=prompts)[pooling]
                found.update({f"{name}: {system}": values for system, values in scores.items() if "STS" not in system})
            return found

        results.run(arm, lab.seed, make)


def _every_pooling(lab: Lab, results: Results, name: str, make: Callable[[], Encoder]) -> None:
    arms = {f"{name}, {pooling.replace('_', ' ')}": pooling for pooling in POOLINGS}
    if all(results.has(arm, lab.seed) for arm in arms):
        return
    found = _measured(lab, make())
    for arm, pooling in arms.items():
        results.run(arm, lab.seed, lambda pooling=pooling: found[pooling])


# -- models ------------------------------------------------------------------------------------------------------------


def _fresh(lab: Lab) -> Encoder:
    tokenizer = transformers.AutoTokenizer.from_pretrained(lab.world.tokenizer)
    tokenizer.bos_token, tokenizer.eos_token = tokenizer.cls_token, tokenizer.sep_token
    return fresh_encoder(tokenizer, modes=["dense"], pooling="mean", seed=lab.seed, **SHAPE)


def _on_text(lab: Lab, start: Encoder, **settings) -> Encoder:
    chosen = recipe("llm2vec_mntp_small", {**TEXT, "seed": lab.seed, **settings})
    assert isinstance(chosen, PretrainingRecipe)
    with scratch_folder() as folder:
        source = open_examples(lab.world.text)
        return pretrain(start, [source], recipe=chosen, surroundings=Surroundings(folder=folder))[0]


def _language_model(lab: Lab) -> Encoder:
    def make() -> Encoder:
        settings = {**NEXT_TOKEN, **ALL_WEIGHTS, "steps": LANGUAGE_STEPS, "learning_rate": 2e-3}
        return _on_text(lab, _fresh(lab), **settings)

    return lab.kept("decoder", make)


def _longer(lab: Lab) -> Encoder:
    """The control of MNTP: as many steps more, of what the decoder did before."""
    settings = {**NEXT_TOKEN, "steps": MNTP_STEPS, "seed": lab.seed + 100}
    return lab.kept("decoder-as-long", lambda: _on_text(lab, _language_model(lab), **settings))


def _switched(lab: Lab) -> Encoder:
    return attending(_language_model(lab), recipe("llm2vec_simcse_small", {"attention_dropout": None}))


def _mntp(lab: Lab) -> Encoder:
    settings = {"steps": MNTP_STEPS, "seed": lab.seed + 100}
    return lab.kept("decoder-mntp", lambda: _on_text(lab, _language_model(lab), **settings))


def _simcse(lab: Lab, name: str, start: Callable[[Lab], Encoder]) -> Encoder:
    def make() -> Encoder:
        encoder = start(lab)
        settings = {**SIMCSE, "attention": encoder.config.attention, "seed": lab.seed}
        chosen = recipe("llm2vec_simcse_small", settings)
        with scratch_folder() as folder:
            source = open_examples(lab.world.text)
            return train_encoder(encoder, [source], recipe=chosen, surroundings=Surroundings(folder=folder))[0]

    return lab.kept(f"decoder-simcse-{name}", make)


def _starts() -> dict[str, tuple[Callable[[Lab], Encoder], str]]:
    return {
        "random weights, mean": (_fresh, "mean"),
        "causal, last token": (_language_model, "last_token"),
        "causal, mean": (_language_model, "mean"),
        "bidirectional, mean": (_switched, "mean"),
        "bidirectional, MNTP, mean": (_mntp, "mean"),
    }


def _labelled(lab: Lab, name: str, *, instructed: bool = False) -> Encoder:
    start, pooling = _starts()[name]

    def make() -> Encoder:
        pairs = lab.pairs()
        if instructed:
            pairs = {source: _with_instruction(part, source) for source, part in pairs.items()}
        encoder = start(lab)
        settings = {**LABELLED, "pooling": pooling, "attention": encoder.config.attention, "seed": lab.seed}
        chosen = recipe("llm2vec_supervised_small", settings)
        sources = [ExampleList(part, name=source) for source, part in pairs.items()]
        with scratch_folder() as folder:
            return train_encoder(encoder, sources, recipe=chosen, surroundings=Surroundings(folder=folder))[0]

    return lab.kept(f"decoder-labelled-{name}{', instructed' if instructed else ''}", make)


def _with_instruction(part: list[Example], source: str) -> list[Example]:
    prompt = TEMPLATE.format(instruction=INSTRUCTIONS[source])
    return [replace(one, query_prompt=prompt) for one in part]


# -- measuring ---------------------------------------------------------------------------------------------------------


def _measured(lab: Lab, encoder: Encoder, *, prompts: Mapping[str, str] | None = None) -> dict[str, Scores]:
    """Pooling -> scores, from one pass: among a set's own passages, among those of all sets, and on sentence pairs."""
    dense = DenseConfig(pooling=POOLINGS, include_prompt=False)
    config = msgspec.structs.replace(encoder.config, dense=dense)
    wide = Encoder(config, backbone=encoder.backbone, tokenizer=encoder.tokenizer).eval()
    sets = [_Set(lab, wide, folder, (prompts or {}).get(folder.name, "")) for folder in lab.world.tests]
    first, second, gold = _sentence_pairs(lab)
    left, right = _vectors(wide, first), _vectors(wide, second)
    return {
        pooling: {
            "own passages": _ranked(sets, pooling, together=False),
            "all passages": _ranked(sets, pooling, together=True),
            "STS (Spearman)": _agreement((left[pooling] * right[pooling]).sum(1), gold),
        }
        for pooling in POOLINGS
    }


class _Set:
    """One test set in vectors."""

    def __init__(self, lab: Lab, encoder: Encoder, folder, prompt: str) -> None:
        data, texts = read_beir(folder), text_of(folder / "corpus.jsonl")
        self.name, self.qrels = folder.name, {f"{folder.name}/{key}": value for key, value in data.qrels.items()}
        asked = [query for query in data.queries if query.id in data.qrels]
        self.queries = [f"{folder.name}/{query.id}" for query in asked]
        self.passages = list(texts)
        self.left = _vectors(encoder, [query.text for query in asked], kind="query", prompt=prompt)
        self.right = _vectors(encoder, list(texts.values()))


def _ranked(sets: list[_Set], pooling: str, *, together: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in sets:
        among = sets if together else [one]
        # Passages of other sets answer nothing; their names must only differ.
        names = [name if part is one else f"{part.name}/{name}" for part in among for name in part.passages]
        scores_QP = one.left[pooling] @ np.concatenate([part.right[pooling] for part in among]).T
        run = {}
        for query, row in zip(one.queries, scores_QP, strict=True):
            run[query] = {names[place]: float(row[place]) for place in np.argpartition(-row, 10)[:10]}
        found |= measure(run, one.qrels, metric=METRIC)
    return found


def _vectors(encoder: Encoder, texts: list[str], **options) -> dict[str, np.ndarray]:
    """Pooling -> vectors of unit length."""
    parts = np.split(encoder.encode(texts, **{"prompt": "", **options}).dense, len(POOLINGS), axis=1)
    return {
        pooling: part / np.linalg.norm(part, axis=1, keepdims=True)
        for pooling, part in zip(POOLINGS, parts, strict=True)
    }


def _sentence_pairs(lab: Lab) -> tuple[list[str], list[str], np.ndarray]:
    with tarfile.open(lab.data / "eval" / f"{STS}.tar.xz") as tar:
        name = next(name for name in tar.getnames() if name.endswith("pairs.jsonl"))
        content = tar.extractfile(name)
        assert content is not None
        rows = [json.loads(line) for line in content.read().decode().splitlines()]
    return [row["sentence1"] for row in rows], [row["sentence2"] for row in rows], np.array([r["score"] for r in rows])


def _agreement(scores: np.ndarray, gold: np.ndarray) -> dict[str, float]:
    """Each pair's share of Spearman's correlation: the product of both standardised ranks, whose mean it is."""
    standard = []
    for values in (scores, gold):
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        ranks = (np.cumsum(count) - (count - 1) / 2)[place]
        standard.append((ranks - ranks.mean()) / ranks.std())
    return {f"{STS}/{number}": float(share) for number, share in enumerate(standard[0] * standard[1])}
