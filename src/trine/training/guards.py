"""Watching for numbers that are not finite, before they reach the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def not_finite(values: Mapping[str, float]) -> list[str]:
    """Each value that is not finite, as "name=value"."""
    return [f"{name}={value}" for name, value in values.items() if not math.isfinite(value)]


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds a NaN or an infinity; looks at each on its device and asks for the answer once."""
    # The ends of the range are NaN or infinite exactly where a value is, and need no copy of the tensor.
    ends = [end.float() for tensor in tensors if tensor.numel() for end in torch.aminmax(tensor.detach())]
    if not ends:
        return True
    return bool(torch.stack([end.to(ends[0].device) for end in ends]).isfinite().all())


class Skips:
    """Counts the steps that are left out, and says when there are too many in a row."""

    def __init__(self, limit: int, *, total: int = 0, row: int = 0) -> None:
        self.limit = limit
        self.total = total
        self.row = row

    def note(self, skipped: bool) -> bool:
        """Count one step; true where it was the last that is put up with."""
        self.row = self.row + 1 if skipped else 0
        self.total += skipped
        return self.row >= self.limit
