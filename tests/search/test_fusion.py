import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trine.errors import UnknownName, UsageError
from trine.search.fusion import FUSIONS, fuse, weights_for

NAN = math.nan
DENSE_BM25 = ("dense", "bm25")


def fused(rows, retrievers=DENSE_BM25, **options):
    return fuse(np.array(rows, np.float32), retrievers, **options).tolist()


def test_rrf_adds_reciprocals_of_sixty_plus_rank():
    # Dense ranks the rows 1, 2, 3; bm25 has the last first and never saw the second.
    scores = [[0.9, 2.0], [0.5, NAN], [0.1, 7.0]]
    assert fused(scores, fusion="rrf") == pytest.approx([1 / 61 + 1 / 62, 1 / 62, 1 / 63 + 1 / 61])


def test_rrf_gives_equal_scores_the_best_of_their_ranks():
    scores = [[0.5, 1.0], [0.5, 3.0], [0.7, 2.0], [0.1, NAN]]
    expected = [1 / 62 + 1 / 63, 1 / 62 + 1 / 61, 1 / 61 + 1 / 62, 1 / 64]
    assert fused(scores, fusion="rrf") == pytest.approx(expected)


def test_rrf_takes_its_constant_and_weights():
    scores = [[0.9, 1.0], [0.1, 2.0]]
    result = fused(scores, fusion="rrf", rrf_k=0, weights={"dense": 3.0, "bm25": 1.0})
    assert result == pytest.approx([3 / 1 + 1 / 2, 3 / 2 + 1 / 1])


def test_weighted_is_the_papers_sum_of_raw_scores():
    scores = [[0.8, 0.2, 0.6], [0.5, NAN, 0.7]]
    modes = ("dense", "sparse", "multi_vector")
    assert fused(scores, modes, fusion="weighted") == pytest.approx([0.8 + 0.3 * 0.2 + 0.6, 0.5 + 0.7], rel=1e-6)
    long = fused(scores, modes, fusion="weighted", weights="m3-long")
    assert long == pytest.approx([0.15 * 0.8 + 0.5 * 0.2 + 0.35 * 0.6, 0.15 * 0.5 + 0.35 * 0.7], rel=1e-6)


def test_a_named_set_leaves_out_modes_that_are_not_searched():
    assert fused([[0.8, 0.2]], ("dense", "sparse"), fusion="weighted", weights="m3") == pytest.approx([0.86], rel=1e-6)


def test_minmax_puts_every_column_between_0_and_1():
    scores = [[0.2, 10.0], [0.6, 30.0], [1.0, 20.0]]
    assert fused(scores, fusion="minmax") == pytest.approx([0.0, 0.5 + 1.0, 1.0 + 0.5], abs=1e-6)


def test_minmax_takes_a_missing_lexical_score_for_0():
    # Alone among the candidates in holding the query's words, the second must not lose that.
    assert fused([[0.5, NAN], [0.5, 8.0], [0.5, NAN]], fusion="minmax") == [0.0, 1.0, 0.0]
    assert fused([[0.5, NAN], [0.5, 8.0], [0.5, 4.0]], fusion="minmax") == [0.0, 1.0, 0.5]


def test_minmax_takes_a_missing_score_for_the_least_where_scores_are_negative():
    assert fused([[NAN, 1.0], [-2.0, 1.0], [2.0, 1.0]], fusion="minmax") == [0.0, 0.0, 1.0]


def test_zscore_divides_the_distance_from_the_mean_by_the_deviation():
    # Mean 2, population deviation sqrt(2/3); mean 20 and deviation 10 * sqrt(2/3).
    unit = 1 / math.sqrt(2 / 3)
    assert fused([[1.0, 30.0], [2.0, 20.0], [3.0, 10.0]], fusion="zscore") == pytest.approx([0, 0, 0], abs=1e-6)
    only = fused([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]], fusion="zscore")
    assert only == pytest.approx([-unit, 0, unit], abs=1e-6)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("value", [0.0, 0.1, -3.7, 1e30, NAN])
def test_a_constant_column_changes_no_order_and_divides_by_nothing(fusion, value):
    weights = {"dense": 1.0, "bm25": 1.0}
    scores = np.array([[0.3, value], [0.9, value], [0.1, value]], np.float64)
    result = fuse(scores, DENSE_BM25, fusion=fusion, weights=weights)
    assert np.isfinite(result).all()
    if value != 1e30 or fusion != "weighted":
        assert np.argsort(-result).tolist() == [1, 0, 2]


