from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from trine.data.distinct import batches_of, contested


def run(keys, size, rows=None):
    keys_NK = np.array(keys, np.int64)
    rows = list(range(len(keys))) if rows is None else rows
    batches, rest = batches_of(rows, size, keys_NK=keys_NK, contested_N=contested(keys_NK))
    return batches, rest


def test_a_key_shared_by_two_examples_is_contested_and_one_used_twice_by_one_is_not():
    assert contested(np.array([[1, 1], [2, 3], [3, 4], [5, 6]])).tolist() == [False, True, True, False]


def test_examples_without_common_texts_stay_in_order():
    assert run([[n] for n in range(7)], 3) == ([[0, 1, 2], [3, 4, 5]], [6])


def test_an_example_waits_for_the_next_batch():
    # 0 and 1 share a text, and so do 2's positive and 3's query.
    assert run([[1, 10], [1, 11], [2, 12], [12, 13], [4, 14], [5, 15]], 3)[0] == [[0, 2, 4], [1, 3, 5]]


def test_the_last_batch_exchanges_with_earlier_ones():
    # In order, the last batch would hold both of the pair.
    batches, rest = run([[0], [1], [2], [3], [4], [9], [9], [5]], 4)
    assert rest == []
    assert not any({5, 6} <= set(batch) for batch in batches)


def test_a_text_too_frequent_to_keep_apart_is_spread():
    keys = [[n] for n in range(1000, 1064)] + [[7]] * 64
    order = np.random.default_rng(0).permutation(128).tolist()
    batches, _ = run(keys, 16, rows=order)
    counts = [sum(keys[order[place]] == [7] for place in batch) for batch in batches]
    assert sum(counts) == 64
    assert max(counts) <= 14


@given(
    keys=st.lists(st.tuples(st.integers(0, 30), st.integers(20, 60)), min_size=1, max_size=80),
    size=st.integers(1, 12),
    repeats=st.integers(1, 2),
)
def test_nothing_is_lost_and_every_batch_is_full(keys, size, repeats):
    rows = list(range(len(keys))) * repeats
    batches, rest = run(keys, size, rows=rows)
    assert {len(batch) for batch in batches} <= {size}
    assert len(rest) < size
    assert Counter(place for batch in [*batches, rest] for place in batch) == Counter(range(len(rows)))


@given(pairs=st.integers(1, 40), seed=st.integers(0, 10))
def test_pairs_are_kept_apart_wherever_there_are_two_batches(pairs, seed):
    order = np.random.default_rng(seed).permutation(2 * pairs + 20).tolist()
    keys = [[place // 2] if place < 2 * pairs else [1000 + place] for place in range(2 * pairs + 20)]
    size = 10
    batches, _ = run(keys, size, rows=order)
    doubled = sum(len({keys[order[place]][0] for place in batch}) < size for batch in batches)
    assert doubled == 0 or len(batches) == 1
