import pytest
import torch

from training import toys
from trine.errors import CheckpointError, TrainingError, UsageError
from trine.training import checkpoints
from trine.training.optimizer import Optimizer, trainable
from trine.training.ranks import OneProcess
from trine.training.settings import LoopSettings
from trine.training.state import Progress, RunState

SETTINGS = LoopSettings(steps=10, learning_rate=0.1, warmup=0)


def make(root, *, module=None, batches=None, seed=3):
    module = module or toys.network(seed=seed)
    optimizer = Optimizer(trainable(module), SETTINGS)
    state = RunState(module, batches=batches or toys.Drawn(), optimizer=optimizer, root=root, ranks=OneProcess())
    return state, module, optimizer


def stepped(module, optimizer):
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.take(0)


def test_all_of_it_comes_back(tmp_path):
    batches = toys.Drawn()
    state, module, optimizer = make(tmp_path, batches=batches)
    state.begin(SETTINGS, {"data": "한글", "modes": ("dense", "sparse")})
    stepped(module, optimizer)
    next(batches)
    state.progress = Progress(
        step=7,
        tokens=11,
        skipped=2,
        skipped_row=1,
        best_step=5,
        best_value=0.25,
        waited=2,
        window={"loss": 1 / 3},
        window_steps=3,
    )
    state.save(keep=2)
    wanted = torch.rand(3)

    again = toys.Drawn()
    other, twin, memory = make(tmp_path, batches=again, seed=5)
    other.begin(SETTINGS, {"data": "한글", "modes": ("dense", "sparse")})
    assert torch.equal(torch.rand(3), wanted)
    assert other.progress == state.progress
    assert again.number == 1
    for name, tensor in module.state_dict().items():
        assert torch.equal(twin.state_dict()[name], tensor)
    for name, values in optimizer.state().items():
        for key, value in values.items():
            assert torch.equal(memory.state()[name][key], value)


def test_a_fresh_run_starts_its_random_numbers_from_the_seed(tmp_path):
    make(tmp_path)[0].begin(SETTINGS, {})
    found = torch.rand(3)
    torch.manual_seed(SETTINGS.seed)
    assert torch.equal(torch.rand(3), found)


def test_the_newest_is_that_of_the_last_step(tmp_path):
    state, _, _ = make(tmp_path)
    state.begin(SETTINGS, {})
    assert state.newest() is None
    for step in (9, 10, 100):
        state.progress.step = step
        state.save(keep=5)
    assert state.newest() == tmp_path / "step-00000100"


def test_the_checkpoint_of_another_module_is_refused(tmp_path):
    state, _, _ = make(tmp_path)
    state.begin(SETTINGS, {})
    state.save(keep=1)
    other, _, _ = make(tmp_path, module=torch.nn.Linear(4, 2))
    with pytest.raises(CheckpointError, match="written by another model"):
        other.begin(SETTINGS, {})


def test_another_identity_is_refused(tmp_path):
    state, _, _ = make(tmp_path)
    state.begin(SETTINGS, {"data": "a"})
    state.save(keep=1)
    with pytest.raises(UsageError, match="data was 'a', is 'not given'"):
        make(tmp_path)[0].begin(SETTINGS, {})


def test_broken_weights_are_not_written(tmp_path):
    state, module, _ = make(tmp_path)
    state.begin(SETTINGS, {})
    module[0].weight.data[0, 0] = float("nan")
    with pytest.raises(TrainingError, match="no longer finite"):
        state.save(keep=1)
    assert checkpoints.every(tmp_path) == {}
