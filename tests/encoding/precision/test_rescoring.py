import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.encoding.precision.rescoring import hamming, search_binary
from trine.encoding.precision.rows import BinaryRows, Float32Rows, Int8Rows
from trine.errors import UsageError


def unit(rows, width, seed=0):
    values = np.random.default_rng(seed).normal(size=(rows, width))
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("width", [1, 8, 13, 64])
def test_hamming_counts_signs_that_differ(width):
    queries, passages = unit(3, width), unit(10, width, seed=1)
    found = hamming(queries, BinaryRows().encode(passages))
    assert found.tolist() == [[int(((q > 0) != (p > 0)).sum()) for p in passages] for q in queries]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_rescoring_is_the_float_ranking_of_the_candidates(passages, candidates, seed):
    values, queries = unit(passages, 16, seed), unit(2, 16, seed + 1)
    codes = BinaryRows().encode(values)
    found = search_binary(queries, codes, second=(Float32Rows(), Float32Rows().encode(values)), candidates=candidates)
    distance = hamming(queries, codes)
    for number, query in enumerate(queries):
        nearest = sorted(range(passages), key=lambda at: (distance[number, at], at))[:candidates]
        scores = values[nearest] @ query
        assert sorted(found.positions[number].tolist()) == sorted(nearest)
        assert found.scores[number] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-6)
        assert found.scores[number] == pytest.approx(values[found.positions[number]] @ query, abs=1e-6)


def test_a_second_copy_in_bytes_orders_as_its_decoded_vectors():
    values, queries = unit(60, 32), unit(4, 32, seed=1)
    second = Int8Rows().encode(values)
    found = search_binary(queries, BinaryRows().encode(values), second=(Int8Rows(), second), candidates=60)
    scores = queries @ Int8Rows().decode(second).T
    assert (found.positions == np.argsort(-scores, axis=1, kind="stable")).all()


def test_bits_alone_order_by_the_float_query():
    values, queries = unit(30, 24), unit(2, 24, seed=1)
    bits = BinaryRows().encode(values)
    found = search_binary(queries, bits, second=(BinaryRows(), bits), candidates=10)
    signs = np.where(values > 0, 1, -1) / np.sqrt(24)
    picked = signs[found.positions]
    assert found.scores == pytest.approx(np.einsum("qd,qcd->qc", queries, picked), abs=1e-6)
    assert (np.diff(found.scores, axis=1) <= 1e-7).all()


def test_what_does_not_fit_is_refused():
    bits = BinaryRows().encode(unit(3, 8))
    with pytest.raises(UsageError, match="candidates is 0"):
        search_binary(unit(1, 8), bits, second=(BinaryRows(), bits), candidates=0)
    with pytest.raises(UsageError, match="bits of 3 passages, and a second copy of 2"):
        search_binary(unit(1, 8), bits, second=(BinaryRows(), bits.take(slice(0, 2))), candidates=1)
    with pytest.raises(UsageError, match="queries have 9 dimensions"):
        hamming(unit(1, 9), bits)
