"""What a recipe is: everything that decides a training run but the model and the data, as flat, frozen fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from trine.errors import UsageError
from trine.models.config import Attention, Pooling
from trine.tables import resolve, unknown
from trine.types import Mode

Unit: TypeAlias = Literal["cls", "mean"]
Block: TypeAlias = Literal["query_passage", "query_query", "passage_query", "passage_passage"]
ScoreDistillation: TypeAlias = Literal["kl", "listnet", "margin_mse", "ranked"]
EmbeddingDistillation: TypeAlias = Literal["cosine", "geometry"]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all kinds of training share."""

    name: str
    source: str
    """Paper and section that the numbers come from."""
    steps: int | None = None
    """Optimiser steps; either this or `epochs`."""
    epochs: float | None = None
    """Passes over the data."""
    batch_size: int
    """Examples of one optimiser step, over all ranks."""
    learning_rate: float
    fresh_learning_rate: float = 1.0
    """Factor on the learning rate of heads that were not in the checkpoint."""
    weight_decay: float = 0.01
    warmup: float = 0.1
    """Share of the steps while the learning rate rises, or from 1 on their number."""
    schedule: str = "linear"
    max_grad_norm: float = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the forward and backward pass; weights stay float32. "auto": bfloat16 on CUDA, float32 elsewhere."""
    chunk_tokens: int | None = None
    """Tokens that pass through the model together, padding included; None chooses by device. Memory, not result."""
    gradient_checkpointing: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How several ranks share the work."""
    size_exponent: float = 0.5
    """a in n^a, the share of a source of n examples among the batches (GTE, arXiv 2308.03281, section 3.3)."""
    length_buckets: bool = True
    """Whether a batch holds texts of similar length."""
    seed: int = 0
    save_every: int = 500
    keep: int = 2
    """Checkpoints that stay, besides the best."""
    evaluate_every: int = 500
    """Steps between measurements on the validation set, where one is given."""
    patience: int | None = None
    """Measurements without a better one after which training ends."""
    log_every: int = 10

    def __post_init__(self) -> None:
        """Refuse a run without or with two lengths."""
        if (self.steps is None) == (self.epochs is None):
            raise UsageError(f"recipe {self.name}: give steps or epochs; got steps={self.steps}, epochs={self.epochs}")
        for field in ("batch_size", "learning_rate", "save_every", "evaluate_every", "log_every", "keep"):
            if not getattr(self, field) > 0:
                raise UsageError(f"recipe {self.name}: {field} must be above 0, got {getattr(self, field)}")


