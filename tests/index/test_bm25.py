import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.errors import UsageError
from trine.index.bm25 import Bm25Index, Vocabulary
from trine.types import SparseRows

counts = st.dictionaries(st.integers(0, 15), st.integers(0, 4).map(float), max_size=6)


def rows(*texts):
    return SparseRows.from_rows(texts, width=16)


def by_hand(texts, query, *, k1, b):
    """The formula, one text and one term at a time."""
    lengths = {number: sum(text.values()) for number, text in texts.items()}
    filled = [number for number, length in lengths.items() if length]
    average = sum(lengths.values()) / max(len(filled), 1)
    scores = {}
    for number, text in texts.items():
        total = 0.0
        for term, times in query.items():
            if text.get(term, 0):
                holders = sum(other.get(term, 0) > 0 for other in texts.values())
                idf = math.log(1 + (len(filled) - holders + 0.5) / (holders + 0.5))
                norm = k1 * (1 - b + b * lengths[number] / average)
                total += times * idf * text[term] / (text[term] + norm)
        if total:
            scores[number] = total
    return scores


def test_hand_worked_example():
    # Two texts of length 3 and 1, average 2. Term 0: df 1, idf ln(1 + 1.5 / 1.5) = ln 2.
    # tf 2: 2 / (2 + 1.2 * (0.25 + 0.75 * 3 / 2)) = 2 / 3.65.
    index = Bm25Index(k1=1.2, b=0.75)
    index.add(np.array([7, 3]), rows({0: 2, 1: 1}, {1: 1}))
    ids, scores = index.search(rows({0: 1}), k=5).row(0)
    assert ids.tolist() == [7]
    assert scores.tolist() == pytest.approx([math.log(2) * 2 / 3.65], rel=1e-6)
    ids, scores = index.search(rows({1: 2}), k=5).row(0)
    assert ids.tolist() == [3, 7]
    idf = math.log(1 + 0.5 / 2.5)
    assert scores.tolist() == pytest.approx([2 * idf / (1 + 1.2 * 0.625), 2 * idf / (1 + 1.2 * 1.375)], rel=1e-6)


@settings(deadline=None, derandomize=True)
@given(st.lists(counts, max_size=8), counts, st.sampled_from([(0.0, 0.0), (0.9, 0.6), (1.2, 0.75), (2.0, 1.0)]))
def test_scores_follow_the_formula(texts, query, parameters):
    k1, b = parameters
    index = Bm25Index(k1=k1, b=b)
    ids = [5 * number + 2 for number in range(len(texts))]
    index.add(np.array(ids, np.int64), rows(*texts))
    expected = by_hand(dict(zip(ids, texts, strict=True)), query, k1=k1, b=b)
    found, scores = index.search(rows(query), k=100).row(0)
    assert dict(zip(found.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)
    assert all(first >= second for first, second in zip(scores, scores[1:], strict=False))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.lists(st.integers(0, 9), max_size=4, unique=True),
            st.lists(counts, min_size=4, max_size=4),
            st.booleans(),
        ),
        max_size=8,
    ),
    st.lists(counts, min_size=1, max_size=3),
)
def test_after_any_writes_equal_to_a_fresh_index(steps, asked):
    index, held = Bm25Index(), {}
    for adding, ids, texts, search in steps:
        if adding:
            index.add(np.array(ids, np.int64), rows(*texts[: len(ids)]))
            held.update(zip(ids, texts, strict=False))
        else:
            index.delete(np.array(ids, np.int64))
            held = {number: text for number, text in held.items() if number not in ids}
        if search:
            index.search(rows(*asked), k=3)
    fresh = Bm25Index()
    fresh.add(np.array(list(held), np.int64), rows(*held.values()))
    assert len(index) == len(held)
    assert index.ids().tolist() == sorted(held)
    one, other = index.search(rows(*asked), k=20), fresh.search(rows(*asked), k=20)
    assert one.offsets.tolist() == other.offsets.tolist()
    assert one.ids.tolist() == other.ids.tolist()
    assert one.scores.tolist() == other.scores.tolist()


