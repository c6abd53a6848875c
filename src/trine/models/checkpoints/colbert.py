"""ColBERT checkpoints in the three layouts there are; one vector a token, no dense and no sparse head.

* sentence-transformers 6, `MultiVectorEncoder`: all of it is in modules.json, masking and normalisation included.
* PyLate, `ColBERT`: a transformer and projections in modules.json, the rest in config_sentence_transformers.json;
  normalisation and the dropping of punctuation are implied.
* Stanford, `HF_ColBERT`: the projection lies among the backbone's weights, the settings in artifact.metadata.

Sources: ColBERT (arXiv 2004.12832, section 3.2), ColBERTv2 (arXiv 2112.01488).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from trine.errors import CheckpointError
from trine.models.checkpoints.base import Checkpoint, LoadOptions, refuse_pooling
from trine.models.checkpoints.sentence_transformers import (
    Layers,
    Module,
    modules,
    read_layers,
    read_text,
    transformer_settings,
)
from trine.models.config import (
    EncoderConfig,
    Expansion,
    MultiVectorConfig,
    Normalize,
    Projection,
    TextConfig,
)
from trine.models.files import read_json, read_tensors

SETTINGS = "config_sentence_transformers.json"
METADATA = "artifact.metadata"
STANFORD = "HF_ColBERT"
PUNCTUATION = tuple(string.punctuation)
WEIGHTS = "multi_vector.layers."

Length = Annotated[int, msgspec.Meta(ge=1)]
Settings = TypeVar("Settings", bound=msgspec.Struct)


class ExpansionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`query_expansion` in a transformer's settings of sentence-transformers."""

    strategy: Literal["fixed", "min"]
    length: Length
    attend: bool = False
    token: str | None = None


class MaskSettings(msgspec.Struct, frozen=True):
    """config.json of a `MultiVectorMask`."""

    skiplist_words: list[str] | None = None
    skiplist_tasks: list[str] | str | None = None
    keep_only_token_ids: list[int] | None = None


class PyLateSettings(msgspec.Struct, frozen=True):
    """What PyLate adds to config_sentence_transformers.json; its own defaults stand for what is null or absent."""

    query_prefix: str | None = None
    document_prefix: str | None = None
    query_length: Length | None = None
    document_length: Length | None = None
    do_query_expansion: bool | None = None
    attend_to_expansion_tokens: bool | None = None
    skiplist_words: list[str] | None = None


class StanfordSettings(msgspec.Struct, frozen=True):
    """What artifact.metadata says of tokens and lengths; its own defaults stand for what is null or absent."""

    query_token_id: str | None = None
    doc_token_id: str | None = None
    query_maxlen: Length | None = None
    doc_maxlen: Length | None = None
    attend_to_mask_tokens: bool | None = None
    mask_punctuation: bool | None = None
    dim: int | None = None


def matches(folder: Path) -> bool:
    """Whether the folder calls itself a ColBERT, in one of the three ways."""
    return _kind(folder) is not None


def read(folder: Path, options: LoadOptions) -> Checkpoint:
    """Read the layout that the folder names."""
    refuse_pooling(options, folder)
    kind = _kind(folder)
    if kind is None:
        raise CheckpointError(
            f"{folder} is no ColBERT checkpoint: {SETTINGS} names none of the model types 'MultiVectorEncoder' and "
            f"'ColBERT', and config.json does not name the architecture {STANFORD!r}"
        )
    return READERS[kind](folder)


def _kind(folder: Path) -> str | None:
    named = read_json(folder / SETTINGS, default={}).get("model_type")
    if named is not None:
        return named if named in ("MultiVectorEncoder", "ColBERT") else None
    architectures = read_json(folder / "config.json", default={}).get("architectures") or []
    return STANFORD if STANFORD in architectures and not (folder / "modules.json").is_file() else None


# -- sentence-transformers 6 -----------------------------------------------------------------------------------------


def _read_sentence_transformers(folder: Path) -> Checkpoint:
    transformer, *rest = modules(folder)
    settings = transformer_settings(transformer, task="feature-extraction")
    checkpoint = _checkpoint(
        read_text(folder, transformer.folder),
        transformer.folder,
        _token_layers([row for row in rest if row.kind != "MultiVectorMask"]),
    )
    tokenizer = checkpoint.tokenizer()
    mask = _mask(rest)
    expansion = _expansion(settings, tokenizer, transformer.folder / "sentence_bert_config.json")
    if expansion is not None and mask is None:
        raise CheckpointError(
            f"{folder}: query_expansion is set, but no MultiVectorMask follows that would count the extra tokens"
        )
    words, tasks = (mask.skiplist_words or (), mask.skiplist_tasks) if mask is not None else ((), None)
    skipped = token_ids(tokenizer, words)
    return _complete(
        checkpoint,
        text=msgspec.structs.replace(checkpoint.config.text, expansion=expansion),
        dropped_query_ids=skipped if tasks is not None and "query" in tasks else (),
        dropped_passage_ids=skipped if tasks is None or "document" in tasks else (),
    )


