"""Checkpoint folders written by hand, file by file, as other libraries' own writers left them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from models.tiny import HIDDEN

SWITCHES = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""sentence-transformers' names of the poolings, now and before version 5.4, in the order of concatenation."""


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def change(path: Path, **fields: Any) -> None:
    """Overwrite fields of a JSON file; None takes a field out."""
    content = json.loads(path.read_text(encoding="utf-8")) | fields
    write(path, {key: value for key, value in content.items() if value is not None})


def old_sentence_transformers(
    source: Path,
    target: Path,
    *,
    poolings: tuple[str, ...] = ("mean",),
    include_prompt: bool = True,
    layers: tuple[dict, ...] = (),
    transformer: dict | None = None,
    transformer_file: str = "sentence_bert_config.json",
    model: dict | None = None,
) -> Path:
    """The form of sentence-transformers 2 to 5.3.

    Args:
        source: a bare transformer.
        target: where to write.
        poolings: names of `SWITCHES`.
        include_prompt: of the pooling.
        layers: {"kind": "Dense" | "Normalize" | "LayerNorm", "config": {...}, "weights": {...}}
        transformer: settings of the transformer; default: nothing said.
        transformer_file: their file's name, which followed the architecture in version 1.
        model: config_sentence_transformers.json, where there is one.
    """
    shutil.copytree(source, target)
    rows = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write(
        target / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": HIDDEN,
            **{switch: name in poolings for name, switch in SWITCHES.items()},
            "include_prompt": include_prompt,
        },
    )
    for number, layer in enumerate(layers, start=2):
        folder = target / f"{number}_{layer['kind']}"
        rows.append((folder.name, layer["kind"]))
        folder.mkdir()
        if "config" in layer:
            write(folder / "config.json", layer["config"])
        if "weights" in layer:
            save_file(layer["weights"], folder / "model.safetensors")
    write(
        target / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(rows)
        ],
    )
    if transformer is not None:
        write(target / transformer_file, transformer)
    if model is not None:
        write(target / "config_sentence_transformers.json", model)
    return target


def bge_m3(
    source: Path,
    target: Path,
    *,
    sparse: dict[str, torch.Tensor],
    colbert: dict[str, torch.Tensor],
    suffix: str = ".pt",
    with_modules: bool = True,
) -> Path:
    """BAAI/bge-m3's files; without modules.json as FlagEmbedding leaves them after training."""
    if with_modules:
        old_sentence_transformers(source, target, poolings=("cls",), layers=({"kind": "Normalize"},))
    else:
        shutil.copytree(source, target)
    for stem, tensors in (("sparse_linear", sparse), ("colbert_linear", colbert)):
        if suffix == ".pt":
            torch.save(tensors, target / f"{stem}.pt")
        else:
            save_file(tensors, target / f"{stem}{suffix}")
    return target
