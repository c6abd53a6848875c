import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.index.selection import best, best_matches


@settings(deadline=None, derandomize=True)
@given(st.lists(st.integers(-3, 3).map(float), max_size=60), st.integers(1, 70))
def test_order_is_by_falling_score_then_rising_position(values, k):
    expected = sorted(range(len(values)), key=lambda position: (-values[position], position))[:k]
    assert best(np.array(values, np.float32), k).tolist() == expected


def test_minus_zero_equals_zero():
    assert best(np.array([-0.0, 0.0, -0.0, 1.0], np.float32), 3).tolist() == [3, 0, 1]


def test_matches_leave_out_zero_scores_and_rows_not_allowed():
    scores = np.array([0.0, 2.0, 3.0, -1.0, 2.0], np.float32)
    ids = np.array([10, 20, 30, 40, 50])
    found, values = best_matches(scores, 3, ids=ids, rows=None)
    assert (found.tolist(), values.tolist()) == ([30, 20, 50], [3.0, 2.0, 2.0])
    found, values = best_matches(scores, 3, ids=ids, rows=np.array([0, 3, 4]))
    assert (found.tolist(), values.tolist()) == ([50, 40], [2.0, -1.0])
