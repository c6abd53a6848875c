"""The kinds of example that are written: six of E5-Mistral, and queries for passages of one's own.

Source: E5-Mistral, arXiv 2401.00368, section 3.1 and appendix C (groups, counts, keys and values). The wording of the
prompts is trine's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

Words = Mapping[str, str]
"""One wording in each language that there are prompts in."""


def _words(english: str, korean: str) -> Words:
    return MappingProxyType({"en": english, "ko": korean})


def _same(*values: str) -> tuple[Words, ...]:
    return tuple(_words(value, value) for value in values)


_UNIT = (_words("sentence", "문장"), _words("phrase", "구절"), _words("passage", "문단"))
_HIGH_SCHOOL, _COLLEGE = _words("high school", "고등학교"), _words("college", "대학교")
_HARDER = (_HIGH_SCHOOL, _COLLEGE, _words("PhD", "박사"))
_EASIER = (_words("elementary school", "초등학교"), _HIGH_SCHOOL, _COLLEGE)
_CLARITY = (
    _words("clear", "분명하게 이해되는"),
    _words("understandable with some effort", "조금 애써야 이해되는"),
    _words("ambiguous", "뜻이 모호한"),
)


@dataclass(frozen=True, slots=True)
class Group:
    """One kind of example."""

    name: str
    weight: float
    """Thousands of examples in the paper."""
    fields: tuple[str, ...]
    """What the model writes: query, positive and maybe a hard negative; of a passage, queries for it."""
    choices: Mapping[str, tuple[Words, ...]] = field(default_factory=dict)
    """What is drawn anew for each example."""
    task: Words | None = None
    """The instruction where it is always the same; None has tasks brainstormed first, in calls of their own."""
    long_fields: tuple[str, ...] = ()
    """Those that must be more than a phrase."""
    kind: str = "asymmetric"
    """"symmetric" puts the instruction on both sides; "bitext" also draws a second language; "grounded" takes a
    passage."""

    @property
    def two_step(self) -> bool:
        """Whether tasks are brainstormed first."""
        return self.task is None

    @property
    def symmetric(self) -> bool:
        """Whether both sides are the same kind of text."""
        return self.kind in ("symmetric", "bitext")

    @property
    def prompt(self) -> str:
        """Name of the template of an example."""
        return f"example-{self.name}"


_ALL = (
    Group(
        "short-long",
        167,
        ("user_query", "positive_document", "hard_negative_document"),
        {
            "query_type": (
                _words("extremely long-tail", "찾는 사람이 매우 드문"),
                _words("long-tail", "찾는 사람이 드문"),
                _words("common", "흔히 찾는"),
            ),
            "query_length": (
                _words("less than 5 words", "5단어 미만"),
                _words("5 to 15 words", "5~15단어"),
                _words("at least 10 words", "10단어 이상"),
            ),
            "difficulty": _HARDER,
            "clarity": _CLARITY,
            "num_words": _same("50", "100", "200", "300", "400", "500"),
        },
        long_fields=("positive_document", "hard_negative_document"),
    ),
    Group(
        "long-short",
        122,
        ("input_text", "label", "misleading_label"),
        {
            "num_words": (
                _words("less than 10 words", "10단어 미만"),
                _words("at least 10 words", "10단어 이상"),
                _words("at least 50 words", "50단어 이상"),
                _words("at least 100 words", "100단어 이상"),
                _words("at least 200 words", "200단어 이상"),
            ),
            "difficulty": _HARDER,
            "clarity": _CLARITY,
        },
    ),
    Group("short-short", 13, ("input", "positive_document")),
    Group("long-long", 17, ("input", "positive_document"), long_fields=("input", "positive_document")),
    Group(
        "sts",
        99,
        ("S1", "S2", "S3"),
        {
            "unit": _UNIT,
            "high_score": _same("4", "4.5", "5"),
            "low_score": _same("2.5", "3", "3.5"),
            "difficulty": _EASIER,
        },
        task=_words("Find texts that mean the same.", "뜻이 같은 글을 찾는다."),
        kind="symmetric",
    ),
    Group(
        "bitext",
        89,
        ("S1", "S2", "S3"),
        {
            "unit": _UNIT,
            "high_score": _same("4", "4.5", "5"),
            "low_score": _same("1.5", "2", "2.5"),
            "difficulty": _EASIER,
        },
        task=_words("Find the translation of the text.", "글의 번역을 찾는다."),
        kind="bitext",
    ),
    Group(
        "grounded",
        100,
        ("question", "keywords", "claim", "situation"),
        {"difficulty": _HARDER},
        task=_words("Given a search query, find passages that answer it.", "검색어에 답이 되는 글을 찾는다."),
        kind="grounded",
    ),
)

GROUPS: Mapping[str, Group] = MappingProxyType({group.name: group for group in _ALL})
"""Name -> group. "grounded" is not in the paper; its weight only matters beside others."""

PAPER_GROUPS = tuple(name for name in GROUPS if name != "grounded")
