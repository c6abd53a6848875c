"""Every backend in `INDEXES` keeps the promises of `trine.index.base.Index`, measured against plain Python."""

import tempfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trine.errors import UnknownName, UsageError
from trine.index import INDEXES
from trine.tables import resolve
from trine.types import MODES, Embeddings, PackedRows, SparseRows

DIMENSIONS = {"dense": 3, "sparse": 12, "multi_vector": 2}


class Oracle:
    """What an index should hold: id -> (dense, sparse, multi-vector), scored one pair at a time."""

    def __init__(self):
        self.held = {}

    def add(self, ids, texts):
        self.held.update(zip(ids, texts, strict=True))

    def delete(self, ids):
        for number in ids:
            self.held.pop(number, None)

    def search(self, query, mode, k, allowed=None):
        found = []
        for number, text in self.held.items():
            if allowed is None or number in allowed:
                value = score(query, text, mode)
                if value is not None:
                    found.append((-value, number))
        return [(number, -value) for value, number in sorted(found)[:k]]


def score(query, text, mode):
    """One pair; None where sparse shares no term."""
    if mode == "dense":
        return float(np.dot(query[0], text[0]))
    if mode == "sparse":
        shared = [query[1][term] * text[1][term] for term in query[1] if query[1][term] * text[1].get(term, 0) != 0]
        return sum(shared) if shared else None
    if not len(query[2]) or not len(text[2]):
        return 0.0
    return float(np.mean([max(float(np.dot(one, other)) for other in text[2]) for one in query[2]]))


def embeddings(texts, modes=MODES):
    whole = Embeddings(
        dense=np.array([text[0] for text in texts], np.float32).reshape(-1, 3),
        sparse=SparseRows.from_rows((text[1] for text in texts), width=12),
        multi_vector=PackedRows.from_rows(
            [np.array(text[2], np.float32).reshape(-1, 2) for text in texts],
            width=2,
        ),
    )
    return whole.only(modes)


# Small whole numbers: every sum is exact in float32, and equal scores are common.
whole = st.integers(-2, 2).map(float)
texts = st.tuples(
    st.lists(whole, min_size=3, max_size=3),
    st.dictionaries(st.integers(0, 11), st.integers(0, 3).map(float), max_size=4),
    st.lists(st.lists(whole, min_size=2, max_size=2), max_size=3),
)
# Queries have 0, 1, 2 or 4 vectors, so that their mean is exact as well.
queries = texts.map(lambda text: (text[0], text[1], text[2] if len(text[2]) != 3 else [*text[2], text[2][0]]))
numbers = st.lists(st.integers(0, 30), max_size=8, unique=True)
writes = st.lists(
    st.one_of(
        st.tuples(st.just("add"), numbers, st.lists(texts, min_size=8, max_size=8)),
        st.tuples(st.just("delete"), numbers, st.none()),
    ),
    max_size=6,
)


def backend(name):
    return resolve(INDEXES, name, kind="index")


@pytest.fixture(params=sorted(INDEXES))
def name(request):
    return request.param


@pytest.fixture
def index(name, tmp_path):
    made = backend(name).open(str(tmp_path / "index"), dimensions=DIMENSIONS)
    yield made
    made.close()


def some_texts(count, *, seed=0):
    random = np.random.default_rng(seed)
    return [
        (
            random.integers(-3, 4, 3).astype(float).tolist(),
            {int(term): float(random.integers(1, 4)) for term in random.choice(12, 3, replace=False)},
            random.integers(-3, 4, (2, 2)).astype(float).tolist(),
        )
        for _ in range(count)
    ]


def found(ranking, row=0):
    ids, scores = ranking.row(row)
    return list(zip(ids.tolist(), scores.tolist(), strict=True))


