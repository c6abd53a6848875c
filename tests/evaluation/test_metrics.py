import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trine.errors import UnknownName, UsageError
from trine.evaluation.metrics import METRICS, as_run, mean, measure, measure_all, parse_metric, ranked

ORACLE = {
    "ndcg@10": "nDCG@10",
    "ndcg@3": "nDCG@3",
    "ndcg": "nDCG",
    "recall@100": "R@100",
    "recall@2": "R@2",
    "map": "AP",
    "map@5": "AP@5",
    "precision@10": "P@10",
    "precision@1": "P@1",
    "success@1": "Success@1",
    "success@5": "Success@5",
    "mrr": "RR",
}
DOCUMENTS = [
    "d1",
    "d10",
    "d2",
    "D2",
    "가",
    "각",
    "\u1100\u1161",
    "é",
    "😀",
    "z",
    *(f"n{number}" for number in range(20)),
]
# Ties in double precision, ties in single precision only, and plain numbers.
SCORES = st.sampled_from([0.0, 1.0, 1.0 + 1e-12, 0.1, 0.1 + 1e-10, -2.5, 3.25]) | st.floats(-5, 5, width=32)
QRELS = st.dictionaries(
    st.sampled_from(["q1", "q2", "질문", "q4"]),
    st.dictionaries(st.sampled_from(DOCUMENTS), st.integers(-2, 4), min_size=1, max_size=12),
    min_size=1,
)
RUNS = st.dictionaries(
    st.sampled_from(["q1", "q2", "질문", "unjudged"]),
    st.dictionaries(st.sampled_from(DOCUMENTS), SCORES, min_size=1, max_size=30),
)


def safe(qrels):
    """pytrec_eval runs past its arrays where all grades of a query are negative; one of 0 changes no metric."""
    return {query: {**judged, "graded-0": 0} for query, judged in qrels.items()}


@given(run=RUNS, qrels=QRELS)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_metrics_equal_trec_eval(run, qrels):
    parsed = {name: ir_measures.parse_measure(oracle) for name, oracle in ORACLE.items()}
    expected = ir_measures.calc(list(parsed.values()), safe(qrels), run)
    ours = measure_all(run, qrels, metrics=ORACLE)
    for name, oracle in parsed.items():
        theirs = {value.query_id: value.value for value in expected.per_query if value.measure == oracle}
        assert ours[name] == pytest.approx(theirs, abs=1e-9), name
        assert mean(ours[name]) == pytest.approx(expected.aggregated[oracle], abs=1e-9), name


