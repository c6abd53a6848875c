"""sentence-transformers folders, of version 2 to 6: a transformer, a pooling, then dense, norm and other layers.

The writer keeps to the form of version 5 and before, which every version since 2 reads; version 5.3 knows no
truncate_dim in it, and pools CLS whatever `include_prompt` says.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trine.errors import CheckpointError, UsageError
from trine.models import config as schema
from trine.models.checkpoints.base import Checkpoint, LoadOptions, refuse_pooling, sentence_settings, sequence_limit
from trine.models.config import DenseConfig, EncoderConfig, Layer, Pooling, TextConfig
from trine.models.files import fresh_folder, read_json, read_tensors, save_backbone, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from trine.models.encoder import Encoder

OLD_POOLINGS: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
"""In the order in which several are concatenated."""
NEW_POOLINGS: dict[str, Pooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
ACTIVATIONS: dict[str, schema.Activation] = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}
TASKS = ("feature-extraction", "fill-mask")
"""Transformer tasks whose output is one state, or one row of logits, a token."""
ACTIVATION_PATHS = {name: path for path, name in ACTIVATIONS.items()}


class Module(NamedTuple):
    """One line of modules.json."""

    kind: str
    """Last part of the class path."""
    folder: Path


class Layers(NamedTuple):
    """Layers with their weights, named as in the encoder."""

    layers: tuple[Layer, ...]
    weights: dict[str, Tensor]


def matches(folder: Path) -> bool:
    """Whether there is a modules.json."""
    return (folder / "modules.json").is_file()


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Read a dense model."""
    refuse_pooling(options, folder)
    return read_dense(folder)


def read_dense(folder: Path) -> Checkpoint:
    """The dense part of a folder with a modules.json."""
    transformer, *rest = modules(folder)
    if not rest or rest[0].kind != "Pooling":
        raise CheckpointError(
            f"{folder}/modules.json: expected Transformer, Pooling, then layers; "
            f"found {[row.kind for row in (transformer, *rest)]}"
        )
    transformer_settings(transformer, task="feature-extraction")
    pooling = read_json(rest[0].folder / "config.json")
    _check_chain(rest[1:])
    layers, weights = read_layers(rest[1:], prefix="dense.layers.")
    cut = read_json(folder / "config_sentence_transformers.json", default={}).get("truncate_dim")
    config = EncoderConfig(
        text=read_text(folder, transformer.folder),
        dense=DenseConfig(
            pooling=_poolings(pooling, rest[0].folder),
            layers=(*layers, schema.Truncate(int(cut))) if cut else layers,
            include_prompt=bool(pooling.get("include_prompt", True)),
        ),
    )
    return Checkpoint(config, backbone=transformer.folder, head_weights=weights)


def _check_chain(rows: list[Module]) -> None:
    """Raise where a module after the pooling reads or writes anything but the text's one vector."""
    for row in rows:
        config = read_json(row.folder / "config.json", default={})
        for key in ("module_input_name", "module_output_name"):
            if (config.get(key) or "sentence_embedding") != "sentence_embedding":
                raise CheckpointError(f"{row.folder}/config.json: {key} is {config[key]!r}, not the pooled vector")


def modules(folder: Path) -> list[Module]:
    """modules.json, the transformer first.

    Raises:
        CheckpointError: a class that is not sentence-transformers' own, or no transformer in front.
    """
    result = listed_modules(folder)
    if not result or result[0].kind not in ("Transformer", "MLMTransformer"):
        raise CheckpointError(
            f"{folder}/modules.json: the first module is {result[0].kind if result else 'missing'}, not a Transformer"
        )
    return result


def listed_modules(folder: Path) -> list[Module]:
    """modules.json, whatever stands in front.

    Raises:
        CheckpointError: a class that is not sentence-transformers' own.
    """
    path = folder / "modules.json"
    rows = sorted(read_json(path), key=lambda row: int(row["idx"]))
    return [module(str(row["type"]), str(row["path"]), listing=path) for row in rows]


def module(type_path: str, path: str, *, listing: Path) -> Module:
    """One module out of the file `listing`, in whose folder its own folder `path` lies.

    Raises:
        CheckpointError: a class that is not sentence-transformers' own, or a folder outside the checkpoint.
    """
    package, _, kind = type_path.rpartition(".")
    if package.split(".")[0] not in ("sentence_transformers", "pylate"):
        raise CheckpointError(f"{listing}: {type_path} is code of the checkpoint's own, which trine does not run")
    if Path(path).is_absolute() or ".." in Path(path).parts:
        raise CheckpointError(f"{listing}: the path {path!r} leads out of the checkpoint")
    return Module(kind, listing.parent / path)


