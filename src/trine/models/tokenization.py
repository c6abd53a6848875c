"""Texts -> token ids, without padding.

Shapes: N texts, T tokens of all texts together.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.models.config import Expansion, TextConfig
from trine.tables import unknown
from trine.types import KINDS, Kind

_T = TypeVar("_T")

_SURROGATE = re.compile("[\ud800-\udfff]")

SPACES = ("\u2581", "\u0120")
"""How SentencePiece and byte-level tokenizers write a space."""

NOWHERE = (-1, -1)
"""Span of a token that stands for no piece of the text: special tokens, prompts, markers, expansion."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """N tokenised texts in flat arrays."""

    ids: NDArray[np.int32]
    """(T,)"""
    offsets: NDArray[np.int64]
    """(N + 1,)"""
    attended: NDArray[np.bool_]
    """(T,) false for expansion tokens that the others do not see."""
    prompt_lengths: NDArray[np.int64]
    """(N,) tokens of the prompt and of the special tokens before it; 0 without prompt."""
    padding_id: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) tokens per text."""
        return np.diff(self.offsets)


class TextTokenizer:
    """Applies prompt, tokenizer, truncation, marker and expansion, in that order."""

    def __init__(self, tokenizer: Any, config: TextConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._special = set(tokenizer.all_special_ids)
        self._added = int(tokenizer.num_special_tokens_to_add())
        if config.lower_case:
            _lower_case(tokenizer.backend_tokenizer)

    def __call__(self, texts: Sequence[str], *, kind: Kind, prompt: str | None = None) -> Tokens:
        """Tokenise; `prompt` replaces the configured one."""
        configured = self.prompt(kind)
        prefix = configured if prompt is None else prompt
        whole = [prefix + clean(text) for text in texts]
        whole = [text.strip() for text in whole] if self.config.strip else whole
        rows = self._encode(whole, kind)["input_ids"] if whole else []
        rows, attended = self._decorate(rows, kind)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return Tokens(
            ids=np.concatenate([np.zeros(0, np.int32), *(np.asarray(row, np.int32) for row in rows)]),
            offsets=offsets,
            attended=np.concatenate([np.zeros(0, np.bool_), *attended]),
            prompt_lengths=np.full(len(texts), self._prompt_length(prefix, kind), np.int64),
            padding_id=int(self.tokenizer.pad_token_id or 0),
        )

    def prompt(self, kind: Kind) -> str:
        """The configured prompt of `kind`, else the default one, else nothing."""
        if kind not in KINDS:
            raise unknown(kind, KINDS, kind="kind of text")
        prompts, default = self.config.prompts, self.config.default_prompt
        if kind in prompts:
            return prompts[kind]
        if default is not None and default not in prompts:
            raise unknown(default, prompts, kind="prompt")
        return prompts[default] if default is not None else ""

    def max_length(self, kind: Kind) -> int:
        """Tokens after which a text of this kind is cut."""
        limit = self.config.query_max_length if kind == "query" else self.config.passage_max_length
        return limit or self.config.max_length

    def spans(self, text: str, *, kind: Kind) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Ids (T,) of one text as it is embedded, and the span (T, 2) behind each; `NOWHERE` where none is."""
        prefix = self.prompt(kind)
        whole, begin = prefix + clean(text), len(prefix)
        if self.config.strip:
            begin -= len(whole) - len(whole.lstrip())
            whole = whole.strip()
        encoded = self._encode([whole], kind, offsets=True)
        (row,), _ = self._decorate(encoded["input_ids"], kind)
        # A token that begins in the prompt and ends in the text keeps the text's part.
        spans = [
            (max(start, begin) - begin, end - begin) if end > max(start, begin) else NOWHERE
            for start, end in _whole_letters(encoded["offset_mapping"][0], whole)
        ]
        if kind in self.config.markers:
            spans.insert(1, NOWHERE)
        if self.config.cls_every is not None:
            spans = _with_each(spans, NOWHERE, every=self.config.cls_every, ends=self._ends(encoded["input_ids"][0]))
        spans += [NOWHERE] * (len(row) - len(spans))
        return np.asarray(row, np.int32), np.asarray(spans, np.int64).reshape(-1, 2)

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """(tokens, 2) spans of all tokens of `text`: no special tokens, no prompt, no truncation."""
        text = clean(text)
        encoded = self.tokenizer(
            text, add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )
        return np.asarray(_whole_letters(encoded["offset_mapping"], text), np.int64).reshape(-1, 2)

    def _encode(self, texts: Sequence[str], kind: Kind, *, offsets: bool = False) -> Any:
        room = self.max_length(kind) - (kind in self.config.markers)
        expansion = self._expansion(kind)
        if expansion is not None:
            widest = expansion.length - (kind in self.config.markers)
            room = widest if expansion.fixed else max(room, widest)
        if self.config.cls_every is not None:
            room = _room_beside_cls(room, self.config.cls_every, special=self._added)
        return self.tokenizer(
            list(texts),
            add_special_tokens=kind != "query" or self.config.query_special_tokens,
            truncation=True,
            max_length=room,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=offsets,
        )

    def _expansion(self, kind: Kind) -> Expansion | None:
        return self.config.expansion if kind == "query" else None

    def _decorate(self, rows: Sequence[Sequence[int]], kind: Kind) -> tuple[list[list[int]], list[NDArray[np.bool_]]]:
        marker, expansion = self.config.markers.get(kind), self._expansion(kind)
        result, attended = [], []
        for plain in rows:
            row = list(plain) if marker is None else [*plain[:1], marker, *plain[1:]]
            if self.config.cls_every is not None:
                row = _with_each(row, row[0], every=self.config.cls_every, ends=self._ends(row))
            seen = np.ones(len(row), np.bool_)
            if expansion is not None and len(row) < expansion.length:
                missing = expansion.length - len(row)
                row += [expansion.token_id] * missing
                seen = np.concatenate([seen, np.full(missing, expansion.attend)])
            if not row:
                # An empty query without special tokens: no batch may be of width 0, so padding stands in.
                row, seen = [int(self.tokenizer.pad_token_id or 0)], np.zeros(1, np.bool_)
            result.append(row)
            attended.append(seen)
        return result, attended

    def _ends(self, row: Sequence[int]) -> int:
        """Special tokens at the end of a row that begins with one."""
        return int(len(row) > 1 and row[-1] in self._special)

    def _prompt_length(self, prefix: str, kind: Kind) -> int:
        if not prefix:
            return 0
        row = self._encode([prefix], kind)["input_ids"][0]
        ends_special = bool(row) and row[-1] in self._special
        return len(row) - ends_special


def word_starts(tokenizer: Any, *, width: int) -> NDArray[np.bool_]:
    """(width,) true for the ids that begin a word: where the tokenizer marks neither beginnings nor continuations, all.

    Args:
        tokenizer: a fast one. What it marks is read off its own pieces: WordPiece has a prefix for continuations,
            SentencePiece and byte-level models carry the space in front of a word.
        width: V
    """
    starts = np.ones(width, np.bool_)
    prefix = getattr(tokenizer.backend_tokenizer.model, "continuing_subword_prefix", None)
    sample = "".join(tokenizer.tokenize("a a"))
    mark = next((mark for mark in SPACES if mark in sample), None)
    if not prefix and mark is None:
        return starts
    for piece, number in tokenizer.get_vocab().items():
        starts[number] = not piece.startswith(prefix) if prefix else piece.startswith(mark)
    return starts


def clean(text: str) -> str:
    """The text with lone surrogates, as broken JSON brings them, replaced one for one by U+FFFD, so that spans hold.

    Raises:
        UsageError: not a string.
    """
    if not isinstance(text, str):
        raise UsageError(f"a text must be a string, got {type(text).__name__}: {str(text)[:60]}")
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _with_each(row: Sequence[_T], extra: _T, *, every: int, ends: int) -> list[_T]:
    """`extra` after every so many entries while more follow; the first entry and the last `ends` ones do not count."""
    first, body, last = row[:1], row[1 : len(row) - ends], row[len(row) - ends :]
    result = list(first)
    for start in range(0, len(body), every):
        result += [extra, *body[start : start + every]] if start else body[:every]
    return [*result, *last]


def _room_beside_cls(length: int, every: int, *, special: int) -> int:
    """Tokens of a text, special ones included, that make `length` together with the extra CLS tokens."""
    whole, rest = divmod(length - special + 1, every + 1)
    return special + max(whole * every + max(rest - 1, 0), 0)


def _whole_letters(offsets: Sequence[tuple[int, int]], text: str) -> Sequence[tuple[int, int]]:
    """Offsets that end inside a letter of several code points, drawn out to its end or to the next token.

    A normaliser that composes letters (NFC, NFKC) points at the first code point only: of decomposed Korean at the
    leading consonant.
    """
    if unicodedata.is_normalized("NFC", text):
        return offsets
    result = []
    start_after = limit = len(text)
    for start, end in reversed(offsets):
        if end > start:
            if start < start_after:
                limit, start_after = start_after, start
            while end < limit and (unicodedata.combining(text[end]) or "\u1160" <= text[end] <= "\u11ff"):
                end += 1
        result.append((start, end))
    return result[::-1]


def _lower_case(backend: Any) -> None:
    """Put lower-casing in front of the tokenizer's own normalisation; offsets stay right."""
    from tokenizers import normalizers

    present = backend.normalizer
    composed = isinstance(present, normalizers.Sequence)
    parts = [] if present is None else list(present) if composed else [present]
    if not any(isinstance(part, normalizers.Lowercase) for part in parts):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
