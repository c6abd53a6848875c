import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.encoding.precision.pooling import clusters, pool_vectors
from trine.errors import UsageError
from trine.types import PackedRows


def vectors(count, width=6, seed=0):
    values = np.random.default_rng(seed).normal(size=(count, width))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def packed(*counts):
    return PackedRows.from_rows([vectors(count, seed=count).astype(np.float32) for count in counts], width=6)


def wards_way(values, count):
    """Merge the pair that adds the least squared error, one pair at a time."""
    groups = [[number] for number in range(len(values))]

    def error(group):
        return ((values[group] - values[group].mean(axis=0)) ** 2).sum()

    while len(groups) > count:
        pairs = [(a, b) for a in range(len(groups)) for b in range(a)]
        a, b = min(pairs, key=lambda p: error(groups[p[0]] + groups[p[1]]) - error(groups[p[0]]) - error(groups[p[1]]))
        groups[b] += groups.pop(a)
    return {frozenset(group) for group in groups}


def as_sets(labels):
    return {frozenset(np.flatnonzero(labels == label).tolist()) for label in set(labels.tolist())}


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_clusters_are_those_of_the_greedy_algorithm(size, count, seed):
    values = vectors(size, seed=seed)
    assert as_sets(clusters(values, count)) == wards_way(values, count)


@pytest.mark.parametrize("count", [1, 20, 60, 119])
def test_clusters_are_scipys(count):
    hierarchy = pytest.importorskip("scipy.cluster.hierarchy")
    values = vectors(120, width=32)
    theirs = hierarchy.fcluster(hierarchy.linkage(values, "ward"), count, "maxclust")
    assert as_sets(clusters(values, count)) == as_sets(theirs)


def test_clusters_are_numbered_by_their_first_member():
    values = np.array([[1.0, 0], [0, 1], [0.99, 0.01], [0.01, 0.99], [-1, 0]])
    assert clusters(values, 3).tolist() == [0, 1, 0, 1, 2]


def test_equal_vectors_become_one_before_anything_else():
    values = np.array([[1.0, 0], [0, 1], [1.0, 0], [1.0, 0], [0.6, 0.8]])
    assert clusters(values, 3).tolist() == [0, 1, 0, 0, 2]
    assert clusters(values, 4).tolist() == [0, 1, 0, 0, 2]
    assert clusters(np.ones((50, 2)), 5).tolist() == [0] * 50


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_a_text_keeps_one_vector_for_so_many(factor):
    pooled = pool_vectors(packed(7, 0, 1, 12), factor)
    assert np.diff(pooled.offsets).tolist() == [-(-count // factor) for count in (7, 0, 1, 12)]
    assert np.linalg.norm(pooled.values, axis=1) == pytest.approx(1, abs=1e-6)
    assert pooled.values.dtype == np.float32
    assert pooled.row(2) == pytest.approx(packed(1).values, abs=1e-6)


def test_a_pooled_vector_is_the_mean_at_the_members_mean_length():
    values = np.array([[2.0, 0], [0, 4.0], [-3.0, -3.1]], np.float32)
    pooled = pool_vectors(PackedRows(values, np.array([0, 3])), 2)
    mean = np.array([1.0, 2.0])
    assert pooled.values[0] == pytest.approx(mean / np.linalg.norm(mean) * 3)
    assert pooled.values[1] == pytest.approx(values[2])


def test_vectors_that_cancel_out_leave_zeros():
    pooled = pool_vectors(PackedRows(np.array([[1.0, 0], [-1.0, 0]], np.float32), np.array([0, 2])), 2)
    assert pooled.values.tolist() == [[0, 0]]


def test_a_factor_of_1_changes_nothing_and_long_texts_are_pooled_in_stretches(monkeypatch):
    given_rows = packed(9)
    assert pool_vectors(given_rows, 1) is given_rows
    monkeypatch.setattr("trine.encoding.precision.pooling.WINDOW", 4)
    pooled = pool_vectors(given_rows, 2)
    parts = [
        pool_vectors(PackedRows(part, np.array([0, len(part)])), 2).values
        for part in np.split(given_rows.values, [4, 8])
    ]
    assert (pooled.values == np.concatenate(parts)).all()


def test_what_cannot_be_pooled_is_refused():
    with pytest.raises(UsageError, match="factor is 0"):
        pool_vectors(packed(3), 0)
    broken = packed(3)
    broken.values[1, 0] = np.nan
    with pytest.raises(UsageError, match="vector 1 holds"):
        pool_vectors(broken, 2)