def _token_layers(rows: Sequence[Module]) -> Layers:
    for row in rows:
        if row.kind not in ("Dense", "Normalize"):
            raise CheckpointError(
                f"{row.folder}: modules of the kind {row.kind} are not supported in a multi-vector model; "
                "known: Dense, MultiVectorMask, Normalize"
            )
        config = read_json(row.folder / "config.json", default={})
        # Projections that predate the setting work on tokens here; a normalisation without it never does.
        source = config.get("module_input_name", "token_embeddings" if row.kind == "Dense" else "sentence_embedding")
        target = config.get("module_output_name") or source
        if (source, target) != ("token_embeddings", "token_embeddings"):
            raise CheckpointError(
                f"{row.folder}/config.json: turns {source} into {target}, but vectors of tokens are wanted; "
                "both names must be token_embeddings"
            )
    return read_layers(list(rows), prefix=WEIGHTS)


def _mask(rows: Sequence[Module]) -> MaskSettings | None:
    found = [row.folder / "config.json" for row in rows if row.kind == "MultiVectorMask"]
    if not found:
        return None
    if len(found) > 1:
        raise CheckpointError(f"{found[1].parent}: a second MultiVectorMask; one is supported")
    mask = _convert(read_json(found[0], default={}), MaskSettings, found[0])
    if mask.keep_only_token_ids:
        raise CheckpointError(f"{found[0]}: keep_only_token_ids, which is for images, is not supported")
    return mask


def _expansion(settings: dict[str, Any], tokenizer: Any, path: Path) -> Expansion | None:
    if settings.get("query_expansion") is None:
        return None
    given = _convert(settings["query_expansion"], ExpansionSettings, path)
    limit = settings.get("query_length")
    if limit is not None and limit < given.length:
        raise CheckpointError(f"{path}: query_length {limit} is below the {given.length} tokens of query_expansion")
    return Expansion(
        length=given.length,
        token_id=_expansion_id(tokenizer, given.token, path),
        attend=given.attend,
        fixed=given.strategy == "fixed",
    )


# -- PyLate ----------------------------------------------------------------------------------------------------------


def _read_pylate(folder: Path) -> Checkpoint:
    transformer, *rest = modules(folder)
    transformer_settings(transformer, task="feature-extraction")
    projections = [row for row in rest if row.kind == "Dense"]
    if not projections:
        raise CheckpointError(f"{folder}/modules.json lists no Dense module; without it the projection would be random")
    path = folder / SETTINGS
    settings = _convert(read_json(path), PyLateSettings, path)
    layers = read_layers(projections, prefix=WEIGHTS)
    checkpoint = _checkpoint(
        read_text(folder, transformer.folder),
        transformer.folder,
        Layers((*layers.layers, Normalize()), layers.weights),
    )
    tokenizer = checkpoint.tokenizer()
    words = PUNCTUATION if settings.skiplist_words is None else settings.skiplist_words
    return _complete(
        checkpoint,
        text=_pylate_text(checkpoint.config.text, settings, tokenizer, path),
        # PyLate also drops every unknown token where one word of the list is unknown; sentence-transformers does not,
        # nor does trine: that is an accident of the vocabulary, and would take all of an unknown script away.
        dropped_passage_ids=token_ids(tokenizer, words),
    )


def _pylate_text(text: TextConfig, settings: PyLateSettings, tokenizer: Any, path: Path) -> TextConfig:
    query_length = settings.query_length or 32
    document_length = settings.document_length or 180
    prefixes = {
        "query": "[Q] " if settings.query_prefix is None else settings.query_prefix,
        "passage": "[D] " if settings.document_prefix is None else settings.document_prefix,
    }
    # PyLate tokenises the text alone and inserts the prefix; sentence-transformers writes it in front of the text,
    # which differs where a word in front changes the first token.
    vocabulary = tokenizer.get_vocab()
    markers = {kind: vocabulary[prefix] for kind, prefix in prefixes.items() if prefix in vocabulary}
    written = {kind: prefix for kind, prefix in prefixes.items() if prefix and kind not in markers}
    # A prompt belongs to its kind, as in sentence-transformers; PyLate itself uses it where prompt_name asks for it.
    prompts = {**text.prompts, **{kind: prefix + text.prompts.get(kind, "") for kind, prefix in written.items()}}
    expansion = None
    if settings.do_query_expansion is not False:
        expansion = Expansion(
            length=query_length,
            token_id=_expansion_id(tokenizer, None, path),
            attend=bool(settings.attend_to_expansion_tokens),
        )
    return msgspec.structs.replace(
        text,
        # The limit in sentence_bert_config.json is whatever kind PyLate happened to encode last.
        max_length=document_length,
        query_max_length=query_length,
        passage_max_length=document_length,
        prompts=prompts,
        strip=True,
        markers=markers,
        expansion=expansion,
    )


