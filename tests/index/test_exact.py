import numpy as np
import pytest

from trine.index import exact
from trine.index.exact import ExactIndex
from trine.scoring import score
from trine.types import MODES, Embeddings, PackedRows, SparseRows

DIMENSIONS = {"dense": 8, "sparse": 50, "multi_vector": 4}


def embeddings(count, *, seed):
    random = np.random.default_rng(seed)
    return Embeddings(
        dense=random.normal(size=(count, 8)).astype(np.float32),
        sparse=SparseRows.from_rows(
            ({int(term): float(random.random()) for term in random.choice(50, 6, replace=False)} for _ in range(count)),
            width=50,
        ),
        multi_vector=PackedRows.from_rows(
            [random.normal(size=(random.integers(1, 6), 4)).astype(np.float32) for _ in range(count)], width=4
        ),
    )


@pytest.fixture
def filled():
    index = ExactIndex.open(dimensions=DIMENSIONS)
    index.add(np.arange(100, 160), embeddings(60, seed=0))
    return index


@pytest.mark.parametrize("mode", MODES)
def test_scores_are_those_of_trine_score(filled, mode):
    queries, passages = embeddings(5, seed=1), embeddings(60, seed=0)
    expected = getattr(score(queries, passages), mode)
    ranking = filled.search(queries, mode=mode, k=60)
    for number in range(5):
        ids, scores = ranking.row(number)
        np.testing.assert_allclose(scores, expected[number][ids - 100], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_small_blocks_give_the_same(filled, mode, monkeypatch):
    queries = embeddings(7, seed=2)
    whole = filled.search(queries, mode=mode, k=9)
    monkeypatch.setattr(exact, "_BLOCK", 130)
    pieces = filled.search(queries, mode=mode, k=9)
    assert pieces.ids.tolist() == whole.ids.tolist()
    np.testing.assert_allclose(pieces.scores, whole.scores, rtol=1e-6)


def test_never_more_scores_at_a_time_than_a_block(filled, monkeypatch):
    shapes = []

    def watched(queries, passages, mode):
        shapes.append((len(queries), len(passages)))
        return np.zeros(shapes[-1], np.float32)

    monkeypatch.setattr(exact, "_BLOCK", 130)
    monkeypatch.setattr(exact, "score_mode", watched)
    filled.search(embeddings(7, seed=2), mode="dense", k=9)
    assert shapes == [(2, 60), (2, 60), (2, 60), (1, 60)]


def test_few_allowed_passages_are_scored_alone(filled, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        exact, "score_mode", lambda queries, passages, mode: sizes.append(len(passages)) or np.zeros((1, len(passages)))
    )
    for count in (14, 15, 60):
        ranking = filled.search(embeddings(1, seed=2), mode="dense", k=100, allowed=np.arange(100, 100 + count))
        assert ranking.ids.tolist() == list(range(100, 100 + count))
    assert sizes == [14, 60, 60]


def test_posting_lists_are_built_once_between_writes(filled, monkeypatch):
    built = []
    original = exact.Postings.of
    monkeypatch.setattr(exact.Postings, "of", staticmethod(lambda rows: built.append(len(rows)) or original(rows)))
    for _ in range(3):
        filled.search(embeddings(2, seed=1), mode="sparse", k=3)
    filled.add(np.array([5]), embeddings(1, seed=4))
    for _ in range(3):
        filled.search(embeddings(2, seed=1), mode="sparse", k=3)
    assert built == [60, 61]


def test_a_path_is_not_used(tmp_path):
    index = ExactIndex.open(str(tmp_path / "nothing"), dimensions={"dense": 2})
    index.add(np.array([1]), Embeddings(dense=np.ones((1, 2), np.float32)))
    index.flush()
    index.close()
    assert list(tmp_path.iterdir()) == []
    assert not index.persistent