@settings(deadline=None, derandomize=True)
@given(st.lists(counts, max_size=8), st.lists(counts, max_size=3))
def test_scores_of_given_texts_are_those_of_the_search(texts, asked):
    index = Bm25Index()
    index.add(np.arange(len(texts)), rows(*texts))
    ids = np.array([99, *range(len(texts) - 1, -1, -1), 1000])
    matrix = index.scores(rows(*asked), ids)
    assert matrix.shape == (len(asked), len(ids))
    ranking = index.search(rows(*asked), k=100)
    for number in range(len(asked)):
        found = dict(zip(*(part.tolist() for part in ranking.row(number)), strict=True))
        assert matrix[number].tolist() == [found.get(one, 0.0) for one in ids.tolist()]


def test_allowed_restricts_and_equal_scores_come_by_rising_id():
    index = Bm25Index()
    index.add(np.array([9, 4, 6, 1]), rows(*[{0: 1}] * 4))
    assert index.search(rows({0: 1}), k=3).ids.tolist() == [1, 4, 6]
    assert index.search(rows({0: 1}), k=3, allowed=np.array([6, 9, 77])).ids.tolist() == [6, 9]
    assert index.search(rows({0: 1}), k=3, allowed=np.array([], np.int64)).ids.tolist() == []


def test_texts_without_terms_are_held_but_change_no_statistics():
    index, other = Bm25Index(), Bm25Index()
    index.add(np.array([1, 2, 3, 4]), rows({0: 2}, {}, {0: 1, 1: 1}, {2: 0}))
    other.add(np.array([1, 3]), rows({0: 2}, {0: 1, 1: 1}))
    assert len(index) == 4
    assert index.search(rows({0: 1}), k=9).scores.tolist() == other.search(rows({0: 1}), k=9).scores.tolist()


def test_an_empty_index_finds_nothing():
    index = Bm25Index()
    assert index.search(rows({0: 1}, {}), k=3).offsets.tolist() == [0, 0, 0]
    assert index.scores(rows({0: 1}), np.array([1, 2])).tolist() == [[0.0, 0.0]]
    index.add(np.array([1]), rows({}))
    assert index.search(rows({0: 1}), k=3).ids.tolist() == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(rows({0: 1}), k=0), "k is 0"),
        (lambda index: index.add(np.array([1, 1]), rows({}, {})), "more than once"),
        (lambda index: index.add(np.array([1]), rows({0: -1})), "cannot be negative"),
        (lambda index: index.add(np.array([1]), rows({0: math.nan})), "not finite"),
        (lambda index: index.add(np.array([1]), rows({}, {})), "2 embeddings"),
        (lambda index: Bm25Index(k1=-1), "k1 is -1"),
        (lambda index: Bm25Index(b=1.5), "b is 1.5"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(UsageError, match=message):
        call(Bm25Index())


def test_vocabulary_numbers_terms_as_they_come():
    vocabulary = Vocabulary()
    encoded = vocabulary.encode([["검색", "모델", "검색"], [], ["모델", "🍎"]], grow=True)
    assert vocabulary.terms() == ["검색", "모델", "🍎"]
    assert encoded.offsets.tolist() == [0, 2, 2, 4]
    assert encoded.ids.tolist() == [0, 1, 1, 2]
    assert encoded.weights.tolist() == [2.0, 1.0, 1.0, 1.0]
    assert encoded.width == len(vocabulary) == 3


def test_vocabulary_that_must_not_grow_leaves_out_new_terms():
    vocabulary = Vocabulary(["a", "b"])
    encoded = vocabulary.encode([["b", "c", "b", "a"]], grow=False)
    assert (encoded.ids.tolist(), encoded.weights.tolist()) == ([0, 1], [1.0, 2.0])
    assert vocabulary.terms() == ["a", "b"]


def test_vocabulary_goes_on_from_stored_terms():
    first = Vocabulary()
    first.encode([["x", "y"]], grow=True)
    stored = first.terms()
    second = Vocabulary(stored)
    assert second.encode([["z", "y"]], grow=True).ids.tolist() == [1, 2]
    assert second.terms(len(stored)) == ["z"]


def test_vocabulary_with_a_term_twice_is_refused():
    with pytest.raises(UsageError, match="'b' occurs more than once"):
        Vocabulary(["a", "b", "b"])
