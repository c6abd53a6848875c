"""Models for longer texts than they were made for: more positions, and several CLS tokens.

Shapes: P positions.
Sources: BGE-M3 (arXiv 2402.03216, sections 3.4 and 4.3), Longformer (arXiv 2004.05150, section 5: copied positions),
NTK-aware scaling of rotary positions (YaRN, arXiv 2309.00071, section 3.1).
"""

from __future__ import annotations

import copy
from typing import Any, Literal, TypeAlias, get_args

import msgspec
import torch
from torch import Tensor

from trine.errors import UsageError
from trine.models.backbone import Backbone, LearnedPositions, auto_class
from trine.models.config import EncoderConfig, TextConfig
from trine.models.encoder import Encoder
from trine.models.files import quiet_transformers
from trine.tables import unknown

Extension: TypeAlias = Literal["tile", "interpolate", "rotary"]


def extend_positions(
    encoder: Encoder, length: int, *, method: Extension | None = None, theta: float | None = None
) -> Encoder:
    """A copy of an encoder that reads `length` tokens; it should then be trained on long texts.

    Args:
        encoder: stays as it is.
        length: tokens, special ones included.
        method: "tile" repeats the learned positions: texts that fitted before keep their embeddings. "interpolate"
            stretches them, which changes every text. "rotary" raises the base of rotary positions in layers that see
            the whole text, which changes every text. None: "tile" or "rotary", whichever the model has.
        theta: new base of rotary positions; None scales it so that the slowest pair turns as far over the new length as
            over the old one.

    Raises:
        UsageError: the model reads so much already, or has no positions of the method's kind.
    """
    if method is not None and method not in get_args(Extension):
        raise unknown(method, get_args(Extension), kind="method of extension")
    learned = encoder.backbone.positions
    before = encoder.backbone.model.config.max_position_embeddings if learned is None else learned.length
    if length <= before:
        raise UsageError(f"{encoder.name or 'the model'} has {before} positions already; nothing to extend to {length}")
    if theta is not None and learned is not None:
        raise UsageError("theta is the base of rotary positions, and this model's positions are learned")
    chosen = method or ("rotary" if learned is None else "tile")
    if (chosen == "rotary") != (learned is None):
        kind = "rotary or relative" if learned is None else "learned"
        raise UsageError(f"{chosen!r} does not fit the {kind} positions of {type(encoder.backbone.model).__name__}")
    config = copy.deepcopy(encoder.backbone.model.config)
    state = dict(encoder.backbone.model.state_dict())
    if learned is None:
        _raise_base(config, scale=length / before, theta=theta)
        config.max_position_embeddings = length
    else:
        table = _longer(learned, length, method=chosen)
        state |= {
            name: table for name, tensor in state.items() if tensor.data_ptr() == learned.embedding.weight.data_ptr()
        }
        config.max_position_embeddings = length + learned.first
    backbone = _rebuilt(encoder.backbone, config, state)
    tokenizer = copy.deepcopy(encoder.tokenizer)
    tokenizer.model_max_length = length
    text = msgspec.structs.replace(encoder.config.text, max_length=length)
    return _with(encoder, msgspec.structs.replace(encoder.config, text=text), backbone=backbone, tokenizer=tokenizer)


