"""What a bare checkpoint does not say of itself: pooling, normalisation and prompts, from the models' own cards.

A profile is taken when it is asked for by name, or when a model is loaded by a hub id that this file lists.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import msgspec

from trine.models.checkpoints.base import LoadOptions
from trine.models.config import EncoderConfig, Pooling
from trine.tables import unknown
from trine.types import KINDS


@dataclass(frozen=True, slots=True)
class Profile:
    """How one family of models is used."""

    pooling: Pooling
    normalize: bool = True
    prompts: dict[str, str] = field(default_factory=dict)


PROFILES = {
    "e5": Profile("mean", prompts={"query": "query: ", "passage": "passage: "}),
    "bge-en": Profile("cls", prompts={"query": "Represent this sentence for searching relevant passages: "}),
    "bge-zh": Profile("cls", prompts={"query": "为这个句子生成表示以用于检索相关文章："}),
    "bge-m3": Profile("cls"),
    "minilm": Profile("mean"),
}
"""E5: arXiv 2212.03533, section 4.3, and 2402.05672. BGE v1.5: the model cards' table of query instructions."""

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
    """Prompts asked for, or those of the profile where the checkpoint brings none."""
    declared = any(config.text.prompts.values())
    default = config.text.default_prompt
    if options.prompts is not None:
        for kind in options.prompts:
            if kind not in KINDS:
                raise unknown(kind, KINDS, kind="prompt")
        prompts = dict(options.prompts)
        default = default if default in prompts else None
    elif options.profile is not None and not declared:
        prompts = PROFILES[options.profile].prompts
    else:
        return config
    text = msgspec.structs.replace(config.text, prompts=prompts, default_prompt=default)
    return msgspec.structs.replace(config, text=text)
