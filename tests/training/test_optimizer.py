import pytest
import torch
from torch import nn

from trine.errors import CheckpointError, UnknownName, UsageError
from trine.training.optimizer import Optimizer, trainable
from trine.training.settings import LoopSettings


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 2)
        self.tied = nn.Linear(3, 2)
        self.tied.weight = self.head.weight
        self.scale = nn.Parameter(torch.tensor(1.0))


def optimizer(model, **changes):
    settings = LoopSettings(**{"steps": 10, "learning_rate": 0.5, "warmup": 0, "schedule": "constant", **changes})
    return Optimizer(trainable(model), settings)


def test_only_matrices_decay():
    """With gradients of zero, AdamW moves a parameter by decay alone: w * (1 - rate * decay)."""
    model = Model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    steps = optimizer(model, weight_decay=0.1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    steps.take(0)
    for name, parameter in model.named_parameters():
        share = 0.95 if parameter.ndim == 2 else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * share)


def test_multipliers_go_by_the_longest_prefix():
    """The first step of Adam moves every number by the rate: its gradient over itself."""
    model = Model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    steps = optimizer(model, weight_decay=0.0, multipliers={"head.": 4.0, "head.bias": 0.5})
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    steps.take(0)
    moved = {name: (before[name] - parameter.detach()).mean().item() for name, parameter in model.named_parameters()}
    assert moved["head.weight"] == pytest.approx(2.0)
    assert moved["head.bias"] == pytest.approx(0.25)
    assert moved["body.weight"] == moved["scale"] == pytest.approx(0.5)


def test_a_prefix_that_fits_nothing_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'head.'"):
        optimizer(Model(), multipliers={"heda.": 2.0})


def test_the_schedule_sets_the_rate_of_each_step():
    steps = optimizer(Model(), schedule="linear", warmup=2)
    assert [steps.learning_rate(step) for step in range(10)] == pytest.approx(
        [0.25, 0.5, *(0.5 * (1 - n / 8) for n in range(8))]
    )


def test_a_tied_weight_comes_once_and_frozen_ones_not_at_all():
    model = Model()
    model.body.requires_grad_(False)
    assert set(trainable(model)) == {"norm.weight", "norm.bias", "head.weight", "head.bias", "tied.bias", "scale"}
    model.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameter that learns"):
        trainable(model)


def test_state_by_name_goes_on_exactly():
    torch.manual_seed(0)
    model = Model()
    steps = optimizer(model)

    def step(model, steps, seed):
        torch.manual_seed(seed)
        steps.clear()
        for name, parameter in model.named_parameters():
            if name != "scale":
                parameter.grad = torch.randn_like(parameter)
        steps.take(0)

    step(model, steps, 1)
    twin = Model()
    twin.load_state_dict(model.state_dict())
    other = optimizer(twin)
    other.load({name: {key: value.clone() for key, value in values.items()} for name, values in steps.state().items()})
    assert "scale" not in steps.state()
    for seed in (2, 3):
        step(model, steps, seed)
        step(twin, other, seed)
    for name, parameter in model.named_parameters():
        assert torch.equal(dict(twin.named_parameters())[name], parameter), name


def test_the_state_of_another_module_is_refused():
    with pytest.raises(CheckpointError, match="'stranger'"):
        optimizer(Model()).load({"stranger": {}})
