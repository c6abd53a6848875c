"""How many bytes an embedding may take: one value that says it for all three representations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from trine.errors import UsageError
from trine.tables import unknown
from trine.types import MODES, Mode

ROW_CODECS: tuple[str, ...] = (
    "float32",
    "float16",
    "int8",
    "int8_calibrated",
    "int4",
    "residual4",
    "residual2",
    "binary",
)
"""Forms of a vector, dense or one of a multi-vector; see `trine.encoding.precision.rows`."""
SPARSE_CODECS: tuple[str, ...] = ("float32", "float16", "uint8")
"""Forms of a sparse weight."""
_OWNERS: Mapping[str, Mode] = {
    "dimensions": "dense",
    "rescore": "dense",
    "sparse_top": "sparse",
    "sparse_threshold": "sparse",
    "pool": "multi_vector",
}
"""Option -> the representation that it is about."""
_DEFAULTS: Mapping[str, Any] = {
    "dimensions": None,
    "rescore": None,
    "sparse_top": None,
    "sparse_threshold": 0.0,
    "pool": 1,
}


@dataclass(frozen=True, slots=True)
class Precision:
    """What is kept of each representation; the defaults keep everything.

    Raises:
        UsageError: a number is out of range, or an option has no effect.
        UnknownName: no such codec; the message suggests the nearest.
    """

    dense: str | None = "float32"
    """A name in `ROW_CODECS`; None leaves the representation out."""
    dimensions: int | None = None
    """First so many dense dimensions (Matryoshka), at the whole vector's length; None for all."""
    rescore: str | None = None
    """For "binary" alone: a second copy, by which the best of the binary search are scored; None scores the float
    query with the bits."""
    sparse: str | None = "float32"
    """A name in `SPARSE_CODECS`."""
    sparse_top: int | None = None
    """Most terms kept of a text, those of the greatest weights; None for all."""
    sparse_threshold: float = 0.0
    """Terms below this weight are dropped."""
    multi_vector: str | None = "float32"
    """A name in `ROW_CODECS`."""
    pool: int = 1
    """One vector is kept for about so many tokens of a passage, see `trine.encoding.precision.pooling`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be, and what would do nothing."""
        for mode, known in (("dense", ROW_CODECS), ("sparse", SPARSE_CODECS), ("multi_vector", ROW_CODECS)):
            if (codec := getattr(self, mode)) is not None and codec not in known:
                raise unknown(codec, known, kind=f"{mode} precision")
        if not self.modes:
            raise UsageError("Precision leaves out dense, sparse and multi_vector; keep at least one of them")
        for name in ("dimensions", "sparse_top", "pool"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"Precision.{name} is {value}; it must be at least 1")
        if not (math.isfinite(self.sparse_threshold) and self.sparse_threshold >= 0):
            raise UsageError(f"Precision.sparse_threshold is {self.sparse_threshold}; it must be finite and at least 0")
        self._require_effect()

    def _require_effect(self) -> None:
        for name, mode in _OWNERS.items():
            if getattr(self, mode) is None and getattr(self, name) != _DEFAULTS[name]:
                raise UsageError(f"Precision.{name} has no effect without {mode}; leave one of them out")
        if self.rescore is None:
            return
        if self.dense != "binary":
            raise UsageError(
                f"Precision.rescore needs dense='binary', not {self.dense!r}: other codes score themselves"
            )
        if self.rescore == "binary" or self.rescore not in ROW_CODECS:
            others = [name for name in ROW_CODECS if name != "binary"]
            raise unknown(self.rescore, others, kind="precision of a second copy")

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations that are kept."""
        return tuple(mode for mode in MODES if getattr(self, mode) is not None)

    @staticmethod
    def full(modes: Iterable[Mode] = MODES) -> Precision:
        """Everything that a model with these representations gives."""
        kept = set(modes)
        dense, sparse, multi_vector = ("float32" if mode in kept else None for mode in MODES)
        return Precision(dense=dense, sparse=sparse, multi_vector=multi_vector)

    def only(self, mode: Mode) -> Precision:
        """The same for one representation, without the others."""
        if mode not in self.modes:
            raise UsageError(f"Precision leaves out {mode}; it keeps {', '.join(self.modes)}")
        changes: dict[str, Any] = {name: _DEFAULTS[name] for name, owner in _OWNERS.items() if owner != mode}
        changes |= {other: None for other in MODES if other != mode}
        return replace(self, **changes)

    @property
    def name(self) -> str:
        """How reports call it: "dense int8 128d, sparse uint8 top 64, multi int4 pool 2"."""
        return ", ".join(f"{mode.replace('_vector', '')} {self.part(mode)}" for mode in self.modes)

    def part(self, mode: Mode) -> str:
        """What is kept of one representation: "int8 128d", "-" for nothing."""
        words = [str(getattr(self, mode) or "-")]
        if mode == "dense":
            words += [f"+ {self.rescore}"] if self.rescore else []
            words += [f"{self.dimensions}d"] if self.dimensions else []
        elif mode == "sparse":
            words += [f"top {self.sparse_top}"] if self.sparse_top else []
            words += [f"from {self.sparse_threshold:g}"] if self.sparse_threshold else []
        else:
            words += [f"pool {self.pool}"] if self.pool > 1 else []
        return " ".join(words)
