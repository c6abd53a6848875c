"""BGE-M3's unified loss against its formulas, written out with plain numbers."""

import math

import pytest
import torch

from trine.errors import UsageError
from trine.objectives.contrastive import info_nce
from trine.objectives.m3 import ENSEMBLE_WEIGHTS, ensemble, m3_loss, self_distillation, unified

HEADS = ("dense", "sparse", "multi_vector")


def random_scores(heads, *, rows=3, columns=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {head: torch.rand(rows, columns, dtype=torch.float64, generator=generator) for head in heads}


def softmax(row):
    top = max(row)
    total = sum(math.exp(value - top) for value in row)
    return [math.exp(value - top) / total for value in row]


def naive(scores, targets, *, temperature, weights, shares, self_distill=True):
    """No tensor operation, no log-sum-exp trick: the paper's equations as they stand."""
    heads = list(scores)
    rows = {head: (scores[head] / temperature).tolist() for head in heads}
    count, width = len(targets), len(rows[heads[0]][0])
    rows["ensemble"] = [
        [sum(shares[head] * rows[head][r][c] for head in heads) for c in range(width)] for r in range(count)
    ]
    hard = {
        head: -sum(math.log(softmax(rows[head][r])[targets[r]]) for r in range(count)) / count
        for head in [*heads, "ensemble"]
    }
    loss = (sum(weights[head] * hard[head] for head in heads) + hard["ensemble"]) / (len(heads) + 1)
    if not self_distill:
        return loss
    soft = {}
    for head in heads:
        soft[head] = 0
        for r in range(count):
            teacher, student = softmax(rows["ensemble"][r]), softmax(rows[head][r])
            soft[head] -= sum(p * math.log(q) for p, q in zip(teacher, student, strict=True)) / count
    return (loss + sum(weights[head] * soft[head] for head in heads) / len(heads)) / 2


@pytest.mark.parametrize("heads", [HEADS, HEADS[:2], HEADS[1:], HEADS[::2]], ids=str)
@pytest.mark.parametrize("self_distill", [True, False])
def test_it_is_the_papers_formula(heads, self_distill):
    scores, targets = random_scores(heads), torch.tensor([0, 2, 4])
    weights = {"dense": 1.0, "sparse": 0.1, "multi_vector": 1.0}
    shares = {"dense": 1.0, "sparse": 0.3, "multi_vector": 1.0}
    found = m3_loss(scores, lambda logits: info_nce(logits, targets), temperature=0.1, self_distill=self_distill)
    expected = naive(
        scores, targets.tolist(), temperature=0.1, weights=weights, shares=shares, self_distill=self_distill
    )
    assert float(found.total) == pytest.approx(expected, rel=1e-12)
    named = {*heads, "ensemble"} | ({f"self_{head}" for head in heads} if self_distill else set())
    assert set(found.parts) == named
    assert not any(part.requires_grad for part in found.parts.values())


def test_weights_are_arguments():
    scores, targets = random_scores(HEADS), torch.tensor([0, 2, 4])
    weights = {"dense": 0.5, "sparse": 2.0, "multi_vector": 0.25}
    shares = {"dense": 0.2, "sparse": 0.8, "multi_vector": 0.4}
    found = m3_loss(
        scores, lambda logits: info_nce(logits, targets), temperature=0.5, weights=weights, ensemble_weights=shares
    )
    expected = naive(scores, targets.tolist(), temperature=0.5, weights=weights, shares=shares)
    assert float(found.total) == pytest.approx(expected, rel=1e-12)


def test_without_in_batch_negatives_the_group_is_all_there_is():
    """The teacher's shares are those of the group: neither one class for all nor uniform, as in FlagEmbedding."""
    scores = {"dense": torch.tensor([[1.0, 0.0]]).double(), "sparse": torch.tensor([[0.0, 10.0]]).double()}
    found = self_distillation(scores, ensemble(scores))
    teacher = softmax([1.0, 3.0])
    dense, sparse = softmax([1.0, 0.0]), softmax([0.0, 10.0])
    expected = [-sum(p * math.log(q) for p, q in zip(teacher, head, strict=True)) for head in (dense, sparse)]
    assert float(found.total) == pytest.approx((expected[0] + 0.1 * expected[1]) / 2)
    assert float(found.parts["self_dense"]) == pytest.approx(expected[0])


def test_no_gradient_reaches_the_teacher():
    logits = {head: scores.requires_grad_() for head, scores in random_scores(HEADS).items()}
    teacher = random_scores(("dense",), seed=9)["dense"].requires_grad_()
    self_distillation(logits, teacher).total.backward()
    assert teacher.grad is None
    assert all(scores.grad.abs().sum() > 0 for scores in logits.values())


def test_what_does_not_count_teaches_nothing_and_learns_nothing():
    scores, targets = random_scores(HEADS), torch.tensor([0, 2, 4])
    counted = torch.ones(3, 6, dtype=torch.bool)
    counted[:, 5] = False
    found = m3_loss(scores, lambda logits: info_nce(logits, targets), temperature=0.1, counted_RN=counted)
    less = m3_loss(
        {head: part[:, :5] for head, part in scores.items()},
        lambda logits: info_nce(logits, targets),
        temperature=0.1,
    )
    assert float(found.total) == pytest.approx(float(less.total), rel=1e-12)


def test_gradcheck():
    """Of all but the stopped teacher, which numerical differences cannot stop."""
    targets = torch.tensor([0, 2])
    fixed = random_scores(("dense",), rows=2, columns=4, seed=5)["dense"]

    def run(dense, sparse):
        logits = {"dense": dense, "sparse": sparse}
        hard = {head: info_nce(part, targets) for head, part in logits.items()}
        distilled = self_distillation(logits, fixed)
        return unified(hard, info_nce(ensemble(logits), targets), distilled=distilled).total

    inputs = random_scores(("dense", "sparse"), rows=2, columns=4)
    assert torch.autograd.gradcheck(run, tuple(part.requires_grad_() for part in inputs.values()))


def test_the_hard_losses_of_the_ensemble_reach_every_head():
    scores = {head: part.requires_grad_() for head, part in random_scores(HEADS).items()}
    info_nce(ensemble(scores), torch.tensor([0, 2, 4])).backward()
    for head in HEADS:
        torch.testing.assert_close(scores[head].grad, ENSEMBLE_WEIGHTS[head] * scores["dense"].grad)


def test_one_head_is_no_ensemble():
    with pytest.raises(UsageError, match="two heads or more, not \\['dense'\\]"):
        m3_loss(random_scores(("dense",)), lambda logits: logits.sum())
