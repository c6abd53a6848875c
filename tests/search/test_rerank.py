import subprocess
import sys

import numpy as np
import pytest

from models import tiny
from search.doubles import ids
from trine import Reranker
from trine.errors import UsageError
from trine.search.fusion import FUSIONS
from trine.search.plan import Plan
from trine.search.rerank import DEFAULT_DEPTH, Reranking, Scorer
from trine.types import Document, Hit, Passage


class ByTable:
    """Scores a passage by the number in it; remembers what it was asked."""

    def __init__(self, sign=1.0):
        self.sign, self.calls = sign, []

    def score(self, pairs):
        self.calls.append(list(pairs))
        return np.array([self.sign * float(passage.split()[-1]) for _, passage in pairs], np.float32)


@pytest.fixture
def numbered(collection):
    """Twelve passages, all with the query's word, a different number each; every third in Korean."""
    collection.add(
        Document(f"d{number}", f"apple {'사과 ' * (number % 3 == 0)}pear {number}", metadata={"third": number % 3})
        for number in range(12)
    )
    return collection


def hit(rank, score, text):
    return Hit(rank, rank, Passage(f"d{rank}", 0, 0, len(text), 1, text), score, {"dense": score}, {})


# -- collections -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_reranker_decides_the_order_under_every_fusion(numbered, fusion, sign):
    hits = numbered.search("apple", fusion=fusion, rerank=ByTable(sign))
    wanted = [f"d{number}" for number in range(12)]
    assert ids(hits) == (wanted[::-1] if sign > 0 else wanted)[:10]
    assert [hit.rank for hit in hits] == list(range(1, 11))
    assert [hit.score for hit in hits] == [hit.scores["reranker"] for hit in hits]
    plain = {hit.passage_id: hit for hit in numbered.search("apple", fusion=fusion, k=12)}
    for found in hits:
        before = plain[found.passage_id]
        assert {name: found.scores[name] for name in before.scores} == before.scores
        assert found.terms == before.terms
        assert (found.passage, found.metadata) == (before.passage, before.metadata)


@pytest.mark.parametrize("retriever", ["dense", "sparse", "multi_vector", "bm25"])
def test_with_a_single_retriever(numbered, retriever):
    hits = numbered.search("apple", retrievers=[retriever], rerank=ByTable(), k=3)
    assert ids(hits) == ["d11", "d10", "d9"]
    assert set(hits[0].scores) == {retriever, "reranker"}


def test_more_candidates_are_looked_at_than_asked_for(numbered):
    scorer = ByTable()
    assert ids(numbered.search("apple", k=1, depth=1, rerank=scorer)) == ["d11"]
    assert len(scorer.calls[0]) == 12
    scorer = ByTable()
    first = ids(numbered.search("apple", k=4))
    best = max(first, key=lambda name: int(name[1:]))
    assert ids(numbered.search("apple", k=1, depth=1, rerank=scorer, rerank_depth=4)) == [best]
    assert len(scorer.calls[0]) == 4


def test_filters_hold(numbered):
    assert ids(numbered.search("apple", filters="third=0", rerank=ByTable(), k=3)) == ["d9", "d6", "d3"]
    scorer = ByTable()
    assert numbered.search("apple", filters="third=7", rerank=scorer) == []
    assert scorer.calls == []