def check(index, oracle, asked, *, k, allowed):
    assert len(index) == len(oracle.held)
    assert index.ids().tolist() == sorted(oracle.held)
    restriction = None if allowed is None else np.array(allowed, np.int64)
    for mode in index.modes:
        ranking = index.search(embeddings(asked), mode=mode, k=k, allowed=restriction)
        assert len(ranking.offsets) == len(asked) + 1
        for row, query in enumerate(asked):
            assert found(ranking, row) == oracle.search(query, mode, k, allowed), mode


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rounds=st.lists(
        st.tuples(
            writes,
            st.lists(queries, max_size=3),
            st.integers(1, 12),
            st.one_of(st.none(), st.lists(st.integers(0, 40), max_size=12)),
            st.booleans(),
        ),
        max_size=4,
    )
)
def test_behaves_like_the_oracle(name, rounds):
    oracle = Oracle()
    with tempfile.TemporaryDirectory() as folder:
        index = backend(name).open(folder, dimensions=DIMENSIONS)
        for steps, asked, k, allowed, reopen in rounds:
            for step, ids, added in steps:
                if step == "add":
                    oracle.add(ids, added[: len(ids)])
                    index.add(np.array(ids, np.int64), embeddings(added[: len(ids)]))
                else:
                    oracle.delete(ids)
                    index.delete(np.array(ids, np.int64))
            if reopen and index.persistent:
                index.flush()
                index.close()
                index = backend(name).open(folder, dimensions=DIMENSIONS)
            check(index, oracle, asked, k=k, allowed=allowed)
        index.close()


def test_empty_index_finds_nothing(index):
    assert len(index) == 0
    assert index.ids().tolist() == []
    for mode in index.modes:
        ranking = index.search(embeddings(some_texts(2)), mode=mode, k=3)
        assert ranking.offsets.tolist() == [0, 0, 0]


def test_no_queries_give_an_empty_ranking(index):
    index.add(np.array([1]), embeddings(some_texts(1)))
    for mode in index.modes:
        assert index.search(embeddings([]), mode=mode, k=3).offsets.tolist() == [0]


def test_adding_nothing_changes_nothing(index):
    index.add(np.array([], np.int64), embeddings([]))
    index.delete(np.array([5], np.int64))
    assert len(index) == 0


def test_k_beyond_the_size_gives_all(index):
    index.add(np.array([4, 2, 9]), embeddings(some_texts(3)))
    ids, scores = index.search(embeddings(some_texts(1, seed=1)), mode="dense", k=1000).row(0)
    assert sorted(ids.tolist()) == [2, 4, 9]
    assert all(first >= second for first, second in pairwise(scores.tolist()))


def test_equal_scores_come_by_rising_id_also_at_the_border(index):
    ids = np.random.default_rng(3).permutation(600)
    index.add(ids, embeddings([([1, 0, 0], {1: 1.0}, [[1, 0]])] * 600))
    index.add(np.array([5000, 4999]), embeddings([([2, 0, 0], {1: 2.0}, [[2, 0]])] * 2))
    for mode in index.modes:
        for k in (1, 2, 3, 50, 400):
            ranking = index.search(embeddings([([1, 0, 0], {1: 1.0}, [[1, 0]])] * 2), mode=mode, k=k)
            assert ranking.row(1)[0].tolist() == [4999, 5000, *range(k)][:k]


def test_many_queries_at_once_give_what_single_ones_give(index):
    index.add(np.arange(300), embeddings(some_texts(300)))
    asked = some_texts(150, seed=5)
    for mode in index.modes:
        together = index.search(embeddings(asked), mode=mode, k=7)
        for row in (0, 1, 63, 64, 149):
            assert found(together, row) == found(index.search(embeddings([asked[row]]), mode=mode, k=7))


def test_many_texts_in_one_add_all_arrive(index):
    index.add(np.arange(1000, 0, -1), embeddings(some_texts(1000)))
    assert index.ids().tolist() == list(range(1, 1001))
    index.delete(np.arange(0, 2000, 2))
    assert index.ids().tolist() == list(range(1, 1001, 2))


