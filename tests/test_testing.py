import zlib

import numpy as np
import pytest

from trine.testing import HashingEncoder
from trine.types import MODES, TextEncoder

TEXTS = ["검색 엔진은 문서를 찾는다", "Search ENGINE search", "", "?!", "이모지 🙂 끝"]


@pytest.fixture
def encoder() -> TextEncoder:
    return HashingEncoder()


def test_equal_words_give_equal_vectors(encoder):
    one, other = encoder.encode(["search engine", "ENGINE search"], kind="query").dense
    np.testing.assert_allclose(one, other, atol=1e-6)
    assert abs(float(one @ encoder.encode(["다른 말"], kind="query").dense[0])) < 0.9


def test_the_kind_changes_nothing(encoder):
    query, passage = (encoder.encode(TEXTS, kind=kind) for kind in ("query", "passage"))
    np.testing.assert_array_equal(query.dense, passage.dense)
    np.testing.assert_array_equal(query.multi_vector.values, passage.multi_vector.values)


def test_shapes(encoder):
    found = encoder.encode(TEXTS, kind="passage")
    assert found.modes == MODES
    assert found.dense.shape == (5, encoder.dimensions["dense"])
    np.testing.assert_array_equal(np.diff(found.multi_vector.offsets), [4, 3, 1, 1, 2])  # a blank for no words
    np.testing.assert_array_equal(np.diff(found.sparse.offsets), [4, 2, 0, 0, 2])
    assert found.sparse.ids.max() < encoder.dimensions["sparse"]
    np.testing.assert_allclose(np.linalg.norm(found.dense, axis=1), [1, 1, 0, 0, 1], atol=1e-6)
    assert encoder.encode([], kind="query").dense.shape == (0, 32)


def test_modes_are_chosen(encoder):
    assert encoder.encode(TEXTS, kind="query", modes=["sparse"]).modes == ("sparse",)


def test_vectors_are_the_same_in_every_process():
    """Python's own hash of a string is not."""
    assert HashingEncoder().encode(["검색"], kind="query").sparse.ids.tolist() == [zlib.crc32("검색".encode()) % 4096]


def test_spans_belong_to_the_vectors(encoder):
    for text, rows in zip(TEXTS, np.diff(encoder.encode(TEXTS, kind="query").multi_vector.offsets), strict=True):
        spans = encoder.vector_spans(text, kind="query")
        assert len(spans) == rows
        for start, end in spans[spans[:, 0] >= 0]:
            assert text[start:end].isalnum()
    assert encoder.vector_spans("", kind="query").tolist() == [[-1, -1]]


def test_sparse_spans_carry_the_ids_of_the_row(encoder):
    for text in TEXTS:
        ids = encoder.encode([text], kind="query").sparse.ids
        assert {key for key, _, _ in encoder.sparse_spans(text, kind="query")} == set(ids.tolist())
    assert encoder.token_labels([7]) == ["#7"]


def test_the_fingerprint_tells_sizes_apart():
    assert HashingEncoder().fingerprint == HashingEncoder().fingerprint
    assert HashingEncoder().fingerprint != HashingEncoder(dense=8).fingerprint
    assert dict(HashingEncoder(dense=8, sparse=9, multi_vector=10).dimensions) == {
        "dense": 8,
        "sparse": 9,
        "multi_vector": 10,
    }
    assert HashingEncoder(dense=8).encode(TEXTS, kind="query").dense.shape == (5, 8)


def test_it_covers_everything(encoder):
    assert encoder.covers("검색")
