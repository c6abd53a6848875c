import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.encoding.precision.sparse import encode_sparse, prune
from trine.errors import UnknownName, UsageError
from trine.types import SparseRows

ROWS = st.lists(st.dictionaries(st.integers(0, 99), st.floats(0, 2.0**127, width=32), max_size=12), max_size=6)


def rows(*given, width=100):
    return SparseRows.from_rows(given, width=width)


def listed(sparse):
    return [dict(zip(*map(np.ndarray.tolist, sparse.row(number)), strict=True)) for number in range(len(sparse))]


def test_the_greatest_weights_stay_and_of_equal_ones_the_lower_id():
    given_rows = rows({5: 1.0, 7: 3.0, 9: 2.0}, {}, {1: 2.0, 2: 2.0, 3: 2.0})
    assert listed(prune(given_rows, top=2)) == [{7: 3.0, 9: 2.0}, {}, {1: 2.0, 2: 2.0}]
    assert listed(prune(given_rows, threshold=2.0)) == [{7: 3.0, 9: 2.0}, {}, {1: 2.0, 2: 2.0, 3: 2.0}]
    assert listed(prune(given_rows, top=1, threshold=2.5)) == [{7: 3.0}, {}, {}]
    assert listed(prune(given_rows)) == listed(given_rows)


@given(ROWS, st.integers(1, 8))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_pruning_is_a_sort(given_rows, top):
    pruned = listed(prune(rows(*given_rows), top=top))
    for before, after in zip(given_rows, pruned, strict=True):
        best = sorted(before, key=lambda key: (-np.float32(before[key]), key))[:top]
        assert list(after) == sorted(best)
        assert after == {key: float(np.float32(before[key])) for key in sorted(best)}


@given(ROWS)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_byte_is_off_by_at_most_its_scale_and_no_match_is_lost(given_rows):
    sparse = rows(*given_rows)
    back = encode_sparse(sparse, "uint8").decode()
    assert (back.offsets == sparse.offsets).all()
    assert (back.ids == sparse.ids).all()
    for number in range(len(sparse)):
        before, after = sparse.row(number)[1].astype(np.float64), back.row(number)[1].astype(np.float64)
        scale = before.max(initial=0) / 255
        lost = np.abs(before - after)
        assert (lost <= np.where(before < scale / 2, scale, scale / 2) * (1 + 1e-5) + 1e-37).all()
        assert ((after > 0) == (before > 0))[before > 1e-35].all()


def test_bytes_are_counted_exactly():
    sparse = rows({1: 1.0, 2: 0.5, 70: 0.1}, {}, {3: 4.0})
    for name, weight, scale in (("float32", 4, 0), ("float16", 2, 0), ("uint8", 1, 4)):
        assert encode_sparse(sparse, name).nbytes == 3 * 8 + 4 * (2 + weight) + 3 * scale
    wide = rows({1: 1.0, 70_000: 0.5}, width=70_001)
    assert encode_sparse(wide, "uint8").nbytes == 8 + 2 * (4 + 1) + 4
    assert encode_sparse(wide, "uint8").decode().ids.tolist() == [1, 70_000]


def test_the_last_id_of_a_narrow_vocabulary_survives():
    sparse = rows({65_535: 1.0}, width=65_536)
    coded = encode_sparse(sparse, "float16")
    assert coded.ids.dtype == np.uint16
    assert listed(coded.decode()) == [{65_535: 1.0}]


@pytest.mark.parametrize("name", ["float32", "float16", "uint8"])
def test_rows_can_be_taken_and_may_be_empty(name):
    sparse = rows({1: 1.0, 2: 0.5}, {}, {3: 4.0})
    coded = encode_sparse(sparse, name)
    whole = listed(coded.decode())
    assert listed(coded.take(np.array([2, 0])).decode()) == [whole[2], whole[0]]
    assert len(encode_sparse(rows(), name).decode()) == 0
    assert listed(encode_sparse(rows({}, {}), name).decode()) == [{}, {}]


def test_what_a_form_cannot_hold_is_refused():
    with pytest.raises(UsageError, match="not a finite number"):
        encode_sparse(rows({1: float("nan")}), "float32")
    with pytest.raises(UsageError, match="65504.*1e\\+06"):
        encode_sparse(rows({1: 1e6}), "float16")
    with pytest.raises(UsageError, match="one is -1"):
        encode_sparse(rows({1: -1.0}), "uint8")
    with pytest.raises(UnknownName, match="uint8"):
        encode_sparse(rows(), "uin8")
