"""SPLADE checkpoints in sentence-transformers' `SparseEncoder` layout, old and new; a sparse head only.

Inference-free models are told by a router: their queries are looked up in a table, their passages go through the
transformer. A folder without modules.json, such as those of the first SPLADE models, is read where
``layout="splade"`` asks for it.

Sources: SPLADE v2 (arXiv 2109.10086), OpenSearch's inference-free models (arXiv 2411.04403, 2504.14839).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from trine.errors import CheckpointError
from trine.models.checkpoints import sentence_transformers as dense_layout
from trine.models.checkpoints.base import Checkpoint, LoadOptions, refuse_pooling, sequence_limit
from trine.models.checkpoints.sentence_transformers import Module, listed_modules, transformer_settings
from trine.models.config import EncoderConfig, SparseConfig, TextConfig
from trine.models.files import read_json, read_tensors
from trine.tables import unknown

if TYPE_CHECKING:
    from torch import Tensor

Pooling = Literal["max", "sum"]
POOLINGS: dict[str, Pooling] = {"max": "max", "sum": "sum"}
LOG1P = {"relu": 1, "log1p_relu": 2}
"""Activation -> how often log(1 + x) follows the ReLU."""
OWN_MODULES = frozenset({"MLMTransformer", "SpladePooling", "SparseStaticEmbedding", "SparseAutoEncoder"})
ROUTERS = frozenset({"Router", "Asym"})
UNLIMITED = 2**31 - 1


class Routes(NamedTuple):
    """The modules of an inference-free model."""

    query: list[Module]
    document: list[Module]


def matches(folder: Path) -> bool:
    """Whether the folder calls itself a SparseEncoder, or lists modules that only sparse models have."""
    named = read_json(folder / "config_sentence_transformers.json", default={}).get("model_type")
    if named is not None or not (folder / "modules.json").is_file():
        return bool(named == "SparseEncoder")
    return bool(OWN_MODULES & _kinds(folder))


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Read a sparse model; `pooling` ("max", the default, or "sum") may be told of a folder without modules.json."""
    if not (folder / "modules.json").is_file():
        return _read_bare(folder, options)
    refuse_pooling(options, folder)
    rows = listed_modules(folder)
    if "SparseAutoEncoder" in (row.kind for row in rows):
        raise CheckpointError(
            f"{folder} sparsifies a dense embedding (SparseAutoEncoder); its dimensions are no vocabulary, so trine "
            "has no head for it"
        )
    limit = read_json(folder / "config_sentence_transformers.json", default={}).get("max_active_dims")
    if limit:
        raise CheckpointError(f"{folder}: max_active_dims {limit} keeps the largest weights only; not supported")
    if rows and rows[0].kind in ROUTERS and len(rows) == 1:
        return _read_router(folder, rows[0])
    transformer, pooling = _pair(rows, folder / "modules.json")
    sparse = _masked_lm(transformer, pooling)
    text = dense_layout.read_text(folder, transformer.folder)
    return Checkpoint(EncoderConfig(text=text, sparse=sparse), backbone=transformer.folder)


def _kinds(folder: Path) -> set[str]:
    rows = read_json(folder / "modules.json")
    types = [str(row["type"]) for row in rows]
    for row in rows:
        if _kind(str(row["type"])) in ROUTERS:
            types += _router_config(folder / str(row["path"]))["types"].values()
    return {_kind(name) for name in types}


def _kind(type_path: str) -> str:
    return type_path.rpartition(".")[2]


def _pair(rows: list[Module], listing: Path) -> tuple[Module, Module]:
    kinds = [row.kind for row in rows]
    if len(rows) != 2 or rows[0].kind not in ("Transformer", "MLMTransformer") or rows[1].kind != "SpladePooling":
        raise CheckpointError(f"{listing}: expected a Transformer and a SpladePooling, found {kinds}")
    return rows[0], rows[1]


def _masked_lm(transformer: Module, pooling: Module) -> SparseConfig:
    transformer_settings(transformer, task="fill-mask")
    path = pooling.folder / "config.json"
    config = read_json(path)
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    for name, value, known in (("pooling_strategy", strategy, POOLINGS), ("activation_function", activation, LOG1P)):
        if value not in known:
            raise CheckpointError(f"{path}: unknown {name} {value!r}; known: {', '.join(known)}")
    # Special tokens keep their weights: sentence-transformers drops none, and the models were trained so.
    return SparseConfig(
        source="masked_lm",
        width=_vocabulary_size(transformer.folder),
        pooling=POOLINGS[strategy],
        log1p=LOG1P[activation],
    )


def _vocabulary_size(backbone: Path) -> int:
    return int(read_json(backbone / "config.json")["vocab_size"])


# -- without modules.json --------------------------------------------------------------------------------------------


