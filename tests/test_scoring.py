import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import trine
from trine import scoring
from trine.errors import UnknownName, UsageError
from trine.scoring import WEIGHTS, dense_scores, multi_vector_scores, score, score_mode, sparse_scores, weights_of
from trine.types import Embeddings, PackedRows, SparseRows

WIDTH = 12
TERMS = st.lists(
    st.dictionaries(st.integers(0, WIDTH - 1), st.floats(0.125, 4, width=32), max_size=6), min_size=0, max_size=6
)
HEIGHTS = st.lists(st.integers(0, 5), min_size=0, max_size=6)


def packed(lengths, *, seed, width=3):
    generator = np.random.default_rng(seed)
    return PackedRows.from_rows(
        [generator.normal(size=(length, width)).astype(np.float32) for length in lengths], width=width
    )


def naive_sparse(queries, passages):
    return [
        [sum(weight * passage.get(key, 0) for key, weight in query.items()) for passage in passages]
        for query in queries
    ]


def naive_multi_vector(queries, passages):
    """Mean over query vectors of the best inner product, one pair and one vector at a time."""
    result = np.zeros((len(queries), len(passages)))
    for row in range(len(queries)):
        for column in range(len(passages)):
            query, passage = queries.row(row), passages.row(column)
            if len(query) and len(passage):
                result[row, column] = np.mean([max(float(q @ p) for p in passage) for q in query])
    return result


# -- the three scores against loops ----------------------------------------------------------------------------------


