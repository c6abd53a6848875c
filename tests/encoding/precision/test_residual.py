import numpy as np
import pytest

from trine.encoding.precision.bits import unpack
from trine.encoding.precision.residual import ResidualRows, _buckets
from trine.encoding.precision.rows import Int4Rows
from trine.errors import UsageError


def clustered(rows=3000, width=32, seed=0):
    """Unit vectors around twenty directions, as the vectors of a token are around their word."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(20, width))[generator.integers(20, size=rows)]
    values = values + 0.3 * generator.normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


def error(codec, values):
    return float(np.linalg.norm(codec.decode(codec.encode(values)) - values, axis=1).mean())


def test_a_residual_beats_plain_levels_of_as_many_bits():
    values = clustered()
    assert error(ResidualRows.fit(values, bits=4), values) < error(Int4Rows(), values) * 0.7
    by_bits = [error(ResidualRows.fit(values, bits=bits), values) for bits in (1, 2, 4)]
    assert by_bits[0] > 1.5 * by_bits[1] > 3 * by_bits[2]


def test_decoding_is_the_naive_formula():
    values = clustered(200)
    codec = ResidualRows.fit(values, bits=2, centroids=8)
    coded = codec.encode(values)
    for row, back in enumerate(codec.decode(coded)):
        center = codec.centroids[int(np.argmax(codec.centroids @ values[row]))]
        difference = values[row] - center
        levels = [codec.levels[sum(float(x) >= float(cut) for cut in codec.cuts)] for x in difference]
        naive = center + np.array(levels)
        assert back == pytest.approx(naive / np.linalg.norm(naive), abs=1e-6)
        assert np.linalg.norm(back) == pytest.approx(1, abs=1e-6)


def test_levels_are_the_means_of_their_buckets_and_cuts_lie_between():
    values = clustered()
    codec = ResidualRows.fit(values, bits=2)
    nearest = (values @ codec.centroids.T).argmax(axis=1)
    difference = (values - codec.centroids[nearest]).ravel()
    bucket = unpack(codec.encode(values).arrays["codes"], bits=2, width=32).ravel()
    means = [difference[bucket == level].mean() for level in range(4)]
    assert codec.levels == pytest.approx(means, abs=1e-3)
    assert codec.cuts == pytest.approx((codec.levels[1:] + codec.levels[:-1]) / 2)
    assert (np.diff(codec.levels) > 0).all()


def test_a_few_far_differences_have_a_level_of_their_own():
    values = np.concatenate([np.random.default_rng(0).normal(size=10_000) * 0.01, np.full(100, 0.9)])
    cuts, levels = _buckets(values, 16)
    assert levels[-1] == pytest.approx(0.9)
    assert 0.05 < cuts[-1] < 0.9


def test_zeros_stay_zeros_and_other_lengths_are_refused():
    values = clustered(50)
    codec = ResidualRows.fit(np.vstack([values, np.zeros((5, 32), np.float32)]), bits=4)
    mixed = np.vstack([values[:2], np.zeros((1, 32), np.float32)])
    back = codec.decode(codec.encode(mixed))
    assert (back[2] == 0).all()
    assert np.linalg.norm(back[:2], axis=1) == pytest.approx(1, abs=1e-6)
    with pytest.raises(UsageError, match="vector 1 has length 2.*Use int4 or int8"):
        codec.encode(np.vstack([values[:1], 2 * values[:1]]))


def test_one_vector_and_equal_vectors_are_a_sample_too():
    values = clustered(1)
    codec = ResidualRows.fit(values, bits=4)
    assert codec.decode(codec.encode(values)) == pytest.approx(values, abs=1e-6)
    many = np.repeat(values, 100, axis=0)
    again = ResidualRows.fit(many, bits=4)
    assert again.decode(again.encode(many)) == pytest.approx(many, abs=1e-6)


def test_the_same_seed_finds_the_same_centroids():
    values = clustered(500)
    one, same, other = (ResidualRows.fit(values, bits=2, seed=seed) for seed in (3, 3, 4))
    assert (one.centroids == same.centroids).all()
    assert (one.centroids != other.centroids).any()


def test_what_cannot_be_fitted_is_refused():
    with pytest.raises(UsageError, match="sample has none"):
        ResidualRows.fit(np.zeros((4, 8), np.float32), bits=4)
    with pytest.raises(UsageError, match="centroids is 0"):
        ResidualRows.fit(clustered(10), bits=4, centroids=0)
    with pytest.raises(UsageError, match="fitted for 32 dimensions, the vectors have 16"):
        ResidualRows.fit(clustered(10), bits=4).encode(clustered(1, 16))
