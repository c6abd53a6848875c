"""Batches by a token budget, and what to do where memory runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn


class TokenBudget:
    """The tokens of one batch, padding included; halves itself where they turn out to be too many."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def batches(self, lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        """Row numbers of items of the given lengths, longest first, as many a batch as fit, at least one."""
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            size = max(self.tokens // max(int(lengths[order[start]]), 1), 1)
            yield order[start : start + size]
            start += size

    def run(self, rows: NDArray[np.int64], forward: Callable[[NDArray[np.int64]], None]) -> None:
        """Call `forward` with the rows, or with halves of them as often as memory runs out.

        Raises:
            torch.OutOfMemoryError: a single row is too much.
        """
        try:
            forward(rows)
            return
        except torch.OutOfMemoryError:
            if len(rows) == 1:
                raise
        # Out here the error, and with it the tensors of the failed pass, is gone.
        half = len(rows) // 2
        self.tokens = max(self.tokens // 2, 1)
        self.run(rows[:half], forward)
        self.run(rows[half:], forward)


@contextlib.contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """A model that is being trained computes as it will when it is done; every part's own state is put back."""
    training = [part for part in model.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
