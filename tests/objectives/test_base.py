"""The containers that objectives see."""

import pytest
import torch

from objectives import pairs
from trine.objectives.base import Embedded, PairBatch, TokenVectors, TokenWeights, gather_packed, join_offsets


def test_gather_packed_by_hand():
    offsets, where = gather_packed(torch.tensor([0, 2, 2, 5]), torch.tensor([2, 1, 0, 2]))
    assert offsets.tolist() == [0, 3, 3, 5, 8]
    assert where.tolist() == [2, 3, 4, 0, 1, 2, 3, 4]
    offsets, where = gather_packed(torch.tensor([0, 2]), torch.zeros(0, dtype=torch.int64))
    assert offsets.tolist() == [0]
    assert where.tolist() == []


def test_join_offsets_by_hand():
    assert join_offsets([torch.tensor([0, 2, 3]), torch.tensor([0]), torch.tensor([0, 0, 4])]).tolist() == [
        0,
        2,
        3,
        3,
        7,
    ]


def test_taking_texts():
    texts = pairs.embedded([2, 0, 3], seed=1)
    some = texts.take(torch.tensor([2, 1]))
    assert len(some) == len(some.sparse) == len(some.vectors) == 2
    assert torch.equal(some.dense_ND, texts.dense_ND[[2, 1]])
    assert torch.equal(some.sparse.weights_T, texts.sparse.weights_T[2:])
    assert torch.equal(some.sparse.ids_T, texts.sparse.ids_T[2:])
    assert some.sparse.offsets.tolist() == some.vectors.offsets.tolist() == [0, 3, 3]
    assert torch.equal(some.vectors.values_Td, texts.vectors.values_Td[2:])
    assert (some.sparse.width, some.sparse.pooling) == (texts.sparse.width, texts.sparse.pooling)


def test_taking_is_differentiable():
    values = torch.arange(10.0).view(5, 2).requires_grad_()
    TokenVectors(values, torch.tensor([0, 2, 5])).take(torch.tensor([1, 1])).values_Td.sum().backward()
    assert values.grad[:, 0].tolist() == [0, 0, 2, 2, 2]


def test_whole_rows_are_taken_too():
    rows = torch.arange(6.0).view(3, 2)
    assert Embedded(sparse=rows).take(torch.tensor([2])).sparse.tolist() == [[4, 5]]
    assert Embedded(vectors=None).take(torch.tensor([0])).leaves() == []


def test_parts_joined_are_the_texts_in_order():
    texts = pairs.embedded([2, 0, 3, 1], seed=1)
    joined = Embedded.concatenate([texts.take(torch.tensor(rows)) for rows in ([0], [1, 2], [3])])
    for ours, wanted in zip(joined.leaves(), texts.leaves(), strict=True):
        assert torch.equal(ours, wanted)
    assert torch.equal(joined.sparse.offsets, texts.sparse.offsets)
    assert torch.equal(joined.sparse.ids_T, texts.sparse.ids_T)
    assert torch.equal(joined.vectors.offsets, texts.vectors.offsets)
    rows = Embedded.concatenate([Embedded(sparse=torch.ones(1, 2)), Embedded(sparse=torch.zeros(2, 2))])
    assert rows.sparse.shape == (3, 2)


@pytest.mark.parametrize("parts", [("dense_ND",), ("sparse",), ("vectors",), ("dense_ND", "sparse", "vectors"), ()])
def test_leaves_go_back_to_their_places(parts):
    texts = pairs.embedded([2, 3], seed=1)
    some = Embedded(**{name: getattr(texts, name) for name in parts})
    again = some.with_leaves([leaf * 2 for leaf in some.leaves()])
    assert len(some.leaves()) == len(parts)
    for ours, before in zip(again.leaves(), some.leaves(), strict=True):
        assert torch.equal(ours, before * 2)
    for name in ("dense_ND", "sparse", "vectors"):
        assert (getattr(again, name) is None) == (name not in parts)


def test_lengths():
    assert len(Embedded()) == 0
    assert len(TokenWeights(torch.ones(2), torch.tensor([1, 1]), torch.tensor([0, 2, 2, 2]), width=3)) == 3
    assert len(Embedded(sparse=torch.zeros(4, 3))) == 4


def test_rows_of_this_rank():
    queries = Embedded(torch.zeros(4, 2))
    assert PairBatch(queries, queries).row_numbers.tolist() == [0, 1, 2, 3]
    assert PairBatch(queries, queries, rows=slice(2, 4)).row_numbers.tolist() == [2, 3]
