import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.index.postings import Postings
from trine.types import SparseRows

LARGEST = 2**31 - 1
row = st.dictionaries(st.sampled_from([0, 1, 2, 70_000, LARGEST]), st.integers(-3, 3).map(float), max_size=4)


@settings(deadline=None, derandomize=True)
@given(st.lists(row, max_size=8), row)
def test_scores_are_inner_products(rows, query):
    postings = Postings.of(SparseRows.from_rows(rows, width=2**31))
    ids, weights = SparseRows.from_rows([query], width=2**31).row(0)
    expected = [sum(weight * text.get(term, 0) for term, weight in query.items()) for text in rows]
    assert postings.scores(ids, weights).tolist() == expected


def test_lists_of_a_small_example():
    postings = Postings.of(SparseRows.from_rows([{5: 1.0, 9: 2.0}, {}, {5: 3.0, 7: 0.0}], width=10))
    assert postings.size == 3
    assert postings.terms.tolist() == [5, 9]
    assert postings.bounds.tolist() == [0, 2, 3]
    assert postings.rows.tolist() == [0, 2, 0]
    assert postings.weights.tolist() == [1.0, 3.0, 2.0]
    assert postings.scores(np.array([5, 6, 9]), np.array([2.0, 1.0, 0.5])).tolist() == [3.0, 0.0, 6.0]


def test_no_texts():
    postings = Postings.of(SparseRows.from_rows([], width=10))
    assert postings.scores(np.array([1, 2]), np.array([1.0, 1.0])).tolist() == []
