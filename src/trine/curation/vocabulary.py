"""Leaving out what a language or domain never uses of a multilingual model's vocabulary.

Most parameters of a small multilingual model are its token embeddings: 96 of the 118 million of multilingual-e5-small.
A text whose tokens are all kept has the same embeddings as before.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.models.backbone import Backbone
from trine.models.config import EncoderConfig, Expansion
from trine.models.encoder import Encoder
from trine.models.files import quiet_transformers
from trine.models.tokenization import clean

_WINDOW = 1024
"""Texts that are tokenised at a time."""


def trim_vocabulary(encoder: Encoder, texts: Iterable[str], *, least: int = 1) -> Encoder:
    """A copy of an encoder with the tokens that occur in `texts`, and what it cannot do without.

    Kept in any case: special tokens, prompts, byte pieces, the tokens that the configuration names, and of a byte-pair
    encoding the parts from which kept tokens are merged. What other texts hold falls apart into kept pieces, or becomes
    unknown where there are none.

    Args:
        encoder: stays as it is.
        texts: a fair sample of what will be embedded; read once, a window at a time.
        least: how often a token must occur.

    Raises:
        UsageError: no text, or a tokenizer of a kind that cannot be trimmed.
    """
    if least < 1:
        raise UsageError(f"least must be at least 1, got {least}")
    content = json.loads(encoder.tokenizer.backend_tokenizer.to_str())
    counts = _counts(encoder, texts)
    wanted = set(np.flatnonzero(counts >= least).tolist()) | _needed(encoder, content)
    kept = np.array(sorted(wanted | _parts(content["model"], wanted)), np.int64)
    renumbered = {int(old): new for new, old in enumerate(kept)}
    tokenizer = _tokenizer(encoder, content, renumbered)
    backbone = _backbone(encoder.backbone, kept, renumbered)
    result = Encoder(_config(encoder.config, renumbered), backbone=backbone, tokenizer=tokenizer, name=encoder.name)
    for mode in encoder.modes:
        state = getattr(encoder, mode).state_dict()
        if mode == "sparse" and "table" in state:
            state["table"] = state["table"][torch.from_numpy(kept).to(state["table"].device)]
        getattr(result, mode).load_state_dict(state)
    return result.to(device=encoder.device, dtype=encoder.dtype).train(encoder.training)


def _counts(encoder: Encoder, texts: Iterable[str]) -> NDArray[np.int64]:
    """How often each id occurs in the texts, nothing cut."""
    if isinstance(texts, str):
        raise UsageError("texts must be many strings; for one text write [text]")
    counts = np.zeros(max(encoder.backbone.vocabulary_size, len(encoder.tokenizer)), np.int64)
    prompts = {"", *encoder.config.text.prompts.values()}
    source = iter(texts)
    for window in iter(lambda: list(itertools.islice(source, _WINDOW)), []):
        # A prompt may share a token with the beginning of the text.
        for prompt in sorted(prompts):
            rows = [prompt + clean(text) for text in window]
            rows = [row.strip() for row in rows] if encoder.config.text.strip else rows
            encoded = encoder.tokenizer(rows, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
            counts += np.bincount(np.fromiter(itertools.chain.from_iterable(encoded), np.int64), minlength=len(counts))
    if not counts.any():
        raise UsageError("no token occurs: give texts of the language or domain that the model is for")
    return counts


def _needed(encoder: Encoder, content: Mapping[str, Any]) -> set[int]:
    """Ids that stay whatever the texts hold."""
    config = encoder.config
    needed = {int(number) for number in encoder.tokenizer.all_special_ids}
    needed |= {int(token["id"]) for token in content["added_tokens"]}
    needed |= set(config.text.markers.values())
    if config.text.expansion is not None:
        needed.add(config.text.expansion.token_id)
    for prompt in config.text.prompts.values():
        needed |= set(encoder.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return needed | _alphabet(content["model"])


def _alphabet(model: Mapping[str, Any]) -> set[int]:
    """Pieces that stand for single bytes, and the least likely one, which sets the price of an unknown character."""
    from tokenizers import pre_tokenizers

    if model["type"] not in ("Unigram", "BPE", "WordPiece"):
        raise UsageError(f"a vocabulary of type {model['type']!r} cannot be trimmed; Unigram, BPE and WordPiece can")
    if model["type"] == "WordPiece":
        return set()
    fallback = {f"<0x{number:02X}>" for number in range(256)}
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        found = {number for number, (piece, _) in enumerate(model["vocab"]) if piece in fallback}
        return found | {int(np.argmin(scores)), int(model["unk_id"] or 0)}
    bytes_as_letters = set(pre_tokenizers.ByteLevel.alphabet())
    letters = fallback | (bytes_as_letters if bytes_as_letters <= set(model["vocab"]) else set())
    return {number for piece, number in model["vocab"].items() if piece in letters}


def _parts(model: Mapping[str, Any], wanted: set[int]) -> set[int]:
    """Ids of the pieces that merges make kept tokens of, down to single characters."""
    if model["type"] != "BPE":
        return set()
    vocabulary = model["vocab"]
    sources: dict[int, list[int]] = {}
    for left, right in _merges(model):
        whole = vocabulary.get(left + right)
        if whole is not None:
            sources.setdefault(whole, []).extend((vocabulary[left], vocabulary[right]))
    found, waiting = set(wanted), list(wanted)
    while waiting:
        for part in sources.get(waiting.pop(), ()):
            if part not in found:
                found.add(part)
                waiting.append(part)
    return found


def _merges(model: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for merge in model["merges"]:
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        yield left, right


def _tokenizer(encoder: Encoder, content: dict[str, Any], renumbered: Mapping[int, int]) -> Any:
    """The tokenizer with fewer pieces and new numbers, all else as it was."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    model = content["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for number, entry in enumerate(model["vocab"]) if number in renumbered]
        model["unk_id"] = None if model["unk_id"] is None else renumbered[model["unk_id"]]
    else:
        model["vocab"] = {p: renumbered[n] for p, n in model["vocab"].items() if n in renumbered}
    if model["type"] == "BPE":
        known = model["vocab"]
        model["merges"] = [
            [left, right] for left, right in _merges(model) if {left, right, left + right} <= known.keys()
        ]
    for token in content["added_tokens"]:
        token["id"] = renumbered[token["id"]]
    if content["post_processor"] is not None:
        _renumber(content["post_processor"], renumbered)
    old = encoder.tokenizer
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        **{role: str(token) for role, token in old.special_tokens_map.items() if isinstance(token, str)},
        model_max_length=old.model_max_length,
        model_input_names=old.model_input_names,
        padding_side=old.padding_side,
        truncation_side=old.truncation_side,
        clean_up_tokenization_spaces=False,
    )


