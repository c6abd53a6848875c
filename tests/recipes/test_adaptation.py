"""The outcome of an adaptation as JSON and as lines."""

import json
from pathlib import Path

import pytest

from trine.evaluation.significance import Difference
from trine.recipes.adaptation import Adapted
from trine.recipes.measuring import Measurement


def outcome(low, **others):
    measured = Measurement({"dense": 0.5, **others}, {"dense": {"q": 0.5}}, ("dense",))
    domain = {
        "documents": {"kept": 1200, "skipped": [{"path": "a.pdf", "reason": "is empty", "line": None}]},
        "weak_pairs": {"pairs": 900},
        "training": {"pairs": 700},
        "held_out": {"queries": 40, "corpus": 3000},
    }
    return Adapted(
        folder=Path("out"),
        target=Path("out"),
        working=Path("out.training"),
        before=measured,
        after=measured,
        system="dense",
        gain=Difference(0.1, low, 0.2, 0.99),
        stages={"domain": domain, "filter": {"kept": 650}},
        seconds=600.0,
    )


@pytest.mark.parametrize(("low", "better"), [(0.01, True), (0.0, False), (-0.01, False)])
def test_better_means_that_the_whole_interval_lies_above_zero(low, better):
    found = outcome(low)
    assert found.better is better
    assert json.loads(json.dumps(found.to_dict()))["better"] is better
    assert ("NOT better" in "\n".join(found.lines())) is not better


def test_counts_and_skipped_files_are_told():
    found = outcome(0.01)
    assert found.skipped[0]["path"] == "a.pdf"
    text = "\n".join(found.lines())
    assert "1,200 documents, 900 weak pairs; 700 to train on, 650 of them after the filter" in text
    assert "40 queries over 3,000 passages" in text
    assert "+0.1000 (+0.0100 to +0.2000)" in text


@pytest.mark.parametrize(("others", "told"), [({}, False), ({"bm25": 0.5}, False), ({"bm25": 0.6}, True)])
def test_who_does_better_without_a_model_is_told(others, told):
    assert ("BM25 alone finds more here (0.6000)" in "\n".join(outcome(0.01, **others).lines())) is told
    assert "BM25 alone" not in "\n".join(outcome(0.01, **{**others, "all+bm25 (zscore)": 0.7}).lines())
