"""What a bare checkpoint does not say of itself: pooling, normalisation and prompts, from the models' own cards.

A profile is taken when it is asked for by name, or when a model is loaded by a hub id that this file lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from trine.errors import CheckpointError
from trine.models.checkpoints.base import LoadOptions
from trine.models.config import Attention, EncoderConfig, Pooling, TextConfig
from trine.tables import unknown
from trine.types import KINDS


@dataclass(frozen=True, slots=True)
class Profile:
    """How one family of models is used."""

    pooling: Pooling
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)
    instruction_prompt: str | None = None
    example_prompt: str | None = None
    suffixes: dict[str, str] = field(default_factory=dict)
    attention: Attention = "native"
    include_prompt: bool = True
    ends: tuple[str | None, str | None] = (None, None)
    """Tokens that every text must begin and end with; None leaves it to the tokenizer."""


_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_E5_QUERY = "Instruct: {instruction}\nQuery: "
_QWEN_QUERY = "Instruct: {instruction}\nQuery:"
_BGE_QUERY = "<instruct>{instruction}\n<query>"
_GEMMA_QUERY = "task: {instruction} | query: "


def _searching(template: str, instruction: str = _SEARCH) -> dict[str, str]:
    return {"query": template.replace("{instruction}", instruction)}


PROFILES = {
    "e5": Profile("mean", prompts={"query": "query: ", "passage": "passage: "}),
    "bge-en": Profile("cls", prompts={"query": "Represent this sentence for searching relevant passages: "}),
    "bge-zh": Profile("cls", prompts={"query": "为这个句子生成表示以用于检索相关文章："}),
    "bge-m3": Profile("cls"),
    "minilm": Profile("mean"),
    "e5-instruct": Profile("mean", prompts=_searching(_E5_QUERY), instruction_prompt=_E5_QUERY),
    "e5-mistral": Profile(
        "last_token", prompts=_searching(_E5_QUERY), instruction_prompt=_E5_QUERY, ends=("<s>", "</s>")
    ),
    "qwen3-embedding": Profile(
        "last_token", prompts=_searching(_QWEN_QUERY), instruction_prompt=_QWEN_QUERY, ends=(None, "<|endoftext|>")
    ),
    "embeddinggemma": Profile(
        "mean",
        prompts={**_searching(_GEMMA_QUERY, "search result"), "passage": "title: none | text: "},
        instruction_prompt=_GEMMA_QUERY,
    ),
    "bge-multilingual-gemma2": Profile(
        "last_token",
        prompts=_searching(_BGE_QUERY, _SEARCH + "."),
        instruction_prompt=_BGE_QUERY,
        ends=("<bos>", "<eos>"),
    ),
    "bge-en-icl": Profile(
        "last_token",
        prompts=_searching(_BGE_QUERY, _SEARCH + "."),
        instruction_prompt=_BGE_QUERY,
        example_prompt=_BGE_QUERY + "{query}\n<response>{response}\n\n",
        suffixes={"query": "\n<response>"},
        ends=("<s>", "</s>"),
    ),
    "gritlm": Profile(
        "mean",
        prompts={"query": "<|embed|>\n", "passage": "<|embed|>\n"},
        instruction_prompt="<|user|>\n{instruction}\n<|embed|>\n",
        attention="bidirectional",
        include_prompt=False,
        ends=("<s>", None),
    ),
}
"""E5: arXiv 2212.03533, section 4.3, and 2402.05672. BGE v1.5: the model cards' table of query instructions.
E5-Mistral: arXiv 2401.00368, section 3.1 (a space after "Query:"). Qwen3-Embedding: arXiv 2506.05176, section 2 (none).
EmbeddingGemma: arXiv 2509.20354. bge-en-icl: arXiv 2409.15700, section 3. GritLM: arXiv 2402.09906, section 2."""

KNOWN = {
    **{
        f"intfloat/{prefix}e5-{size}{suffix}": "e5"
        for prefix, suffix, sizes in (
            ("", "", ("small", "base", "large")),
            ("", "-v2", ("small", "base", "large")),
            ("multilingual-", "", ("small", "base", "large")),
        )
        for size in sizes
    },
    **{f"intfloat/e5-{size}-unsupervised": "e5" for size in ("small", "base", "large")},
    **{f"BAAI/bge-{size}-en-v1.5": "bge-en" for size in ("small", "base", "large")},
    **{f"BAAI/bge-{size}-zh-v1.5": "bge-zh" for size in ("small", "base", "large")},
    "BAAI/bge-m3": "bge-m3",
    "BAAI/bge-m3-unsupervised": "bge-m3",
    "BAAI/bge-m3-retromae": "bge-m3",
    "intfloat/multilingual-e5-large-instruct": "e5-instruct",
    "intfloat/e5-mistral-7b-instruct": "e5-mistral",
    **{f"Qwen/Qwen3-Embedding-{size}": "qwen3-embedding" for size in ("0.6B", "4B", "8B")},
    "google/embeddinggemma-300m": "embeddinggemma",
    "BAAI/bge-multilingual-gemma2": "bge-multilingual-gemma2",
    "BAAI/bge-en-icl": "bge-en-icl",
    "GritLM/GritLM-7B": "gritlm",
}
"""Hub id -> profile. Exact ids only: a name that merely looks like one of these says nothing."""


def known_profile(options: LoadOptions, name: str) -> LoadOptions:
    """The options, with the profile that the table lists for this hub id unless the caller chose."""
    if options.profile is not None and options.profile not in PROFILES:
        raise unknown(options.profile, PROFILES, kind="profile")
    hub_id = name.partition("@")[0]
    if options.profile is None and options.pooling is None and hub_id in KNOWN:
        return replace(options, profile=KNOWN[hub_id])
    return options


def finish(config: EncoderConfig, options: LoadOptions) -> EncoderConfig:
    """The configuration with what the profile says and the checkpoint does not, and the prompts asked for."""
    if options.profile is not None:
        config = _completed(config, PROFILES[options.profile])
    if options.prompts is None:
        return config
    for kind in options.prompts:
        if kind not in KINDS:
            raise unknown(kind, KINDS, kind="prompt")
    prompts = dict(options.prompts)
    default = config.text.default_prompt if config.text.default_prompt in prompts else None
    return _with_text(config, prompts=prompts, default_prompt=default)


def _completed(config: EncoderConfig, profile: Profile) -> EncoderConfig:
    text, dense = config.text, config.dense
    # A checkpoint that lists prompts for tasks (e5-mistral's "web_search_query") says nothing of its queries by that.
    declared = text.default_prompt is not None or any(text.prompts.get(kind) for kind in KINDS)
    config = _with_text(
        config,
        prompts=text.prompts if declared else {**text.prompts, **profile.prompts},
        instruction_prompt=text.instruction_prompt or profile.instruction_prompt,
        example_prompt=text.example_prompt or profile.example_prompt,
        suffixes=text.suffixes or profile.suffixes,
    )
    if dense is not None and not profile.include_prompt:
        config = msgspec.structs.replace(config, dense=msgspec.structs.replace(dense, include_prompt=False))
    if config.attention == "native":
        config = msgspec.structs.replace(config, attention=profile.attention)
    return config


def _with_text(config: EncoderConfig, **changes: object) -> EncoderConfig:
    return msgspec.structs.replace(config, text=msgspec.structs.replace(config.text, **changes))


def ends(options: LoadOptions, text: TextConfig, *, tokenizer: Any) -> TextConfig:
    """The text part with the tokens that the profile wants around every text.

    Raises:
        CheckpointError: the tokenizer does not know such a token.
    """
    wanted = PROFILES[options.profile].ends if options.profile is not None else (None, None)
    known = tokenizer.get_vocab()
    missing = [token for token in wanted if token is not None and token not in known]
    if missing:
        raise CheckpointError(
            f"the profile {options.profile!r} wants the token {missing[0]!r} around texts, which the tokenizer does "
            "not know; is it another model's profile?"
        )
    first, last = (None if token is None else known[token] for token in wanted)
    return msgspec.structs.replace(
        text,
        first_id=first if text.first_id is None else text.first_id,
        last_id=last if text.last_id is None else text.last_id,
    )
