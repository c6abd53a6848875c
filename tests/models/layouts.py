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


# -- language models as embedders --------------------------------------------------------------------------------------


def both_ends(folder: Path, *, tokenizer: str = "LlamaTokenizer") -> None:
    """Both ends asked for in tokenizer_config.json, as e5-mistral's, bge-en-icl's and bge-multilingual-gemma2's
    repositories have it. The tiny Mistral's template in tokenizer.json puts only <s>, as the first two's does."""
    change(folder / "tokenizer_config.json", tokenizer_class=tokenizer, add_bos_token=True, add_eos_token=True)


def e5_mistral(source: Path, target: Path) -> Path:
    """intfloat/e5-mistral-7b-instruct: a sentence-transformers folder whose prompts are named after tasks."""
    old_sentence_transformers(
        source,
        target,
        poolings=("lasttoken",),
        layers=({"kind": "Normalize"},),
        model={"prompts": {"web_search_query": WEB_SEARCH, "sts_query": "Instruct: Retrieve similar text\nQuery: "}},
    )
    both_ends(target)
    return target


WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery: "


def qwen3_embedding(source: Path, target: Path) -> Path:
    """Qwen/Qwen3-Embedding-*: no space behind "Query:", an empty prompt for passages, padding on the left."""
    old_sentence_transformers(
        source,
        target,
        poolings=("lasttoken",),
        layers=({"kind": "Normalize"},),
        model={
            "prompts": {"query": WEB_SEARCH.removesuffix(" "), "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
    )
    change(target / "tokenizer_config.json", padding_side="left")
    return target


def embeddinggemma(source: Path, target: Path) -> Path:
    """google/embeddinggemma-300m: Gemma 3 made bidirectional by its own switch, two dense layers, prompts by task."""
    generator = torch.Generator().manual_seed(3)
    wide = 3 * HIDDEN
    dense = [
        {
            "kind": "Dense",
            "config": {
                "in_features": size[1],
                "out_features": size[0],
                "bias": False,
                "activation_function": "torch.nn.modules.linear.Identity",
            },
            "weights": {"linear.weight": torch.randn(size, generator=generator) * 0.2},
        }
        for size in ((wide, HIDDEN), (HIDDEN, wide))
    ]
    old_sentence_transformers(
        source,
        target,
        layers=(*dense, {"kind": "Normalize"}),
        model={
            "prompts": {
                "query": "task: search result | query: ",
                "document": "title: none | text: ",
                "STS": "task: sentence similarity | query: ",
            },
            "default_prompt_name": None,
        },
    )
    change(target / "config.json", use_bidirectional_attention=True)
    return target


def bge_icl(source: Path, target: Path) -> Path:
    """BAAI/bge-en-icl: a bare Mistral with both ends asked for."""
    shutil.copytree(source, target)
    both_ends(target)
    return target


def bge_gemma2(source: Path, target: Path) -> Path:
    """BAAI/bge-multilingual-gemma2: a bare Gemma 2 with both ends asked for."""
    shutil.copytree(source, target)
    both_ends(target, tokenizer="GemmaTokenizer")
    return target


def gritlm(source: Path, target: Path) -> Path:
    """GritLM/GritLM-7B: a bare Mistral of the causal-LM kind; its own modelling code is not needed."""
    shutil.copytree(source, target)
    change(
        target / "config.json",
        sliding_window=None,
        auto_map={"AutoModel": "modeling_gritlm7b.MistralModel", "AutoModelForCausalLM": "modeling_gritlm7b.Mistral"},
    )
    return target


def adapter(source: Path, target: Path, *, base: str, seed: int, rank: int = 4, **settings: Any) -> Path:
    """A LoRA adapter on all linear layers of a transformer, as peft saves it.

    Args:
        source: the transformer.
        target: where to write.
        base: base_model_name_or_path.
        seed: of the matrices, neither of which is zero.
        rank: r
        settings: further fields of adapter_config.json.
    """
    from safetensors.torch import load_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for key, weight in sorted(load_file(source / "model.safetensors").items()):
        if "_proj." in key:
            path = f"base_model.model.{key.removeprefix('model.').removesuffix('.weight')}"
            rows, columns = weight.shape
            tensors[f"{path}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) * 0.3
            tensors[f"{path}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) * 0.3
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / "adapter_model.safetensors", metadata={"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": 8,
        "lora_dropout": 0.05,
        "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        "bias": "none",
        "inference_mode": True,
    }
    write(target / "adapter_config.json", config | settings)
    return target


def llm2vec(source: Path, root: Path, *, known_as: str = "mistralai/Mistral-7B-Instruct-v0.2") -> tuple[Path, Path]:
    """McGill-NLP/LLM2Vec-*-mntp and *-supervised, beside the base model in `root`; `known_as` decides the chat turn."""
    base = shutil.copytree(source, root / "base")
    change(base / "config.json", sliding_window=None)
    first = adapter(base, root / "mntp", base="../base", seed=1)
    config = json.loads((base / "config.json").read_text())
    write(
        first / "config.json",
        config | {"_name_or_path": known_as, "auto_map": {"AutoModel": "modeling.MistralEncoderModel"}},
    )
    for path in base.glob("tokenizer*"):
        shutil.copy(path, first)
    # Its files name the bare model, though it was trained on the merged one.
    second = adapter(base, root / "supervised", base="../base", seed=2)
    return first, second
