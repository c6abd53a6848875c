import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trine.encoding.precision.rows import (
    BinaryRows,
    CalibratedRows,
    Float16Rows,
    Float32Rows,
    Int4Rows,
    Int8Rows,
    fit_rows,
    prefixes,
    score_rows,
    shared_bytes,
)
from trine.encoding.precision.settings import ROW_CODECS
from trine.errors import UnknownName, UsageError

TINY = float(np.finfo(np.float32).tiny)
MATRICES = st.tuples(st.integers(0, 4), st.integers(1, 17)).flatmap(
    lambda shape: arrays(
        np.float32,
        shape,
        elements=st.one_of(st.floats(-1, 1, width=32), st.floats(-(2.0**127), 2.0**127, width=32), st.just(0.0)),
    )
)


def unit(rows, width, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@given(MATRICES)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_scale_per_vector_is_off_by_at_most_half_of_it(values):
    peaks = np.abs(values.astype(np.float64)).max(axis=1, initial=0)
    for codec, levels in ((Int8Rows(), 254), (Int4Rows(), 15)):
        back = codec.decode(codec.encode(values)).astype(np.float64)
        bound = peaks / levels * (1 + 1e-5) + TINY
        assert (np.abs(back - values) <= bound[:, None]).all()
        assert (back[peaks == 0] == 0).all()


@given(MATRICES)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_float32_is_lossless_and_signs_are_kept(values):
    assert (Float32Rows().decode(Float32Rows().encode(values)) == values).all()
    back = BinaryRows().decode(BinaryRows().encode(values))
    assert ((back > 0) == (values > 0)).all()
    assert np.linalg.norm(back, axis=1) == pytest.approx(1, abs=1e-5)


def test_float16_is_off_by_a_2048th_and_refuses_what_it_cannot_hold():
    values = unit(50, 33) * 7
    back = Float16Rows().decode(Float16Rows().encode(values))
    assert (np.abs(back - values) <= np.maximum(np.abs(values) * 2**-11, 2**-25)).all()
    with pytest.raises(UsageError, match="65504.*70000"):
        Float16Rows().encode(np.full((1, 2), 70000, np.float32))


def test_a_calibrated_byte_is_off_by_half_a_step_inside_the_range_and_clips_outside():
    sample = unit(4000, 24) * np.linspace(0.1, 3, 24, dtype=np.float32) + 1
    codec = CalibratedRows.fit(sample)
    high = codec.low + 255 * codec.step
    inside = (sample >= codec.low) & (sample <= high)
    back = codec.decode(codec.encode(sample))
    assert 0.99 < inside.mean() < 1
    assert (np.abs(back - sample) <= codec.step / 2 * (1 + 1e-4))[inside].all()
    assert np.abs(back - np.clip(sample, codec.low, high)) == pytest.approx(0, abs=float(codec.step.max()) / 1.99)


def test_calibration_follows_each_dimension_where_one_scale_per_vector_cannot():
    sample = unit(1000, 16) * np.array([100] + [0.01] * 15, np.float32)
    for_each = CalibratedRows.fit(sample)
    errors = [np.abs(c.decode(c.encode(sample)) - sample)[:, 1:].mean() for c in (for_each, Int8Rows())]
    assert errors[0] < errors[1] / 50


def test_a_constant_dimension_comes_back_as_it_is():
    sample = np.column_stack([np.full(20, 0.25), np.linspace(-1, 1, 20)]).astype(np.float32)
    codec = CalibratedRows.fit(sample)
    assert (codec.decode(codec.encode(sample))[:, 0] == 0.25).all()


@pytest.mark.parametrize(
    ("name", "each", "shared"),
    [
        ("float32", 4 * 37, 0),
        ("float16", 2 * 37, 0),
        ("int8", 37 + 4, 0),
        ("int8_calibrated", 37, 2 * 4 * 37),
        ("int4", 19 + 4, 0),
        ("binary", 5, 0),
        ("residual4", 19 + 2, 4 * (32 * 37 + 15 + 16)),
        ("residual2", 10 + 2, 4 * (32 * 37 + 3 + 4)),
    ],
)
def test_bytes_are_counted_exactly(name, each, shared):
    values = unit(100, 37)
    codec = fit_rows(name, values)
    assert codec.encode(values).nbytes == 100 * each
    assert shared_bytes(codec) == shared


@pytest.mark.parametrize("name", ROW_CODECS)
def test_scores_are_those_of_the_decoded_vectors(name, monkeypatch):
    monkeypatch.setattr("trine.encoding.precision.rows._BLOCK", 40)
    values, queries = unit(30, 12), unit(5, 12, seed=1)
    codec = fit_rows(name, values)
    coded = codec.encode(values)
    oracle = np.array([[float(q.astype(np.float64) @ p) for p in codec.decode(coded)] for q in queries])
    assert score_rows(codec, queries, coded) == pytest.approx(oracle, abs=1e-6)
    assert (codec.decode(coded.take(np.array([4, 2]))) == codec.decode(coded)[[4, 2]]).all()


@pytest.mark.parametrize("name", ROW_CODECS)
def test_no_vector_at_all_is_fine_and_a_number_that_is_not_finite_is_refused(name):
    values = unit(20, 8)
    codec = fit_rows(name, values)
    assert codec.decode(codec.encode(values[:0])).shape == (0, 8)
    for broken in (np.nan, np.inf):
        values[7, 3] = broken
        with pytest.raises(UsageError, match="vector 7 holds a number that is not finite"):
            codec.encode(values)


def test_losses_order_the_codecs_by_their_bytes():
    values = unit(2000, 64)
    error = {
        name: np.linalg.norm((codec := fit_rows(name, values)).decode(codec.encode(values)) - values, axis=1).mean()
        for name in ("float16", "int8", "int4", "binary")
    }
    assert error["float16"] < error["int8"] / 5 < error["int4"] / 50 < error["binary"] / 200


def test_codecs_that_learn_want_a_sample_and_names_are_checked():
    with pytest.raises(UsageError, match="sample has none"):
        fit_rows("int8_calibrated", unit(0, 4))
    with pytest.raises(UnknownName, match="int8"):
        fit_rows("int-8", unit(1, 4))
    with pytest.raises(UsageError, match="calibrated for 8 dimensions, the vectors have 4"):
        fit_rows("int8_calibrated", unit(9, 8)).encode(unit(1, 4))
    with pytest.raises(UsageError, match="shape"):
        Int8Rows().encode(np.zeros(4, np.float32))
    with pytest.raises(UsageError, match="queries have 3 dimensions, the coded vectors 4"):
        score_rows(Int8Rows(), unit(1, 3), Int8Rows().encode(unit(1, 4)))


@given(st.integers(2, 40), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_prefix_of_a_unit_vector_has_unit_length_and_points_the_same_way(width, seed):
    values = unit(3, width, seed)
    for dimensions in {1, width // 2, width}:
        first = prefixes(values, dimensions)
        assert np.linalg.norm(first, axis=1) == pytest.approx(1, abs=1e-6)
        cosine = (first * values[:, :dimensions]).sum(axis=1) / np.linalg.norm(values[:, :dimensions], axis=1)
        assert cosine == pytest.approx(1, abs=1e-5)
    assert prefixes(values, width) == pytest.approx(values, abs=1e-6)


def test_a_prefix_keeps_the_length_of_a_vector_that_is_no_unit_vector():
    assert prefixes(np.array([[3.0, 0.0, 4.0], [0.0, 0.0, 2.0]], np.float32), 2).tolist() == [[5, 0], [0, 0]]
    huge = prefixes(np.full((1, 4), 1e38, np.float32), 2)
    assert np.linalg.norm(huge.astype(np.float64)) == pytest.approx(2e38, rel=1e-6)
    with pytest.raises(UsageError, match="4 dimensions cannot be taken of 3"):
        prefixes(np.zeros((1, 3), np.float32), 4)
