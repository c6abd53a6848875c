"""What an encoder is, as data: the strict schema of `trine.json` and the target of every checkpoint layout.

A field that the schema does not know is an error, so a newer file is never half understood.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from trine.errors import CheckpointError
from trine.types import Mode

Pooling: TypeAlias = Literal["cls", "mean", "max", "mean_sqrt_len", "weighted_mean", "last_token", "cls_mean"]
Attention: TypeAlias = Literal["native", "bidirectional", "causal"]
Activation: TypeAlias = Literal["identity", "tanh", "gelu", "relu", "silu", "sigmoid"]


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of all parts of the schema."""


class Projection(Strict, frozen=True, tag="projection", tag_field="kind"):
    """A linear layer with an activation: ``activation(W x + b)``, plus x where `residual`."""

    in_features: int
    out_features: int
    bias: bool = True
    activation: Activation = "identity"
    residual: bool = False


class Normalize(Strict, frozen=True, tag="normalize", tag_field="kind"):
    """Scaling to unit length."""


class LayerNorm(Strict, frozen=True, tag="layer_norm", tag_field="kind"):
    """Layer normalisation with learned scale and shift."""

    size: int
    epsilon: float = 1e-5


class Truncate(Strict, frozen=True, tag="truncate", tag_field="kind"):
    """Keeping the first `size` dimensions, a Matryoshka prefix (arXiv 2205.13147)."""

    size: int


Layer: TypeAlias = Projection | Normalize | LayerNorm | Truncate


class DenseConfig(Strict, frozen=True):
    """One vector a text: pooled token states, then layers."""

    pooling: tuple[Pooling, ...]
    """Several poolings are concatenated."""
    layers: tuple[Layer, ...] = ()
    include_prompt: bool = True
    """False leaves the prompt's tokens (and the special tokens before them) out of pooling."""


class SparseConfig(Strict, frozen=True):
    """Weights over the vocabulary."""

    source: Literal["token_linear", "masked_lm", "static"]
    """`token_linear`: ReLU of a linear layer, one weight a token (BGE-M3). `masked_lm`: log(1 + ReLU(logits)) over the
    whole vocabulary (SPLADE). `static`: a table with one weight an id."""
    width: int
    """V"""
    query_source: Literal["static"] | None = None
    """`static` for inference-free models, whose queries need no forward pass; None: queries like passages."""
    pooling: Literal["max", "sum"] = "max"
    log1p: int = 1
    """How often log(1 + x) is applied to masked-LM logits: 1 in SPLADE, 2 in its OpenSearch descendants."""
    dropped_ids: tuple[int, ...] = ()
    """Special tokens, which never get a weight."""


class MultiVectorConfig(Strict, frozen=True):
    """One vector a token: token states through layers."""

    layers: tuple[Layer, ...] = ()
    drop_first: bool = False
    """Leave out the first token (BGE-M3 drops CLS, and keeps EOS)."""
    dropped_query_ids: tuple[int, ...] = ()
    dropped_passage_ids: tuple[int, ...] = ()
    """Tokens without a vector, such as punctuation in ColBERT passages."""


class Expansion(Strict, frozen=True):
    """Queries filled up with extra tokens that get vectors of their own (ColBERT, arXiv 2004.12832, section 3.2)."""

    length: int
    """Tokens after expansion, special tokens included."""
    token_id: int
    attend: bool = False
    """Whether the other tokens see the extra ones."""
    fixed: bool = True
    """True also cuts longer queries to `length`; False makes it a floor."""