def transformer_settings(transformer: Module, *, task: str) -> dict[str, Any]:
    """sentence_bert_config.json of a transformer that must do `task`: "feature-extraction" or "fill-mask".

    Raises:
        CheckpointError: it does another task, hands on another output, or changes how texts are processed.
    """
    path = transformer.folder / "sentence_bert_config.json"
    settings: dict[str, Any] = read_json(path, default={})
    found = settings.get("transformer_task", "fill-mask" if transformer.kind == "MLMTransformer" else TASKS[0])
    if found != task:
        raise CheckpointError(f"{path}: transformer_task is {found!r}, but the modules behind it want {task!r}")
    expected = "logits" if task == "fill-mask" else "last_hidden_state"
    text = (settings.get("modality_config") or {}).get("text") or {}
    output = text.get("method_output_name", expected)
    if output not in (expected, [expected]):
        raise CheckpointError(f"{path}: hands on the output {output!r}; trine reads {expected!r} only")
    changed = {key: value for key, value in (settings.get("processing_kwargs") or {}).items() if value}
    if changed.keys() & {"text", "common"}:
        raise CheckpointError(f"{path}: processing_kwargs {changed} are not supported")
    return settings


def read_text(folder: Path, transformer: Path) -> TextConfig:
    """Length, case and prompts."""
    settings = sentence_settings(transformer)
    model = read_json(folder / "config_sentence_transformers.json", default={})
    prompts = {key: value for key, value in (model.get("prompts") or {}).items() if isinstance(value, str)}
    passage = next((prompts[key] for key in ("document", "passage", "corpus") if key in prompts), None)
    return TextConfig(
        max_length=sequence_limit(transformer, transformer),
        query_max_length=settings.get("query_length"),
        passage_max_length=settings.get("document_length"),
        prompts=prompts if passage is None else {**prompts, "passage": passage},
        default_prompt=model.get("default_prompt_name"),
        lower_case=bool(settings.get("do_lower_case", False)),
    )


def read_layers(rows: list[Module], *, prefix: str) -> Layers:
    """Layers behind the pooling (or behind the token states), and their weights named under `prefix`."""
    layers: list[Layer] = []
    weights: dict[str, Tensor] = {}
    for row in rows:
        if row.kind == "Dropout":
            continue  # does nothing outside training
        reader = READERS.get(row.kind)
        if reader is None:
            raise CheckpointError(
                f"{row.folder}: modules of the kind {row.kind} are not supported; known: {', '.join(READERS)}"
            )
        layer, tensors = reader(row.folder)
        weights |= {f"{prefix}{len(layers)}.{name}": tensor for name, tensor in tensors.items()}
        layers.append(layer)
    return Layers(tuple(layers), weights)


def _read_projection(folder: Path) -> tuple[Layer, dict[str, Tensor]]:
    config = read_json(folder / "config.json")
    path = config.get("activation_function", ACTIVATION_PATHS["tanh"])
    if path not in ACTIVATIONS:
        raise CheckpointError(f"{folder}/config.json: unknown activation {path!r}; known: {', '.join(ACTIVATIONS)}")
    tensors = read_tensors(folder / "model.safetensors", folder / "pytorch_model.bin")
    layer = schema.Projection(
        in_features=int(config["in_features"]),
        out_features=int(config["out_features"]),
        bias=bool(config.get("bias", True)),
        activation=ACTIVATIONS[path],
        residual=bool(config.get("use_residual", False)),
    )
    return layer, {name.replace("residual.", "shortcut."): tensor for name, tensor in tensors.items()}


def _read_normalize(folder: Path) -> tuple[Layer, dict[str, Tensor]]:
    return schema.Normalize(), {}


def _read_layer_norm(folder: Path) -> tuple[Layer, dict[str, Tensor]]:
    tensors = read_tensors(folder / "model.safetensors", folder / "pytorch_model.bin")
    layer = schema.LayerNorm(size=int(read_json(folder / "config.json")["dimension"]))
    return layer, {name.removeprefix("norm."): tensor for name, tensor in tensors.items()}


READERS: dict[str, Callable[[Path], tuple[Layer, dict[str, Tensor]]]] = {
    "Dense": _read_projection,
    "Normalize": _read_normalize,
    "LayerNorm": _read_layer_norm,
}


def _poolings(config: dict[str, Any], folder: Path) -> tuple[Pooling, ...]:
    named = config.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        unknown = [name for name in names if name not in NEW_POOLINGS]
        if unknown:
            raise CheckpointError(f"{folder}/config.json: unknown pooling {unknown}; known: {', '.join(NEW_POOLINGS)}")
        return tuple(NEW_POOLINGS[name] for name in names)
    strange = [key for key in config if key.startswith("pooling_mode_") and key not in OLD_POOLINGS]
    if any(config[key] for key in strange):
        raise CheckpointError(f"{folder}/config.json: unknown pooling {strange}; known: {', '.join(OLD_POOLINGS)}")
    # No switch at all has meant the mean since version 2.
    return tuple(name for key, name in OLD_POOLINGS.items() if config.get(key)) or ("mean",)


# -- writing ---------------------------------------------------------------------------------------------------------


