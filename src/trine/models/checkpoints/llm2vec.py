"""McGill-NLP/LLM2Vec-*: a decoder without its causal mask, and LoRA adapters on it, merged one after the other.

```
adapter_config.json, adapter_model.safetensors   the adapter; base_model_name_or_path names what it was trained on
config.json                                      of the transformer (in "-mntp" folders)
llm2vec_config.json                              pooling and lengths, where LLM2Vec's own `save` wrote it
tokenizer.json, ...
```

A second adapter ("-supervised", "-unsup-simcse") was trained on the merged first one, but its files name the bare
transformer; it is given as `adapter=`. The vectors are scaled to unit length, since the authors compare cosines.

Source: arXiv 2404.05961; the procedure of `LLM2Vec.encode`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trine.errors import CheckpointError, ModelNotFound, UsageError
from trine.models.checkpoints.base import TOKENIZER_FILES, Checkpoint, LoadOptions, refuse_pooling
from trine.models.config import DenseConfig, EncoderConfig, Normalize, TextConfig
from trine.models.files import read_json
from trine.models.sources import locate

SETTINGS, ADAPTER = "llm2vec_config.json", "adapter_config.json"
DEFAULTS = {"pooling_mode": "mean", "max_length": 512, "doc_max_length": 400, "skip_instruction": True}

_LLAMA_3 = ("<|start_header_id|>user<|end_header_id|>\n\n", "<|eot_id|>")
_INSTRUCTION = ("[INST] ", " [/INST]")
_QWEN_2 = ("<|im_start|>user\n", "<|im_end|>")
WRAPPERS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_3,
    "mistralai/Mistral-7B-Instruct-v0.2": _INSTRUCTION,
    "meta-llama/Llama-2-7b-chat-hf": _INSTRUCTION,
    "google/gemma-2-9b-it": ("<bos><start_of_turn>user\n", "<end_of_turn>"),
    "Qwen/Qwen2-1.5B-Instruct": _QWEN_2,
    "Qwen/Qwen2-7B-Instruct": _QWEN_2,
}
"""The chat turn around a text, by the name of the base model that the checkpoint's files give."""

FIRST_STAGES = tuple(
    f"McGill-NLP/LLM2Vec-{base}-mntp"
    for base in ("Sheared-LLaMA", "Llama-2-7b-chat-hf", "Mistral-7B-Instruct-v2", "Meta-Llama-3-8B-Instruct")
)
SECOND_STAGES = {f"{first}-{stage}": first for first in FIRST_STAGES for stage in ("unsup-simcse", "supervised")}
"""Hub id of a second adapter -> the one that is merged before it."""


def known_layout(options: LoadOptions, name: str) -> LoadOptions:
    """The options, with this layout for the authors' own hub ids, whose folders hold peft's files only."""
    hub_id = name.partition("@")[0]
    if options.layout is None and (hub_id in FIRST_STAGES or hub_id in SECOND_STAGES):
        return replace(options, layout="llm2vec")
    return options


def first_stage(name: str | Path | None, options: LoadOptions) -> tuple[str | Path | None, LoadOptions]:
    """For a second adapter's hub id the first one's, and options that merge the second after it."""
    hub_id = str(name).partition("@")[0]
    if hub_id not in SECOND_STAGES:
        return name, options
    if options.adapter is not None:
        raise UsageError(
            f"{hub_id} is an adapter itself; load {SECOND_STAGES[hub_id]!r} with adapter={options.adapter!r}"
        )
    pinned = f"{name}@{options.revision}" if options.revision is not None else str(name)
    return SECOND_STAGES[hub_id], replace(options, adapter=pinned, revision=None)


def matches(folder: Path) -> bool:
    """Whether LLM2Vec wrote its settings; an adapter alone could be any model's."""
    return (folder / SETTINGS).is_file()


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Follow the adapters down to the transformer that they were trained on."""
    refuse_pooling(options, folder)
    # As LLM2Vec has it: those beside the last adapter, and never a mixture.
    last = folder if options.adapter is None else locate(options.adapter)[0]
    settings = DEFAULTS | read_json(last / SETTINGS, default={})
    if settings["pooling_mode"] != "mean":
        raise CheckpointError(
            f"{last / SETTINGS}: pooling_mode is {settings['pooling_mode']!r}; trine reads 'mean', which all "
            "published LLM2Vec models have"
        )
    adapters, base, names = _chain(folder)
    before, after = next((WRAPPERS[name] for name in names if name in WRAPPERS), ("", ""))
    tokenizer = next(
        (
            part
            for part in (folder, *reversed(adapters), base)
            if any((part / name).is_file() for name in TOKENIZER_FILES)
        ),
        base,
    )
    text = TextConfig(
        max_length=int(settings["max_length"]),
        prompts={"query": before, "passage": before} if before else {},
        instruction_prompt=f"{before}{{instruction}} ",
        suffixes={"query": after, "passage": after} if after else {},
        strip="end" if after else False,
        text_tokens=int(settings["doc_max_length"]),
        prompt_counted_by="text",
    )
    dense = DenseConfig(pooling=("mean",), layers=(Normalize(),), include_prompt=not bool(settings["skip_instruction"]))
    config = EncoderConfig(text=text, dense=dense, attention="bidirectional")
    return Checkpoint(config, backbone=base, tokenizer_folder=tokenizer, adapters=adapters)


def _chain(folder: Path) -> tuple[tuple[Path, ...], Path, list[str]]:
    """Adapters in the order of merging, the transformer's folder, and the names that their files give to it."""
    adapters: list[Path] = []
    names: list[str] = []
    while (folder / ADAPTER).is_file():
        if folder in adapters:
            raise CheckpointError(f"{folder / ADAPTER}: its base_model_name_or_path leads back to itself")
        adapters.insert(0, folder)
        config: dict[str, Any] = read_json(folder / ADAPTER)
        name = str(config.get("base_model_name_or_path") or "")
        names += [str(read_json(folder / "config.json", default={}).get("_name_or_path") or ""), name]
        folder = _base(folder, name)
    names.append(str(read_json(folder / "config.json").get("_name_or_path") or ""))
    return tuple(adapters), folder, names


def _base(folder: Path, name: str) -> Path:
    if not name:
        raise CheckpointError(
            f"{folder / ADAPTER}: base_model_name_or_path does not say what the adapter was trained on"
        )
    if (folder / name).is_dir():
        return (folder / name).resolve()
    try:
        return locate(name)[0]
    except (ModelNotFound, UsageError) as error:
        raise CheckpointError(
            f"{folder / ADAPTER}: the model that the adapter was trained on (base_model_name_or_path {name!r}) "
            f"cannot be read: {error}"
        ) from error
