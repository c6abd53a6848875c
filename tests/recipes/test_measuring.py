"""A model in numbers: every mode and fusion, BM25 beside it, and a gain that favours the start."""

import pytest

from models import tiny
from trine.evaluation.beir import Dataset
from trine.recipes.measuring import Measurement, gain, measure, systems_of, table
from trine.types import Document, Query


@pytest.fixture(scope="module")
def data():
    corpus = [Document(f"p{n}", text) for n, text in enumerate(tiny.CORPUS)]
    queries = [Query(f"q{n}", text.split()[0]) for n, text in enumerate(tiny.CORPUS)]
    return Dataset("x", corpus, queries, {f"q{n}": {f"p{n}": 1} for n in range(len(queries))})


def made(**values):
    per_query = {name: dict(enumerate(row)) for name, row in values.items()}
    means = {name: sum(row) / len(row) for name, row in values.items()}
    return Measurement(means, per_query, tuple(name for name in values if "bm25" not in name))


def test_all_modes_and_fusions_are_measured_with_bm25_beside_them(data):
    found = measure(data, tiny.encoder("bert"))
    assert found.own == ("dense", "sparse", "multi_vector", "all (m3)", "all (zscore)")
    assert set(found.values) == {*found.own, "bm25", "all+bm25 (zscore)"}
    assert all(len(values) == len(data.queries) for values in found.per_query.values())
    assert Measurement.from_dict(found.to_dict()) == found


def test_weights_that_changed_are_measured_anew(data):
    encoder = tiny.encoder("bert")
    before = measure(data, encoder, bm25=False)
    tiny.randomise(encoder, seed=99)
    assert measure(data, encoder, bm25=False).per_query != before.per_query


def test_one_mode_has_nothing_to_fuse():
    assert systems_of(["dense"], bm25=False) == ["dense"]
    assert systems_of(["dense"], bm25=True) == ["dense", "bm25", "all+bm25:zscore"]


def test_the_gain_is_over_the_start_s_best_own_system():
    before = made(dense=[0.0, 0.5] * 10, sparse=[0.5, 0.5] * 10, bm25=[1.0, 1.0] * 10)
    after = made(dense=[1.0, 1.0] * 10, bm25=[1.0, 1.0] * 10)
    assert before.best == "sparse"
    found = gain(before, after, "dense")
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert gain(after, before, "dense").high < 0


def test_the_table_has_a_line_for_each_system_of_either():
    lines = table(made(dense=[0.25], sparse=[0.5]), made(dense=[1.0]))
    assert [line.split() for line in lines] == [
        ["nDCG@10", "start", "adapted"],
        ["dense", "0.2500", "1.0000"],
        ["sparse", "0.5000", "-"],
    ]