def test_large_ids_and_real_valued_scores(index):
    random = np.random.default_rng(0)
    ids = np.array([0, 2**31, 2**53 + 1, 2**63 - 1])
    dense = random.normal(size=(4, 3)).astype(np.float32)
    sparse = [{0: 0.5, 11: float(random.random())} for _ in ids]
    vectors = random.normal(size=(4, 5, 2)).astype(np.float32)
    index.add(ids, embeddings(list(zip(dense, sparse, vectors, strict=True))))
    query = (random.normal(size=3), {0: 0.25, 11: 1.5}, random.normal(size=(3, 2)))
    oracle = Oracle()
    oracle.add(ids.tolist(), list(zip(dense, sparse, vectors, strict=True)))
    for mode in index.modes:
        got, expected = found(index.search(embeddings([query]), mode=mode, k=4)), oracle.search(query, mode, 4)
        assert [number for number, _ in got] == [number for number, _ in expected]
        assert [value for _, value in got] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_allowed_restricts_to_the_ids_that_are_held(index):
    index.add(np.arange(20), embeddings(some_texts(20)))
    query = embeddings([([1, 1, 1], dict.fromkeys(range(12), 1.0), [[1, 1]])])
    for mode in index.modes:
        everything = found(index.search(query, mode=mode, k=20))
        for allowed in ([3, 7, 11], [11, 3, 3, 99, 7], list(range(18)), list(range(-2, 400))):
            ranking = index.search(query, mode=mode, k=20, allowed=np.array(allowed))
            assert found(ranking) == [pair for pair in everything if pair[0] in allowed]
        assert found(index.search(query, mode=mode, k=20, allowed=np.array([], np.int64))) == []
        assert found(index.search(query, mode=mode, k=20, allowed=np.array([77, 78]))) == []


def test_texts_and_queries_without_terms_are_never_found_by_sparse(index):
    index.add(
        np.arange(4),
        embeddings([([0, 0, 0], row, []) for row in ({}, {1: 1.0}, {2: 0.0}, {1: 3.0, 2: 0.0})]),
    )
    asked = embeddings([([0, 0, 0], row, []) for row in ({}, {1: 1.0}, {2: 1.0}, {1: 0.0}, {7: 1.0})])
    ranking = index.search(asked, mode="sparse", k=10)
    assert [found(ranking, row) for row in range(5)] == [[], [(3, 3.0), (1, 1.0)], [], [], []]


def test_negative_scores_are_found(index):
    index.add(
        np.arange(2), embeddings([([-1, -2, 0], {1: -1.0}, [[-1, 0]]), ([0, 0, 0], {1: -3.0, 2: 1.0}, [[-3, 0]])])
    )
    query = embeddings([([1, 1, 0], {1: 1.0}, [[1, 0]])])
    expected = {
        "dense": [(1, 0.0), (0, -3.0)],
        "sparse": [(0, -1.0), (1, -3.0)],
        "multi_vector": [(0, -1.0), (1, -3.0)],
    }
    for mode in index.modes:
        assert found(index.search(query, mode=mode, k=5)) == expected[mode]


def test_replacing_a_text_leaves_nothing_of_the_old_one(index):
    index.add(np.array([1]), embeddings([([1, 0, 0], {1: 1.0}, [[1, 0]])]))
    index.add(np.array([1]), embeddings([([0, 1, 0], {}, [[0, 1]])]))
    asked = embeddings([([1, 0, 0], {1: 1.0}, [[1, 0]])])
    expected = {"dense": [(1, 0.0)], "sparse": [], "multi_vector": [(1, 0.0)]}
    for mode in index.modes:
        assert found(index.search(asked, mode=mode, k=5)) == expected[mode]


def test_what_was_given_can_be_changed_afterwards(index):
    ids, given_texts = np.array([1, 2]), embeddings(some_texts(2))
    asked = embeddings(some_texts(1, seed=2))
    index.add(ids, given_texts)
    before = [found(index.search(asked, mode=mode, k=5)) for mode in index.modes]
    index.add(np.array([3]), embeddings(some_texts(1)))
    index.delete(np.array([3]))
    ids += 7
    given_texts.dense[:] = 0
    given_texts.sparse.weights[:] = 0
    given_texts.multi_vector.values[:] = 0
    assert [found(index.search(asked, mode=mode, k=5)) for mode in index.modes] == before


def test_half_precision_is_taken(index):
    texts_given = some_texts(5)
    half = Embeddings(
        embeddings(texts_given).dense.astype(np.float16),
        embeddings(texts_given).sparse,
        PackedRows(
            embeddings(texts_given).multi_vector.values.astype(np.float16), embeddings(texts_given).multi_vector.offsets
        ),
    )
    index.add(np.arange(5), half)
    oracle = Oracle()
    oracle.add(range(5), texts_given)
    check(index, oracle, some_texts(2, seed=8), k=3, allowed=None)