@given(queries=TERMS, passages=TERMS)
def test_sparse_against_a_loop(queries, passages):
    found = sparse_scores(SparseRows.from_rows(queries, width=WIDTH), SparseRows.from_rows(passages, width=WIDTH))
    assert found.dtype == np.float32
    expected = np.reshape(naive_sparse(queries, passages), (len(queries), len(passages)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@given(queries=HEIGHTS, passages=HEIGHTS, seed=st.integers(0, 99))
def test_multi_vector_against_a_loop(queries, passages, seed):
    left, right = packed(queries, seed=seed), packed(passages, seed=seed + 1000)
    found = multi_vector_scores(left, right)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, naive_multi_vector(left, right), rtol=1e-5, atol=1e-6)


@settings(max_examples=40)
@given(queries=HEIGHTS, passages=HEIGHTS, terms=TERMS, limit=st.integers(1, 9))
def test_small_blocks_change_nothing(queries, passages, terms, limit):
    """The block size bounds memory; borders may fall anywhere, empty texts among them."""
    left, right = packed(queries, seed=1), packed(passages, seed=2)
    rows = SparseRows.from_rows(terms, width=WIDTH)
    whole = multi_vector_scores(left, right), sparse_scores(rows, rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_BLOCK", limit)
        np.testing.assert_allclose(multi_vector_scores(left, right), whole[0], rtol=1e-6)
        np.testing.assert_allclose(sparse_scores(rows, rows), whole[1], rtol=1e-6)


def test_dense_worked_by_hand():
    found = dense_scores(np.array([[1, 2], [0, 1]], np.float32), np.array([[3, 4], [1, 0], [0, -1]], np.float32))
    np.testing.assert_array_equal(found, [[11, 1, -2], [4, 0, -1]])


def test_dense_runs_in_float32_whatever_the_storage():
    """In float16 the sum of 300 products of 16 would be infinite."""
    half = np.full((1, 300), 16, np.float16)
    found = dense_scores(half, half)
    assert found.dtype == np.float32
    assert found[0, 0] == 300 * 256


def test_sparse_worked_by_hand():
    queries = SparseRows.from_rows([{1: 2.0, 5: 1.0}, {9: 1.0}], width=10)
    passages = SparseRows.from_rows([{1: 0.5, 2: 9.0}, {5: 3.0, 1: 1.0}, {}], width=10)
    np.testing.assert_array_equal(sparse_scores(queries, passages), [[1, 5, 0], [0, 0, 0]])


def test_sparse_of_different_widths():
    """A query id that no passage can have scores nothing."""
    queries = SparseRows.from_rows([{19: 1.0, 2: 1.0}], width=20)
    passages = SparseRows.from_rows([{2: 3.0}], width=5)
    np.testing.assert_array_equal(sparse_scores(queries, passages), [[3]])
    np.testing.assert_array_equal(sparse_scores(passages, queries), [[3]])


def test_a_negative_best_match_stays_negative():
    """Where texts are padded with zeros, the padding would win with 0."""
    query = PackedRows.from_rows([np.array([[1.0, 0.0]])], width=2)
    passages = PackedRows.from_rows([np.array([[-1.0, 0.0]]), np.ones((7, 2))], width=2)
    np.testing.assert_array_equal(multi_vector_scores(query, passages), [[-1, 1]])


def test_maxsim_is_a_mean_over_the_query():
    query = PackedRows.from_rows([np.array([[1.0, 0.0], [0.0, 1.0]])], width=2)
    passage = PackedRows.from_rows([np.array([[0.5, 0.25], [0.25, -2.0]])], width=2)
    np.testing.assert_allclose(multi_vector_scores(query, passage), [[(0.5 + 0.25) / 2]])


def test_texts_without_vectors_score_zero():
    some, none = packed([2, 0, 1], seed=0), packed([0, 0], seed=0)
    assert multi_vector_scores(some, some)[1].tolist() == [0, 0, 0]
    assert multi_vector_scores(some, some)[:, 1].tolist() == [0, 0, 0]
    assert multi_vector_scores(none, some).tolist() == [[0, 0, 0]] * 2
    assert multi_vector_scores(some, none).tolist() == [[0, 0]] * 3


def test_nothing_against_nothing():
    empty, none = SparseRows.from_rows([], width=5), packed([], seed=0)
    assert sparse_scores(empty, empty).shape == (0, 0)
    assert multi_vector_scores(none, none).shape == (0, 0)
    assert multi_vector_scores(none, packed([1, 2], seed=0)).shape == (0, 2)
    assert sparse_scores(SparseRows.from_rows([{1: 1.0}], width=5), empty).shape == (1, 0)
    assert dense_scores(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_widths_that_differ_are_refused():
    with pytest.raises(UsageError, match="queries have 2 dense dimensions, passages 3"):
        dense_scores(np.zeros((1, 2)), np.zeros((1, 3)))
    with pytest.raises(UsageError, match="queries have 3 multi-vector dimensions, passages 4"):
        multi_vector_scores(packed([1], seed=0), packed([1], seed=0, width=4))


# -- together --------------------------------------------------------------------------------------------------------


def everything(count, *, seed=0):
    generator = np.random.default_rng(seed)
    return Embeddings(
        generator.normal(size=(count, 4)).astype(np.float32),
        SparseRows.from_rows([{number % WIDTH: 1.0, 3: 0.5} for number in range(count)], width=WIDTH),
        packed([number + 1 for number in range(count)], seed=seed),
    )


def test_the_fused_score_is_the_weighted_sum():
    queries, passages = everything(2), everything(3, seed=1)
    found = score(queries, passages, weights="m3")
    np.testing.assert_allclose(found.fused, found.dense + 0.3 * found.sparse + found.multi_vector, rtol=1e-5)
    np.testing.assert_array_equal(found.dense, dense_scores(queries.dense, passages.dense))
    own = score(queries, passages, weights={"dense": 0.5, "sparse": -2.0})
    np.testing.assert_allclose(own.fused, 0.5 * found.dense - 2 * found.sparse, rtol=1e-5, atol=1e-6)
    assert own.multi_vector is not None  # computed, and weighs nothing
    assert own.fused.dtype == np.float32


def test_weights_of_the_paper():
    """arXiv 2402.03216: section 4 for MIRACL and MKQA, its MLDR table for long documents."""
    assert WEIGHTS["m3"] == {"dense": 1, "sparse": 0.3, "multi_vector": 1}
    assert WEIGHTS["m3-long"] == {"dense": 0.15, "sparse": 0.5, "multi_vector": 0.35}
    assert all(math.isclose(weight, 1 / 3) for weight in WEIGHTS["m3-library"].values())
    assert weights_of("m3-long") is WEIGHTS["m3-long"]


def test_only_what_both_sides_hold_is_scored():
    found = score(everything(2).only(["dense", "sparse"]), everything(3).only(["sparse", "multi_vector"]))
    assert found.dense is None
    assert found.multi_vector is None
    np.testing.assert_allclose(found.fused, 0.3 * found.sparse, rtol=1e-6)


def test_sides_without_a_common_representation_are_refused():
    with pytest.raises(UsageError, match="queries hold \\('dense',\\), passages \\('sparse',\\): no representation in"):
        score(everything(1).only(["dense"]), everything(1).only(["sparse"]))


def test_a_weight_without_effect_is_refused():
    dense = everything(2).only(["dense"])
    with pytest.raises(UsageError, match="weights are given for \\['sparse'\\]"):
        score(dense, dense, weights={"dense": 1.0, "sparse": 0.5})
    assert score(dense, dense, weights={"dense": 1.0, "sparse": 0.0}).sparse is None


def test_typos_suggest_the_nearest():
    with pytest.raises(UnknownName, match="no weight set called 'm3_long'; did you mean 'm3-long'"):
        score(everything(1), everything(1), weights="m3_long")
    with pytest.raises(UnknownName, match="no mode called 'colbert'. Known: dense, multi_vector, sparse"):
        weights_of({"colbert": 1.0})


def test_one_mode_alone():
    queries, passages = everything(2), everything(3, seed=1)
    np.testing.assert_array_equal(
        score_mode(queries, passages, "sparse"), sparse_scores(queries.sparse, passages.sparse)
    )
    with pytest.raises(UsageError, match="passages hold no dense embeddings"):
        score_mode(queries, passages.only(["sparse"]), "dense")
    with pytest.raises(UsageError, match="queries hold no sparse embeddings"):
        score_mode(queries.only(["dense"]), passages, "sparse")


def test_it_is_the_score_of_the_package():
    assert trine.score is score