class EncoderRecipe(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What training of an encoder shares: how a decoder becomes one, and low-rank adapters."""

    attention: Attention | None = None
    """What tokens see: "bidirectional" takes a decoder's causal mask away (LLM2Vec, arXiv 2404.05961, section 2.1).
    None keeps the model's; the trained model remembers it."""
    attention_dropout: float | None = None
    """Of the attention weights of a model that has this dropout apart from others, as decoders have; None keeps the
    checkpoint's."""
    lora_rank: int = 0
    """Width of adapters on all linear layers of the backbone, which then learn in its place (LoRA, arXiv 2106.09685);
    they are merged at the end. 0: all weights learn."""
    lora_alpha: float | None = None
    """The adapters' output is scaled by alpha / rank; None is twice the rank."""
    lora_dropout: float = 0.0
    """Of the adapters' input."""

    def __post_init__(self) -> None:
        """Refuse settings of adapters that there are none of."""
        super().__post_init__()
        if self.lora_rank < 0:
            raise UsageError(f"recipe {self.name}: lora_rank must be at least 0, got {self.lora_rank}")
        if not self.lora_rank and (self.lora_alpha is not None or self.lora_dropout):
            raise UsageError(f"recipe {self.name}: lora_alpha and lora_dropout have no effect with lora_rank=0")


class PairRecipe(EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pairs", tag_field="kind"):
    """Contrastive training and distillation on queries and passages."""

    modes: tuple[Mode, ...] = ("dense",)
    pooling: Pooling | None = None
    """Of the dense head; None keeps the model's."""
    query_prompt: str | None = None
    """Put in front of queries; None keeps the model's."""
    passage_prompt: str | None = None
    instruction_prompt: str | None = None
    """Template for instructions that come with a query, "{instruction}" in it; kept by the trained model."""
    pool_prompt: bool | None = None
    """Whether the prompt's tokens count in pooling; None keeps the model's."""
    append_eos: bool = False
    """Whether every text ends with the tokenizer's end-of-sequence token, for the pooling "last_token"."""
    query_length: int = 64
    """Tokens after which a query is cut, special tokens included."""
    passage_length: int = 256
    vector_width: int | None = None
    """Dimensions of a fresh multi-vector head; None: those of the hidden states."""
    length_batch_sizes: tuple[tuple[int, int], ...] = ()
    """Tokens of the longest text -> examples of one step over all ranks, in place of `batch_size`."""
    memory_gigabytes: float | None = None
    """For the activations of one rank: batches shrink as texts grow, in place of `batch_size` (estimated from the
    model's shape). Without gradient caching, which needs no such care."""
    group_size: int = 1
    """Passages of a query: its positive and hard negatives."""
    temperature: float = 0.02
    learn_temperature: bool = False
    blocks: tuple[Block, ...] = ("query_passage",)
    """Which similarities enter the denominator (GTE, section 3.2): query_passage, query_query, passage_query,
    passage_passage."""
    false_negative_margin: float | None = None
    """Negatives that score above the positive by more than this do not count (Qwen3-Embedding, arXiv 2506.05176)."""
    in_batch: bool = True
    contrastive_weight: float = 1.0
    distillation: ScoreDistillation | None = None
    """How teacher scores are followed: kl, listnet, margin_mse, ranked."""
    distillation_weight: float = 1.0
    embedding_distillation: EmbeddingDistillation | None = None
    """How a teacher's embeddings are followed: cosine, geometry."""
    embedding_distillation_weight: float = 1.0
    self_distillation: bool = False
    """Whether each head follows the sum of all (BGE-M3, arXiv 2402.03216, section 3.3)."""
    mode_weights: tuple[float, float, float] = (1.0, 0.1, 1.0)
    """Of dense, sparse and multi-vector losses."""
    ensemble_weights: tuple[float, float, float] = (1.0, 0.3, 1.0)
    """Of their scores in the sum."""
    matryoshka: tuple[int, ...] = ()
    """Prefix lengths of the dense vector that are trained too."""
    flops_weight: float = 0.0
    """Sparsity (SPLADE, arXiv 2109.10086)."""
    spread_weight: float = 0.0
    """GOR spread-out."""
    same_text: bool = False
    """Queries are their own passages, under other dropout (SimCSE)."""
    dropout: float | None = None
    """Of the backbone; None keeps the checkpoint's."""
    shuffle_text: float = 0.0
    """Share of passages that are cut in three and shuffled (BGE-M3, appendix)."""
    freeze_backbone: bool = False
    """Whether the heads alone learn."""
    cached: bool = True
    """Gradient caching: memory independent of the batch, at one more forward pass."""

    def __post_init__(self) -> None:
        """Refuse batch sizes that exclude each other."""
        super().__post_init__()
        if self.length_batch_sizes and self.memory_gigabytes is not None:
            raise UsageError(f"recipe {self.name}: give length_batch_sizes or memory_gigabytes, not both")
        if self.memory_gigabytes is not None and self.cached:
            raise UsageError(
                f"recipe {self.name}: memory_gigabytes has no effect with cached=true; set one of them off"
            )
        if self.freeze_backbone and self.lora_rank:
            raise UsageError(f"recipe {self.name}: adapters learn nothing with freeze_backbone=true; set lora_rank=0")


class PretrainingRecipe(
    EncoderRecipe, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="pretraining", tag_field="kind"
):
    """Self-supervised training of the backbone on running text."""

    objective: Literal["mlm", "retromae", "dupmae", "mntp", "next_token"] = "retromae"
    """"mntp" predicts a hidden token from the place before it, as decoders do (LLM2Vec, arXiv 2404.05961, section 2.1);
    "next_token" is a decoder's own language modelling, with nothing hidden."""
    max_length: int = 512
    encoder_mask: float = 0.3
    """Share of tokens that are hidden."""
    mask_all: bool = False
    """Whether all hidden tokens become the mask token; else BERT's 80 %, 10 % random ones and 10 % left."""
    decoder_mask: float = 0.5
    enhanced: bool = True
    """Enhanced decoding: every position sees its own sample of the context."""
    decoder_layers: int = 1
    bag_of_words_weight: float = 0.1
    pooling: Unit = "cls"
    """What RetroMAE's decoder reconstructs from; also of a bare checkpoint, which does not say its own."""


class RerankerRecipe(Recipe, frozen=True, kw_only=True, forbid_unknown_fields=True, tag="reranker", tag_field="kind"):
    """Training of a cross-encoder on queries with candidates."""

    loss: Literal["pointwise", "listwise", "kl", "margin_mse"] = "listwise"
    group_size: int = 8
    """Candidates of a query: its positive and hard negatives."""
    max_length: int = 512
    """Tokens of a pair of a fresh reranker; one that is loaded keeps its own."""
    teacher_temperature: float = 1.0
    """A teacher's scores are divided by it (loss "kl")."""


AnyRecipe: TypeAlias = PairRecipe | PretrainingRecipe | RerankerRecipe
R = TypeVar("R", bound=Recipe)

LENGTHS = ("steps", "epochs")


def recipe(name: str, settings: Mapping[str, Any] | None = None) -> AnyRecipe:
    """The recipe of that name, with some of its fields changed.

    Args:
        name: in `trine.recipes.RECIPES`.
        settings: field -> value; text is read as the field's type.

    Raises:
        UnknownName: no such recipe or field; the message suggests the nearest.
        UsageError: a value of a wrong type.
    """
    from trine.recipes import RECIPES

    chosen: AnyRecipe = resolve(RECIPES, name, kind="recipe")()
    return changed(chosen, settings or {})


def changed(chosen: R, settings: Mapping[str, Any]) -> R:
    """The same recipe with other values in some fields; setting `steps` unsets `epochs`, and the reverse."""
    fields = {field.name: field for field in msgspec.structs.fields(chosen)}
    values: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in fields or key in ("name", "source"):
            raise unknown(key, [field for field in fields if field not in ("name", "source")], kind="setting")
        values[key] = _read(value, fields[key].type, key)
    given = [key for key in LENGTHS if values.get(key) is not None]
    if len(given) == 1:
        values[LENGTHS[1 - LENGTHS.index(given[0])]] = None
    return msgspec.structs.replace(chosen, **values)


def _read(value: Any, wanted: Any, key: str) -> Any:
    if isinstance(value, str):
        value = _plain(value)
        if isinstance(value, str) and "tuple" in str(wanted).lower():
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif "tuple" in str(wanted).lower() and not isinstance(value, list):
            value = [value]
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"setting {key}={value!r} cannot be used: {error}") from error


def _plain(text: str) -> Any:
    """None, a JSON value, or the text itself."""
    if text.lower() in ("none", "null"):
        return None
    try:
        return msgspec.json.decode(text.lower() if text in ("True", "False") else text)
    except msgspec.DecodeError:
        return text
