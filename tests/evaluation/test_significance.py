import numpy as np
import pytest

from trine.errors import UsageError
from trine.evaluation.significance import bootstrap_mean, paired_bootstrap, resampled_means


def test_two_queries_by_hand():
    """Draws of {0, 1}: the mean is 0, 1/2 or 1 with probability 1/4, 1/2, 1/4."""
    means = resampled_means(np.array([[0.0], [1.0]]), resamples=20_000, seed=3)[:, 0]
    shares = [np.mean(means == value) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.015)
    found = bootstrap_mean([0.0, 1.0])
    assert (found.mean, found.low, found.high) == (0.5, 0.0, 1.0)
    narrow = bootstrap_mean([0.0, 1.0], confidence=0.4)
    assert (narrow.low, narrow.high) == (0.5, 0.5)


def test_share_by_hand():
    """Gaps +1 and -1: ahead in a quarter of the draws, level in half of them."""
    found = paired_bootstrap([1.0, 0.0], [0.0, 1.0])
    assert found.mean == 0.0
    assert found.share == pytest.approx(0.5, abs=0.02)
    assert not found.significant
    # Three queries, one of them lost: the draw is ahead unless it holds the lost query at least twice: 1 - 7/27.
    found = paired_bootstrap([1.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    assert found.share == pytest.approx(20 / 27, abs=0.02)


def test_interval_agrees_with_the_normal_approximation():
    values = np.random.default_rng(0).normal(0.5, 0.2, 600)
    found = bootstrap_mean(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.05 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.05 * half)


def test_the_interval_covers_the_true_mean_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        found = bootstrap_mean(generator.normal(0.3, 1.0, 60), resamples=500, seed=seed)
        covered += found.low <= 0.3 <= found.high
    assert covered / 300 == pytest.approx(0.95, abs=0.04)


def test_pairing_takes_the_difficulty_of_a_query_out():
    generator = np.random.default_rng(2)
    difficulty = generator.uniform(0, 1, 200)
    better, worse = difficulty + 0.02, difficulty + generator.normal(0, 0.01, 200)
    found = paired_bootstrap(better, worse)
    assert found.significant
    assert found.low > 0
    assert found.share == 1.0
    assert bootstrap_mean(better).low < bootstrap_mean(worse).mean


def test_equal_systems_are_level():
    found = paired_bootstrap([0.1, 0.7, 0.3], [0.1, 0.7, 0.3])
    assert (found.mean, found.low, found.high, found.share) == (0.0, 0.0, 0.0, 0.5)
    assert not found.significant


def test_gaps_that_cancel_but_for_rounding_are_level():
    found = paired_bootstrap([0.1 + 0.2], [0.3])
    assert found.share == 0.5


def test_swapping_the_systems_mirrors_the_result():
    generator = np.random.default_rng(5)
    one, other = generator.uniform(size=50), generator.uniform(size=50)
    there, back = paired_bootstrap(one, other), paired_bootstrap(other, one)
    assert (there.mean, there.low, there.high) == pytest.approx((-back.mean, -back.high, -back.low), abs=1e-12)
    assert there.share == pytest.approx(1 - back.share)


def test_a_seed_fixes_the_draws_and_another_changes_them():
    values = np.random.default_rng(6).uniform(size=40)
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) != bootstrap_mean(values, seed=8)


def test_the_same_draws_serve_every_system():
    values = np.random.default_rng(7).uniform(size=(30, 1))
    both = resampled_means(np.hstack([values, values + 0.25]), resamples=200)
    assert np.allclose(both[:, 1] - both[:, 0], 0.25)


def test_many_queries_are_resampled_in_blocks(monkeypatch):
    values = np.random.default_rng(8).uniform(size=(101, 2))
    monkeypatch.setattr("trine.evaluation.significance._BLOCK", 1000)
    means = resampled_means(values, resamples=2000)
    assert means.shape == (2000, 2)
    assert np.allclose(means.mean(axis=0), values.mean(axis=0), atol=0.01)
    assert means.std(axis=0) == pytest.approx(values.std(axis=0) / np.sqrt(101), rel=0.1)


def test_unequal_numbers_of_queries_are_refused_with_both():
    with pytest.raises(UsageError, match=r"2 values.*3"):
        paired_bootstrap([1.0, 2.0], [1.0, 2.0, 3.0])


def test_impossible_options_are_refused():
    with pytest.raises(UsageError, match="no queries"):
        bootstrap_mean([])
    with pytest.raises(UsageError, match="resamples is 0"):
        bootstrap_mean([1.0], resamples=0)
    with pytest.raises(UsageError, match="confidence is 95"):
        bootstrap_mean([1.0], confidence=95)
    with pytest.raises(UsageError, match="finite"):
        bootstrap_mean([1.0, float("nan")])
