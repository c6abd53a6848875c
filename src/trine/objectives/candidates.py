"""What a query is compared with: the similarities of a batch, block by block, and which of them may be negatives.

Shapes: Q queries of the whole batch, R queries of this rank, G passages of a query, P = Q * G passages, N candidates:
P in a block of passages, Q in one of queries, and G in the only block there is without in-batch negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from trine.errors import UsageError
from trine.objectives.base import Embedded, PairBatch, TokenVectors, TokenWeights
from trine.objectives.contrastive import Block, equal_texts, own_group
from trine.objectives.late_interaction import maxsim, maxsim_pairs
from trine.objectives.lexical import lexical_pairs, lexical_scores
from trine.types import Mode

Part: TypeAlias = Tensor | TokenWeights | TokenVectors
"""One representation of some texts."""


def similarities(batch: PairBatch, *, mode: Mode, blocks: Sequence[Block]) -> dict[Block, Tensor]:
    """(R, N) similarities of one representation, of each block.

    Without in-batch negatives, query_passage has the query's own passages alone, and the other blocks are left out.

    Args:
        batch: of all ranks.
        mode: the representation.
        blocks: those wanted.

    Raises:
        UsageError: the batch lacks the representation, or its passages do not fit its queries.
    """
    queries, passages = _part(batch.queries, mode, "queries"), _part(batch.passages, mode, "passages")
    if len(passages) != len(queries) * batch.group_size:
        raise UsageError(
            f"{len(queries)} queries with {batch.group_size} passages each need {len(queries) * batch.group_size} "
            f"passages, and there are {len(passages)}"
        )
    own = _take(queries, batch, batch.row_numbers)
    if not batch.in_batch:
        if batch.group_size < 2:
            raise UsageError(
                "a batch without in-batch negatives needs hard negatives: a group_size of 2 or more, not 1"
            )
        return {"query_passage": _pairs(own, _take(passages, batch, own_passages(batch)))}
    positives = None
    if {"passage_query", "passage_passage"} & set(blocks):
        positives = _take(passages, batch, batch.row_numbers * batch.group_size)
    return {block: _similarity(block, own, queries, passages, positives) for block in blocks}


def own_passages(batch: PairBatch) -> Tensor:
    """(R * G,) numbers of the passages of this rank's queries."""
    steps_G = torch.arange(batch.group_size, device=batch.row_numbers.device)
    return (batch.row_numbers[:, None] * batch.group_size + steps_G).flatten()


def targets(batch: PairBatch) -> Tensor:
    """(R,) column of each query's positive in the block query_passage; the rest of its group follows."""
    return batch.row_numbers * batch.group_size if batch.in_batch else torch.zeros_like(batch.row_numbers)


def counted(batch: PairBatch, *, blocks: Sequence[Block]) -> dict[Block, Tensor | None]:
    """(R, N) true where a candidate may enter the denominator by its place and its text; None means everywhere.

    Left out are the query itself, its other passages in passage_passage, and by their keys: texts equal to the query or
    to its positive, positives of an equal query, and queries with an equal positive. The positive always stays.

    Args:
        batch: of all ranks.
        blocks: those wanted.
    """
    rows_R = batch.row_numbers
    equal_RP, equal_RQ = _equal_passages(batch), _equal_queries(batch)
    if not batch.in_batch:
        if equal_RP is None:
            return {"query_passage": None}
        own_RG = own_passages(batch).view(len(rows_R), -1)
        return {"query_passage": _with_positive(~equal_RP.gather(1, own_RG), targets(batch))}
    result: dict[Block, Tensor | None] = {}
    for block in blocks:
        if block == "query_passage":
            result[block] = None if equal_RP is None else _with_positive(~equal_RP, targets(batch))
        elif block == "passage_query":
            result[block] = None if equal_RQ is None else _with_positive(~equal_RQ, rows_R)
        elif block == "query_query":
            itself_RQ = rows_R[:, None] == torch.arange(len(batch.queries), device=rows_R.device)
            result[block] = ~itself_RQ if equal_RQ is None else ~(itself_RQ | equal_RQ)
        else:
            empty_RP = torch.empty(len(rows_R), len(batch.passages), device=rows_R.device)
            group_RP = own_group(empty_RP, targets(batch), group_size=batch.group_size)
            result[block] = ~group_RP if equal_RP is None else ~(group_RP | equal_RP)
    return result


