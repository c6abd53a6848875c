"""Distillation by hand, naively, and by gradcheck."""

import math

import pytest
import torch
import torch.nn.functional as F

from trine.objectives.distillation import cosine_distance, geometry, kl_divergence, listnet, margin_mse, ranked_kd


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_kl_by_hand():
    student, teacher = f64([[math.log(3), 0.0], [0.0, 0.0]]), f64([[math.log(4), 0.0], [1.0, 1.0]])
    first = 0.8 * math.log(0.8 / 0.75) + 0.2 * math.log(0.2 / 0.25)
    assert float(kl_divergence(student, teacher)) == pytest.approx(first / 2)
    assert float(kl_divergence(student, teacher * 3, teacher_temperature=3)) == pytest.approx(first / 2)


def test_kl_is_torchs_own():
    student, teacher = random(4, 5, seed=1), random(4, 5, seed=2)
    expected = F.kl_div(student.log_softmax(1), teacher.log_softmax(1), log_target=True, reduction="batchmean")
    torch.testing.assert_close(kl_divergence(student, teacher), expected)


def test_a_teacher_without_doubt_makes_listnet_the_cross_entropy():
    student, teacher = random(4, 5, seed=1), f64([[0.0, 0, 0, 1000, 0]] * 4)
    expected = F.cross_entropy(student, torch.full((4,), 3))
    torch.testing.assert_close(listnet(student, teacher), expected)
    torch.testing.assert_close(kl_divergence(student, teacher), expected)


def test_margin_mse_by_hand():
    assert float(margin_mse(f64([[3.0, 2.0, 0.0]]), f64([[5.0, 3.0, 0.0]]))) == pytest.approx((1 + 4) / 2)


def naive_ranked(logits, teacher, targets):
    """One cross-entropy after the other, each without the passages that came before."""
    total = 0.0
    for row, target in enumerate(targets.tolist()):
        shares = teacher[row].softmax(0)
        order = [0, *(1 + shares[1:].argsort(descending=True)).tolist()]
        gone = set()
        for place in order:
            left = [float(value) for column, value in enumerate(logits[row]) if column not in gone]
            partition = math.log(sum(math.exp(value) for value in left))
            total += float(shares[place]) * (partition - float(logits[row, target + place]))
            gone.add(target + place)
    return total / len(targets)


def test_ranked_is_its_definition():
    logits, teacher, targets = random(3, 12, seed=1), random(3, 4, seed=2), torch.tensor([0, 4, 8])
    found = ranked_kd(logits, teacher, targets_R=targets)
    assert float(found) == pytest.approx(naive_ranked(logits, teacher, targets))
    # As the passages stand, the order is another and so is the value.
    assert float(ranked_kd(logits, teacher, targets_R=targets, order=False)) != pytest.approx(float(found))
    best_first = torch.cat([teacher[:, :1], teacher[:, 1:].sort(dim=1, descending=True).values], dim=1)
    torch.testing.assert_close(
        ranked_kd(logits, best_first, targets_R=targets, order=False), ranked_kd(logits, best_first, targets_R=targets)
    )


def test_ranked_without_other_candidates():
    logits, teacher, targets = random(3, 4, seed=1).requires_grad_(), random(3, 4, seed=2), torch.tensor([0, 0, 0])
    found = ranked_kd(logits, teacher, targets_R=targets)
    assert float(found.detach()) == pytest.approx(naive_ranked(logits.detach(), teacher, targets))
    found.backward()
    assert torch.isfinite(logits.grad).all()


def test_cosine_by_hand():
    student, teacher = f64([[2.0, 0.0], [3.0, 3.0]]), f64([[1.0, 1.0], [0.5, 0.5]])
    assert float(cosine_distance(student, teacher)) == pytest.approx((1 - math.sqrt(0.5)) / 2)


def test_geometry_by_hand():
    """Cosines of three students 0, 0.6, 0.8 against 1, 0, 0."""
    student = f64([[1.0, 0.0], [0.0, 2.0], [0.6, 0.8]])
    teacher = f64([[1.0, 0, 0], [5.0, 0, 0], [0.0, 0, 1]])
    assert float(geometry(student, teacher)) == pytest.approx((1 + 0.36 + 0.64) / 3)


def test_geometry_knows_no_direction():
    turn = torch.linalg.qr(random(6, 6, seed=3)).Q
    teacher = random(5, 6, seed=4)
    assert float(geometry(teacher @ turn * 3, teacher)) == pytest.approx(0, abs=1e-12)
    assert float(geometry(f64([[1.0, 0.0]]), f64([[1.0, 0.0]]))) == 0


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: kl_divergence(x, random(3, 6, seed=5)),
        lambda x: listnet(x, random(3, 6, seed=5)),
        lambda x: margin_mse(x, random(3, 6, seed=5)),
        lambda x: ranked_kd(x, random(3, 2, seed=5), targets_R=torch.tensor([0, 2, 4])),
        lambda x: cosine_distance(x, random(3, 6, seed=5)),
        lambda x: geometry(x, random(3, 4, seed=5)),
    ],
)
def test_gradcheck(loss):
    assert torch.autograd.gradcheck(loss, (random(3, 6, seed=6).requires_grad_(),))


@pytest.mark.parametrize("loss", [kl_divergence, listnet, margin_mse, cosine_distance, geometry])
def test_no_gradient_reaches_the_teacher(loss):
    student, teacher = random(3, 4, seed=1).requires_grad_(), random(3, 4, seed=2).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.any()
