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


@dataclass(frozen=True, slots=True)
class WorkedExample:
    """A query with what answers it, shown to a model that learns in context."""

    query: str
    response: str
    instruction: str | None = None
    """None: that of the texts."""


class TextTokenizer:
    """Applies prompt, suffix, tokenizer, truncation, marker and expansion, in that order."""

    def __init__(self, tokenizer: Any, config: TextConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._special = set(tokenizer.all_special_ids) | {config.first_id, config.last_id} - {None}
        _add_ends(tokenizer, first=config.first_id, last=config.last_id)
        self._added = int(tokenizer.num_special_tokens_to_add())
        if config.lower_case:
            _lower_case(tokenizer.backend_tokenizer)

    def __call__(self, texts: Sequence[str], *, kind: Kind, prompt: str | None = None) -> Tokens:
        """Tokenise; `prompt` replaces the configured one."""
        configured = self.prompt(kind)
        prefix = configured if prompt is None else prompt
        texts = [self._shortened(clean(text)) for text in texts]
        suffix = self.config.suffixes.get(kind, "")
        rows = self._encode(self._whole(texts, prefix, suffix, kind), kind)["input_ids"] if texts else []
        rows, attended = self._decorate(rows, kind)
        offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        return Tokens(
            ids=np.concatenate([np.zeros(0, np.int32), *(np.asarray(row, np.int32) for row in rows)]),
            offsets=offsets,
            attended=np.concatenate([np.zeros(0, np.bool_), *attended]),
            prompt_lengths=self._prompt_lengths(texts, np.diff(offsets), prefix=prefix, suffix=suffix, kind=kind),
            padding_id=int(self.tokenizer.pad_token_id or 0),
        )

    def instructed(self, instruction: str, *, examples: Sequence[WorkedExample] = ()) -> str:
        """The prompt for an instruction, by the model's own template.

        Args:
            instruction: what the texts are embedded for, in a sentence.
            examples: put in front, for models that learn from them (bge-en-icl).

        Raises:
            UsageError: the model has no such template, or the instruction is empty.
        """
        template, shown = self.config.instruction_prompt, self.config.example_prompt
        if template is None:
            raise UsageError(
                f"the model has no template for an instruction ({instruction!r}); give the whole text to be put in "
                "front as prompt="
            )
        if not instruction.strip():
            raise UsageError("the instruction is empty; for no prompt at all write prompt=''")
        if examples and shown is None:
            raise UsageError("the model has no template for examples; leave them out")
        parts = [
            _filled(
                shown, instruction=example.instruction or instruction, query=example.query, response=example.response
            )
            for example in examples
            if shown is not None
        ]
        return "".join(parts) + _filled(template, instruction=instruction.strip())

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
        prefix, source = self.prompt(kind), clean(text)
        text = self._shortened(source)
        (whole,) = self._whole([text], prefix, self.config.suffixes.get(kind, ""), kind)
        begin = len(prefix)
        if self.config.strip is True:
            begin -= len(prefix + text) - len((prefix + text).lstrip())
        encoded = self._encode([whole], kind, offsets=True)
        (row,), _ = self._decorate(encoded["input_ids"], kind)
        places = None if source.startswith(text) else _places(source)
        stop = begin + len(text)
        # A token that begins in the prompt and ends in the text, or so at the end, keeps the text's part.
        spans = []
        for start, end in _whole_letters(encoded["offset_mapping"][0], whole):
            start, end = max(start, begin) - begin, min(end, stop) - begin
            if end <= start:
                spans.append(NOWHERE)
            else:
                spans.append((start, end) if places is None else (places[start], places[end - 1] + 1))
        if kind in self.config.markers:
            spans.insert(1, NOWHERE)
        if self.config.cls_every is not None:
            spans = _with_each(spans, NOWHERE, every=self.config.cls_every, ends=self._ends(encoded["input_ids"][0]))
        spans += [NOWHERE] * (len(row) - len(spans))
        return np.asarray(row, np.int32), np.asarray(spans, np.int64).reshape(-1, 2)

    def token_spans(self, text: str) -> NDArray[np.int64]:
        """(tokens, 2) spans of all tokens of `text`: no special tokens, no prompt, no truncation."""
        text = clean(text)
        return np.asarray(_whole_letters(self._plain([text])["offset_mapping"][0], text), np.int64).reshape(-1, 2)

    def _whole(self, texts: Sequence[str], prefix: str, suffix: str, kind: Kind) -> list[str]:
        """Prompt, text and suffix as one string each; the text is cut where the suffix would not fit behind it."""
        if self.config.strip == "end":
            texts = [text.rstrip() for text in texts]
        whole = [prefix + text for text in texts]
        whole = [text.strip() for text in whole] if self.config.strip is True else whole
        if not suffix:
            return whole
        room = self._room(kind) - self._added - len(self._plain([suffix])["input_ids"][0])
        encoded = self._plain(whole)
        for number, offsets in enumerate(encoded["offset_mapping"]):
            if len(offsets) > room:
                # Where the first token left out belongs to a letter of several tokens (its bytes), all of it goes.
                whole[number] = whole[number][: min(offsets[room][0], offsets[room - 1][1]) if room > 0 else 0]
        return [text + suffix for text in whole]

    def _shortened(self, text: str) -> str:
        """LLM2Vec's way to cut a text: whole words, by the ratio of its tokens to the limit, until it fits."""
        limit = self.config.text_tokens
        if limit is None:
            return text
        while (count := len(self._plain([text])["input_ids"][0])) > limit:
            words = text.split()
            # It counts no tokens past the model's length, so that long texts take several rounds.
            kept = words[: int(len(words) * (limit / min(count, self.config.max_length)))]
            if not kept:
                # One word alone is longer; LLM2Vec's own code is left with nothing of it.
                return text[: int(self._plain([text])["offset_mapping"][0][limit - 1][1])]
            text = " ".join(kept)
        return text

    def _plain(self, texts: Sequence[str]) -> Any:
        return self.tokenizer(
            list(texts), add_special_tokens=False, truncation=False, return_offsets_mapping=True, verbose=False
        )

    def _room(self, kind: Kind) -> int:
        room = self.max_length(kind) - (kind in self.config.markers)
        expansion = self._expansion(kind)
        if expansion is not None:
            widest = expansion.length - (kind in self.config.markers)
            room = widest if expansion.fixed else max(room, widest)
        if self.config.cls_every is not None:
            room = _room_beside_cls(room, self.config.cls_every, special=self._added)
        return room

    def _encode(self, texts: Sequence[str], kind: Kind, *, offsets: bool = False) -> Any:
        return self.tokenizer(
            list(texts),
            add_special_tokens=kind != "query" or self.config.query_special_tokens,
            truncation=True,
            max_length=self._room(kind),
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

    def _prompt_lengths(
        self, texts: Sequence[str], lengths_N: NDArray[np.int64], *, prefix: str, suffix: str, kind: Kind
    ) -> NDArray[np.int64]:
        if self.config.prompt_counted_by == "prompt" or not texts:
            return np.full(len(texts), self._prompt_length(prefix, kind), np.int64)
        texts = [text.rstrip() for text in texts] if self.config.strip == "end" else texts
        counts = [len(row) for row in self._plain([text + suffix for text in texts])["input_ids"]]
        return np.where(counts, np.maximum(lengths_N - counts, 0), 0).astype(np.int64)

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


def _filled(template: str, **values: str) -> str:
    """The template with its names in braces replaced, all at once: values may hold braces."""
    return re.sub(r"\{(\w+)\}", lambda found: values.get(found[1], found[0]), template)


def _places(text: str) -> list[int]:
    """Where in `text` each code point of its words lies, when single spaces join them."""
    places: list[int] = []
    for word in re.finditer(r"\S+", text):
        places += range(word.start(), word.end() + 1)
    return places


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


def _add_ends(tokenizer: Any, *, first: int | None, last: int | None) -> None:
    """Make a tokenizer begin and end every text with these tokens, truncated ones too, where it does not yet.

    It is asked, not believed: transformers 5 leaves out the EOS that tokenizer_config.json asks for.
    """
    from tokenizers import processors

    if first is None and last is None:
        return
    before, after = _around(tokenizer)
    if first in (None, *before[:1]) and last in (None, *after[-1:]):
        return
    if first is not None and before[:1] != [first]:
        before = [first, *before]
    if last is not None and after[-1:] != [last]:
        after = [*after, last]
    names = {number: str(tokenizer.convert_ids_to_tokens(number)) for number in (*before, *after)}
    # One template for all: tokenizers 0.23 panics where a second one stands behind a template of two tokens.
    front, back = ([names[number] for number in part] for part in (before, after))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=[*front, "$A", *back],
        pair=[*front, "$A", *back, *front, "$B:1", *back],
        special_tokens=[(name, number) for number, name in names.items()],
    )


def _around(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and behind a text."""
    for sample in ("a", "가", "0", *tokenizer.get_vocab()):
        whole, bare = (tokenizer(sample, add_special_tokens=special)["input_ids"] for special in (True, False))
        for start in range(len(whole) if bare else 0):
            if whole[start : start + len(bare)] == bare:
                return whole[:start], whole[start + len(bare) :]
    raise UsageError("the tokenizer tells no text from its special tokens, so that its ends cannot be set")


def _lower_case(backend: Any) -> None:
    """Put lower-casing in front of the tokenizer's own normalisation; offsets stay right."""
    from tokenizers import normalizers

    present = backend.normalizer
    composed = isinstance(present, normalizers.Sequence)
    parts = [] if present is None else list(present) if composed else [present]
    if not any(isinstance(part, normalizers.Lowercase) for part in parts):
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
