import numpy as np
import pytest

from trine.errors import UnknownName, UsageError
from trine.index.bm25 import Bm25Index, Vocabulary
from trine.index.exact import ExactIndex
from trine.scoring import score_mode
from trine.search.fusion import RETRIEVERS
from trine.search.retrieve import Sources, retrieve
from trine.types import MODES, Embeddings

TEXTS = [
    "red apple pie",
    "green apple",
    "red car",
    "blue sky over the sea",
    "the sea is deep and blue",
    "사과 파이",
    "빨간 사과",
    "apple apple apple",
]
IDS = np.array([3, 5, 7, 11, 13, 17, 19, 23])


class Setting:
    def __init__(self, encoder):
        self.encoder = encoder
        self.embeddings = encoder.encode(TEXTS, kind="passage")
        self.index = ExactIndex.open(dimensions=encoder.dimensions)
        self.index.add(IDS, self.embeddings)
        self.vocabulary, self.bm25 = Vocabulary(), Bm25Index()
        self.bm25.add(IDS, self.vocabulary.encode([text.split() for text in TEXTS], grow=True))
        self.fetched = []

    def fetch(self, ids):
        self.fetched.append(ids.tolist())
        return self.embeddings.take(np.searchsorted(IDS, ids))

    @property
    def sources(self):
        return Sources(index=self.index, fetch=self.fetch, bm25=self.bm25)

    def run(self, queries, retrievers, modes=MODES, **options):
        embedded = self.encoder.encode(queries, kind="query", modes=modes)
        terms = self.vocabulary.encode([query.split() for query in queries], grow=False)
        given = terms if "bm25" in retrievers else None
        return retrieve(embedded, given, self.sources, retrievers=retrievers, **options)


@pytest.fixture
def setting(encoder):
    return Setting(encoder)


def test_every_candidate_has_the_exact_score_of_every_retriever(setting):
    queries = ["red apple", "blue sea", "사과"]
    embedded = setting.encoder.encode(queries, kind="query")
    terms = setting.vocabulary.encode([query.split() for query in queries], grow=False)
    for number, candidates in enumerate(setting.run(queries, RETRIEVERS, depth=3)):
        assert candidates.retrievers == RETRIEVERS
        assert (np.diff(candidates.ids) > 0).all()
        rows = np.searchsorted(IDS, candidates.ids)
        for column, mode in enumerate(MODES):
            expected = score_mode(embedded, setting.embeddings, mode)[number, rows]
            if mode == "sparse":
                expected = np.where(expected == 0, np.nan, expected)
            np.testing.assert_allclose(candidates.scores[:, column], expected, atol=1e-6)
        expected = setting.bm25.scores(terms, candidates.ids)[number]
        np.testing.assert_allclose(candidates.scores[:, 3], np.where(expected == 0, np.nan, expected))


def test_candidates_are_the_union_of_the_first_stages(setting):
    (found,) = setting.run(["red apple"], ["dense", "bm25"], depth=2)
    embedded = setting.encoder.encode(["red apple"], kind="query")
    dense = setting.index.search(embedded, mode="dense", k=2).ids
    bm25 = setting.bm25.search(setting.vocabulary.encode([["red", "apple"]], grow=False), k=2).ids
    assert found.ids.tolist() == sorted({*dense.tolist(), *bm25.tolist()})
    assert found.scores.shape == (len(found.ids), 2)


def test_a_lexical_retriever_has_no_score_without_a_shared_term(setting):
    (found,) = setting.run(["사과"], ["dense", "sparse", "bm25"], depth=8)
    shared = np.isin(found.ids, [17, 19])
    assert len(found.ids) == 8
    assert np.isnan(found.scores[~shared, 1:]).all()
    assert (found.scores[shared, 1:] > 0).all()


def test_multi_vector_scores_the_candidates_of_the_others(setting):
    (found,) = setting.run(["사과"], ["multi_vector", "bm25"], depth=8)
    assert found.ids.tolist() == [17, 19]


def test_multi_vector_alone_reranks_what_dense_finds(setting):
    (found,) = setting.run(["red apple"], ["multi_vector"], depth=3)
    embedded = setting.encoder.encode(["red apple"], kind="query")
    assert found.ids.tolist() == sorted(setting.index.search(embedded, mode="dense", k=3).ids.tolist())


def test_multi_vector_alone_scans_where_there_is_no_dense(setting):
    (found,) = setting.run(["red apple"], ["multi_vector"], modes=["multi_vector"], depth=3)
    embedded = setting.encoder.encode(["red apple"], kind="query")
    best = np.argsort(-score_mode(embedded, setting.embeddings, "multi_vector")[0], kind="stable")[:3]
    assert found.ids.tolist() == sorted(IDS[best].tolist())


@pytest.mark.parametrize("retrievers", [["dense"], ["sparse"], ["multi_vector"], ["bm25"], list(RETRIEVERS)])
def test_nothing_outside_allowed_is_a_candidate(setting, retrievers):
    (found,) = setting.run(["red apple"], retrievers, allowed=np.array([5, 7, 11]))
    assert set(found.ids.tolist()) <= {5, 7, 11}
    assert len(found.ids)
    (nothing,) = setting.run(["red apple"], retrievers, allowed=np.zeros(0, np.int64))
    assert nothing.ids.tolist() == []
    assert nothing.scores.shape == (0, len(retrievers))


def test_bm25_alone_needs_neither_embeddings_nor_an_index(setting):
    terms = setting.vocabulary.encode([["apple"], ["sea"]], grow=False)
    sources = Sources(index=None, fetch=setting.fetch, bm25=setting.bm25)
    first, second = retrieve(Embeddings(), terms, sources, retrievers=["bm25"])
    assert first.ids.tolist() == [3, 5, 23]
    assert second.ids.tolist() == [11, 13]
    assert setting.fetched == []


def test_a_query_of_unknown_words_finds_nothing_by_words(setting):
    (found,) = setting.run(["zzz"], ["sparse", "bm25"])
    assert found.ids.tolist() == []


def test_what_cannot_be_searched_is_refused(setting):
    with pytest.raises(UnknownName, match="did you mean 'dense'"):
        setting.run(["x"], ["dens"])
    with pytest.raises(UsageError, match="no retriever given"):
        setting.run(["x"], [])
    with pytest.raises(UsageError, match="named twice"):
        setting.run(["x"], ["dense", "dense"])
    with pytest.raises(UsageError, match="depth is 0"):
        setting.run(["x"], ["dense"], depth=0)
    with pytest.raises(UsageError, match="'sparse' needs"):
        setting.run(["x"], ["sparse"], modes=["dense"])
    embedded = setting.encoder.encode(["x"], kind="query")
    with pytest.raises(UsageError, match="'bm25' needs"):
        retrieve(embedded, None, setting.sources, retrievers=["bm25"])
    terms = setting.vocabulary.encode([["a"], ["b"]], grow=False)
    with pytest.raises(UsageError, match="1 queries are embedded, but 2 have terms"):
        retrieve(embedded, terms, setting.sources, retrievers=["dense", "bm25"])
