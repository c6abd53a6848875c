"""MaxSim against the definition, by hand and written out naively."""

import pytest
import torch

from trine.errors import UsageError
from trine.objectives.base import TokenVectors
from trine.objectives.late_interaction import maxsim, maxsim_pairs


def pack(rows, width=3):
    values = torch.cat([torch.zeros(0, width, dtype=torch.float64), *rows])
    return TokenVectors(values, torch.tensor([0, *torch.tensor([len(row) for row in rows]).cumsum(0).tolist()]))


def random_texts(lengths, *, seed, width=3):
    generator = torch.Generator().manual_seed(seed)
    return pack([torch.randn(n, width, dtype=torch.float64, generator=generator) for n in lengths], width)


def rows_of(vectors):
    return [vectors.values_Td[vectors.offsets[n] : vectors.offsets[n + 1]] for n in range(len(vectors))]


def naive(query, passage):
    if not len(query) or not len(passage):
        return (query.sum() + passage.sum()) * 0
    return (query @ passage.T).max(dim=1).values.mean()


def naive_matrix(queries, passages):
    return torch.stack([torch.stack([naive(q, p) for p in rows_of(passages)]) for q in rows_of(queries)])


def leaves(queries, passages):
    left, right = queries.values_Td.clone().requires_grad_(), passages.values_Td.clone().requires_grad_()
    return left, right, TokenVectors(left, queries.offsets), TokenVectors(right, passages.offsets)


