"""What every backend refuses before it touches its data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError
from trine.tables import unknown
from trine.types import MODES, Embeddings, Mode


def kept_modes(dimensions: Mapping[Mode, int], *, backend: str, able: tuple[Mode, ...]) -> tuple[Mode, ...]:
    """The modes of `dimensions` that a backend keeps, in the canonical order.

    Raises:
        UsageError: an unknown mode, a width under 1, or nothing left to keep.
    """
    for mode, width in dimensions.items():
        if mode not in MODES:
            raise unknown(mode, MODES, kind="mode")
        if width < 1:
            raise UsageError(f"the width of {mode} is {width}; it must be at least 1")
    modes = tuple(mode for mode in able if mode in dimensions)
    if not modes:
        raise UsageError(f"{backend} keeps {', '.join(able)}; the dimensions given are of {list(dimensions)}")
    return modes


def check_batch(
    ids: NDArray[np.int64], embeddings: Embeddings, *, dimensions: Mapping[Mode, int], modes: tuple[Mode, ...]
) -> NDArray[np.int64]:
    """Ids to add as int64, after everything about the batch was found usable."""
    numbers = np.asarray(ids, np.int64)
    if numbers.ndim != 1 or len(numbers) != len(embeddings):
        raise UsageError(f"ids have shape {numbers.shape}, but there are {len(embeddings)} embeddings")
    if len(numbers) and numbers.min() < 0:
        raise UsageError(f"id {numbers.min()} is negative; ids start at 0")
    distinct, counts = np.unique(numbers, return_counts=True)
    if len(distinct) < len(numbers):
        raise UsageError(f"id {distinct[counts > 1][0]} occurs more than once in one call; keep the newest")
    for mode in modes:
        _check_mode(embeddings, mode, width=dimensions[mode], what="embeddings")
    return numbers


def check_query(
    queries: Embeddings, *, mode: Mode, k: int, dimensions: Mapping[Mode, int], modes: tuple[Mode, ...]
) -> None:
    """Refuse a search that the index cannot answer."""
    if mode not in MODES:
        raise unknown(mode, MODES, kind="mode")
    if mode not in modes:
        raise UsageError(f"this index keeps {', '.join(modes)}, not {mode}")
    if k < 1:
        raise UsageError(f"k is {k}; it must be at least 1")
    _check_mode(queries, mode, width=dimensions[mode], what="queries")


def allowed_rows(ids: NDArray[np.int64], allowed: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
    """Positions in the ascending `ids` of those that are `allowed`, ascending; None where all are."""
    if allowed is None:
        return None
    wanted = np.unique(np.asarray(allowed, np.int64))
    where = np.searchsorted(ids, wanted)
    inside = where < len(ids)
    inside[inside] = ids[where[inside]] == wanted[inside]
    return where[inside]


def _check_mode(embeddings: Embeddings, mode: Mode, *, width: int, what: str) -> None:
    part = getattr(embeddings, mode)
    if part is None:
        raise UsageError(f"{what} hold {list(embeddings.modes)}, but {mode} is needed")
    if mode == "sparse":
        values = part.weights
        if len(part.ids) and not 0 <= part.ids.min() <= part.ids.max() < width:
            raise UsageError(
                f"{what} have sparse ids {part.ids.min()} to {part.ids.max()}; the index was made for 0 to {width - 1}"
            )
    else:
        values = part if mode == "dense" else part.values
        if values.ndim != 2 or (values.shape[1] != width and len(values)):
            raise UsageError(f"{what} have {mode} of shape {values.shape}; the index was made for width {width}")
    if not np.isfinite(values).all():
        raise UsageError(f"{what} hold {mode} values that are not finite (NaN or infinity)")