def write(encoder: Encoder, folder: Path, *, extra: Callable[[Encoder, Path], None] | None = None) -> Path:
    """Write the dense part so that sentence-transformers loads it with the same vectors.

    Args:
        encoder: must have a dense head; other heads are not in this layout.
        folder: must not exist or be empty.
        extra: writes further files into the folder before it appears.

    Raises:
        UsageError: the dense head cannot be expressed in the layout.
    """
    text = encoder.config.text
    dense = _expressible(encoder)
    with fresh_folder(folder) as work:
        save_backbone(encoder.backbone.model, work)
        encoder.tokenizer.save_pretrained(work)
        write_json(
            work / "sentence_bert_config.json", {"max_seq_length": text.max_length, "do_lower_case": text.lower_case}
        )
        cut = next((layer.size for layer in dense.layers if isinstance(layer, schema.Truncate)), None)
        write_json(work / "config_sentence_transformers.json", _model_settings(encoder, cut))
        write_json(work / "modules.json", _write_modules(encoder, work))
        if extra is not None:
            extra(encoder, work)
    return folder


def _expressible(encoder: Encoder) -> DenseConfig:
    """The dense head, if the layout can say all that makes its vectors."""
    dense, text = encoder.config.dense, encoder.config.text
    if dense is None:
        raise UsageError(f"{encoder.name or 'this model'} has no dense head, which this layout is made for")
    if text.cls_every is not None:
        raise UsageError("this layout knows no further CLS tokens (MCLS); export the model without them")
    order = list(OLD_POOLINGS.values())
    if sorted(dense.pooling, key=order.index) != list(dense.pooling) or len(set(dense.pooling)) != len(dense.pooling):
        raise UsageError(f"this layout concatenates poolings only in the order {order}; the model has {dense.pooling}")
    if any(isinstance(layer, schema.Truncate) for layer in dense.layers[:-1]):
        raise UsageError("this layout truncates only after all other layers; the model has layers behind a truncation")
    if text.suffixes or text.text_tokens is not None or (text.prompt_counted_by == "text" and not dense.include_prompt):
        raise UsageError(
            "this layout puts nothing behind a text, shortens none by words, counts a prompt's tokens by the prompt "
            "alone; the model has suffixes, text_tokens or prompt_counted_by='text'. Save it in trine's own layout"
        )
    lengths = {text.query_max_length or text.max_length, text.passage_max_length or text.max_length, text.max_length}
    if len(lengths) > 1 or text.markers or text.expansion is not None or text.strip or not text.query_special_tokens:
        raise UsageError(
            "this layout knows one length and the same tokens for queries and passages: no markers, no expansion, no "
            f"stripping; the model has {text}"
        )
    return dense


def _model_settings(encoder: Encoder, cut: int | None) -> dict[str, Any]:
    text = encoder.config.text
    prompts = dict(text.prompts)
    # Its encode_query and encode_document take their own names only, and never the default prompt.
    own = {"query": encoder.text.prompt("query"), "document": encoder.text.prompt("passage")}
    prompts |= {name: prompt for name, prompt in own.items() if prompt}
    settings: dict[str, Any] = {
        "prompts": prompts,
        "default_prompt_name": text.default_prompt,
        "similarity_fn_name": "cosine",
    }
    return settings | ({"truncate_dim": cut} if cut else {})


def _write_modules(encoder: Encoder, work: Path) -> list[dict[str, Any]]:
    dense = encoder.dense
    assert dense is not None
    assert encoder.config.dense is not None
    pooling = {key: name in encoder.config.dense.pooling for key, name in OLD_POOLINGS.items()}
    write_json(
        work / "1_Pooling" / "config.json",
        {
            "word_embedding_dimension": encoder.backbone.hidden_size,
            **pooling,
            "include_prompt": encoder.config.dense.include_prompt,
        },
    )
    rows = [("", "Transformer"), ("1_Pooling", "Pooling")]
    for layer, module in zip(encoder.config.dense.layers, dense.layers, strict=True):
        if not isinstance(layer, schema.Truncate):
            rows.append((f"{len(rows)}_{_write_layer(layer, module, work, len(rows))}", ""))
    return [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind or path[2:]}"}
        for number, (path, kind) in enumerate(rows)
    ]


def _write_layer(layer: Layer, module: Any, work: Path, number: int) -> str:
    from safetensors.torch import save_file

    if isinstance(layer, schema.Normalize):
        (work / f"{number}_Normalize").mkdir()
        return "Normalize"
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    if isinstance(layer, schema.LayerNorm):
        if layer.epsilon != schema.LayerNorm(layer.size).epsilon:
            raise UsageError(f"this layout knows no layer-norm epsilon but 1e-5; the model has {layer.epsilon}")
        write_json(work / f"{number}_LayerNorm" / "config.json", {"dimension": layer.size})
        save_file(
            {f"norm.{name}": tensor for name, tensor in state.items()}, work / f"{number}_LayerNorm/model.safetensors"
        )
        return "LayerNorm"
    assert isinstance(layer, schema.Projection)
    if layer.residual:
        raise UsageError("this layout, as versions before 6 read it, knows no residual projections")
    settings = {
        "in_features": layer.in_features,
        "out_features": layer.out_features,
        "bias": layer.bias,
        "activation_function": ACTIVATION_PATHS[layer.activation],
    }
    write_json(work / f"{number}_Dense" / "config.json", settings)
    save_file(state, work / f"{number}_Dense" / "model.safetensors")
    return "Dense"
