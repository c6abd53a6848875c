import pytest
import torch

from trine.errors import CheckpointError
from trine.models.config import DenseConfig, LayerNorm, Normalize, Projection, Truncate
from trine.models.heads.dense import POOLINGS, DenseHead, cls_places

STATES = torch.tensor([[[9.0, 9.0], [1.0, -4.0], [2.0, 6.0], [6.0, 1.0]]])
"""One text of four tokens; the first is a prompt or padding in what follows."""
REAL = torch.tensor([[False, True, True, True]])
"""Padding on the left."""
EXPECTED = {
    "cls": [1, -4],
    "max": [6, 6],
    "mean": [3, 1],
    "mean_sqrt_len": [9 / 3**0.5, 3 / 3**0.5],
    "weighted_mean": [(1 + 4 + 18) / 6, (-4 + 12 + 3) / 6],
    "last_token": [6, 1],
}


def head(*pooling, layers=(), include_prompt=True, size=2):
    return DenseHead(DenseConfig(pooling, layers=layers, include_prompt=include_prompt), hidden_size=size)


def test_every_pooling_has_a_worked_case():
    assert set(EXPECTED) == set(POOLINGS)


@pytest.mark.parametrize("name", EXPECTED)
def test_worked_by_hand(name):
    found = head(name)(STATES, REAL, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(found, torch.tensor([EXPECTED[name]], dtype=torch.float32))


@pytest.mark.parametrize("name", EXPECTED)
def test_padding_may_stand_on_either_side(name):
    """What the padded positions hold reaches no result."""
    right = torch.cat([STATES[:, 1:], torch.full((1, 3, 2), 1e4)], dim=1)
    mask = torch.tensor([[True, True, True, False, False, False]])
    found = head(name)(right, mask, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(found, torch.tensor([EXPECTED[name]], dtype=torch.float32))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cls", [2, 6]),
        ("max", [6, 6]),
        ("mean", [4, 3.5]),
        ("mean_sqrt_len", [8 / 2**0.5, 7 / 2**0.5]),
        # Positions keep their number: the two tokens left weigh 2 and 3.
        ("weighted_mean", [(4 + 18) / 5, (12 + 3) / 5]),
        ("last_token", [6, 1]),
    ],
)
def test_prompts_left_out_by_the_length_of_each_text(name, expected):
    """Two texts of a batch, one with a prompt of one token, one without."""
    found = head(name, include_prompt=False)(STATES.repeat(2, 1, 1), REAL.repeat(2, 1), torch.tensor([1, 0]))
    torch.testing.assert_close(found, torch.tensor([expected, EXPECTED[name]], dtype=torch.float32))


def test_prompt_lengths_have_no_effect_where_prompts_are_included():
    torch.testing.assert_close(head("mean")(STATES, REAL, torch.tensor([2])), torch.tensor([[3.0, 1.0]]))


def test_several_poolings_are_concatenated_in_their_order():
    several = head("last_token", "max", "cls")
    assert several.width == 6
    found = several(STATES, REAL, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(found, torch.tensor([[6.0, 1.0, 6.0, 6.0, 1.0, -4.0]]))


def test_layers_follow_in_order():
    both = head("mean", layers=(Projection(2, 3, bias=False), Normalize(), Truncate(2)))
    with torch.no_grad():
        both.layers[0].linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 4.0]]))
    assert both.width == 2
    # mean (3, 1) -> (3, 0, 4) -> (.6, 0, .8) -> its first two
    found = both(STATES, REAL, torch.zeros(1, dtype=torch.long))
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.0]]))


def test_sums_run_in_float32():
    """In bfloat16 a sum of ones stands still at 256."""
    states = torch.ones(1, 1000, 2, dtype=torch.bfloat16)
    found = head("mean")(states, torch.ones(1, 1000, dtype=torch.bool), torch.zeros(1, dtype=torch.long))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), torch.ones(1, 2))


@pytest.mark.parametrize(
    "layers", [(Projection(3, 3),), (LayerNorm(4),), (Projection(2, 4), Projection(2, 4)), (Truncate(1), LayerNorm(2))]
)
def test_layers_that_do_not_fit_are_refused(layers):
    with pytest.raises(CheckpointError, match="dimensions, but the layers before it give"):
        head("mean", layers=layers)


def test_mean_of_several_cls():
    """A CLS after every 2 tokens: places 0, 3 and 6, but not where the text ends there; padding on either side."""
    states = torch.arange(20.0).view(2, 10, 1)
    mask = torch.tensor([[False, False, *[True] * 8], [True] * 7 + [False] * 3])
    assert cls_places(mask, every=2).nonzero().tolist() == [[0, 2], [0, 5], [0, 8], [1, 0], [1, 3]]
    several = DenseHead(DenseConfig(("cls_mean",)), hidden_size=1, cls_every=2)
    found = several(states, mask, torch.zeros(2, dtype=torch.long))
    torch.testing.assert_close(found, torch.tensor([[5.0], [11.5]]))
