"""Blocks of similarities and who may be a negative in them."""

from dataclasses import replace

import pytest
import torch

from objectives import pairs
from trine.errors import UsageError
from trine.objectives.base import Embedded, PairBatch
from trine.objectives.candidates import counted, own_passages, similarities, targets, without
from trine.objectives.contrastive import BLOCKS
from trine.objectives.late_interaction import maxsim
from trine.objectives.lexical import lexical_scores

MODES = ("dense", "sparse", "multi_vector")


def score(mode, left, right):
    if mode == "dense":
        return left.dense_ND @ right.dense_ND.T
    return lexical_scores(left.sparse, right.sparse) if mode == "sparse" else maxsim(left.vectors, right.vectors)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [slice(None), slice(2, 4), slice(0, 1)], ids=str)
def test_every_block_of_every_representation(mode, rows):
    batch = pairs.batch(rows=rows)
    found = similarities(batch, mode=mode, blocks=BLOCKS)
    own = batch.queries.take(torch.arange(4)[rows])
    positives = batch.passages.take(torch.arange(0, 8, 2)[rows])
    torch.testing.assert_close(found["query_passage"], score(mode, own, batch.passages))
    torch.testing.assert_close(found["query_query"], score(mode, own, batch.queries))
    torch.testing.assert_close(found["passage_query"], score(mode, batch.queries, positives).T)
    torch.testing.assert_close(found["passage_passage"], score(mode, positives, batch.passages))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rows", [slice(None), slice(1, 3)], ids=str)
def test_without_in_batch_negatives_there_is_the_group_alone(mode, rows):
    batch = pairs.batch(rows=rows)
    whole = similarities(batch, mode=mode, blocks=("query_passage",))["query_passage"]
    groups = similarities(replace(batch, in_batch=False), mode=mode, blocks=BLOCKS)
    assert list(groups) == ["query_passage"]
    own = whole.gather(1, own_passages(batch).view(-1, 2))
    torch.testing.assert_close(groups["query_passage"], own)


def test_targets():
    batch = pairs.batch(rows=slice(1, 3))
    assert targets(batch).tolist() == [2, 4]
    assert targets(replace(batch, in_batch=False)).tolist() == [0, 0]
    assert own_passages(batch).tolist() == [2, 3, 4, 5]


def masks(batch, blocks=BLOCKS):
    found = counted(batch, blocks=blocks)
    return {name: None if mask is None else mask.int().tolist() for name, mask in found.items()}


def plain(queries, size, **options):
    return PairBatch(Embedded(torch.zeros(queries, 2)), Embedded(torch.zeros(queries * size, 2)), size, **options)


def test_places_alone():
    assert masks(plain(2, 2)) == {
        "query_passage": None,
        "query_query": [[0, 1], [1, 0]],
        "passage_query": None,
        "passage_passage": [[0, 0, 1, 1], [1, 1, 0, 0]],
    }
    assert masks(plain(2, 2, in_batch=False)) == {"query_passage": None}


def test_an_equal_passage_is_no_negative():
    """The second query's hard negative is the first query's positive."""
    batch = plain(2, 2, passage_keys_P=torch.tensor([10, 11, 20, 10]))
    assert masks(batch)["query_passage"] == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert masks(batch)["passage_passage"] == [[0, 0, 1, 0], [1, 1, 0, 0]]
    assert masks(batch)["passage_query"] == [[1, 1], [1, 1]]


def test_an_equal_positive_makes_the_queries_no_negatives():
    batch = plain(3, 1, passage_keys_P=torch.tensor([10, 20, 10]))
    assert masks(batch) == {
        "query_passage": [[1, 1, 0], [1, 1, 1], [0, 1, 1]],
        "query_query": [[0, 1, 0], [1, 0, 1], [0, 1, 0]],
        "passage_query": [[1, 1, 0], [1, 1, 1], [0, 1, 1]],
        "passage_passage": [[0, 1, 0], [1, 0, 1], [0, 1, 0]],
    }


def test_positives_are_compared_with_positives():
    """The second query's positive is the third's hard negative, and no reason to part their queries."""
    batch = plain(3, 2, passage_keys_P=torch.tensor([10, 11, 20, 21, 30, 20]))
    assert masks(batch)["passage_query"] == [[1, 1, 1]] * 3
    same = plain(3, 2, passage_keys_P=torch.tensor([10, 11, 20, 21, 20, 31]))
    assert masks(same)["passage_query"] == [[1, 1, 1], [1, 1, 0], [1, 0, 1]]


def test_an_equal_query_lends_its_positive_and_keeps_its_hard_negative():
    batch = plain(2, 2, query_keys_Q=torch.tensor([1, 1]))
    assert masks(batch) == {
        "query_passage": [[1, 1, 0, 1], [0, 1, 1, 1]],
        "query_query": [[0, 0], [0, 0]],
        "passage_query": [[1, 0], [0, 1]],
        "passage_passage": [[0, 0, 0, 1], [0, 1, 0, 0]],
    }


def test_a_query_is_no_negative_of_its_own_text():
    """As in SimCSE, where the passage is the query's text: the pair itself stays."""
    keys = torch.tensor([1, 2])
    batch = plain(2, 1, query_keys_Q=keys, passage_keys_P=keys)
    assert masks(batch)["query_passage"] == [[1, 1], [1, 1]]
    swapped = plain(2, 1, query_keys_Q=keys, passage_keys_P=torch.tensor([3, 1]))
    assert masks(swapped)["query_passage"] == [[1, 0], [1, 1]]
    assert masks(swapped)["query_query"] == [[0, 1], [0, 0]]


def test_an_equal_hard_negative_of_the_group_goes():
    batch = plain(2, 2, passage_keys_P=torch.tensor([10, 10, 20, 21]), in_batch=False)
    assert masks(batch) == {"query_passage": [[1, 0], [1, 1]]}


def test_rows_of_a_rank_are_rows_of_the_whole():
    keys = {"query_keys_Q": torch.tensor([1, 2, 1, 3]), "passage_keys_P": torch.tensor([5, 6, 7, 5, 8, 1, 9, 7])}
    whole = counted(plain(4, 2, **keys), blocks=BLOCKS)
    part = counted(plain(4, 2, rows=slice(2, 4), **keys), blocks=BLOCKS)
    for block in BLOCKS:
        assert torch.equal(part[block], whole[block][2:])


def test_without_keeps_the_positive():
    dropped = torch.tensor([[True, True, False]])
    assert without(None, dropped, kept_R=torch.tensor([0])).tolist() == [[True, False, True]]
    before = torch.tensor([[True, True, False]])
    assert without(before, torch.tensor([[True, False, False]]), kept_R=None).tolist() == [[False, True, False]]


def test_what_is_missing_is_named():
    batch = pairs.batch()
    with pytest.raises(UsageError, match=r"needs sparse embeddings and the queries have only \['dense'\]"):
        similarities(replace(batch, queries=Embedded(batch.queries.dense_ND)), mode="sparse", blocks=BLOCKS)
    with pytest.raises(UsageError, match="4 queries with 3 passages each need 12 passages, and there are 8"):
        similarities(replace(batch, group_size=3), mode="dense", blocks=BLOCKS)
    with pytest.raises(UsageError, match="group_size of 2 or more, not 1"):
        similarities(pairs.batch(size=1, in_batch=False), mode="dense", blocks=BLOCKS)
