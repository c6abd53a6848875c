"""Lexical scores against dense rows of the whole vocabulary."""

from dataclasses import replace

import pytest
import torch

from trine.errors import UsageError
from trine.objectives.base import TokenWeights
from trine.objectives.lexical import lexical_pairs, lexical_scores, pooled

WIDTH = 11


def texts(rows, *, pooling="max"):
    """One list of (id, weight) a text."""
    flat = [pair for row in rows for pair in row]
    return TokenWeights(
        torch.tensor([weight for _, weight in flat], dtype=torch.float64),
        torch.tensor([key for key, _ in flat], dtype=torch.int64),
        torch.tensor([0, *torch.tensor([len(row) for row in rows]).cumsum(0).tolist()]),
        width=WIDTH,
        pooling=pooling,
    )


def random_texts(lengths, *, seed, pooling="max"):
    generator = torch.Generator().manual_seed(seed)
    return texts(
        [
            [
                (int(torch.randint(WIDTH, (), generator=generator)), float(torch.rand((), generator=generator)))
                for _ in range(length)
            ]
            for length in lengths
        ],
        pooling=pooling,
    )


def dense(weights):
    """(N, V), by torch's own scatter."""
    rows = []
    for n in range(len(weights)):
        span = slice(weights.offsets[n], weights.offsets[n + 1])
        empty = torch.zeros(WIDTH, dtype=weights.weights_T.dtype)
        how = "amax" if weights.pooling == "max" else "sum"
        rows.append(empty.scatter_reduce(0, weights.ids_T[span], weights.weights_T[span], how))
    return torch.stack(rows)


def test_a_case_worked_by_hand():
    queries = texts([[(3, 1.0), (5, 2.0), (3, 4.0)], [(7, 1.0)]])
    passages = texts([[(3, 0.5), (5, 1.0)], [(9, 8.0)], [(5, 3.0), (5, 1.0), (7, 2.0)], []])
    expected = torch.tensor([[4 * 0.5 + 2 * 1, 0, 2 * 3, 0], [0, 0, 2, 0]]).double()
    assert torch.equal(lexical_scores(queries, passages), expected)
    summed = lexical_scores(replace(queries, pooling="sum"), replace(passages, pooling="sum"))
    assert summed[0].tolist() == [5 * 0.5 + 2 * 1, 0, 2 * 4, 0]
    assert lexical_pairs(queries, passages).tolist() == [[4.0, 0.0], [2.0, 0.0]]


def test_pooled_entries_are_ordered_and_apart():
    entries = pooled(texts([[(3, 1.0), (1, 2.0), (3, 4.0)], [], [(1, 5.0)]]))
    assert entries.texts_E.tolist() == [0, 0, 2]
    assert entries.ids_E.tolist() == [1, 3, 1]
    assert entries.weights_E.tolist() == [2, 4, 5]


@pytest.mark.parametrize("pooling", ["max", "sum"])
@pytest.mark.parametrize("block", [1, 2, 256])
def test_values_and_gradients_equal_dense_rows(pooling, block):
    queries = random_texts([5, 0, 3, 9, 1], seed=1, pooling=pooling)
    passages = random_texts([7, 12, 0, 4, 1, 20, 3, 2, 5, 6], seed=2, pooling=pooling)
    weights = torch.randn(5, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    gradients = []
    for score in (lambda q, p: lexical_scores(q, p, block=block), lambda q, p: dense(q) @ dense(p).T):
        left, right = queries.weights_T.clone().requires_grad_(), passages.weights_T.clone().requires_grad_()
        scores = score(replace(queries, weights_T=left), replace(passages, weights_T=right))
        (scores * weights).sum().backward()
        gradients.append((scores.detach(), left.grad, right.grad))
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted)


