"""What was encoded is not encoded again, and comes out the same."""

import numpy as np
import pytest

from trine.errors import UsageError
from trine.recipes.remembered import Remembered
from trine.testing import HashingEncoder


class Counting(HashingEncoder):
    def __init__(self):
        super().__init__()
        self.asked = []

    def encode(self, texts, *, kind, **options):
        self.asked.append((kind, list(texts)))
        return super().encode([f"{kind} {text}" for text in texts], kind=kind, **options)


def test_each_text_of_a_side_is_encoded_once_and_rows_come_in_order():
    encoder = Counting()
    kept = Remembered(encoder)
    kept.encode(["가", "b"], kind="passage", modes=["dense"])
    found = kept.encode(["c", "b", "c", "가"], kind="passage")
    kept.encode(["b"], kind="query", modes=["dense"])
    assert encoder.asked == [("passage", ["가", "b"]), ("passage", ["c"]), ("query", ["b"])]
    plain = Counting().encode(["c", "b", "c", "가"], kind="passage", modes=["dense"])
    assert np.array_equal(found.dense, plain.dense)
    assert found.modes == ("dense",)
    assert kept.encode([], kind="query").dense.shape == (0, 32)


def test_other_modes_are_refused():
    kept = Remembered(HashingEncoder())
    assert kept.dimensions == {"dense": 32}
    with pytest.raises(UsageError, match="only dense"):
        kept.encode(["a"], kind="query", modes=["dense", "sparse"])


def test_the_rest_is_the_encoders():
    encoder = HashingEncoder()
    kept = Remembered(encoder)
    assert kept.fingerprint == encoder.fingerprint
    assert kept.max_length == encoder.max_length
    assert kept.covers("가")
    assert kept.token_labels([3]) == ["#3"]
    for name, options in (
        ("token_spans", {}),
        ("vector_spans", {"kind": "query"}),
        ("sparse_spans", {"kind": "query"}),
    ):
        assert np.array_equal(getattr(kept, name)("a 가", **options), getattr(encoder, name)("a 가", **options))
