import numpy as np
import pytest

from trine.encoding.precision import Precision, fit
from trine.errors import UsageError
from trine.scoring import score_mode
from trine.testing import HashingEncoder
from trine.types import MODES, Embeddings

TEXTS = [
    "a pod holds containers",
    "",
    "고양이는 물고기를 먹는다",
    "word",
    "🙂 naïve café",
    "one two three four five six",
]


@pytest.fixture(scope="module")
def passages():
    return HashingEncoder().encode(TEXTS, kind="passage")


def test_full_precision_gives_back_what_it_was_given(passages):
    back = fit(Precision(), passages).encode(passages).decode()
    assert (back.dense == passages.dense).all()
    assert (back.sparse.ids == passages.sparse.ids).all()
    assert (back.sparse.weights == passages.sparse.weights).all()
    assert (back.multi_vector.values == passages.multi_vector.values).all()
    assert (back.multi_vector.offsets == passages.multi_vector.offsets).all()


def test_bytes_of_every_part_are_counted_exactly(passages):
    given = Precision(dense="int8", dimensions=16, sparse="uint8", sparse_top=2, multi_vector="int4", pool=2)
    terms = [min(len(passages.sparse.row(number)[0]), 2) for number in range(len(TEXTS))]
    vectors = [-(-len(passages.multi_vector.row(number)) // 2) for number in range(len(TEXTS))]
    compressed = fit(given, passages).encode(passages)
    assert compressed.nbytes == {
        "dense": len(TEXTS) * (16 + 4),
        "sparse": len(TEXTS) * (8 + 4) + sum(terms) * (2 + 1),
        "multi_vector": len(TEXTS) * 8 + sum(vectors) * (8 + 4),
    }
    assert compressed.compressor.shared_bytes == 0
    assert fit(Precision(dense="int8_calibrated"), passages).shared_bytes == 2 * 4 * 32


def test_a_second_copy_counts_and_is_what_comes_back(passages):
    compressed = fit(Precision(dense="binary", rescore="float32"), passages).encode(passages)
    assert compressed.nbytes["dense"] == len(TEXTS) * (4 + 4 * 32)
    assert (compressed.decode().dense == passages.dense).all()


@pytest.mark.parametrize(
    "precision",
    [
        Precision(dense="int8", sparse="uint8", multi_vector="int8"),
        Precision(dense="binary", sparse="float16", multi_vector="residual2"),
        Precision(dense="residual4", sparse="uint8", sparse_top=3, multi_vector="binary", pool=2),
    ],
    ids=lambda each: each.name,
)
def test_rows_taken_decode_as_the_whole_does(precision, passages):
    filled = passages.take(np.array([0, 2, 3, 4, 5]))
    compressed = fit(precision, filled).encode(filled)
    whole, rows = compressed.decode(), np.array([3, 0, 4])
    part = compressed.take(rows).decode()
    queries = HashingEncoder().encode(["containers in a pod"], kind="query")
    assert len(compressed.take(rows)) == 3
    for mode in MODES:
        assert score_mode(queries, part, mode) == pytest.approx(score_mode(queries, whole, mode)[:, rows])


def test_queries_stay_float_and_get_the_same_dimensions(passages):
    compressor = fit(Precision(dense="int8", dimensions=8, sparse=None), passages)
    queries = compressor.queries(HashingEncoder().encode(["a pod"], kind="query"))
    assert queries.modes == ("dense", "multi_vector")
    assert queries.dense.shape == (1, 8)
    assert np.linalg.norm(queries.dense) == pytest.approx(1)
    assert compressor.encode(passages).decode().dense.shape == (len(TEXTS), 8)


def test_parts_left_out_are_gone_and_parts_missing_are_refused(passages):
    only = fit(Precision.full(["sparse"]), passages).encode(passages)
    assert only.decode().modes == ("sparse",)
    assert len(only) == len(TEXTS)
    assert len(fit(Precision.full(["multi_vector"]), passages).encode(passages)) == len(TEXTS)
    with pytest.raises(UsageError, match=r"keeps sparse, multi_vector, and the embeddings hold dense.*sparse=None"):
        fit(Precision(), passages.only(["dense"]))


def test_a_broken_vector_is_refused(passages):
    dense = np.array(passages.dense)
    dense[2, 5] = np.nan
    with pytest.raises(UsageError, match="vector 2 holds"):
        fit(Precision.full(["dense"]), passages).encode(Embeddings(dense=dense))


def test_no_passage_at_all_is_fine(passages):
    compressor = fit(Precision(dense="int8_calibrated", sparse="uint8", multi_vector="int4", pool=2), passages)
    nothing = compressor.encode(passages.take(slice(0, 0)))
    assert len(nothing.decode()) == 0
    assert sum(nothing.nbytes.values()) == 0
