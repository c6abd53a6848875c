"""What training asks of the processes that share it, and the answers of one that is alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from trine.errors import TrainingError, UsageError
from trine.training.steps import OneRank

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this is."""

    rank: int
    size: int
    local_rank: int
    """On this machine; the number of its GPU."""


def place(environment: Mapping[str, str] | None = None) -> Place:
    """What torchrun (or another launcher that sets RANK, WORLD_SIZE and LOCAL_RANK) says; alone where it says nothing.

    Raises:
        UsageError: some are set and others not, or they contradict each other.
    """
    source = os.environ if environment is None else environment
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    given = {name: source[name] for name in names if name in source}
    if not given:
        return Place(0, 1, 0)
    if len(given) < len(names):
        missing = ", ".join(name for name in names if name not in given)
        raise UsageError(f"{given} is set in the environment, but not {missing}; start with torchrun, or unset them")
    try:
        rank, size, local = (int(given[name]) for name in names)
    except ValueError:
        raise UsageError(f"{given} in the environment should be whole numbers") from None
    if not 0 <= rank < size or local < 0:
        raise UsageError(f"{given} in the environment contradict each other: RANK must be below WORLD_SIZE")
    return Place(rank, size, local)


class OneProcess(OneRank):
    """A single process: what the loop asks of ranks, where there is but one."""

    rank = 0
    size = 1

    def shard(self, module: nn.Module) -> None:
        """Cut the parameters of `module` among the ranks.

        Raises:
            UsageError: there is one process.
        """
        raise UsageError("one process has no other to share parameters with; start several with torchrun, or use ddp")

    def align(self, tensors: Sequence[Tensor]) -> None:
        """Give all ranks the first one's values."""

    def share_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Average the gradients over the ranks."""

    def settle(self) -> None:
        """Make the parameters of a sharded model those that the optimizer holds."""

    def gradient_norm(self, parameters: Sequence[nn.Parameter]) -> float:
        """The length of all gradients together."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return float(gradient_length(gradients))

    def mean(self, number: float) -> float:
        """The mean over the ranks."""
        return number

    def collect(self, value: T) -> list[T]:
        """The values of all ranks, on every rank."""
        return [value]

    def tell(self, value: T) -> T:
        """The first rank's value."""
        return value

    def whole(self, tensor: Tensor) -> Tensor | None:
        """All of a tensor on the CPU, None but on the first rank."""
        return tensor.detach().cpu()

    def fill(self, target: Tensor, value: Tensor | None) -> Tensor:
        """A tensor placed like `target` with the first rank's `value`."""
        assert value is not None
        return value.to(target.device)

    def lost(self) -> list[int]:
        """Ranks whose process has ended."""
        return []

    def failure(self, what: str, error: BaseException) -> TrainingError:
        """The error for a talk with the others that failed."""
        gone = self.lost()
        lost = f"rank {' and '.join(map(str, gone))} of {self.size} has ended"
        who = lost if gone else "the other ranks did not answer"
        first = str(error).strip().partition("\n")[0][:200]
        return TrainingError(f"rank {self.rank} was {what}, but {who} ({first})")


def gradient_length(tensors: Sequence[Tensor]) -> Tensor:
    """The length of tensors as one vector."""
    return torch.nn.utils.get_total_norm(tensors) if tensors else torch.zeros(())
