"""FLOPS and the spread-out regularisers by hand, by gradcheck, and against sentence-transformers."""

import pytest
import torch
from sentence_transformers.sentence_transformer.losses import GlobalOrthogonalRegularizationLoss

from trine.objectives.base import TokenWeights
from trine.objectives.regularization import flops, orthogonal, spread_out


def f64(rows):
    return torch.tensor(rows, dtype=torch.float64)


def token_weights(weights):
    return TokenWeights(weights, torch.tensor([3, 5, 3, 5]), torch.tensor([0, 3, 3, 4]), width=9)


def test_flops_by_hand():
    """Ids 3 and 5 of three texts: (4, 2), nothing, (0, 1): means 4/3 and 1."""
    assert float(flops(token_weights(f64([1.0, 2.0, 4.0, 1.0])))) == pytest.approx((4 / 3) ** 2 + 1)
    assert float(flops(f64([[4.0, 2.0], [0.0, 0.0], [0.0, 1.0]]))) == pytest.approx((4 / 3) ** 2 + 1)
    nothing = TokenWeights(f64([]), torch.zeros(0, dtype=torch.int64), torch.tensor([0, 0]), width=9)
    assert float(flops(nothing)) == 0


def test_spread_out_by_hand():
    """Cosines 0, 0.6 and 0.8."""
    dense = f64([[2.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert float(spread_out(dense)) == pytest.approx((0.36 + 0.64) / 3)
    assert float(orthogonal(dense)) == pytest.approx((1.4 / 3) ** 2)
    near = f64([[1.0, 0.0], [1.0, 0.0]])
    assert float(orthogonal(near)) == pytest.approx(1 + (1 - 0.5))
    assert float(spread_out(dense[:1])) == 0


@pytest.mark.parametrize("count", [3, 20])
def test_sentence_transformers_has_the_same_moments(count):
    """With fewer and with more texts than dimensions: two ways to the same sums."""
    dense = torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3
    mean, second = GlobalOrthogonalRegularizationLoss(None).compute_gor(dense)
    torch.testing.assert_close(orthogonal(dense), mean + second)
    cosines = torch.nn.functional.normalize(dense, dim=1)
    cosines = (cosines @ cosines.T)[~torch.eye(count, dtype=torch.bool)]
    torch.testing.assert_close(spread_out(dense), cosines.square().mean())


@pytest.mark.parametrize("count", [3, 7])
@pytest.mark.parametrize("loss", [spread_out, orthogonal])
def test_gradcheck_of_dense(loss, count):
    dense = torch.randn(count, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    assert torch.autograd.gradcheck(loss, (dense.requires_grad_(),))


def test_gradcheck_of_sparse():
    assert torch.autograd.gradcheck(lambda w: flops(token_weights(w)), (f64([1.0, 2.0, 4.0, 1.0]).requires_grad_(),))
    rows = torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(flops, (rows,))


def test_flops_of_a_whole_vocabulary_needs_no_row_of_its_width():
    weights = f64([1.0, 2.0, 4.0, 1.0]).requires_grad_()
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        flops(TokenWeights(weights, torch.tensor([3, 5, 3, 249_999]), torch.tensor([0, 3, 4]), width=250_002))
    assert max(sizes) <= 4
