import numpy as np
import pytest

from trine.errors import UnknownName, UsageError
from trine.search.fusion import RETRIEVERS
from trine.search.plan import Plan
from trine.search.retrieve import Candidates

NAN = np.nan


def plan(available=RETRIEVERS, **options):
    defaults = {"retrievers": None, "fusion": "rrf", "weights": None, "k": 10, "depth": 100}
    return Plan.of(available, **{**defaults, **options})


def candidates(ids, scores, retrievers):
    return Candidates(np.array(ids), np.array(scores, np.float32), retrievers)


def test_all_retrievers_take_part_unless_some_are_named():
    assert plan().retrievers == RETRIEVERS
    assert plan(("dense", "bm25")).retrievers == ("dense", "bm25")
    assert plan(retrievers=["sparse"]).retrievers == ("sparse",)
    assert plan(retrievers="sparse").retrievers == ("sparse",)


def test_a_weighted_sum_leaves_bm25_out_unless_it_has_a_weight():
    assert plan(fusion="weighted").retrievers == ("dense", "sparse", "multi_vector")
    assert plan(fusion="weighted", weights="m3-long").retrievers == ("dense", "sparse", "multi_vector")
    assert plan(fusion="weighted", weights={"dense": 1, "bm25": 0.1}).retrievers == ("dense", "bm25")


def test_k_is_a_lower_bound_of_depth():
    assert plan(k=500).depth == 500
    assert plan(k=5).depth == 100


def test_options_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="at least 1"):
        plan(k=0)
    with pytest.raises(UsageError, match="at least 1"):
        plan(depth=0)
    with pytest.raises(UnknownName, match="did you mean 'bm25'"):
        plan(retrievers=["bm2"])
    with pytest.raises(UsageError, match="no sparse embeddings; it has dense, bm25"):
        plan(("dense", "bm25"), retrievers=["sparse"])
    with pytest.raises(UsageError, match="each once"):
        plan(retrievers=[])
    with pytest.raises(UsageError, match="each once"):
        plan(retrievers=["dense", "dense"])
    with pytest.raises(UsageError, match="no effect"):
        plan(retrievers=["dense"], weights={"dense": 1.0})
    with pytest.raises(UsageError, match="no weight for 'bm25'"):
        plan(retrievers=["dense", "bm25"], fusion="weighted")
    with pytest.raises(UnknownName, match="did you mean 'rrf'"):
        plan(fusion="rff")
    with pytest.raises(UnknownName, match="did you mean 'rrf'"):
        plan(retrievers=["dense"], fusion="rff")


def test_a_single_retriever_is_ranked_by_its_own_score():
    found = plan(retrievers=["sparse"], k=2).rank(candidates([2, 5, 9], [[0.1], [0.7], [0.3]], ("sparse",)))
    assert [(best.id, best.score) for best in found] == [(5, pytest.approx(0.7)), (9, pytest.approx(0.3))]
    assert found[0].scores == {"sparse": pytest.approx(0.7)}


def test_equal_scores_come_by_rising_id_and_missing_ones_are_not_shown():
    rows = [[0.5, NAN], [0.5, NAN], [0.9, 3.0], [0.5, NAN]]
    found = plan(("dense", "bm25")).rank(candidates([1, 4, 6, 8], rows, ("dense", "bm25")))
    assert [best.id for best in found] == [6, 1, 4, 8]
    assert found[0].score == pytest.approx(2 / 61)
    assert found[0].scores == {"dense": pytest.approx(0.9), "bm25": 3.0}
    assert found[1].scores == {"dense": 0.5}


def test_nothing_found_is_an_empty_list():
    assert plan(("dense", "bm25")).rank(candidates(np.zeros(0, int), np.zeros((0, 2)), ("dense", "bm25"))) == []