class TextConfig(Strict, frozen=True):
    """How a text becomes tokens."""

    max_length: int
    """Tokens, special ones included; longer texts are cut."""
    query_max_length: int | None = None
    passage_max_length: int | None = None
    prompts: dict[str, str] = {}
    """Text put in front, by kind ("query", "passage") or by a name to ask for."""
    default_prompt: str | None = None
    """Name of the prompt for a text whose kind has none."""
    instruction_prompt: str | None = None
    """Prompt for an instruction that the caller gives, which stands in it as "{instruction}"."""
    example_prompt: str | None = None
    """A worked example in front of an instruction, with "{instruction}", "{query}" and "{response}" in it."""
    suffixes: dict[str, str] = {}
    """Text put behind, by kind: the end of a chat turn, or what an in-context learner answers after."""
    first_id: int | None = None
    """Token id that every text begins with; put there where the tokenizer leaves it out, after truncation."""
    last_id: int | None = None
    """Token id that every text ends with, put there likewise."""
    lower_case: bool = False
    strip: bool | Literal["end"] = False
    """Whether white space is left out: at both ends of a text, prompt included, or only behind it."""
    text_tokens: int | None = None
    """Tokens of the text alone, prompt and special tokens left out, to which it is shortened first, by whole words
    (LLM2Vec)."""
    prompt_counted_by: Literal["prompt", "text"] = "prompt"
    """How the tokens are counted that `include_prompt` leaves out: those of the prompt tokenised alone
    (sentence-transformers), or all but as many at the end as the text and its suffix have alone (LLM2Vec)."""
    query_special_tokens: bool = True
    """False: queries get no CLS, SEP and the like, which no static weight is meant for."""
    markers: dict[str, int] = {}
    """Token id inserted after the first token, by kind (ColBERT's [Q] and [D])."""
    expansion: Expansion | None = None
    cls_every: int | None = None
    """A CLS after every so many tokens while more follow (MCLS, BGE-M3, arXiv 2402.03216, section 3.4), for the pooling
    "cls_mean"."""


class EncoderConfig(Strict, frozen=True):
    """A whole encoder but for its weights and its tokenizer."""

    text: TextConfig
    dense: DenseConfig | None = None
    sparse: SparseConfig | None = None
    multi_vector: MultiVectorConfig | None = None
    attention: Attention = "native"
    """What a token sees: as the transformer's own config.json says, all tokens, or only those before it (LLM2Vec, arXiv
    2404.05961, section 2.1)."""
    untrained: tuple[Mode, ...] = ()
    """Representations that were put together without training; said wherever the model is shown."""
    scripts: tuple[str, ...] = ()
    """Writing systems that it was trained on, by the first word of their Unicode names ("LATIN", "HANGUL"). Search
    leaves the model out for a query in others. Empty: it says nothing, and is used for all."""
    origin: str = ""
    """Layout or package that it came from."""
    format: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse an encoder without a head, and a pooling without its tokens."""
        if not self.modes:
            raise CheckpointError("an encoder needs at least one of the heads dense, sparse and multi_vector")
        several = self.dense is not None and "cls_mean" in self.dense.pooling
        if several != (self.text.cls_every is not None):
            raise CheckpointError(
                f"the pooling cls_mean and text.cls_every need each other: pooling is "
                f"{None if self.dense is None else self.dense.pooling}, cls_every is {self.text.cls_every}"
            )
        if self.text.cls_every is not None and self.text.cls_every < 1:
            raise CheckpointError(f"text.cls_every must be at least 1, got {self.text.cls_every}")

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations it gives."""
        heads: dict[Mode, object] = {"dense": self.dense, "sparse": self.sparse, "multi_vector": self.multi_vector}
        return tuple(mode for mode, head in heads.items() if head is not None)

    @property
    def needs_masked_lm(self) -> bool:
        """Whether the backbone must bring its masked-language-model head."""
        return self.sparse is not None and self.sparse.source == "masked_lm"

    def to_json(self) -> bytes:
        """The text of `trine.json`."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @staticmethod
    def read(path: Path) -> EncoderConfig:
        """Parse `trine.json`; anything unknown or of a wrong type is an error that names the field."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=EncoderConfig)
        except msgspec.MsgspecError as error:
            raise CheckpointError(f"{path}: {error}; written by another version of trine?") from error