@given(run=RUNS, qrels=QRELS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_cut_reciprocal_rank_follows_trec_eval_order(run, qrels):
    """trec_eval has no cutoff for it: its uncut value decides whether the first relevant rank is within the cutoff."""
    uncut = ir_measures.calc([ir_measures.parse_measure("RR")], safe(qrels), run).per_query
    expected = {value.query_id: value.value if value.value > 1 / 3.5 else 0.0 for value in uncut}
    assert measure(run, qrels, metric="mrr@3") == pytest.approx(expected, abs=1e-9)


@given(run=RUNS, qrels=QRELS)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_runs_without_ties_give_one_number_everywhere(run, qrels):
    """ir_measures takes RR@10 from MS MARCO's script, which breaks ties the other way; as_run leaves it none."""
    clear = {}
    for query, entries in run.items():
        documents = ranked(entries)
        clear[query] = as_run(documents, [entries[document] for document in documents])
    expected = ir_measures.calc_aggregate([ir_measures.parse_measure("RR@10")], safe(qrels), clear)
    assert mean(measure(clear, qrels, metric="mrr@10")) == pytest.approx(next(iter(expected.values())), abs=1e-9)


def test_ndcg_by_hand():
    run = {"q": {"a": 3.0, "b": 2.0, "c": 1.0}}
    qrels = {"q": {"a": 1, "c": 3, "missing": 2, "bad": -1}}
    gained = 1 / math.log2(2) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 2 / math.log2(3) + 1 / math.log2(4)
    assert measure(run, qrels, metric="ndcg@10")["q"] == pytest.approx(gained / ideal, abs=1e-15)
    assert measure(run, qrels, metric="ndcg@1")["q"] == pytest.approx(1 / 3, abs=1e-15)


def test_other_metrics_by_hand():
    run = {"q": {"x": 4.0, "a": 3.0, "y": 2.0, "b": 1.0}}
    qrels = {"q": {"a": 1, "b": 2, "c": 1, "x": 0}}
    values = measure_all(
        run, qrels, metrics=["mrr@10", "mrr@1", "recall@2", "recall@100", "map", "map@2", "precision@4"]
    )
    expected = {
        "mrr@10": 1 / 2,
        "mrr@1": 0.0,
        "recall@2": 1 / 3,
        "recall@100": 2 / 3,
        "map": (1 / 2 + 2 / 4) / 3,
        "map@2": 1 / 6,
        "precision@4": 1 / 2,
    }
    assert {name: value["q"] for name, value in values.items()} == pytest.approx(expected, abs=1e-15)


def test_equal_scores_are_ordered_by_falling_id():
    assert ranked({"a": 1.0, "c": 1.0, "b": 1.0, "top": 2.0}) == ["top", "c", "b", "a"]
    assert ranked({"가": 0.5, "z": 0.5, "😀": 0.5}) == ["😀", "가", "z"]


def test_scores_that_only_double_precision_tells_apart_are_equal():
    assert ranked({"a": 1.0 + 1e-12, "b": 1.0}) == ["b", "a"]


def test_judged_queries_missing_from_the_run_count_as_zero_and_unjudged_ones_are_left_out():
    run = {"q1": {"a": 1.0}, "unjudged": {"a": 1.0}}
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 0}}
    values = measure(run, qrels, metric="ndcg@10")
    assert values == {"q1": 1.0, "q2": 0.0, "q3": 0.0}
    assert mean(values) == pytest.approx(1 / 3)


@given(st.lists(SCORES, max_size=40), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None, derandomize=True)
def test_as_run_keeps_any_order(scores, seed):
    scores = sorted(scores, reverse=True)
    documents = [f"d{number}" for number in np.random.default_rng(seed).permutation(len(scores))]
    entries = as_run(documents, scores)
    assert ranked(entries) == documents
    assert list(entries.values()) == pytest.approx(scores, rel=1e-5, abs=1e-12)
    assert len({np.float32(score) for score in entries.values()}) == len(scores)


def test_a_score_that_is_not_finite_is_refused_by_name():
    with pytest.raises(UsageError, match="query 'q', document 'b': score nan"):
        measure({"q": {"a": 1.0, "b": math.nan}}, {"q": {"a": 1}}, metric="ndcg@10")
    with pytest.raises(UsageError, match="score 1e\\+300"):
        ranked({"a": 1e300})
    with pytest.raises(UsageError, match="inf"):
        as_run(["a"], [math.inf])


@pytest.mark.parametrize("name", ["ndcg@0", "ndcg@", "ndcg@-1", "ndcg@1.5", "ndcg@ 10", "ndcg@１０"])
def test_a_cutoff_that_makes_no_sense_is_refused(name):
    with pytest.raises(UsageError, match="ndcg@10"):
        parse_metric(name)


def test_an_unknown_metric_suggests_the_nearest():
    with pytest.raises(UnknownName, match=r"did you mean 'ndcg@10'\?"):
        parse_metric("ndgc@10")
    with pytest.raises(UnknownName, match=r"did you mean 'recall'\?"):
        parse_metric("recal")


def test_names_are_parsed():
    assert parse_metric("mrr@10") == (METRICS["mrr"], 10)
    assert parse_metric("map") == (METRICS["map"], None)


def test_a_mean_over_nothing_is_refused():
    with pytest.raises(UsageError, match="no queries"):
        mean({})
