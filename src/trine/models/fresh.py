"""Encoders and heads that no training has touched: the start of training, never the result of loading.

Shapes: H hidden size, D dense and d multi-vector dimensions, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, Unpack, get_args

import msgspec
from torch import nn

from trine.errors import UsageError
from trine.models.backbone import Backbone
from trine.models.checkpoints.base import special_ids
from trine.models.config import (
    Attention,
    DenseConfig,
    EncoderConfig,
    Layer,
    MultiVectorConfig,
    Normalize,
    Projection,
    SparseConfig,
    TextConfig,
)
from trine.models.devices import seeded
from trine.models.encoder import Encoder
from trine.tables import unknown
from trine.types import MODES, Mode

Architecture: TypeAlias = Literal["bert", "modernbert", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text"]
"""By transformers' model types: two encoders, and decoders."""

FIRST_WEIGHT = 0.2
"""Of a token under a sparse head that is not trained yet: five tokens in common give a score as large as a cosine's."""

_DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")


class Shape(TypedDict):
    """The size of a transformer."""

    layers: int
    hidden: int
    """H"""
    heads: int
    """Attention heads; divides `hidden`."""
    feed_forward: int
    max_length: int
    """Tokens that it can read, special ones included."""
    architecture: NotRequired[Architecture]
    """"bert" where nothing is said."""


def fresh_encoder(
    tokenizer: Any,
    *,
    modes: Iterable[Mode] = MODES,
    pooling: Literal["mean", "cls", "weighted_mean", "last_token"] = "mean",
    attention: Attention = "native",
    dense_width: int | None = None,
    vector_width: int | None = None,
    seed: int = 0,
    **shape: Unpack[Shape],
) -> Encoder:
    """A randomly initialised encoder, to be trained from scratch.

    Args:
        tokenizer: a fast transformers tokenizer; it must have a padding token.
        modes: heads to give it: a pooled dense one, a sparse one of one weight a token, a projected multi-vector one.
        pooling: of the dense head.
        attention: "bidirectional" lets the tokens of a decoder see those behind them.
        dense_width: D, by a projection after pooling; None leaves H.
        vector_width: d; None projects to H.
        seed: of every weight; the surrounding random state is left as it was.
        shape: `layers`, `hidden`, `heads`, `feed_forward`, `max_length` and `architecture`, as in `Shape`.

    Raises:
        UsageError: the numbers do not fit together, or the tokenizer lacks a token.
        UnknownName: a mode, an architecture or a pooling that there is not.
    """
    _check(shape, pooling)
    wanted = _known(modes)
    special = _special_ids(tokenizer)
    if pooling == "last_token" and tokenizer.eos_token_id is None:
        raise UsageError(
            "the tokenizer has no EOS token, whose state the pooling last_token takes; set tokenizer.eos_token"
        )
    with seeded(seed):
        model = _transformer(tokenizer, shape)
    config = EncoderConfig(
        text=TextConfig(
            max_length=shape["max_length"], last_id=tokenizer.eos_token_id if pooling == "last_token" else None
        ),
        attention=attention,
        dense=DenseConfig(pooling=(pooling,), layers=_dense_layers(shape["hidden"], dense_width))
        if "dense" in wanted
        else None,
        sparse=_sparse(special, model.config.vocab_size) if "sparse" in wanted else None,
        multi_vector=_multi_vector(tokenizer, shape["hidden"], vector_width) if "multi_vector" in wanted else None,
        untrained=wanted,
        origin="fresh",
    )
    with seeded(seed + 1):
        backbone = Backbone(model, masked_lm=False, attention=attention)
        encoder = Encoder(config, backbone=backbone, tokenizer=copy.deepcopy(tokenizer), name="fresh").eval()
    if "sparse" in wanted:
        _begin_alike(encoder)
    return encoder


def with_heads(
    encoder: Encoder,
    *,
    modes: Iterable[Mode] = ("sparse", "multi_vector"),
    vector_width: int | None = None,
    seed: int = 0,
) -> Encoder:
    """A copy of an encoder with fresh heads beside its own, named in the configuration's `untrained`.

    Args:
        encoder: stays as it is; its weights are copied.
        modes: "sparse" (one weight a token), "multi_vector" (a projection and unit length), or both.
        vector_width: d; None projects to H.
        seed: of the new heads.

    Raises:
        UsageError: the encoder has such a head, or the mode cannot be added.
    """
    wanted = _known(modes)
    for mode in wanted:
        if mode == "dense":
            raise UsageError("with_heads adds sparse and multi_vector heads; a dense head needs a pooling to be chosen")
        if mode in encoder.modes:
            raise UsageError(f"{encoder.name or 'the encoder'} has a {mode} head already; leave {mode!r} out of modes")
    backbone = copy.deepcopy(encoder.backbone)
    changes: dict[str, Any] = {"untrained": (*encoder.config.untrained, *wanted)}
    if "sparse" in wanted:
        changes["sparse"] = _sparse(_special_ids(encoder.tokenizer), backbone.vocabulary_size)
    if "multi_vector" in wanted:
        changes["multi_vector"] = _multi_vector(encoder.tokenizer, backbone.hidden_size, vector_width)
    with seeded(seed):
        result = Encoder(
            msgspec.structs.replace(encoder.config, **changes),
            backbone=backbone,
            tokenizer=copy.deepcopy(encoder.tokenizer),
            name=encoder.name,
        )
    if "sparse" in wanted:
        _begin_alike(result)
    for mode in encoder.modes:
        getattr(result, mode).load_state_dict(getattr(encoder, mode).state_dict())
    return result.to(device=encoder.device, dtype=encoder.dtype).train(encoder.training)


