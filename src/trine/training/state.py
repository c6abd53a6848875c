"""The state of a run across all ranks: saved after a step, and taken up again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from trine.errors import TrainingError, UsageError
from trine.training import checkpoints
from trine.training.guards import all_finite
from trine.training.optimizer import Optimizer
from trine.training.ranks import OneProcess
from trine.training.settings import LoopSettings, differences


class Batches(Protocol):
    """An endless supply of batches that knows where it is."""

    def __iter__(self) -> Iterator[Any]:
        """Itself."""
        ...

    def __next__(self) -> Any:
        """The next batch; its attribute `tokens`, where it has one, counts for the speed."""
        ...

    def state_dict(self) -> Mapping[str, Any]:
        """The position after the batch most recently handed out, as JSON."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to that position."""
        ...


@dataclass(slots=True)
class Progress:
    """What changes from step to step, besides weights and the optimizer's memory."""

    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Seen by this rank."""
    seconds: float = 0.0
    """Until the last checkpoint."""
    skipped: int = 0
    skipped_row: int = 0
    """Steps left out since the last that was not."""
    best_step: int = 0
    best_value: float | None = None
    waited: int = 0
    """Evaluations since the best."""
    window: dict[str, float] = field(default_factory=dict)
    """Sums of what was not logged yet, of this rank."""
    window_steps: int = 0


class RunState:
    """Everything that a checkpoint holds, and the folder that holds the checkpoints."""

    def __init__(
        self, module: nn.Module, *, batches: Batches, optimizer: Optimizer, root: Path, ranks: OneProcess
    ) -> None:
        self.tensors = checkpoints.tensors_of(module)
        self.batches, self.optimizer, self.root, self.ranks = batches, optimizer, root, ranks
        self.progress = Progress()
        self.identity: dict[str, Any] = {}
        self._clock = time.monotonic()

    def newest(self) -> Path | None:
        """The last checkpoint."""
        return next(reversed(checkpoints.every(self.root).values()), None)

    # -- begin -----------------------------------------------------------------------------------------------------

    def begin(self, settings: LoopSettings, identity: Mapping[str, Any]) -> None:
        """Start anew, or from the last checkpoint.

        Raises:
            UsageError: the run was started with other settings, or another identity.
            CheckpointError: the checkpoint cannot be read, or is of another module.
        """
        ranks = self.ranks
        # As it comes back from the file: tuples are lists there.
        run = json.loads(json.dumps({**identity, "processes": ranks.size}))
        self.identity = {"settings": settings.as_json(), "run": run}
        newest = ranks.tell(self.newest())
        if newest is None:
            checkpoints.seed_everything(settings.seed + ranks.rank)
            ranks.align(list(self.tensors.values()))
            return
        found = checkpoints.read(newest) if ranks.rank == 0 else None
        told = ranks.tell(None if found is None else (found.state, found.random, _names(found.optimizer)))
        assert told is not None
        state, random_states, names = told
        self._refuse_other(state["identity"], newest)
        if found is not None:
            checkpoints.check_names(self.tensors, found.weights, where=newest / checkpoints.WEIGHTS)
        self._take_tensors(found, names)
        own = state["ranks"][ranks.rank]
        self.batches.load_state_dict(own["batches"])
        self.progress = Progress(**state["progress"] | own["progress"])
        checkpoints.restore_random(random_states[ranks.rank])

    def _refuse_other(self, before: Mapping[str, Any], newest: Path) -> None:
        found = [line for part, now in self.identity.items() for line in differences(before[part], now)]
        if found:
            raise UsageError(
                f"{newest.parent.parent} holds a run that was started otherwise: {'; '.join(found)}. "
                "Go on with what it was started with, or take another folder."
            )

    def _take_tensors(self, found: checkpoints.Checkpoint | None, names: Mapping[str, list[str]]) -> None:
        """Weights and the optimizer's memory, from the first rank to all."""
        ranks = self.ranks
        with torch.no_grad():
            for name, tensor in self.tensors.items():
                tensor.copy_(ranks.fill(tensor, None if found is None else found.weights[name]))
        memory: dict[str, dict[str, Tensor]] = {}
        for name, keys in names.items():
            values = {key: None if found is None else found.optimizer[name][key] for key in keys}
            memory[name] = {key: ranks.fill(self.tensors[name], value) for key, value in values.items()}
        self.optimizer.load(memory)

    # -- save ------------------------------------------------------------------------------------------------------

    def save(self, *, keep: int) -> None:
        """Write a checkpoint, and remove those that are neither among the newest `keep` nor the best.

        Raises:
            TrainingError: the disk is full, or the weights are no longer finite; the checkpoints before it stay.
        """
        local = [getattr(tensor, "_local_tensor", tensor) for tensor in self.tensors.values()]
        if not all(self.ranks.collect(all_finite(local))):
            raise TrainingError("weights are no longer finite, though the loss is; a lower learning rate may help")
        now = time.monotonic()
        self.progress.seconds, self._clock = self.progress.seconds + now - self._clock, now
        checkpoint = self._gathered()
        failed = ""
        if self.ranks.rank == 0:
            try:
                checkpoints.write(self.root, self.progress.step, checkpoint)
                best = self.progress.best_step if self.progress.best_value is not None else None
                checkpoints.prune(self.root, keep=keep, best=best)
            except TrainingError as error:
                failed = str(error)
        failed = self.ranks.tell(failed)
        if failed:
            raise TrainingError(failed)

    def _gathered(self) -> checkpoints.Checkpoint:
        """The state of all ranks; whole tensors on the first alone."""
        ranks, progress = self.ranks, self.progress
        weights = {name: ranks.whole(tensor) for name, tensor in self.tensors.items()}
        memory = {
            name: {key: ranks.whole(value) for key, value in values.items()}
            for name, values in self.optimizer.state().items()
        }
        own = {
            "batches": dict(self.batches.state_dict()),
            "progress": {"window": dict(progress.window), "tokens": progress.tokens},
        }
        return checkpoints.Checkpoint(
            weights={name: tensor for name, tensor in weights.items() if tensor is not None},
            optimizer={name: {k: v for k, v in values.items() if v is not None} for name, values in memory.items()},
            random=ranks.collect(checkpoints.random_state()),
            state={"progress": asdict(progress), "ranks": ranks.collect(own), "identity": self.identity},
        )


def _names(optimizer: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    return {name: list(values) for name, values in optimizer.items()}
