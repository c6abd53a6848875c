"""Vectors in fewer bytes: one codec a class, the same ones for dense embeddings and for the rows of multi-vectors.

A codec is a frozen value. Its fields are the arrays that all rows share (ranges, centroids), found by `fit_rows` on a
sample; what it makes of R vectors is `Coded`, flat arrays of R rows. A score is that of the decoded vectors with a
query in float32: only passages are compressed.

Shapes: R vectors, D dimensions, Q queries, B bytes of a packed row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from trine.encoding.precision.bits import pack, unpack
from trine.encoding.precision.settings import ROW_CODECS
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import FloatArray, IntArray

FloatMatrix = NDArray[np.float32]

CLIPPED = 0.001
"""Share of a dimension's values on either side that calibration leaves outside its range: one outlier of a hundred
thousand vectors would else cost all of them their resolution."""
_BLOCK = 1 << 22
"""Elements decoded at a time while scoring: 16 MiB."""


@dataclass(frozen=True, slots=True)
class Coded:
    """R vectors as a codec keeps them."""

    arrays: Mapping[str, NDArray[Any]]
    """Name -> array of R rows."""
    width: int
    """D of the decoded vectors."""

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def take(self, rows: IntArray | slice) -> Coded:
        """The given rows."""
        return Coded({name: array[rows] for name, array in self.arrays.items()}, self.width)


class RowCodec(Protocol):
    """One form of vectors."""

    def encode(self, value_RD: FloatArray) -> Coded:
        """Compress; raises `UsageError` for what is not finite or cannot be held."""
        ...

    def decode(self, coded: Coded) -> FloatMatrix:
        """(R, D) what is left of the vectors."""
        ...


def fit_rows(name: str, sample_RD: FloatArray, *, seed: int = 0) -> RowCodec:
    """The codec of that name, calibrated on a sample where it is one that has something to learn.

    Args:
        name: in `trine.encoding.precision.settings.ROW_CODECS`.
        sample_RD: vectors such as those that will be encoded.
        seed: of the clustering behind "residual4" and "residual2".

    Raises:
        UnknownName: no such codec.
        UsageError: the sample is empty, holds a number that is not finite, or vectors that the codec cannot hold.
    """
    if name not in ROW_CODECS:
        raise unknown(name, ROW_CODECS, kind="precision")
    if name in _PLAIN:
        return _PLAIN[name]()
    require_finite(sample_RD)
    if not len(sample_RD):
        raise UsageError(f"{name} is calibrated on vectors, and the sample has none; use int8 or float16")
    if name == "int8_calibrated":
        return CalibratedRows.fit(sample_RD)
    from trine.encoding.precision.residual import ResidualRows

    return ResidualRows.fit(sample_RD, bits=int(name.removeprefix("residual")), seed=seed)


def shared_bytes(codec: RowCodec) -> int:
    """Bytes of what a codec keeps once for all vectors."""
    values: Any = codec
    return sum(getattr(values, field.name).nbytes for field in fields(values))


def score_rows(codec: RowCodec, query_QD: FloatArray, coded: Coded) -> FloatMatrix:
    """(Q, R) inner products with the decoded vectors, decoded block by block."""
    if query_QD.shape[1] != coded.width:
        raise UsageError(f"queries have {query_QD.shape[1]} dimensions, the coded vectors {coded.width}")
    queries = np.asarray(query_QD, np.float32)
    result = np.empty((len(queries), len(coded)), np.float32)
    step = max(_BLOCK // max(coded.width, 1), 1)
    for start in range(0, len(coded), step):
        block = slice(start, start + step)
        result[:, block] = queries @ codec.decode(coded.take(block)).T
    return result


@dataclass(frozen=True, slots=True)
class Float32Rows:
    """As they are: 4 D bytes."""

    def encode(self, value_RD: FloatArray) -> Coded:
        """Copy."""
        return Coded({"values": np.array(require_finite(value_RD), np.float32)}, value_RD.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """The vectors themselves."""
        return coded.arrays["values"]


@dataclass(frozen=True, slots=True)
class Float16Rows:
    """Half precision, 2 D bytes: off by at most 2**-11 of a value, or 2**-25 where it is tiny."""

    def encode(self, value_RD: FloatArray) -> Coded:
        """Round to the nearest; refuse what is past 65504."""
        values = require_finite(value_RD)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if not np.isfinite(half).all():
            raise UsageError(
                f"float16 ends at 65504, and the vectors reach {np.abs(values).max():g}; normalise them, or use int8"
            )
        return Coded({"values": half}, values.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """In float32."""
        return coded.arrays["values"].astype(np.float32)


@dataclass(frozen=True, slots=True)
class Int8Rows:
    """A byte per dimension and a scale per vector, D + 4 bytes: off by at most half a scale, max|x| / 254."""

    def encode(self, value_RD: FloatArray) -> Coded:
        """Scale each vector's greatest value to 127."""
        values = require_finite(value_RD)
        scale_R = (_peaks(values) / 127).astype(np.float32)
        codes = np.clip(np.rint(values / _divisor(scale_R)), -127, 127).astype(np.int8)
        return Coded({"codes": codes, "scale": scale_R}, values.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """Code times scale."""
        values: FloatMatrix = coded.arrays["codes"].astype(np.float32) * coded.arrays["scale"][:, None]
        return values


@dataclass(frozen=True, slots=True)
class Int4Rows:
    """16 levels around 0 and a scale per vector, D / 2 + 4 bytes: off by at most half a scale, max|x| / 15.

    No level is 0, which a vector of values that differ from 0 does not need; a vector of zeros has the scale 0.
    """

    def encode(self, value_RD: FloatArray) -> Coded:
        """Scale each vector's greatest value to the outermost level."""
        values = require_finite(value_RD)
        scale_R = (_peaks(values) * (2 / 15)).astype(np.float32)
        codes = np.clip(np.rint(values / _divisor(scale_R) + 7.5), 0, 15).astype(np.uint8)
        return Coded({"codes": pack(codes, bits=4), "scale": scale_R}, values.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """Level times scale."""
        levels = unpack(coded.arrays["codes"], bits=4, width=coded.width).astype(np.float32) - np.float32(7.5)
        values: FloatMatrix = levels * coded.arrays["scale"][:, None]
        return values


@dataclass(frozen=True, slots=True)
class BinaryRows:
    """The sign of each dimension, D / 8 bytes: above 0, or not.

    Every vector comes back with length 1, a vector of zeros too: a bit has no third state.
    """

    def encode(self, value_RD: FloatArray) -> Coded:
        """Signs."""
        values = require_finite(value_RD)
        return Coded({"codes": pack((values > 0).astype(np.uint8), bits=1)}, values.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """Plus or minus 1 / sqrt(D)."""
        signs = unpack(coded.arrays["codes"], bits=1, width=coded.width).astype(np.float32) * 2 - 1
        return signs * np.float32(1 / np.sqrt(max(coded.width, 1)))


@dataclass(frozen=True, slots=True)
class CalibratedRows:
    """A byte per dimension in a range of that dimension, D bytes: off by at most half a step inside the range.

    A value outside it becomes the range's end.
    """

    low: NDArray[np.float32]
    """(D,) the value of code 0."""
    step: NDArray[np.float32]
    """(D,)"""

    @staticmethod
    def fit(sample_RD: FloatArray) -> CalibratedRows:
        """Ranges that hold all but `CLIPPED` of the sample's values on either side."""
        low, high = np.quantile(np.asarray(sample_RD, np.float64), [CLIPPED, 1 - CLIPPED], axis=0)
        return CalibratedRows(low.astype(np.float32), ((high - low) / 255).astype(np.float32))

    def encode(self, value_RD: FloatArray) -> Coded:
        """The nearest of each dimension's 256 values."""
        values = require_finite(value_RD)
        if values.shape[1] != len(self.low):
            raise UsageError(f"calibrated for {len(self.low)} dimensions, the vectors have {values.shape[1]}")
        codes = np.rint((values - self.low) / np.where(self.step > 0, self.step, 1).astype(np.float64))
        return Coded({"codes": np.clip(codes, 0, 255).astype(np.uint8)}, values.shape[1])

    def decode(self, coded: Coded) -> FloatMatrix:
        """Low end plus code times step."""
        values: FloatMatrix = self.low + coded.arrays["codes"].astype(np.float32) * self.step
        return values


def require_finite(value_RD: FloatArray) -> NDArray[np.float64]:
    """The matrix in float64, in which no sum or quotient of float32 numbers overflows."""
    if value_RD.ndim != 2:
        raise UsageError(f"vectors come as a matrix (vectors, dimensions), not in the shape {value_RD.shape}")
    finite_R = np.isfinite(value_RD).all(axis=1)
    if not finite_R.all():
        raise UsageError(
            f"vector {int(finite_R.argmin())} holds a number that is not finite; the model is broken there"
        )
    return np.asarray(value_RD, np.float64)


def prefixes(value_RD: FloatArray, dimensions: int) -> FloatMatrix:
    """(R, `dimensions`) the first dimensions at the whole vector's length, so that a unit vector stays one.

    Source: Kusupati et al., Matryoshka Representation Learning, NeurIPS 2022, section 3.

    Raises:
        UsageError: there are fewer dimensions.
    """
    values = require_finite(value_RD)
    if not 1 <= dimensions <= values.shape[1]:
        raise UsageError(f"{dimensions} dimensions cannot be taken of {values.shape[1]}")
    first = values[:, :dimensions]
    lengths = np.linalg.norm(first, axis=1, keepdims=True)
    whole = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(first * (whole / np.where(lengths > 0, lengths, 1)), np.float32)


def _peaks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    peaks: NDArray[np.float64] = np.abs(values).max(axis=1, initial=0.0)
    return peaks


def _divisor(scale_R: NDArray[np.float32]) -> NDArray[np.float64]:
    """The scale that decoding will use, in float64; 1 where it is 0."""
    return np.where(scale_R > 0, scale_R, 1).astype(np.float64)[:, None]


_PLAIN: Mapping[str, Callable[[], RowCodec]] = {
    "float32": Float32Rows,
    "float16": Float16Rows,
    "int8": Int8Rows,
    "int4": Int4Rows,
    "binary": BinaryRows,
}
"""Codecs with nothing to learn."""