# -- Stanford --------------------------------------------------------------------------------------------------------


def _read_stanford(folder: Path) -> Checkpoint:
    path = folder / METADATA
    settings = _convert(read_json(path), StanfordSettings, path)
    weight = read_tensors(folder / "model.safetensors", folder / "pytorch_model.bin").get("linear.weight")
    if weight is None:
        raise CheckpointError(
            f"{folder}: the weights hold no linear.weight, ColBERT's projection; without it the head would be random"
        )
    if weight.ndim != 2 or weight.shape[0] != (settings.dim or weight.shape[0]):
        raise CheckpointError(
            f"{folder}: linear.weight has shape {tuple(weight.shape)}, {METADATA} says {settings.dim} dimensions"
        )
    projection = Projection(in_features=weight.shape[1], out_features=weight.shape[0], bias=False)
    passage_length = settings.doc_maxlen or 220
    checkpoint = _checkpoint(
        TextConfig(
            max_length=passage_length,
            query_max_length=settings.query_maxlen or 32,
            # sentence-transformers and PyLate put other limits where doc_maxlen is absent; 220 is Stanford's own.
            passage_max_length=passage_length,
        ),
        folder,
        Layers((projection, Normalize()), {f"{WEIGHTS}0.linear.weight": weight}),
    )
    tokenizer = checkpoint.tokenizer()
    punctuation = () if settings.mask_punctuation is False else PUNCTUATION
    return _complete(
        checkpoint,
        text=_stanford_text(checkpoint.config.text, settings, tokenizer, path),
        dropped_passage_ids=token_ids(tokenizer, punctuation),
    )


def _stanford_text(text: TextConfig, settings: StanfordSettings, tokenizer: Any, path: Path) -> TextConfig:
    markers = {"query": settings.query_token_id or "[unused0]", "passage": settings.doc_token_id or "[unused1]"}
    vocabulary = tokenizer.get_vocab()
    for kind, marker in markers.items():
        if marker not in vocabulary:
            raise CheckpointError(f"{path}: the {kind} marker {marker!r} is not in the tokenizer's vocabulary")
    return msgspec.structs.replace(
        text,
        markers={kind: vocabulary[marker] for kind, marker in markers.items()},
        expansion=Expansion(
            length=text.query_max_length or text.max_length,
            token_id=_expansion_id(tokenizer, None, path),
            attend=bool(settings.attend_to_mask_tokens),
        ),
    )


# -- common ----------------------------------------------------------------------------------------------------------

READERS: dict[str, Callable[[Path], Checkpoint]] = {
    "MultiVectorEncoder": _read_sentence_transformers,
    "ColBERT": _read_pylate,
    STANFORD: _read_stanford,
}


def token_ids(tokenizer: Any, words: Sequence[str]) -> tuple[int, ...]:
    """Ids of the words that are one entry of the vocabulary; the others are left out, never read as unknown tokens."""
    vocabulary = tokenizer.get_vocab()
    return tuple(sorted({int(vocabulary[word]) for word in words if word in vocabulary}))


def _expansion_id(tokenizer: Any, token: str | None, path: Path) -> int:
    if tokenizer.padding_side != "right":
        raise CheckpointError(
            f"{path}: queries are filled up with extra tokens, but the tokenizer pads on the {tokenizer.padding_side}"
        )
    if token is not None:
        if token not in tokenizer.get_vocab():
            raise CheckpointError(f"{path}: the expansion token {token!r} is not in the tokenizer's vocabulary")
        return int(tokenizer.get_vocab()[token])
    for number in (tokenizer.mask_token_id, tokenizer.eos_token_id):
        if number is not None:
            return int(number)
    raise CheckpointError(f"{path}: queries are filled up, but the tokenizer has neither a mask nor an end token")


def _checkpoint(text: TextConfig, backbone: Path, layers: Layers) -> Checkpoint:
    config = EncoderConfig(text=text, multi_vector=MultiVectorConfig(layers=layers.layers))
    return Checkpoint(config, backbone=backbone, head_weights=layers.weights)


def _complete(
    checkpoint: Checkpoint,
    *,
    text: TextConfig,
    dropped_query_ids: tuple[int, ...] = (),
    dropped_passage_ids: tuple[int, ...] = (),
) -> Checkpoint:
    head = checkpoint.config.multi_vector
    assert head is not None
    head = msgspec.structs.replace(head, dropped_query_ids=dropped_query_ids, dropped_passage_ids=dropped_passage_ids)
    return replace(checkpoint, config=EncoderConfig(text=text, multi_vector=head))


def _convert(content: Any, kind: type[Settings], path: Path) -> Settings:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise CheckpointError(f"{path}: {error}") from error
