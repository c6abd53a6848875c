"""Folders of cross-encoders: CrossEncoder of any version of sentence-transformers, bare bge-reranker, and trine's own.

All hold config.json and the weights of a sequence-classification model with one label, and a tokenizer. What they say
beyond that:

* config_sentence_transformers.json with an `activation_fn` (sentence-transformers 5.4 and later), or config.json with
  `sentence_transformers.activation_fn` (4) or `sbert_ce_default_activation_function` (before): pairs are cut
  longest-first, to the length that the tokenizer or sentence_bert_config.json says.
* nothing: read as FlagEmbedding reads its bge-reranker models, with the logit for a score, pairs of 512 tokens, queries
  cut to three quarters of that and then the passage to what is left (FlagEmbedding 1.4, `FlagReranker`).
* trine_reranker.json: trine wrote it, as a CrossEncoder folder with the exact settings beside.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from trine.errors import CheckpointError
from trine.models.checkpoints.base import Checkpoint, LoadOptions
from trine.models.checkpoints.plain import read as read_plain
from trine.models.checkpoints.sentence_transformers import ACTIVATION_PATHS, ACTIVATIONS, listed_modules
from trine.models.config import Activation
from trine.models.files import fresh_folder, quiet_transformers, read_json, save_backbone, write_json
from trine.models.rerankers.pairs import RerankerConfig
from trine.tables import unknown

if TYPE_CHECKING:
    import torch

    from trine.models.reranker import Reranker

CONFIG = "trine_reranker.json"
LAYOUTS = ("native", "sentence_transformers", "bge")
BGE_MAX_LENGTH = 512
"""FlagReranker's default, though the models' positions go to 8192."""

_MODEL = "config_sentence_transformers.json"
_TASK = "sequence-classification"
_TRANSFORMER = "sentence_transformers.base.modules.transformer.Transformer"


def read_config(folder: Path, *, layout: str | None = None) -> RerankerConfig:
    """What a folder says of itself; `layout` None lets its files decide.

    Raises:
        UnknownName: no such layout.
        CheckpointError: the folder holds no cross-encoder with one label, or one that is not supported.
    """
    if layout is not None and layout not in LAYOUTS:
        raise unknown(layout, LAYOUTS, kind="reranker layout")
    chosen = layout or _layout(folder)
    _refuse_others(folder)
    if chosen == "native":
        return _read_native(folder / CONFIG)
    limit = bare(folder).config.text.max_length
    if chosen == "bge":
        length = min(BGE_MAX_LENGTH, limit)
        return RerankerConfig(
            max_length=length, truncation="only_second", query_max_length=length * 3 // 4, origin="bge"
        )
    return _read_sentence_transformers(folder, limit)


def read_model(folder: Path, *, dtype: torch.dtype) -> Any:
    """The transformer with its head.

    Raises:
        CheckpointError: files that cannot be read, or a weight, of the head or any other, that is not there, has
            another shape or is not finite.
    """
    import torch
    import transformers

    try:
        with quiet_transformers():
            model, report = transformers.AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # so that the report names them; they are refused below
                trust_remote_code=False,
            )
    except Exception as error:  # a broken file can raise anything, from OSError to SafetensorError
        raise CheckpointError(f"{folder}: the reranker cannot be loaded: {error}") from error
    wrong = [f"{key} is {tuple(found)}, should be {tuple(wanted)}" for key, found, wanted in report["mismatched_keys"]]
    wrong += [f"{key} is missing" for key in report["missing_keys"]]
    if wrong:
        raise CheckpointError(
            f"{folder}: {len(wrong)} weights do not fit config.json ({'; '.join(sorted(wrong)[:3])}); they would be "
            "random. The folder may be incomplete, or hold no reranker; Reranker.from_backbone makes one to train."
        )
    spoilt = [name for name, tensor in model.named_parameters() if not bool(torch.isfinite(tensor).all())]
    if spoilt:
        raise CheckpointError(f"{folder}: {spoilt[0]} holds NaN or infinite values")
    return model


def write(reranker: Reranker, folder: Path) -> Path:
    """Write a folder that sentence-transformers' CrossEncoder reads too; it appears only when it is complete.

    CrossEncoder cuts pairs that are too long longest-first whatever this reranker does.
    """
    config = reranker.config
    path = ACTIVATION_PATHS[config.activation]
    with fresh_folder(folder) as work:
        save_backbone(reranker.model, work)
        reranker.tokenizer.save_pretrained(work)
        # For versions before 5.4, which know neither modules.json nor the file below.
        write_json(
            work / "config.json",
            read_json(work / "config.json") | {"sentence_transformers": {"activation_fn": path, "version": "4.0.0"}},
        )
        write_json(
            work / _MODEL,
            {
                "model_type": "CrossEncoder",
                "activation_fn": path,
                "prompts": {"query": config.query_prompt} if config.query_prompt else {},
                "default_prompt_name": "query" if config.query_prompt else None,
            },
        )
        write_json(
            work / "sentence_bert_config.json",
            {
                "transformer_task": _TASK,
                "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
                "module_output_name": "scores",
                "max_seq_length": config.max_length,
            },
        )
        write_json(work / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": _TRANSFORMER}])
        (work / CONFIG).write_bytes(msgspec.json.format(msgspec.json.encode(config), indent=2) + b"\n")
    return folder


def bare(folder: Path) -> Checkpoint:
    """The folder as that of a transformer: its tokenizer, and the longest input. The pooling is of no use here."""
    return read_plain(folder, LoadOptions(pooling="cls"))


def _layout(folder: Path) -> str:
    if (folder / CONFIG).is_file():
        return "native"
    config = read_json(folder / "config.json")
    own = "sentence_transformers" in config or "sbert_ce_default_activation_function" in config
    return "sentence_transformers" if own or (folder / _MODEL).is_file() else "bge"


def _refuse_others(folder: Path) -> None:
    """Raise unless config.json describes a classifier with one label; without a list of labels there are two."""
    config = read_json(folder / "config.json")
    names = [str(name) for name in config.get("architectures") or []]
    if not any(name.endswith("ForSequenceClassification") for name in names):
        raise CheckpointError(
            f"{folder} holds no cross-encoder: config.json names the architectures {names}, none of them for sequence "
            "classification; Reranker.from_backbone puts a new head on an encoder, to be trained"
        )
    labels = len(config["id2label"]) if "id2label" in config else int(config.get("num_labels", 2))
    if labels != 1:
        raise CheckpointError(f"{folder} has {labels} labels; a reranker has one, the relevance of a passage")


def _read_native(path: Path) -> RerankerConfig:
    try:
        return msgspec.json.decode(path.read_bytes(), type=RerankerConfig)
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; the layout 'native' is what trine writes") from None
    except msgspec.MsgspecError as error:
        raise CheckpointError(f"{path}: {error}; written by another version of trine?") from error


def _read_sentence_transformers(folder: Path, limit: int) -> RerankerConfig:
    _check_modules(folder)
    model = read_json(folder / _MODEL, default={})
    name, prompts = model.get("default_prompt_name"), model.get("prompts") or {}
    if name is not None and name not in prompts:
        raise unknown(str(name), prompts, kind="prompt")
    return RerankerConfig(
        max_length=limit,
        activation=_activation(folder, model),
        query_prompt=prompts[name] if name is not None else "",
        origin="sentence_transformers",
    )


def _activation(folder: Path, model: dict[str, Any]) -> Activation:
    """Of the three places where versions have put it the newest that is filled; a sigmoid where none is."""
    config = read_json(folder / "config.json")
    path = (
        model.get("activation_fn")
        or (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
        or ACTIVATION_PATHS["sigmoid"]
    )
    # Both are torch's names of the same class.
    full = {known.rpartition(".")[2]: known for known in ACTIVATIONS}.get(str(path).removeprefix("torch.nn."), path)
    if full not in ACTIVATIONS:
        raise CheckpointError(f"{folder}: unknown activation {path!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[full]


def _check_modules(folder: Path) -> None:
    """Raise where modules.json or the transformer's settings ask for more than a classifier of pairs of texts."""
    if not (folder / "modules.json").is_file():
        return
    rows = listed_modules(folder)
    if [(row.kind, row.folder) for row in rows] != [("Transformer", folder)]:
        raise CheckpointError(
            f"{folder}/modules.json: a single Transformer at the top is supported, found {[row.kind for row in rows]}"
        )
    path = folder / "sentence_bert_config.json"
    settings = read_json(path, default={})
    if settings.get("transformer_task", _TASK) != _TASK:
        raise CheckpointError(
            f"{path}: transformer_task is {settings['transformer_task']!r}, a reranker's is {_TASK!r}"
        )
    changed = {key: settings[key] for key in ("processing_kwargs", "do_lower_case") if settings.get(key)}
    if changed:
        raise CheckpointError(f"{path}: {changed} is not supported for rerankers")
