import json
import math
from dataclasses import replace

import ir_measures
import numpy as np
import pytest

from trine.errors import DataError, UsageError
from trine.evaluation.beir import read_qrels, read_run
from trine.evaluation.results import machine
from trine.evaluation.significance import bootstrap_mean, paired_bootstrap

SECOND, THIRD = 1 / math.log2(3), 1 / math.log2(4)


def test_means_by_hand(plain):
    expected = {"dense": (1.0, 1.0), "bm25": (THIRD, 1 / 3), "dense+bm25 (rrf)": ((1 + SECOND) / 2, 0.75)}
    for name, values in expected.items():
        found = plain.result(name).metrics
        assert (found["ndcg@10"].mean, found["mrr@10"].mean) == pytest.approx(values, abs=1e-12)
    assert plain.best == "dense"
    assert plain.baseline == "bm25"
    assert plain.result("bm25").per_query["ndcg@10"]["q3"] == pytest.approx(THIRD)


def test_intervals_and_comparisons_are_those_of_the_bootstrap(plain):
    mixed = [*plain.result("dense+bm25 (rrf)").per_query["ndcg@10"].values()]
    base = [*plain.result("bm25").per_query["ndcg@10"].values()]
    found, alone = plain.result("dense+bm25 (rrf)").metrics["ndcg@10"], bootstrap_mean(mixed)
    assert (found.mean, found.low, found.high) == pytest.approx((alone.mean, alone.low, alone.high), abs=1e-12)
    gap, pair = plain.compare("dense+bm25 (rrf)", "bm25"), paired_bootstrap(mixed, base)
    assert (gap.mean, gap.low, gap.high, gap.share) == pytest.approx((pair.mean, pair.low, pair.high, pair.share))
    assert gap.significant


def test_every_system_meets_the_baseline_and_the_best(plain):
    pairs = {(item.system, item.other) for item in plain.comparisons if item.metric == "mrr@10"}
    assert pairs == {
        ("dense", "bm25"),
        ("dense+bm25 (rrf)", "bm25"),
        ("bm25", "dense"),
        ("dense+bm25 (rrf)", "dense"),
    }
    assert plain.compare("bm25", "bm25") is None
    assert plain.compare("bm25", "dense", metric="mrr@10").mean == pytest.approx(1 / 3 - 1)


def test_without_bm25_the_first_system_is_the_baseline(sample):
    report = sample(keep=["dense+bm25 (rrf)", "dense"])
    assert report.baseline == "dense+bm25 (rrf)"
    assert report.best == "dense"
    assert [result.system.name for result in report.results] == ["dense+bm25 (rrf)", "dense"]


def test_the_first_metric_decides(sample):
    report = sample(metrics=["mrr@1", "ndcg@10", "mrr@1"])
    assert report.metrics == ("mrr@1", "ndcg@10")
    assert report.result("dense+bm25 (rrf)").metrics["mrr@1"].mean == 0.5
    assert report.result("bm25").metrics["mrr@1"].high == 0.0


def test_json_is_strict_and_complete(plain):
    def refuse(name):
        raise AssertionError(name)

    found = json.loads(plain.to_json(), parse_constant=refuse)
    assert found["dataset"] == "표본"
    assert found["best"] == "dense"
    assert found["counts"]["documents"] == 1234
    assert [system["name"] for system in found["systems"]] == ["dense", "bm25", "dense+bm25 (rrf)"]
    assert found["systems"][1]["metrics"]["mrr@10"]["mean"] == pytest.approx(1 / 3)
    assert len(found["systems"][1]["per_query"]["mrr@10"]) == 40
    assert found["comparisons"][0].keys() == {"system", "other", "metric", "mean", "low", "high", "share"}
    assert found["settings"] == {"depth": 100, "analyzer": None, "resamples": 10000, "confidence": 0.95, "seed": 0}
    assert found["seconds"] == {"search": 0.25}
    assert "표본" in plain.to_json()


def test_exported_runs_give_the_same_numbers_elsewhere(plain, tmp_path):
    paths = plain.write_runs(tmp_path / "new" / "runs")
    assert [path.name for path in paths] == ["dense.trec", "bm25.trec", "dense+bm25.rrf.trec", "qrels.trec"]
    assert read_qrels(paths[-1]) == plain.qrels
    assert read_run(paths[1]) == plain.runs["bm25"]
    measures = {"ndcg@10": ir_measures.nDCG @ 10, "mrr@10": ir_measures.RR @ 10}
    qrels = list(ir_measures.read_trec_qrels(str(paths[-1])))
    for path, result in zip(paths, plain.results, strict=False):
        found = ir_measures.calc_aggregate(measures.values(), qrels, ir_measures.read_trec_run(str(path)))
        for name, theirs in measures.items():
            assert result.metrics[name].mean == pytest.approx(found[theirs], abs=1e-9)


def test_ids_with_spaces_are_not_exported(plain, tmp_path):
    with pytest.raises(DataError, match="'q 1' cannot be written"):
        replace(plain, qrels={"q 1": {"d": 1}}).write_runs(tmp_path)


def test_what_cannot_be_summarised_is_refused(sample):
    with pytest.raises(UsageError, match="no judged queries"):
        sample(queries=0)
    with pytest.raises(UsageError, match="metrics is a list"):
        sample(metrics=[])
    with pytest.raises(UsageError, match="metrics is a list"):
        sample(metrics="ndcg@10")
    with pytest.raises(UsageError, match="no system called 'sparse' in this report; it holds dense, bm25"):
        sample().result("sparse")


def test_the_seed_reaches_the_draws(sample):
    def shares(seed):
        return [item.difference.share for item in sample(seed=seed, queries=3).comparisons]

    assert sample(seed=1).settings["seed"] == 1
    assert shares(1) == shares(1)
    assert shares(1) != shares(2)


def test_the_machine_is_described_without_importing_torch():
    found = machine()
    assert found["numpy"] == np.__version__
    assert all(isinstance(value, str) and value for value in found.values())