def test_a_case_worked_by_hand():
    queries = pack([torch.tensor([[1.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[-1.0, 0.0]]).double()], 2)
    passages = pack([torch.tensor([[3.0, 0.0], [1.0, 1.0]]).double(), torch.tensor([[2.0, -5.0]]).double()], 2)
    # q0: max(3, 1) and max(0, 2) -> 2.5; 2 and -10 -> -4.  q1: max(-3, -1) = -1; -2.
    expected = torch.tensor([[2.5, -4.0], [-1.0, -2.0]]).double()
    assert torch.equal(maxsim(queries, passages), expected)
    assert torch.equal(maxsim_pairs(queries, passages), torch.tensor([[2.5], [-2.0]]).double())


@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_values_and_gradients_equal_the_definition(block):
    queries = random_texts([3, 0, 5, 1], seed=1)
    passages = random_texts([4, 7, 0, 1, 2, 6, 3, 0], seed=2)
    left, right, q, p = leaves(queries, passages)
    other_left, other_right, other_q, other_p = leaves(queries, passages)
    weights = torch.randn(4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    scores = maxsim(q, p, block=block)
    expected = naive_matrix(other_q, other_p)
    torch.testing.assert_close(scores, expected)
    (scores * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(left.grad, other_left.grad)
    torch.testing.assert_close(right.grad, other_right.grad)


@pytest.mark.parametrize("block", [1, 40, 1 << 23])
def test_pairs_are_the_groups_of_the_matrix(block):
    queries = random_texts([3, 0, 5, 1], seed=1)
    passages = random_texts([4, 7, 0, 1, 2, 6, 3, 0], seed=2)
    left, right, q, p = leaves(queries, passages)
    other_left, other_right, other_q, other_p = leaves(queries, passages)
    weights = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    own = torch.arange(8).view(4, 2)

    scores = maxsim_pairs(q, p, block=block)
    expected = naive_matrix(other_q, other_p).gather(1, own)
    torch.testing.assert_close(scores, expected)
    (scores * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(left.grad, other_left.grad)
    torch.testing.assert_close(right.grad, other_right.grad)


@pytest.mark.parametrize("score", [maxsim, maxsim_pairs])
def test_gradcheck(score):
    queries, passages = random_texts([2, 3], seed=4), random_texts([2, 1, 3, 2], seed=5)
    left, right, _, _ = leaves(queries, passages)

    def run(a, b):
        return score(TokenVectors(a, queries.offsets), TokenVectors(b, passages.offsets), block=10)

    assert torch.autograd.gradcheck(run, (left, right))


@pytest.mark.parametrize("score", [maxsim, maxsim_pairs])
def test_many_query_vectors_cross_the_tiles(score, monkeypatch):
    monkeypatch.setattr("trine.objectives.late_interaction._TILE", 2)
    queries, passages = random_texts([3, 4], seed=4), random_texts([2, 1, 3, 2], seed=5)
    expected = naive_matrix(queries, passages)
    if score is maxsim_pairs:
        expected = expected.gather(1, torch.arange(4).view(2, 2))
    torch.testing.assert_close(score(queries, passages), expected)


@pytest.mark.parametrize("score", [maxsim, maxsim_pairs])
def test_negative_maxima_stay_negative_beside_longer_texts(score):
    """Padding that scored 0 would win over them, as it does in FlagEmbedding's batched path."""
    queries = pack([torch.tensor([[1.0, 0.0, 0.0]]).double()])
    passages = pack([torch.tensor([[-1.0, 0, 0]]).double(), torch.tensor([[-2.0, 0, 0]] * 5).double()])
    assert score(queries, passages).tolist() == [[-1.0, -2.0]]


@pytest.mark.parametrize("score", [maxsim, maxsim_pairs])
def test_half_precision_is_close_and_keeps_its_type_in_the_gradient(score):
    queries, passages = random_texts([4, 6], seed=6, width=16), random_texts([5, 9], seed=7, width=16)
    left, right = queries.values_Td.bfloat16().requires_grad_(), passages.values_Td.bfloat16().requires_grad_()
    scores = score(TokenVectors(left, queries.offsets), TokenVectors(right, passages.offsets))
    assert scores.dtype == torch.float32
    scores.sum().backward()
    assert left.grad.dtype == right.grad.dtype == torch.bfloat16
    exact = score(
        TokenVectors(left.detach().double(), queries.offsets), TokenVectors(right.detach().double(), passages.offsets)
    )
    torch.testing.assert_close(scores.double(), exact, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("lengths", [([], []), ([0, 0], [0, 0]), ([2, 1], [0, 0]), ([0, 0], [2, 1])], ids=str)
@pytest.mark.parametrize("score", [maxsim, maxsim_pairs])
def test_nothing_scores_nothing(score, lengths):
    left, right, q, p = leaves(random_texts(lengths[0], seed=1), random_texts(lengths[1], seed=2))
    scores = score(q, p)
    assert not scores.any()
    scores.sum().backward()
    assert not left.grad.any()
    assert not right.grad.any()


def test_only_inputs_and_the_places_of_the_maxima_are_kept():
    queries, passages = random_texts([30] * 8, seed=1, width=4), random_texts([200] * 40, seed=2, width=4)
    _, _, q, p = leaves(queries, passages)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        maxsim(q, p)
    inputs = q.values_Td.nbytes + p.values_Td.nbytes + q.offsets.nbytes + p.offsets.nbytes
    assert sum(t.nbytes for t in kept) == inputs + 2 * 240 * 40
    assert max(t.numel() for t in kept) < 240 * 8000


def test_long_passages_need_wider_integers():
    queries = pack([torch.ones(1, 1).double()], 1)
    values = torch.zeros(40_000, 1, dtype=torch.float64)
    values[39_000] = 1
    right = values.requires_grad_()
    maxsim(queries, TokenVectors(right, torch.tensor([0, 40_000]))).sum().backward()
    assert right.grad.nonzero()[:, 0].tolist() == [39_000]


def test_vectors_of_unlike_models_are_refused():
    with pytest.raises(UsageError, match=r"3-dimensional.*4-"):
        maxsim(random_texts([1], seed=1), random_texts([1], seed=1, width=4))
    with pytest.raises(UsageError, match="3 passages cannot be shared out evenly among 2"):
        maxsim_pairs(random_texts([1, 1], seed=1), random_texts([1, 1, 1], seed=1))