def _renumber(processor: dict[str, Any], renumbered: Mapping[int, int]) -> None:
    """Ids in a post-processor: lists under "ids" in templates, pairs of token and id in BERT's and RoBERTa's own."""
    for part in processor.get("processors", ()):
        _renumber(part, renumbered)
    special = processor.get("special_tokens")
    for token in special.values() if isinstance(special, dict) else ():
        token["ids"] = [renumbered[number] for number in token["ids"]]
    for role in ("cls", "sep"):
        if isinstance(processor.get(role), list):
            token, number = processor[role]
            processor[role] = [token, renumbered[number]]


def _backbone(backbone: Backbone, kept: NDArray[np.int64], renumbered: Mapping[int, int]) -> Backbone:
    model = copy.deepcopy(backbone.model)
    config, positions = model.config, backbone.positions
    padding = config.pad_token_id
    if positions is not None and positions.first and renumbered.get(padding) != padding:
        raise UsageError(
            f"positions of {type(model).__name__} count from the padding id {padding}, which would become "
            f"{renumbered.get(padding)}; its vocabulary cannot be trimmed"
        )
    ids = torch.from_numpy(kept).to(next(model.parameters()).device)
    projection = model.get_output_embeddings()
    tables = [model.get_input_embeddings().weight]
    if projection is not None:
        tables += [part for part in (projection.weight, projection.bias) if part is not None]
    with torch.no_grad(), quiet_transformers():
        for table in {table.data_ptr(): table for table in tables}.values():
            table[: len(ids)] = table[ids].clone()
        model.resize_token_embeddings(len(ids))
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(config, name, renumbered.get(value))
    return Backbone(model, masked_lm=backbone.masked_lm, attention=backbone.attention)


def _config(config: EncoderConfig, renumbered: Mapping[int, int]) -> EncoderConfig:
    def named(ids: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(renumbered[number] for number in ids if number in renumbered)

    text, sparse, vectors = config.text, config.sparse, config.multi_vector
    expansion: Expansion | None = text.expansion
    if expansion is not None:
        expansion = msgspec.structs.replace(expansion, token_id=renumbered[expansion.token_id])
    changes: dict[str, Any] = {
        "text": msgspec.structs.replace(
            text, markers={kind: renumbered[number] for kind, number in text.markers.items()}, expansion=expansion
        )
    }
    if sparse is not None:
        changes["sparse"] = msgspec.structs.replace(
            sparse, width=len(renumbered), dropped_ids=named(sparse.dropped_ids)
        )
    if vectors is not None:
        changes["multi_vector"] = msgspec.structs.replace(
            vectors,
            dropped_query_ids=named(vectors.dropped_query_ids),
            dropped_passage_ids=named(vectors.dropped_passage_ids),
        )
    return msgspec.structs.replace(config, **changes)