def test_tied_maxima_share_the_gradient_as_amax_does():
    left = torch.tensor([2.0, 2.0, 1.0]).double().requires_grad_()
    queries = replace(texts([[(4, 0.0), (4, 0.0), (4, 0.0)]]), weights_T=left)
    lexical_scores(queries, texts([[(4, 3.0)]])).sum().backward()
    assert left.grad.tolist() == [1.5, 1.5, 0.0]


@pytest.mark.parametrize("token_sides", ["both", "queries", "passages", "neither"])
@pytest.mark.parametrize("pairs", [False, True])
def test_either_side_may_have_whole_rows(token_sides, pairs):
    queries, passages = random_texts([5, 0, 3], seed=1), random_texts([7, 12, 0, 4, 1, 20], seed=2)
    expected = dense(queries) @ dense(passages).T
    score = lexical_scores
    if pairs:
        expected, score = expected.gather(1, torch.arange(6).view(3, 2)), lexical_pairs
    q = queries if token_sides in ("both", "queries") else dense(queries)
    p = passages if token_sides in ("both", "passages") else dense(passages)
    torch.testing.assert_close(score(q, p), expected)


@pytest.mark.parametrize("token_sides", ["both", "queries", "passages"])
@pytest.mark.parametrize("score", [lexical_scores, lexical_pairs])
def test_gradcheck(score, token_sides):
    queries, passages = random_texts([3, 2], seed=4), random_texts([3, 1, 0, 4], seed=5)

    def run(left, right):
        q = replace(queries, weights_T=left) if left.dim() == 1 else left
        p = replace(passages, weights_T=right) if right.dim() == 1 else right
        return score(q, p)

    left = queries.weights_T if token_sides in ("both", "queries") else dense(queries)
    right = passages.weights_T if token_sides in ("both", "passages") else dense(passages)
    assert torch.autograd.gradcheck(run, (left.clone().requires_grad_(), right.clone().requires_grad_()))


@pytest.mark.parametrize("score", [lexical_scores, lexical_pairs])
@pytest.mark.parametrize("lengths", [([0, 0], [0, 0]), ([2, 1], [0, 0]), ([0, 0], [2, 1])], ids=str)
def test_texts_without_tokens_score_nothing(score, lengths):
    queries, passages = random_texts(lengths[0], seed=1), random_texts(lengths[1], seed=2)
    left, right = queries.weights_T.clone().requires_grad_(), passages.weights_T.clone().requires_grad_()
    scores = score(replace(queries, weights_T=left), replace(passages, weights_T=right))
    assert scores.shape == ((2, 2) if score is lexical_scores else (2, 1))
    assert not scores.any()
    scores.sum().backward()
    assert not left.grad.any()
    assert not right.grad.any()


def test_nothing_of_the_vocabularys_width_is_made_or_kept():
    """With 250,002 ids as XLM-R has, both passes stay within sizes that grow with the tokens alone."""
    queries, passages = random_texts([30] * 8, seed=1), random_texts([100] * 40, seed=2)
    queries, passages = replace(queries, width=250_002), replace(passages, width=250_002)
    left = queries.weights_T.clone().requires_grad_()
    sizes = []
    kept = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            found = func(*args, **(kwargs or {}))
            sizes.extend(
                part.numel() for part in (found if isinstance(found, tuple) else (found,)) if hasattr(part, "numel")
            )
            return found

    with Watch(), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        scores = lexical_scores(replace(queries, weights_T=left), passages)
        scores.sum().backward()
    assert max(kept) <= 4000
    assert max(sizes) < 40_000
    assert len(sizes) > 20


def test_unequal_vocabularies_are_refused():
    with pytest.raises(UsageError, match="over 11 ids and the passages' over 12"):
        lexical_scores(random_texts([1], seed=1), torch.zeros(2, 12))
    with pytest.raises(UsageError, match="3 passages cannot be shared out evenly among 2"):
        lexical_pairs(random_texts([1, 1], seed=1), random_texts([1, 1, 1], seed=1))
