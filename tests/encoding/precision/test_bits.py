import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.encoding.precision.bits import pack, packed_width, unpack
from trine.errors import UsageError


@given(st.integers(0, 5), st.integers(0, 19), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_is_packed_comes_back(rows, width, bits, seed):
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, width)).astype(np.uint8)
    packed = pack(codes, bits=bits)
    assert packed.shape == (rows, packed_width(width, bits=bits))
    assert packed.dtype == np.uint8
    assert (unpack(packed, bits=bits, width=width) == codes).all()


def test_the_first_number_is_in_the_highest_bits_and_the_rest_is_0():
    assert pack(np.array([[1, 2, 3]], np.uint8), bits=4).tolist() == [[0x12, 0x30]]
    assert pack(np.array([[1, 0, 0, 0, 0, 0, 0, 1, 1]], np.uint8), bits=1).tolist() == [[0x81, 0x80]]


def test_single_bits_lie_as_numpy_packs_them():
    bits = np.random.default_rng(0).integers(0, 2, (4, 13)).astype(np.uint8)
    assert (pack(bits, bits=1) == np.packbits(bits, axis=1)).all()


def test_bits_that_do_not_divide_a_byte_are_refused():
    with pytest.raises(UsageError, match="3 bits"):
        pack(np.zeros((1, 1), np.uint8), bits=3)
