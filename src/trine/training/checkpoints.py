"""Everything a run must know to go on as if it had never stopped, on disk.

A checkpoint is a folder ``step-00000500`` with ``weights.safetensors`` (what learns, and buffers), ``optimizer.pt``
and ``random.pt`` (both read without pickled code) and ``state.json``. It is written beside its place, flushed to the
disk and renamed, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from trine.errors import CheckpointError, TrainingError
from trine.models.files import fresh_folder, read_json, read_tensors, write_json

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
RANDOM = "random.pt"
STATE = "state.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The whole state of a run after a step."""

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Mapping[str, Tensor]]
    random: list[dict[str, Any]]
    """Of each rank, as `random_state` gives it."""
    state: Mapping[str, Any]
    """JSON: counters, positions, settings."""


def name(step: int) -> str:
    """Of the folder of a step's checkpoint."""
    return f"step-{step:08d}"


def write(root: Path, step: int, checkpoint: Checkpoint) -> Path:
    """Write the state after `step` and return its folder.

    Raises:
        TrainingError: it could not be written (a full disk); what was there before is untouched.
    """
    target = root / name(step)
    try:
        with fresh_folder(target) as folder:
            _write_into(folder, checkpoint)
        _flush(root)
    # Torch says what the disk says as a RuntimeError.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise TrainingError(f"the checkpoint {target} could not be written: {error}; is the disk full?") from error
    return target


def _write_into(folder: Path, checkpoint: Checkpoint) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in checkpoint.weights.items()}, folder / WEIGHTS)
    torch.save({name: dict(values) for name, values in checkpoint.optimizer.items()}, folder / OPTIMIZER)
    torch.save(checkpoint.random, folder / RANDOM)
    write_json(folder / STATE, {"format": FORMAT, **checkpoint.state})
    for path in [*folder.iterdir(), folder]:
        _flush(path)


def _flush(path: Path) -> None:
    """Make the disk hold what was written; a name is safe only after its folder was flushed."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: a file is missing or damaged; the message names it.
    """
    state = read_json(folder / STATE)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{folder / STATE} has format {state.get('format')!r}, this version reads {FORMAT}")
    try:
        return Checkpoint(
            weights=read_tensors(folder / WEIGHTS),
            optimizer=torch.load(folder / OPTIMIZER, map_location="cpu", weights_only=True),
            random=torch.load(folder / RANDOM, map_location="cpu", weights_only=True),
            state=state,
        )
    except Exception as error:  # a broken file can raise anything, from OSError to UnpicklingError
        raise CheckpointError(
            f"the checkpoint {folder} cannot be read: {error}; remove it to go on from the one before"
        ) from error


def every(root: Path) -> dict[int, Path]:
    """Folders by step of the checkpoints under `root`, in ascending order."""
    found = {}
    for path in sorted(root.glob("step-*")):
        if (match := re.fullmatch(r"step-(\d{8,})", path.name)) and (path / STATE).is_file():
            found[int(match.group(1))] = path
    return dict(sorted(found.items()))


def prune(root: Path, *, keep: int, best: int | None) -> None:
    """Remove all but the newest `keep` checkpoints and that of step `best`, and what a kill left half written."""
    found = every(root)
    spare = [path for step, path in found.items() if step in {*list(found)[-keep:], best}]
    for path in [*root.glob("step-*"), *root.glob(".step-*")]:
        if path not in spare and path.is_dir():
            # First the file that makes it a checkpoint, so that a kill leaves no half of one.
            (path / STATE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def load_weights(module: nn.Module, folder: str | Path) -> None:
    """Put the weights of a checkpoint, such as a run's best, into the module that was trained, or one built like it.

    A sharded module cannot take them: build a whole one.

    Raises:
        CheckpointError: the file is missing or damaged, or holds other tensors than the module.
    """
    path = Path(folder) / WEIGHTS
    found = read_tensors(path)
    targets = tensors_of(module)
    check_names(targets, found, where=path)
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(found[name])


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint keeps of a module: parameters that learn, each once, and the buffers it would save itself."""
    kept = module.state_dict().keys()
    learning = {name: tensor for name, tensor in module.named_parameters() if tensor.requires_grad}
    return learning | {name: tensor for name, tensor in module.named_buffers() if name in kept}


def check_names(targets: Mapping[str, Tensor], found: Mapping[str, Tensor], *, where: Path) -> None:
    """Refuse weights of another module.

    Raises:
        CheckpointError: a name or a shape differs.
    """
    missing, foreign = sorted(targets.keys() - found.keys()), sorted(found.keys() - targets.keys())
    if missing or foreign:
        raise CheckpointError(
            f"{where} was written by another model: it lacks {_some(missing)} and holds {_some(foreign)} besides"
        )
    for name, target in targets.items():
        if target.shape != found[name].shape:
            raise CheckpointError(
                f"{where}: {name} is {tuple(found[name].shape)}, but the module's is {tuple(target.shape)}"
            )


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return f"{', '.join(listed[:3])}{' ...' if len(listed) > 3 else ''}" if listed else "nothing"


# -- random numbers --------------------------------------------------------------------------------------------------


def seed_everything(seed: int) -> None:
    """Start the random numbers of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def random_state() -> dict[str, Any]:
    """Where the random numbers of torch (CPU and its current GPU), numpy and Python are; tensors and plain values."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, gauss],
        "python": json.dumps(random.getstate()),
    }


def restore_random(state: Mapping[str, Any]) -> None:
    """Go on with the random numbers from where `random_state` was taken."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        torch.cuda.set_rng_state(state["cuda"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = json.loads(state["python"])
    random.setstate((version, tuple(internal), gauss_next))