def without(counted_RN: Tensor | None, dropped_RN: Tensor, *, kept_R: Tensor | None) -> Tensor:
    """What is left when `dropped_RN` goes too, but for one column of each row."""
    left_RN = ~dropped_RN if counted_RN is None else counted_RN & ~dropped_RN
    return left_RN if kept_R is None else _with_positive(left_RN, kept_R)


def _part(embedded: Embedded, mode: Mode, side: str) -> Part:
    found: dict[Mode, Part | None] = {
        "dense": embedded.dense_ND,
        "sparse": embedded.sparse,
        "multi_vector": embedded.vectors,
    }
    part = found[mode]
    if part is None:
        present = [name for name, value in found.items() if value is not None]
        raise UsageError(f"the objective needs {mode} embeddings and the {side} have only {present}; compute that mode")
    return part


def _take(part: Part, batch: PairBatch, rows: Tensor) -> Part:
    # All rows in their order are the common case of one rank; packed arrays would be copied for nothing. The slice
    # says so without a look at the numbers, for which a GPU would have to be waited for.
    count = len(batch.queries)
    if len(rows) == len(part) and batch.rows.indices(count) == (0, count, 1):
        return part
    return part[rows] if isinstance(part, Tensor) else part.take(rows)


def _similarity(block: Block, own: Part, queries: Part, passages: Part, positives: Part | None) -> Tensor:
    if block == "query_passage":
        return _all(own, passages)
    if block == "query_query":
        return _all(own, queries)
    assert positives is not None
    # Late interaction is not symmetric: the query stays on the query's side.
    return _all(queries, positives).T if block == "passage_query" else _all(positives, passages)


def _all(left: Part, right: Part) -> Tensor:
    if isinstance(left, TokenVectors):
        assert isinstance(right, TokenVectors)
        return maxsim(left, right)
    assert not isinstance(right, TokenVectors)
    return lexical_scores(left, right)


def _pairs(left: Part, right: Part) -> Tensor:
    if isinstance(left, TokenVectors):
        assert isinstance(right, TokenVectors)
        return maxsim_pairs(left, right)
    assert not isinstance(right, TokenVectors)
    return lexical_pairs(left, right)


def _with_positive(counted_RN: Tensor, targets_R: Tensor) -> Tensor:
    return counted_RN.scatter(1, targets_R[:, None], True)


def _equal_passages(batch: PairBatch) -> Tensor | None:
    """(R, P) true for passages equal to the query or its positive, and for positives of an equal query."""
    query_keys_R, positive_keys_R = _keys(batch)
    same_query_RQ = equal_texts(query_keys_R, batch.query_keys_Q)
    positives_RP = None
    if same_query_RQ is not None:
        positives_RP = same_query_RQ.new_zeros(len(same_query_RQ), len(batch.passages))
        positives_RP[:, :: batch.group_size] = same_query_RQ
    return _any(
        equal_texts(positive_keys_R, batch.passage_keys_P),
        equal_texts(query_keys_R, batch.passage_keys_P),
        positives_RP,
    )


def _equal_queries(batch: PairBatch) -> Tensor | None:
    """(R, Q) true for queries equal to the query or its positive, and for those with an equal positive."""
    query_keys_R, positive_keys_R = _keys(batch)
    positive_keys_Q = None if batch.passage_keys_P is None else batch.passage_keys_P[:: batch.group_size]
    return _any(
        equal_texts(query_keys_R, batch.query_keys_Q),
        equal_texts(positive_keys_R, batch.query_keys_Q),
        equal_texts(positive_keys_R, positive_keys_Q),
    )


def _keys(batch: PairBatch) -> tuple[Tensor | None, Tensor | None]:
    """Of this rank's queries, and of their positives."""
    rows_R = batch.row_numbers
    return (
        None if batch.query_keys_Q is None else batch.query_keys_Q[rows_R],
        None if batch.passage_keys_P is None else batch.passage_keys_P[rows_R * batch.group_size],
    )


def _any(*masks: Tensor | None) -> Tensor | None:
    result: Tensor | None = None
    for mask in masks:
        if mask is not None:
            result = mask if result is None else result | mask
    return result