def with_mcls(encoder: Encoder, *, every: int = 256) -> Encoder:
    """The encoder with a CLS after every `every` tokens, whose dense embedding is the mean of all CLS states (MCLS).

    Meant for a model that was not trained on long text; a text of up to `every` tokens keeps its embedding. The extra
    tokens get no sparse weight and no vector. The weights are shared with `encoder`, not copied.

    Raises:
        UsageError: the dense head does not pool CLS, or another part has no place for further CLS tokens.
    """
    config, cls = encoder.config, encoder.tokenizer.cls_token_id
    opening = encoder.tokenizer("")["input_ids"][:1]
    if config.dense is None or config.dense.pooling != ("cls",) or not config.dense.include_prompt:
        raise UsageError(f"MCLS is for a dense head that pools 'cls', prompt included; this one is {config.dense}")
    if every < 1:
        raise UsageError(f"every must be at least 1, got {every}")
    if cls is None or opening != [cls]:
        raise UsageError("the tokenizer puts no CLS in front of a text")
    _refuse_other_tokens(config)
    changes: dict[str, Any] = {
        "text": msgspec.structs.replace(config.text, cls_every=every),
        "dense": msgspec.structs.replace(config.dense, pooling=("cls_mean",)),
    }
    if config.sparse is not None:
        dropped = tuple(sorted({*config.sparse.dropped_ids, int(cls)}))
        changes["sparse"] = msgspec.structs.replace(config.sparse, dropped_ids=dropped)
    if config.multi_vector is not None:
        vectors = config.multi_vector
        changes["multi_vector"] = msgspec.structs.replace(
            vectors,
            dropped_query_ids=tuple(sorted({*vectors.dropped_query_ids, int(cls)})),
            dropped_passage_ids=tuple(sorted({*vectors.dropped_passage_ids, int(cls)})),
        )
    return _with(
        encoder, msgspec.structs.replace(config, **changes), backbone=encoder.backbone, tokenizer=encoder.tokenizer
    )


def _refuse_other_tokens(config: EncoderConfig) -> None:
    text: TextConfig = config.text
    if text.markers or text.expansion is not None or not text.query_special_tokens:
        raise UsageError(
            "MCLS is for texts between CLS and SEP alone: this model has markers, expansion or bare queries"
        )
    if config.sparse is not None and config.sparse.source == "masked_lm":
        raise UsageError("MCLS is not for masked_lm sparse heads, in which every token, CLS too, weighs all words")
    if config.multi_vector is not None and not config.multi_vector.drop_first:
        raise UsageError("MCLS is not for a multi-vector head that keeps the vector of CLS")


def _longer(learned: LearnedPositions, length: int, *, method: str) -> Tensor:
    """The table with rows for `length` tokens, those before the first token's as they were."""
    whole = learned.embedding.weight.detach()
    head, table_PH = whole[: learned.first], whole[learned.first :]
    if method == "tile":
        rows = table_PH[torch.arange(length, device=whole.device) % learned.length]
    else:
        stretched = torch.nn.functional.interpolate(
            table_PH.float().T[None], size=length, mode="linear", align_corners=True
        )
        rows = stretched[0].T.to(whole.dtype)
    return torch.cat([head, rows])


def _raise_base(config: Any, *, scale: float, theta: float | None) -> None:
    """Raise the base of the layers that see the whole text; a sliding window stays as wide as it is."""
    found = getattr(config, "rope_parameters", None)
    if not isinstance(found, dict) or not found:
        raise UsageError(f"{type(config).__name__} names no rotary positions (rope_parameters) to extend")
    parameters = copy.deepcopy(found)
    target = parameters.get("full_attention", parameters)
    if target.get("rope_type", "default") != "default":
        raise UsageError(f"rotary positions of type {target['rope_type']!r} are scaled already")
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    old = float(target["rope_theta"])
    target["rope_theta"] = old * scale ** (size / (size - 2)) if theta is None else float(theta)
    config.rope_parameters = parameters


def _rebuilt(backbone: Backbone, config: Any, state: dict[str, Tensor]) -> Backbone:
    factory = auto_class(config, masked_lm=backbone.masked_lm)
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        model = factory.from_config(config)
    if getattr(backbone.model, "pooler", None) is None and getattr(model, "pooler", None) is not None:
        model.pooler = None
    weight = next(backbone.parameters())
    model.to(device=weight.device, dtype=weight.dtype).load_state_dict(state)
    return Backbone(model, masked_lm=backbone.masked_lm, attention=backbone.attention)


def _with(encoder: Encoder, config: EncoderConfig, *, backbone: Backbone, tokenizer: Any) -> Encoder:
    """The encoder with other parts, and the same heads."""
    result = Encoder(config, backbone=backbone, tokenizer=tokenizer, name=encoder.name)
    for mode in encoder.modes:
        getattr(result, mode).load_state_dict(getattr(encoder, mode).state_dict())
    return result.to(device=encoder.device, dtype=encoder.dtype).train(encoder.training)