def _begin_alike(encoder: Encoder) -> None:
    """Give every token the same weight, so that training begins at the overlap of tokens.

    States of trained transformers lean to one side: under random weights all tokens can come out below zero, where ReLU
    has no gradient (docs/LOG.md).
    """
    assert encoder.sparse is not None
    assert encoder.sparse.linear is not None
    nn.init.zeros_(encoder.sparse.linear.weight)
    nn.init.constant_(encoder.sparse.linear.bias, FIRST_WEIGHT)


def _known(modes: Iterable[Mode]) -> tuple[Mode, ...]:
    if isinstance(modes, str):
        raise UsageError(f"modes must be a list; for one mode write [{modes!r}]")
    wanted = tuple(dict.fromkeys(modes))
    for mode in wanted:
        if mode not in MODES:
            raise unknown(mode, MODES, kind="mode")
    return tuple(mode for mode in MODES if mode in wanted)


def _check(shape: Shape, pooling: str) -> None:
    names = get_args(Architecture)
    if shape.get("architecture", "bert") not in names:
        raise unknown(shape["architecture"], names, kind="architecture")
    poolings = ("mean", "cls", "weighted_mean", "last_token")
    if pooling not in poolings:
        raise unknown(pooling, poolings, kind="pooling")
    numbers: Mapping[str, Any] = {key: value for key, value in shape.items() if key != "architecture"}
    for key, value in numbers.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError(f"{key} must be a whole number of at least 1, got {value!r}")
    if shape["hidden"] % shape["heads"]:
        raise UsageError(f"hidden ({shape['hidden']}) must be a multiple of heads ({shape['heads']})")
    if shape.get("architecture", "bert") != "bert" and shape["hidden"] // shape["heads"] % 2:
        raise UsageError(
            f"rotary positions turn pairs of dimensions: hidden / heads must be even, "
            f"got {shape['hidden']} / {shape['heads']}"
        )


def _special_ids(tokenizer: Any) -> tuple[int, ...]:
    if tokenizer.pad_token_id is None:
        raise UsageError("the tokenizer has no padding token; set tokenizer.pad_token")
    return special_ids(tokenizer)


def _transformer(tokenizer: Any, shape: Shape) -> Any:
    import transformers

    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": shape["hidden"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "intermediate_size": shape["feed_forward"],
        "max_position_embeddings": shape["max_length"],
        "pad_token_id": tokenizer.pad_token_id,
    }
    architecture = shape.get("architecture", "bert")
    if architecture in _DECODERS:
        # transformers' defaults are those of the large models: their own head size and special tokens.
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        size = {} if architecture in ("llama", "qwen2") else {"head_dim": shape["hidden"] // shape["heads"]}
        many = {"num_key_value_heads": shape["heads"]}
        model: Any = transformers.AutoModel.from_config(
            transformers.AutoConfig.for_model(architecture, **common, **ends, **size, **many)
        )
    elif architecture == "modernbert":
        names = {"cls_token_id": "cls", "bos_token_id": "cls", "sep_token_id": "sep", "eos_token_id": "sep"}
        ids = {key: getattr(tokenizer, f"{name}_token_id") for key, name in names.items()}
        model = transformers.AutoModel.from_config(transformers.ModernBertConfig(**common, **ids))
    else:
        model = transformers.AutoModel.from_config(transformers.BertConfig(**common))
        model.pooler = None  # the next-sentence head: no embedding passes through it
    return model.eval()


def _dense_layers(hidden: int, width: int | None) -> tuple[Layer, ...]:
    if width is None:
        return (Normalize(),)
    return (Projection(in_features=hidden, out_features=_positive(width, "dense_width")), Normalize())


def _sparse(special: tuple[int, ...], width: int) -> SparseConfig:
    return SparseConfig(source="token_linear", width=width, dropped_ids=special)


def _multi_vector(tokenizer: Any, hidden: int, width: int | None) -> MultiVectorConfig:
    opening = tokenizer("")["input_ids"][:1]
    return MultiVectorConfig(
        layers=(
            Projection(in_features=hidden, out_features=hidden if width is None else _positive(width, "vector_width")),
            Normalize(),
        ),
        drop_first=bool(opening) and opening[0] in tokenizer.all_special_ids,
    )


def _positive(width: int, name: str) -> int:
    if width < 1:
        raise UsageError(f"{name} must be at least 1, got {width}")
    return width
