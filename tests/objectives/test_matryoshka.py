"""Matryoshka as a wrapper: by hand, and refusals."""

import pytest
import torch

from trine.errors import UsageError
from trine.objectives.base import Losses
from trine.objectives.matryoshka import check_widths, matryoshka, truncated


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_cut_and_back_to_length_one():
    assert torch.equal(truncated(f64([[3.0, 4.0, 7.0]]), 2), f64([[0.6, 0.8]]))
    with pytest.raises(UsageError, match="cannot cut 3 dimensions to 4; choose from 1 to 3"):
        truncated(f64([[3.0, 4.0, 7.0]]), 4)


def products(left, right):
    total = (left * right).sum()
    return Losses(total, {"products": total.detach(), "width": torch.tensor(left.shape[1])})


def test_the_weighted_sum_by_hand():
    """Cosines of (3, 4, 0) with (4, 3, 0): 1, 0.96 and 0.96 at widths 1, 2 and 3."""
    left, right = f64([[3.0, 4.0, 0.0]]), f64([[4.0, 3.0, 0.0]])
    found = matryoshka(products, (left, right), widths=(3, 1), weights=(0.5, 2))
    assert float(found.total) == pytest.approx(0.5 * 0.96 + 2 * 1)
    assert {name: float(value) for name, value in found.parts.items()} == pytest.approx(
        {"products": 0.96, "width": 3, "width_3": 0.96, "width_1": 1}
    )
    assert float(matryoshka(products, (left, right), widths=(1, 2, 3)).total) == pytest.approx(1 + 0.96 + 0.96)


def test_gradcheck():
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(3, 4, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(2))
    assert torch.autograd.gradcheck(lambda a, b: matryoshka(products, (a, b), widths=(2, 4)).total, (left, right))


@pytest.mark.parametrize("widths", [(), (4, 4), (0, 2)])
def test_useless_widths_are_refused(widths):
    with pytest.raises(UsageError, match="positive and all different"):
        check_widths(widths, None)


def test_weights_must_fit():
    with pytest.raises(UsageError, match="1 matryoshka weights for 2 widths"):
        check_widths((2, 4), (1.0,))
    assert check_widths((2, 4), None) == [1.0, 1.0]
