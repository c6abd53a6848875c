"""Small whole numbers, several to a byte.

Shapes: R rows, D numbers of a row, B bytes of a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trine.errors import UsageError

Bytes = NDArray[np.uint8]


def pack(code_RD: NDArray[np.uint8], *, bits: int) -> Bytes:
    """(R, B) bytes, the first number in the highest bits; what is left of the last byte is 0.

    Args:
        code_RD: numbers below ``2 ** bits``.
        bits: 1, 2, 4 or 8.
    """
    each = _each(bits)
    rows, width = code_RD.shape
    columns = packed_width(width, bits=bits)
    filled = np.zeros((rows, columns * each), np.uint8)
    filled[:, :width] = code_RD
    result: Bytes = np.bitwise_or.reduce(filled.reshape(rows, columns, each) << _shifts(bits), axis=2)
    return result


def unpack(packed_RB: Bytes, *, bits: int, width: int) -> Bytes:
    """(R, `width`) numbers as they were before `pack`."""
    each = _each(bits)
    spread = (packed_RB[:, :, None] >> _shifts(bits)) & np.uint8((1 << bits) - 1)
    result: Bytes = spread.reshape(len(packed_RB), packed_RB.shape[1] * each)[:, :width]
    return result


def packed_width(width: int, *, bits: int) -> int:
    """B for D numbers."""
    return -(-width // _each(bits))


def _each(bits: int) -> int:
    if bits not in (1, 2, 4, 8):
        raise UsageError(f"{bits} bits do not divide a byte; use 1, 2, 4 or 8")
    return 8 // bits


def _shifts(bits: int) -> Bytes:
    return np.arange(8 - bits, -1, -bits, dtype=np.uint8)
