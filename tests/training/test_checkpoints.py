import errno
import os
import random
import resource
import signal

import numpy as np
import pytest
import torch
from torch import nn

from trine.errors import CheckpointError, TrainingError
from trine.training import checkpoints
from trine.training.checkpoints import Checkpoint


def state(value=1.0, **more):
    return Checkpoint(
        weights={"바이어스": torch.full((3,), value), "scalar": torch.tensor(value)},
        optimizer={"바이어스": {"step": torch.tensor(4.0), "exp_avg": torch.ones(3)}},
        random=[checkpoints.random_state()],
        state={"progress": {"step": 4}, "글": "안녕", **more},
    )


def test_what_is_written_is_read(tmp_path):
    folder = checkpoints.write(tmp_path / "새 폴더", 500, state())
    assert folder == tmp_path / "새 폴더" / "step-00000500"
    found = checkpoints.read(folder)
    assert torch.equal(found.weights["바이어스"], torch.ones(3))
    assert found.weights["scalar"].shape == ()
    assert found.optimizer["바이어스"]["step"] == 4.0
    assert found.state["글"] == "안녕"
    assert len(found.random) == 1
    assert sorted(path.name for path in folder.iterdir()) == [
        "optimizer.pt",
        "random.pt",
        "state.json",
        "weights.safetensors",
    ]


def test_transposed_weights_keep_their_values(tmp_path):
    turned = torch.arange(6.0).reshape(2, 3).T
    folder = checkpoints.write(tmp_path, 1, Checkpoint({"w": turned}, {}, [], {}))
    assert torch.equal(checkpoints.read(folder).weights["w"], turned)


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.pt", "random.pt", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "noise"])
def test_damage_is_named(tmp_path, name, damage):
    folder = checkpoints.write(tmp_path, 1, state())
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "noise": b"\x93 \x00 noise"}[damage])
    with pytest.raises(CheckpointError, match="step-00000001"):
        checkpoints.read(folder)


def test_pickled_code_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.system, ("touch " + str(tmp_path / "exploded"),)

    folder = checkpoints.write(tmp_path, 1, state())
    torch.save({"a": Bomb()}, folder / "optimizer.pt")
    with pytest.raises(CheckpointError, match="remove it to go on from the one before"):
        checkpoints.read(folder)
    assert not (tmp_path / "exploded").exists()


def test_another_format_is_refused(tmp_path):
    folder = checkpoints.write(tmp_path, 1, state(format=99))
    with pytest.raises(CheckpointError, match="format 99, this version reads 1"):
        checkpoints.read(folder)


# -- a disk that fails -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["save_file", "torch.save", "write_json", "fsync", "replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, failing):
    checkpoints.write(tmp_path, 1, state(1.0))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    targets = {
        "save_file": "safetensors.torch.save_file",
        "torch.save": "torch.save",
        "write_json": "trine.training.checkpoints.write_json",
        "fsync": "os.fsync",
        "replace": "os.replace",
    }
    with monkeypatch.context() as patch:
        patch.setattr(targets[failing], full)
        with pytest.raises(TrainingError, match=r"step-00000002 could not be written: .*No space left .*disk full"):
            checkpoints.write(tmp_path, 2, state(2.0))
    assert list(checkpoints.every(tmp_path)) == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(checkpoints.read(tmp_path / "step-00000001").weights["바이어스"], torch.ones(3))
    checkpoints.write(tmp_path, 2, state(2.0))
    assert list(checkpoints.every(tmp_path)) == [1, 2]