def _read_bare(folder: Path, options: LoadOptions) -> Checkpoint:
    config = read_json(folder / "config.json")
    architectures = config.get("architectures") or []
    if not any(str(name).endswith("ForMaskedLM") for name in architectures):
        raise CheckpointError(
            f"{folder} is no SPLADE checkpoint: it has no modules.json, and config.json names the architectures "
            f"{architectures}, none of them for masked language modelling"
        )
    pooling = options.pooling or "max"
    if pooling not in POOLINGS:
        raise unknown(pooling, POOLINGS, kind="SPLADE pooling")
    return Checkpoint(
        EncoderConfig(
            text=TextConfig(max_length=sequence_limit(folder, folder)),
            sparse=SparseConfig(source="masked_lm", width=_vocabulary_size(folder), pooling=POOLINGS[pooling]),
        ),
        backbone=folder,
    )


# -- inference-free --------------------------------------------------------------------------------------------------


def _read_router(folder: Path, router: Module) -> Checkpoint:
    routes = _routes(router.folder)
    transformer, pooling = _pair(routes.document, _router_file(router.folder))
    kinds = [row.kind for row in routes.query]
    if kinds != ["SparseStaticEmbedding"]:
        raise CheckpointError(
            f"{_router_file(router.folder)}: the query route is {kinds}; supported is one SparseStaticEmbedding"
        )
    static = routes.query[0].folder
    sparse = _masked_lm(transformer, pooling)
    _same_tokenizer(static, transformer.folder)
    limit = read_json(static / "tokenizer_config.json", default={}).get("model_max_length") or UNLIMITED
    text = msgspec.structs.replace(
        dense_layout.read_text(folder, transformer.folder),
        query_max_length=int(min(limit, UNLIMITED)),
        query_special_tokens=False,
    )
    config = EncoderConfig(text=text, sparse=msgspec.structs.replace(sparse, query_source="static"))
    table = _static_weights(static, width=sparse.width)
    return Checkpoint(config, backbone=transformer.folder, head_weights={"sparse.table": table})


def _router_file(folder: Path) -> Path:
    current = folder / "router_config.json"
    return current if current.is_file() else folder / "config.json"


def _router_config(folder: Path) -> dict[str, Any]:
    path = _router_file(folder)
    config = read_json(path)
    if not isinstance(config, dict) or not {"types", "structure"} <= config.keys():
        raise CheckpointError(f"{path}: expected types and structure of a Router")
    return config


def _routes(folder: Path) -> Routes:
    path, config = _router_file(folder), _router_config(folder)
    structure = config["structure"]
    if structure.keys() != {"query", "document"} or (config.get("parameters") or {}).get("route_mappings"):
        raise CheckpointError(
            f"{path}: expected the routes query and document and no route_mappings, found the routes "
            f"{sorted(structure)}"
        )
    known = {
        name: dense_layout.module(str(type_path), name, listing=path) for name, type_path in config["types"].items()
    }
    missing = sorted({name for names in structure.values() for name in names} - known.keys())
    if missing:
        raise CheckpointError(f"{path}: no types are given for {missing}")
    return Routes(*([known[name] for name in structure[route]] for route in Routes._fields))


def _same_tokenizer(static: Path, transformer: Path) -> None:
    """Refuse two vocabularies: weights of queries and passages would belong to different words."""
    ours, theirs = (read_json(folder / "tokenizer.json") for folder in (static, transformer))
    # Truncation and padding are left over from the last call before saving; special tokens are not added to queries.
    parts = (ours.keys() | theirs.keys()) - {"truncation", "padding", "post_processor"}
    different = sorted(part for part in parts if ours.get(part) != theirs.get(part))
    if different:
        raise CheckpointError(
            f"{static / 'tokenizer.json'} and {transformer / 'tokenizer.json'} differ in {', '.join(different)}; "
            "queries and passages must share one tokenizer"
        )


def _static_weights(folder: Path, *, width: int) -> Tensor:
    import torch

    source = read_json(folder / "config.json", default={}).get("path")
    if source is not None:
        raise CheckpointError(
            f"{folder}/config.json: the query weights are in {source!r}, which trine does not read; load and save the "
            "model with sentence-transformers, which writes model.safetensors"
        )
    tensors = read_tensors(folder / "model.safetensors", folder / "pytorch_model.bin")
    if tensors.keys() != {"weight"} or tensors["weight"].ndim != 1 or len(tensors["weight"]) > width:
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        raise CheckpointError(f"{folder}: expected one weight for each of {width} tokens, found {shapes}")
    # One weight for each entry of the tokenizer; models pad their vocabulary to a round number beyond it.
    weight = tensors["weight"].float()
    return torch.nn.functional.pad(weight, (0, width - len(weight)))
