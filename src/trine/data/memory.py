"""How many texts of a length fit into memory: the batch size as a function of length.

Memory of one example = fixed + group x (linear x L + quadratic x L^2), L tokens of its longest passage: activations
grow with the tokens, attention that keeps its matrix with their square; the query, and what is gathered from other
ranks, does not grow with the passage.

Shapes: M measurements.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trine.errors import UsageError


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a transformer decides the size of its activations."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    """Width of the feed-forward layer."""
    bytes_per_value: int = 2
    """Of activations: 2 under bfloat16 or float16, 4 in float32."""
    gradient_checkpointing: bool = False
    """Only each layer's input is kept; one layer at a time is computed again."""
    keeps_attention: bool = False
    """Whether the (L, L) attention matrix is stored, as eager attention does; fused attention does not."""


@dataclass(frozen=True, slots=True)
class MemoryModel:
    """The cost of an example, in a unit of its own (bytes, or shares of a budget of 1)."""

    budget: float
    """Memory for activations: what is left beside weights, gradients and the optimiser's state."""
    fixed: float
    """Of one example, whatever its length."""
    linear: float
    """Of one token."""
    quadratic: float = 0.0
    """Of one token squared."""

    def __post_init__(self) -> None:
        """Refuse costs under which any batch, or none, would fit."""
        if min(self.fixed, self.linear, self.quadratic) < 0 or self.fixed + self.linear + self.quadratic <= 0:
            raise UsageError(f"costs must not be negative, and not all 0: {self}")
        if not self.budget > 0:
            raise UsageError(f"budget must be positive, not {self.budget}")

    def cost(self, length: int, *, group_size: int = 1) -> float:
        """Of one query with `group_size` passages of `length` tokens."""
        return self.fixed + group_size * (self.linear * length + self.quadratic * length**2)

    def batch_size(self, length: int, *, group_size: int = 1) -> int:
        """Queries that fit with `group_size` passages each of up to `length` tokens; at least 1."""
        # A budget that a whole number of examples fills exactly must not lose one to rounding.
        return max(math.floor(self.budget / self.cost(length, group_size=group_size) + 1e-9), 1)

    @staticmethod
    def fit(lengths: Sequence[int], sizes: Sequence[int], *, group_size: int = 1, budget: float = 1.0) -> MemoryModel:
        """The model under which batches of M measured sizes come nearest to filling the budget.

        Least squares on the share of the budget that each batch fills, with no cost below 0, so that every row counts
        alike however large its batch.

        Args:
            lengths: (M,) tokens.
            sizes: (M,) the largest batch that fitted at each.
            group_size: passages of each query.
            budget: unit of the costs.

        Raises:
            UsageError: fewer than two measurements, unequal numbers of them, or sizes below 1.
        """
        if len(lengths) != len(sizes) or len(lengths) < 2:
            raise UsageError(f"{len(lengths)} lengths and {len(sizes)} sizes; two pairs or more are needed")
        if min(sizes) < 1 or min(lengths) < 1:
            raise UsageError(f"lengths and sizes must be at least 1: {list(lengths)}, {list(sizes)}")
        scale = float(max(lengths))
        length_M = np.asarray(lengths, np.float64) / scale
        size_M = np.asarray(sizes, np.float64)
        columns_M3 = np.stack([size_M, size_M * group_size * length_M, size_M * group_size * length_M**2], axis=1)
        fixed, linear, quadratic = _not_negative(columns_M3) * budget
        return MemoryModel(budget, float(fixed), float(linear / scale), float(quadratic / scale**2))

    @staticmethod
    def of_shape(
        shape: ModelShape, *, budget_bytes: float, query_length: int = 0, bytes_per_example: float = 0.0
    ) -> MemoryModel:
        """An estimate from the model's shape, where nothing was measured.

        A layer keeps, for each token, 8 values of the hidden size, 2 of the intermediate size and 2 bytes of dropout
        masks a hidden value; with eager attention 2 values and 1 byte a head for each pair of tokens. At
        intermediate = 4 x hidden and 2 bytes these are the 34 s b h + 5 a s^2 b of Korthikanti et al., "Reducing
        Activation Recomputation in Large Transformer Models" (2022), section 4.1.

        Args:
            shape: of the model.
            budget_bytes: memory for activations.
            query_length: tokens of a query; its activations are the fixed cost.
            bytes_per_example: further fixed cost, for instance of gathered embeddings.
        """
        width = shape.bytes_per_value
        token = width * (8 * shape.hidden + 2 * shape.intermediate) + 2 * shape.hidden
        pair = (2 * width + 1) * shape.heads if shape.keeps_attention else 0
        if shape.gradient_checkpointing:
            token, pair = token + width * shape.hidden * shape.layers, pair
        else:
            token, pair = token * shape.layers, pair * shape.layers
        fixed = bytes_per_example + token * query_length + pair * query_length**2
        return MemoryModel(budget_bytes, fixed, token, pair)


def _not_negative(columns_M3: np.ndarray) -> np.ndarray:
    """Least squares of ``columns @ x = 1`` with no x below 0: the best of the seven supports."""
    best, least = np.zeros(3), math.inf
    for count in (1, 2, 3):
        for support in itertools.combinations(range(3), count):
            part = columns_M3[:, support]
            found = np.linalg.lstsq(part, np.ones(len(part)), rcond=None)[0]
            error = float(((part @ found - 1) ** 2).sum())
            if (found >= 0).all() and error < least - 1e-12:
                best, least = np.zeros(3), error
                best[list(support)] = found
    return best