@pytest.mark.parametrize("large", ["weights", "optimizer"])
def test_what_the_system_really_refuses_to_write(tmp_path, large):
    """A limit on the size of files: the libraries' own errors, not ours, are turned into one that says what to do."""
    numbers = torch.zeros(300_000)
    big = Checkpoint({"w": numbers} if large == "weights" else {}, {"w": {"m": numbers}}, [], {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(TrainingError, match="step-00000003 could not be written"):
            checkpoints.write(tmp_path, 3, big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_program_is_no_full_disk(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        checkpoints.write(tmp_path, 1, state(position={1, 2}))
    assert list(tmp_path.iterdir()) == []


# -- which stay ------------------------------------------------------------------------------------------------------


def test_every_lists_whole_checkpoints_in_order(tmp_path):
    assert checkpoints.every(tmp_path / "nowhere") == {}
    for step in (900, 20, 123456789):
        checkpoints.write(tmp_path, step, state())
    (tmp_path / "step-00000030").mkdir()
    (tmp_path / "step-abc").mkdir()
    (tmp_path / ".step-00000040.x1").mkdir()
    assert list(checkpoints.every(tmp_path)) == [20, 900, 123456789]


def test_prune_keeps_the_newest_and_the_best_and_clears_what_is_half(tmp_path):
    for step in range(1, 7):
        checkpoints.write(tmp_path, step, state())
    (tmp_path / "step-00000009").mkdir()
    (tmp_path / ".step-00000008.x1").mkdir()
    (tmp_path / "notes").mkdir()
    checkpoints.prune(tmp_path, keep=2, best=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "notes",
        "step-00000003",
        "step-00000005",
        "step-00000006",
    ]
    checkpoints.prune(tmp_path, keep=1, best=None)
    assert list(checkpoints.every(tmp_path)) == [6]


# -- weights ---------------------------------------------------------------------------------------------------------


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.tied = nn.Linear(3, 2, bias=False)
        self.tied.weight = self.head.weight
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.temperature = nn.Parameter(torch.tensor(0.05))
        self.register_buffer("mean", torch.zeros(3))
        self.register_buffer("scratch", torch.zeros(3), persistent=False)


def test_what_learns_is_kept_once_and_buffers_too():
    assert set(checkpoints.tensors_of(Model())) == {"head.weight", "head.bias", "temperature", "mean"}


def test_weights_load_into_their_module_and_tied_ones_stay_tied(tmp_path):
    source, target = Model(), Model()
    source.mean.fill_(2.0)
    folder = checkpoints.write(tmp_path, 1, Checkpoint(checkpoints.tensors_of(source), {}, [], {}))
    frozen = target.frozen.weight.clone()
    checkpoints.load_weights(target, folder)
    assert torch.equal(target.tied.weight, source.head.weight)
    assert target.tied.weight is target.head.weight
    assert torch.equal(target.mean, source.mean)
    assert torch.equal(target.frozen.weight, frozen)


def test_weights_of_another_module_are_refused(tmp_path):
    folder = checkpoints.write(tmp_path, 1, Checkpoint(checkpoints.tensors_of(Model()), {}, [], {}))
    other = Model()
    other.more = nn.Linear(2, 2)
    with pytest.raises(CheckpointError, match=r"lacks more\.bias, more\.weight and holds nothing besides"):
        checkpoints.load_weights(other, folder)
    wide = Model()
    wide.head = nn.Linear(5, 2)
    wide.tied = nn.Identity()
    with pytest.raises(CheckpointError, match=r"head\.weight is \(2, 3\), but the module's is \(2, 5\)"):
        checkpoints.load_weights(wide, folder)


# -- random numbers --------------------------------------------------------------------------------------------------


def draw():
    return [
        torch.rand(3).tolist(),
        np.random.random(3).tolist(),
        np.random.standard_normal(),
        random.random(),
        random.gauss(0, 1),
    ]


def test_random_numbers_go_on_where_they_were_through_the_file(tmp_path):
    checkpoints.seed_everything(2**40 + 1)
    # An odd number of Gaussians leaves one in store.
    draw()
    folder = checkpoints.write(tmp_path, 1, state())
    wanted = draw()
    checkpoints.seed_everything(0)
    assert draw() != wanted
    checkpoints.restore_random(checkpoints.read(folder).random[0])
    assert draw() == wanted


def test_a_seed_decides_all_of_them():
    checkpoints.seed_everything(7)
    first = draw()
    checkpoints.seed_everything(7)
    assert draw() == first
    checkpoints.seed_everything(8)
    assert all(one != other for one, other in zip(draw(), first, strict=True))
