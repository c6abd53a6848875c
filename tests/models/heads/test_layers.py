import math

import pytest
import torch

from trine.models import config as schema
from trine.models.heads import layers


@pytest.mark.parametrize(
    ("activation", "expected"),
    [
        ("identity", lambda x: x),
        ("tanh", math.tanh),
        ("relu", lambda x: max(x, 0.0)),
        ("sigmoid", lambda x: 1 / (1 + math.exp(-x))),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("gelu", lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
    ],
)
def test_activations(activation, expected):
    (module,) = layers.build([schema.Projection(1, 1, bias=False, activation=activation)])
    with torch.no_grad():
        module.linear.weight.fill_(1.0)
    for value in (-2.0, -0.5, 0.0, 1.5):
        assert module(torch.tensor([value])).item() == pytest.approx(expected(value), abs=1e-6)


def test_every_activation_of_the_schema_exists():
    assert set(layers.ACTIVATIONS) == set(schema.Activation.__args__)


def test_residual_of_equal_width_adds_the_input():
    (module,) = layers.build([schema.Projection(2, 2, activation="tanh", residual=True)])
    with torch.no_grad():
        module.linear.weight.zero_()
        module.linear.bias.copy_(torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(module(torch.tensor([3.0, 4.0])), torch.tensor([3.0, 4.0 + math.tanh(1)]))
    assert {name for name, _ in module.named_parameters()} == {"linear.weight", "linear.bias"}


def test_residual_of_another_width_goes_through_a_matrix_of_its_own():
    (module,) = layers.build([schema.Projection(1, 2, bias=False, residual=True)])
    with torch.no_grad():
        module.linear.weight.copy_(torch.tensor([[1.0], [0.0]]))
        module.shortcut.weight.copy_(torch.tensor([[10.0], [20.0]]))
    torch.testing.assert_close(module(torch.tensor([2.0])), torch.tensor([22.0, 40.0]))


def test_normalisation_leaves_a_zero_vector_at_zero():
    (module,) = layers.build([schema.Normalize()])
    torch.testing.assert_close(module(torch.tensor([[3.0, 4.0], [0.0, 0.0]])), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))


def test_layer_norm_uses_its_epsilon():
    (module,) = layers.build([schema.LayerNorm(2, epsilon=3.0)])
    # Mean 1, variance 1: (0 - 1) / sqrt(1 + 3)
    torch.testing.assert_close(module(torch.tensor([0.0, 2.0])), torch.tensor([-0.5, 0.5]))


def test_truncation_wider_than_the_vector_changes_nothing():
    (module,) = layers.build([schema.Truncate(9)])
    assert module(torch.ones(2, 3)).shape == (2, 3)
    assert layers.width_after([schema.Truncate(9)], 3) == 3


def test_width_follows_projections_and_truncations():
    chain = [schema.LayerNorm(8), schema.Projection(8, 6), schema.Normalize(), schema.Truncate(4)]
    assert layers.width_after(chain, 8) == 4
    assert layers.build(chain)(torch.randn(3, 8)).shape == (3, 4)
