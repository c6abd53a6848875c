import numpy as np
import pytest

from trine.errors import UsageError
from trine.index.checks import allowed_rows, check_batch, kept_modes
from trine.types import Embeddings, PackedRows


def test_kept_modes_are_in_canonical_order():
    dimensions = {"multi_vector": 4, "sparse": 9, "dense": 2}
    assert kept_modes(dimensions, backend="x", able=("dense", "sparse")) == ("dense", "sparse")


def test_nothing_to_keep_names_the_backend_and_what_it_can():
    with pytest.raises(UsageError, match=r"the flat index keeps dense, sparse; .*\['multi_vector'\]"):
        kept_modes({"multi_vector": 4}, backend="the flat index", able=("dense", "sparse"))


@pytest.mark.parametrize(
    ("allowed", "rows"),
    [(None, None), ([], []), ([7], [1]), ([9, 5, 5, 6, 100, -1], [0, 2]), ([100], [])],
)
def test_allowed_rows(allowed, rows):
    found = allowed_rows(np.array([5, 7, 9]), None if allowed is None else np.array(allowed, np.int64))
    assert (found if found is None else found.tolist()) == rows


def test_allowed_rows_of_nothing():
    assert allowed_rows(np.array([], np.int64), np.array([1])).tolist() == []


def test_packed_rows_of_another_width_are_refused():
    wide = Embeddings(multi_vector=PackedRows.from_rows([np.ones((2, 3), np.float32)], width=3))
    with pytest.raises(UsageError, match=r"multi_vector of shape \(2, 3\); the index was made for width 4"):
        check_batch(np.array([1]), wide, dimensions={"multi_vector": 4}, modes=("multi_vector",))
