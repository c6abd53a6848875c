"""Pairs of texts -> token ids, without padding: one sequence a pair, the query in front.

Shapes: N pairs, T tokens of all pairs together.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from trine.errors import CheckpointError, UsageError
from trine.models.config import Activation, Strict
from trine.models.tokenization import Tokens, clean
from trine.tables import unknown

Truncation: TypeAlias = Literal["longest_first", "only_second"]
TRUNCATIONS: tuple[Truncation, ...] = ("longest_first", "only_second")
Ids: TypeAlias = NDArray[np.int32]


class RerankerConfig(Strict, frozen=True):
    """A whole reranker but for its weights and its tokenizer."""

    max_length: int
    """Tokens of a pair, special ones included."""
    truncation: Truncation = "longest_first"
    """What gives way in a pair that is too long: the longer of the two texts, or the passage alone."""
    query_max_length: int | None = None
    """Tokens after which a query is cut before it is joined with a passage; None leaves that to `truncation`."""
    activation: Activation = "identity"
    """What makes the model's logit a score."""
    query_prompt: str = ""
    """Text put in front of every query."""
    untrained: bool = False
    """Whether the classification head is still as it was drawn."""
    origin: str = ""
    """Layout that it came from."""
    format: Literal[1] = 1


class _Frame(NamedTuple):
    """The special tokens around a pair."""

    before: Ids
    between: Ids
    after: Ids
    has_types: bool
    """Whether the model is told by segment ids where the passage begins."""

    @property
    def size(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


class PairTokenizer:
    """Tokenises each text once, and puts pairs together as the model's tokenizer would."""

    def __init__(self, tokenizer: Any, config: RerankerConfig) -> None:
        """Look at how the tokenizer frames a pair.

        Raises:
            UsageError: the lengths leave no room for a passage.
            CheckpointError: the tokenizer frames pairs in a way that is not known here.
        """
        if config.truncation not in TRUNCATIONS:
            raise unknown(config.truncation, TRUNCATIONS, kind="truncation")
        self.tokenizer, self.config = tokenizer, config
        self._frame = _frame_of(tokenizer)
        self._room = config.max_length - self._frame.size
        longest = config.query_max_length or 1
        if longest < 1 or self._room <= longest:
            raise UsageError(
                f"max_length {config.max_length} leaves no room for a passage: {self._frame.size} special tokens and "
                f"up to {longest} of the query come first"
            )

    @property
    def has_types(self) -> bool:
        """Whether the tokenizer marks the passage by segment ids of 1."""
        return self._frame.has_types

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> Tokens:
        """The pairs of two lists of the same length; equal texts are tokenised once."""
        query_ids, passage_ids = self.ids(queries), self.ids(passages)
        pairs = zip(queries, passages, strict=True)
        return self.join([(query_ids[query], passage_ids[passage]) for query, passage in pairs])

    def ids(self, texts: Iterable[str]) -> Mapping[str, Ids]:
        """The tokens of each text alone: no special ones, nothing cut."""
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return {}
        rows = self.tokenizer(
            [clean(text) for text in distinct],
            add_special_tokens=False,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return {text: np.asarray(row, np.int32) for text, row in zip(distinct, rows, strict=True)}

    def join(self, pairs: Sequence[tuple[Ids, Ids]]) -> Tokens:
        """Cut and frame pairs of token ids; `prompt_lengths` of the result count what stands before the passage."""
        before, between, after, _ = self._frame
        rows, starts = [], []
        for whole_query, whole_passage in pairs:
            query, passage = self._cut(whole_query, whole_passage)
            starts.append(len(before) + len(query) + len(between))
            rows += [before, query, between, passage, after]
        lengths = np.asarray([len(part) for part in rows], np.int64).reshape(-1, 5).sum(axis=1)
        ids = np.concatenate([np.zeros(0, np.int32), *rows])
        return Tokens(
            ids=ids,
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            attended=np.ones(len(ids), np.bool_),
            prompt_lengths=np.asarray(starts, np.int64),
            padding_id=int(self.tokenizer.pad_token_id or 0),
        )

    def _cut(self, query: Ids, passage: Ids) -> tuple[Ids, Ids]:
        if self.config.query_max_length is not None:
            query = self._kept(query, self.config.query_max_length)
        if self.config.truncation == "only_second":
            query_length = min(len(query), self._room)
            return self._kept(query, query_length), self._kept(passage, self._room - query_length)
        query_length, passage_length = longest_first(len(query), len(passage), room=self._room)
        return self._kept(query, query_length), self._kept(passage, passage_length)

    def _kept(self, ids: Ids, length: int) -> Ids:
        if len(ids) <= length:
            return ids
        return ids[len(ids) - length :] if self.tokenizer.truncation_side == "left" else ids[:length]


def longest_first(first: int, second: int, *, room: int) -> tuple[int, int]:
    """Lengths of two texts cut to `room` tokens together.

    The longer one gives way until both are equally long, then both do; of an odd room the one that was longer gets the
    extra token, the second where they were equal. So does the `tokenizers` library, which a test compares with.
    """
    if first + second <= room:
        return first, second
    shorter, longer = min(first, second), max(first, second)
    if shorter + max(shorter, room - shorter) > room:
        shorter, longer = room // 2, room - room // 2
    else:
        longer = room - shorter
    return (longer, shorter) if first > second else (shorter, longer)


def _frame_of(tokenizer: Any) -> _Frame:
    probe = tokenizer("a", "b", add_special_tokens=True, truncation=False, padding=False, return_token_type_ids=True)
    ids, types, sides = np.asarray(probe["input_ids"], np.int32), probe["token_type_ids"], probe.sequence_ids(0)
    first = [place for place, side in enumerate(sides) if side == 0]
    second = [place for place, side in enumerate(sides) if side == 1]
    if not first or not second or first[-1] > second[0]:
        raise CheckpointError(f"the tokenizer puts the pair ('a', 'b') together as {ids.tolist()}, parts {sides}")
    marked = [int(place >= second[0]) for place in range(len(ids))]
    if any(types) and types != marked:
        raise CheckpointError(f"the tokenizer gives a pair the segment ids {types}; only 0s, then 1s, are supported")
    return _Frame(
        before=ids[: first[0]],
        between=ids[first[-1] + 1 : second[0]],
        after=ids[second[-1] + 1 :],
        has_types="token_type_ids" in tokenizer.model_input_names and types == marked,
    )
