"""Reranker losses by hand and by gradcheck."""

import math

import pytest
import torch

from trine.objectives import ranking


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_pointwise_by_hand():
    scores = f64([[math.log(3), 0.0]])
    # sigmoid 3/4 for the positive, 1/2 for the negative
    assert float(ranking.pointwise(scores)) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 2)) / 2)
    soft = -(0.25 * math.log(3 / 4) + 0.75 * math.log(1 / 4) + math.log(1 / 2)) / 2
    assert float(ranking.pointwise(scores, f64([[0.25, 1.0]]))) == pytest.approx(soft)


def test_listwise_by_hand():
    scores = f64([[math.log(3), 0.0], [0.0, math.log(9)]])
    assert float(ranking.listwise(scores)) == pytest.approx(-(math.log(3 / 4) + math.log(1 / 10)) / 2)


def test_listnet_and_kl_by_hand():
    scores, teacher = f64([[math.log(3), 0.0]]), f64([[math.log(4), 0.0]])
    cross = -(0.8 * math.log(0.75) + 0.2 * math.log(0.25))
    assert float(ranking.listnet(scores, teacher)) == pytest.approx(cross)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert float(ranking.kl_divergence(scores, teacher)) == pytest.approx(cross - entropy)
    assert float(ranking.kl_divergence(teacher, teacher * 2, teacher_temperature=2)) == pytest.approx(0)


def test_margin_mse_by_hand():
    # margins 1 and 3 against 2 and 5
    assert float(ranking.margin_mse(f64([[3.0, 2.0, 0.0]]), f64([[5.0, 3.0, 0.0]]))) == pytest.approx((1 + 4) / 2)


def test_lambda_loss_by_hand():
    """Grades 1, 0 and 2 that rank second, first and third: gains 1, 0, 3, discounts 1/log2(3), 1, 1/2."""
    scores, grades = f64([[0.0, 1.0, -1.0]]), torch.tensor([[1, 0, 2]])
    second, third = 1 / math.log2(3), 0.5
    ideal = 3 + second
    pairs = [
        (1 * (1 - second), 0.0 - 1.0),  # grade 1 over 0
        (3 * (1 - third), -1.0 - 1.0),  # grade 2 over 0
        (2 * (second - third), -1.0 - 0.0),  # grade 2 over 1
    ]
    expected = sum(change * math.log2(1 + math.exp(-margin)) for change, margin in pairs) / ideal
    assert float(ranking.lambda_loss(scores, grades)) == pytest.approx(expected)


def test_lambda_loss_of_equal_grades_is_nothing():
    scores = f64([[0.0, 1.0], [2.0, 0.0]]).requires_grad_()
    loss = ranking.lambda_loss(scores, torch.tensor([[0, 0], [1, 1]]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not scores.grad.any()


@pytest.mark.parametrize(
    "loss",
    [
        ranking.pointwise,
        ranking.listwise,
        lambda scores: ranking.listnet(scores, f64([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0]])),
        lambda scores: ranking.kl_divergence(scores, f64([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0]])),
        lambda scores: ranking.margin_mse(scores, f64([[1.0, 0.5, 0.0], [0.0, 2.0, 1.0]])),
        lambda scores: ranking.lambda_loss(scores, torch.tensor([[2, 0, 1], [0, 1, 0]]), sharpness=1.5),
    ],
)
def test_gradcheck(loss):
    scores = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(loss, (scores,))


@pytest.mark.parametrize("loss", [ranking.listnet, ranking.kl_divergence, ranking.margin_mse])
def test_no_gradient_reaches_the_teacher(loss):
    scores, teacher = f64([[1.0, 0.0]]).requires_grad_(), f64([[0.0, 1.0]]).requires_grad_()
    loss(scores, teacher).backward()
    assert teacher.grad is None
    assert scores.grad.any()
