import numpy as np
import pytest

from trine.curation.retrievers import Bm25Retriever, EncoderRetriever, FusedRetriever
from trine.errors import UnknownName, UsageError
from trine.index.exact import ExactIndex
from trine.scoring import score_mode
from trine.search.fusion import fuse
from trine.testing import HashingEncoder
from trine.types import MODES

PASSAGES = [
    "고래는 바다에 산다",
    "기차는 철로 위를 달린다",
    "고래와 기차는 다르다",
    "커피는 쓰다",
    "바다는 넓고 고래는 크다",
]
QUERIES = ["고래는 바다에", "기차는 커피는", "없는말뿐"]


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_ranks_as_the_exact_index_does(mode):
    encoder = HashingEncoder()
    index = ExactIndex({mode: encoder.dimensions[mode]})
    index.add(np.arange(len(PASSAGES)), encoder.encode(PASSAGES, kind="passage", modes=[mode]))
    expected = index.search(encoder.encode(QUERIES, kind="query", modes=[mode]), mode=mode, k=3)
    found = EncoderRetriever(encoder, PASSAGES, mode=mode).search(QUERIES, k=3)
    assert found.ids.tolist() == expected.ids.tolist()
    assert found.offsets.tolist() == expected.offsets.tolist()
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_included_passages_come_with_their_scores_however_low():
    encoder = HashingEncoder()
    retriever = EncoderRetriever(encoder, PASSAGES, mode="dense")
    scores = score_mode(encoder.encode(QUERIES[:1], kind="query"), encoder.encode(PASSAGES, kind="passage"), "dense")[0]
    lowest = int(scores.argmin())
    ids, found = retriever.search(QUERIES[:1], k=1, include=[np.array([lowest])]).row(0)
    assert ids.tolist() == [int(scores.argmax()), lowest]
    np.testing.assert_allclose(found, scores[ids], rtol=1e-6)


def test_a_lexical_retriever_finds_only_shared_terms_and_includes_others_at_0():
    retriever = Bm25Retriever(PASSAGES, analyzer="bigram")
    assert retriever.search(["커피"], k=5).ids.tolist() == [3]
    ids, scores = retriever.search(["커피"], k=5, include=[np.array([1])]).row(0)
    assert ids.tolist() == [3, 1]
    assert scores[0] > 0
    assert scores[1] == 0
    assert len(retriever.search(["zzz"], k=5).ids) == 0


@pytest.mark.parametrize("fusion", ["rrf", "zscore", "minmax", "weighted"])
def test_a_fusion_is_that_of_the_search(fusion):
    encoder = HashingEncoder()
    weights = {"dense": 1.0, "bm25": 0.5}
    parts = [EncoderRetriever(encoder, PASSAGES, mode="dense"), Bm25Retriever(PASSAGES, analyzer="bigram")]
    fused = FusedRetriever(parts, fusion=fusion, weights=weights)
    rows = np.stack([next(part.rows(QUERIES[:1])) for part in parts], axis=1)
    expected = fuse(rows, ["dense", "bm25"], fusion=fusion, weights=weights).astype(np.float32)
    ids, scores = fused.search(QUERIES[:1], k=5).row(0)
    assert ids.tolist() == np.argsort(-expected, kind="stable").tolist()
    np.testing.assert_allclose(scores, expected[ids], rtol=1e-6)
    assert fused.ratio_scale == (fusion == "weighted")
    assert fused.name == f"{fusion}(dense, bm25)"


def test_a_fusion_includes_what_no_part_brings():
    encoder = HashingEncoder()
    parts = [EncoderRetriever(encoder, PASSAGES, mode=mode) for mode in ("dense", "sparse")]
    ids, _ = (
        FusedRetriever(parts, fusion="weighted", depth=1).search(["고래는 바다에"], k=1, include=[np.array([3])]).row(0)
    )
    assert ids.tolist() == [0, 3]


class Rows:
    """A retriever whose scores are given."""

    passages = PASSAGES

    def __init__(self, name, scores):
        self.name = name
        self.scores = np.array(scores, np.float32)

    def rows(self, queries):
        for _ in queries:
            yield self.scores


def test_what_is_second_everywhere_can_be_first_together():
    parts = [Rows("dense", [1.0, 0.9, 0.0, 0.0, 0.0]), Rows("multi_vector", [0.0, 0.9, 1.0, 0.0, 0.0])]
    deep = FusedRetriever(parts, fusion="weighted", depth=2).search(["q"], k=1)
    assert deep.ids.tolist() == [1]
    np.testing.assert_allclose(deep.scores, [1.8], rtol=1e-6)
    # A part brings its first alone, and so the second of both is no candidate.
    assert FusedRetriever(parts, fusion="weighted", depth=1).search(["q"], k=1).ids.tolist() == [0]


def test_mistakes_are_named():
    encoder = HashingEncoder()
    dense = EncoderRetriever(encoder, PASSAGES, mode="dense")
    with pytest.raises(UsageError, match="not 'colbert'"):
        EncoderRetriever(encoder, PASSAGES, mode="colbert")
    with pytest.raises(UsageError, match="list of at least one text"):
        EncoderRetriever(encoder, [], mode="dense")
    with pytest.raises(UsageError, match="list of at least one text"):
        Bm25Retriever("one text")
    with pytest.raises(UnknownName, match="did you mean 'bigram'"):
        Bm25Retriever(PASSAGES, analyzer="bigramm")
    with pytest.raises(UsageError, match="cannot be fused"):
        FusedRetriever([dense])
    with pytest.raises(UsageError, match="different passages"):
        FusedRetriever([dense, Bm25Retriever(PASSAGES[:2], analyzer="bigram")])
    with pytest.raises(UnknownName, match="did you mean 'zscore'"):
        FusedRetriever([dense, Bm25Retriever(PASSAGES, analyzer="bigram")], fusion="zscor")
    with pytest.raises(UsageError, match="depth is 0"):
        FusedRetriever([dense, dense], depth=0)
    with pytest.raises(UsageError, match="k is 0"):
        dense.search(["q"], k=0)
    with pytest.raises(UsageError, match="for 2 queries, but there are 1"):
        dense.search(["q"], k=1, include=[np.array([0]), np.array([1])])