def test_indexes_of_one_mode(name, tmp_path):
    able = backend(name).open(str(tmp_path / "all"), dimensions=DIMENSIONS)
    able.close()
    for mode in able.modes:
        index = backend(name).open(str(tmp_path / mode), dimensions={mode: DIMENSIONS[mode]})
        assert index.modes == (mode,)
        index.add(np.arange(2), embeddings([([1, 0, 0], {}, []), ([0, 1, 0], {1: 1.0}, [[0, 1]])], [mode]))
        assert index.ids().tolist() == [0, 1]
        assert found(index.search(embeddings([([0, 2, 0], {1: 2.0}, [[0, 2]])], [mode]), mode=mode, k=1)) == [(1, 2.0)]
        index.close()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(embeddings(some_texts(1)), mode="dence", k=1), "did you mean 'dense'"),
        (lambda index: index.search(embeddings(some_texts(1)), mode="dense", k=0), "k is 0"),
        (lambda index: index.search(embeddings(some_texts(1), ["sparse"]), mode="dense", k=1), "dense is needed"),
        (lambda index: index.search(Embeddings(dense=np.ones((1, 4))), mode="dense", k=1), "width 3"),
        (lambda index: index.search(Embeddings(dense=np.full((1, 3), np.nan)), mode="dense", k=1), "not finite"),
        (lambda index: index.add(np.array([1, 1]), embeddings(some_texts(2))), "id 1 occurs more than once"),
        (lambda index: index.add(np.array([-1]), embeddings(some_texts(1))), "id -1 is negative"),
        (lambda index: index.add(np.array([1]), embeddings(some_texts(2))), "2 embeddings"),
        (lambda index: index.add(np.array([1]), embeddings(some_texts(1), ["sparse"])), "dense is needed"),
        (
            lambda index: index.add(np.array([1]), embeddings([([np.inf, 0, 0], {}, [])])),
            "dense values that are not finite",
        ),
        (
            lambda index: index.add(np.array([1]), Embeddings(np.ones((1, 4)), embeddings(some_texts(1)).sparse)),
            "width 3",
        ),
        (
            lambda index: index.add(
                np.array([1]), Embeddings(np.ones((1, 3)), SparseRows.from_rows([{12: 1.0}], width=13))
            ),
            "0 to 11",
        ),
    ],
)
def test_refuses_what_it_cannot_do_and_writes_nothing(index, call, message):
    with pytest.raises(UsageError, match=message):
        call(index)
    assert len(index) == 0


def test_a_mode_that_is_not_kept_is_refused(name, tmp_path):
    index = backend(name).open(str(tmp_path), dimensions={"sparse": 12})
    with pytest.raises(UsageError, match="keeps sparse, not dense"):
        index.search(embeddings(some_texts(1)), mode="dense", k=1)
    index.close()


@pytest.mark.parametrize("dimensions", [{}, {"dense": 0}])
def test_dimensions_that_make_no_index_are_refused(name, tmp_path, dimensions):
    with pytest.raises(UsageError):
        backend(name).open(str(tmp_path), dimensions=dimensions)


def test_a_misspelt_mode_in_the_dimensions_is_refused(name, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'multi_vector'"):
        backend(name).open(str(tmp_path), dimensions={"multivector": 3})


def test_calls_after_close_are_errors(name, tmp_path):
    index = backend(name).open(str(tmp_path), dimensions=DIMENSIONS)
    index.close()
    index.close()
    for call in (
        index.ids,
        index.flush,
        index.__len__,
        lambda: index.add(np.array([1]), embeddings(some_texts(1))),
        lambda: index.delete(np.array([1])),
        lambda: index.search(embeddings(some_texts(1)), mode="dense", k=1),
    ):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_reopening_finds_what_was_flushed_or_starts_empty(name, tmp_path):
    index = backend(name).open(str(tmp_path / "색인"), dimensions=DIMENSIONS)
    index.add(np.arange(5), embeddings(some_texts(5)))
    index.delete(np.array([2]))
    index.flush()
    index.close()
    again = backend(name).open(str(tmp_path / "색인"), dimensions=DIMENSIONS)
    assert again.ids().tolist() == ([0, 1, 3, 4] if again.persistent else [])
    again.close()
