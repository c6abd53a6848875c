"""Tiny random cross-encoders, as transformers and sentence-transformers of several versions leave them on disk."""

import shutil
from pathlib import Path

import transformers

from models import layouts, tiny
from trine.models.files import quiet_transformers

BACKBONES = ("bert", "xlm_roberta", "modernbert")
PAIRS = [
    (query, passage)
    for number, query in enumerate(tiny.TEXTS)
    for passage in (tiny.TEXTS[number], tiny.TEXTS[(7 * number + 3) % len(tiny.TEXTS)], tiny.TEXTS[-2])
]
"""Each text as a query with itself, another and a long one; long with long, and empty with empty, among them."""


def bare(name: str, folder: Path, *, labels: int = 1) -> Path:
    """As bge-reranker lies on the hub: a classifier and a tokenizer, and nothing said of either."""
    parts = tiny.build(name)
    parts.model.config.num_labels = labels
    model = transformers.AutoModelForSequenceClassification.from_config(parts.model.config)
    tiny.randomise(model, seed=3)
    with quiet_transformers():
        model.save_pretrained(folder)
    parts.tokenizer.save_pretrained(folder)
    return folder


def old(source: Path, target: Path, *, activation: str | None, key: str = "sentence_transformers") -> Path:
    """As versions before 5.4 wrote them: everything in config.json, under one key (4) or the other (before)."""
    shutil.copytree(source, target)
    if key == "sentence_transformers":
        said = {"version": "4.1.0"} | ({"activation_fn": activation} if activation else {})
        layouts.change(target / "config.json", sentence_transformers=said)
    else:
        layouts.change(target / "config.json", **{key: activation})
    return target


def new(source: Path, target: Path, *, activation: str, max_length: int | None = None, **model) -> Path:
    """As version 6 writes them."""
    shutil.copytree(source, target)
    layouts.write(
        target / "config_sentence_transformers.json",
        {"model_type": "CrossEncoder", "activation_fn": activation, "prompts": {}, "default_prompt_name": None} | model,
    )
    settings = {
        "transformer_task": "sequence-classification",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
        "module_output_name": "scores",
    }
    layouts.write(
        target / "sentence_bert_config.json", settings | ({"max_seq_length": max_length} if max_length else {})
    )
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    layouts.write(target / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    return target