@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_candidates_and_one_candidate(fusion):
    weights = {"dense": 1.0, "bm25": 1.0}
    assert fuse(np.zeros((0, 2)), DENSE_BM25, fusion=fusion, weights=weights).shape == (0,)
    assert np.isfinite(fuse(np.array([[0.4, NAN]]), DENSE_BM25, fusion=fusion, weights=weights)).all()


matrices = arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.just(2)),
    elements=st.one_of(st.just(NAN), st.integers(-50, 50).map(float)),
)
full_matrices = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-50, 50).map(float))


@given(matrices)
def test_rrf_sees_nothing_but_the_order(scores):
    rescaled = np.stack([np.exp(scores[:, 0] / 50), 3 * scores[:, 1] ** 3 - 7], axis=1)
    expected = fuse(scores, DENSE_BM25, fusion="rrf")
    np.testing.assert_allclose(fuse(rescaled, DENSE_BM25, fusion="rrf"), expected)


@given(full_matrices, st.floats(0.01, 100), st.floats(-100, 100))
def test_minmax_and_zscore_do_not_see_scale_and_offset(scores, scale, offset):
    for fusion in ("minmax", "zscore"):
        expected = fuse(scores, DENSE_BM25, fusion=fusion)
        moved = np.stack([scores[:, 0] * scale + offset, scores[:, 1]], axis=1)
        if len(np.unique(moved[:, 0])) == len(np.unique(scores[:, 0])):
            np.testing.assert_allclose(fuse(moved, DENSE_BM25, fusion=fusion), expected, atol=1e-6)


@given(matrices, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(scores, random):
    order = list(range(len(scores)))
    random.shuffle(order)
    for fusion in FUSIONS:
        options = {"fusion": fusion, "weights": {"dense": 1.0, "bm25": 0.5}}
        expected = fuse(scores, DENSE_BM25, **options)[order]
        np.testing.assert_allclose(fuse(scores[order], DENSE_BM25, **options), expected, atol=1e-9)


def test_weights_that_have_no_effect_are_refused():
    with pytest.raises(UsageError, match="'sparse' has no effect.*'dense', 'bm25'"):
        weights_for(DENSE_BM25, fusion="rrf", weights={"dense": 1, "bm25": 1, "sparse": 1})


def test_a_retriever_without_a_weight_is_refused_with_an_example():
    with pytest.raises(UsageError, match="no weight for 'bm25'.*'dense': 1.0, 'bm25': 1.0"):
        weights_for(DENSE_BM25, fusion="weighted")
    with pytest.raises(UsageError, match="no weight for 'bm25'"):
        weights_for(DENSE_BM25, fusion="zscore", weights={"dense": 2.0})


@pytest.mark.parametrize("value", [-0.1, math.inf, math.nan])
def test_weights_that_make_no_sense_are_refused(value):
    with pytest.raises(UsageError, match="finite, not negative"):
        weights_for(DENSE_BM25, fusion="rrf", weights={"dense": 1.0, "bm25": value})
    with pytest.raises(UsageError, match="not all zero"):
        weights_for(DENSE_BM25, fusion="rrf", weights={"dense": 0.0, "bm25": 0.0})


def test_typos_suggest_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'weighted'"):
        fuse(np.zeros((1, 1)), ["dense"], fusion="weigthed")
    with pytest.raises(UnknownName, match="did you mean 'multi_vector'"):
        fuse(np.zeros((1, 1)), ["multivector"], fusion="rrf")
    with pytest.raises(UnknownName, match="did you mean 'bm25'"):
        fuse(np.zeros((1, 1)), ["dense"], fusion="rrf", weights={"bm52": 1.0})
    with pytest.raises(UnknownName, match="did you mean 'm3-long'"):
        fuse(np.zeros((1, 1)), ["dense"], fusion="weighted", weights="m3long")


def test_a_matrix_of_another_shape_is_refused():
    with pytest.raises(UsageError, match="column for each"):
        fuse(np.zeros((2, 3)), DENSE_BM25, fusion="rrf")
    with pytest.raises(UsageError, match="rrf_k is -1"):
        fuse(np.zeros((2, 2)), DENSE_BM25, fusion="rrf", rrf_k=-1)