def test_passages_past_the_depth_follow_in_their_old_order(numbered):
    plain = numbered.search("apple", k=12)
    hits = numbered.search("apple", k=12, rerank=ByTable(), rerank_depth=5)
    assert sorted(ids(hits[:5])) == sorted(ids(plain[:5]))
    assert ids(hits[5:]) == ids(plain[5:])
    assert [hit.rank for hit in hits] == list(range(1, 13))
    scores = [hit.score for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all("reranker" not in hit.scores for hit in hits[5:])
    gaps = [plain[4].score - hit.score for hit in plain[5:]]
    assert [scores[4] - score for score in scores[5:]] == pytest.approx(gaps)


def test_several_queries_are_scored_together_and_in_their_own_words(numbered):
    scorer = ByTable()
    together = numbered.search_many(["apple", "사과", "nothing of it"], rerank=scorer, rerank_depth=3)
    assert len(scorer.calls) == 1
    assert [query for query, _ in scorer.calls[0]] == ["apple"] * 3 + ["사과"] * 3 + ["nothing of it"] * 3
    for query, hits in zip(["apple", "사과"], together[:2], strict=True):
        assert ids(hits) == ids(numbered.search(query, rerank=ByTable(), rerank_depth=3))
    assert numbered.search_many([], rerank=scorer) == []


def test_the_title_is_read_too(collection):
    collection.add([Document("d", "text 7", title="Title")])
    scorer = ByTable()
    collection.search("text", rerank=scorer)
    assert scorer.calls == [[("text", "Title\ntext 7")]]


def test_a_real_reranker(numbered):
    reranker: Scorer = Reranker.from_backbone(tiny.encoder("bert"))
    hits = numbered.search("사과", k=12, rerank=reranker)
    wanted = reranker.score([("사과", hit.passage.content) for hit in hits])
    np.testing.assert_allclose([hit.score for hit in hits], wanted, atol=1e-5)
    assert list(wanted) == sorted(wanted, reverse=True)


def test_options_that_make_no_sense_are_refused(numbered):
    with pytest.raises(UsageError, match="rerank_depth=5 has no effect without rerank="):
        numbered.search("apple", rerank_depth=5)
    with pytest.raises(UsageError, match="rerank_depth is 0"):
        numbered.search("apple", rerank=ByTable(), rerank_depth=0)
    with pytest.raises(UsageError, match=r"got 'BAAI/bge-reranker-v2-m3'"):
        numbered.search("apple", rerank="BAAI/bge-reranker-v2-m3")


# -- alone -----------------------------------------------------------------------------------------------------------


def test_equal_scores_keep_the_fused_order():
    hits = [hit(1, 3.0, "a 1"), hit(2, 2.0, "b 2"), hit(3, 1.0, "c 1"), hit(4, 0.5, "d 2")]
    (found,) = Reranking.of(ByTable(), depth=None).apply(["q"], [hits], k=4)
    assert ids(found) == ["d2", "d4", "d1", "d3"]


def test_hand_worked_scores_past_the_depth():
    hits = [hit(1, 3.0, "a 10"), hit(2, 2.5, "b 20"), hit(3, 2.0, "c 99"), hit(4, 0.5, "d 99")]
    (found,) = Reranking.of(ByTable(), depth=2).apply(["q"], [hits], k=4)
    assert [(hit.passage.document_id, hit.score) for hit in found] == [
        ("d2", 20.0),
        ("d1", 10.0),
        ("d3", 9.5),
        ("d4", 8.0),
    ]


def test_without_a_scorer_nothing_changes_but_the_number():
    hits = [hit(1, 3.0, "a"), hit(2, 2.0, "b")]
    plan = Plan(("dense",), "zscore", None, 3, 7)
    assert Reranking.of(None, depth=None).apply(["q"], [hits], k=1) == [hits[:1]]
    assert Reranking.of(None, depth=None).widened(plan) == plan
    widened = Reranking.of(ByTable(), depth=None).widened(plan)
    assert (widened.k, widened.depth) == (DEFAULT_DEPTH, DEFAULT_DEPTH)


@pytest.mark.parametrize("scores", [[1.0], [1.0, float("nan")], [[1.0], [2.0]], [1.0, 2.0, 3.0]])
def test_scores_that_cannot_be_are_refused(scores):
    class Broken:
        def score(self, pairs):
            return np.array(scores)

    with pytest.raises(UsageError, match="for 2 passages"):
        Reranking.of(Broken(), depth=None).apply(["q"], [[hit(1, 3.0, "a"), hit(2, 2.0, "b")]], k=2)


def test_search_needs_no_torch_for_it():
    code = "import trine.search.rerank, trine.search.collection, sys; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
