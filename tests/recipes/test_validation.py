"""The metric by which training is judged: as `trine evaluate` has it, of the weights as they are."""

import msgspec
import pytest

from models import tiny
from trine.errors import UsageError
from trine.evaluation.beir import Dataset
from trine.evaluation.evaluate import evaluate
from trine.recipes.held_out import write_set
from trine.recipes.measuring import METRIC
from trine.recipes.validation import Measured, Validation, gain
from trine.types import Document, Query


@pytest.fixture(scope="module")
def data():
    corpus = [Document(f"p{n}", text) for n, text in enumerate(tiny.CORPUS)]
    queries = [Query(f"q{n}", text[: len(text) // 2]) for n, text in enumerate(tiny.CORPUS)]
    return Dataset("x", corpus, queries, {f"q{n}": {f"p{n}": 1} for n in range(len(queries))})


def test_it_is_the_metric_of_an_evaluation(data):
    encoder = tiny.encoder("bert")
    found = Validation(data).measure(encoder)
    systems = ["dense", "sparse", "multi_vector", "all:m3"]
    report = evaluate(data, encoder, systems=systems, metrics=[METRIC])
    assert found.main == "all (m3)"
    assert found.values == {
        **{result.system.name: result.metrics[METRIC].mean for result in report.results},
        METRIC: report.result("all (m3)").metrics[METRIC].mean,
    }
    assert 0 < found.values["dense"] < 1


def test_one_mode_decides_by_itself(data):
    found = Validation(data).measure(tiny.encoder("bert"), ["sparse"])
    assert found.main == "sparse"
    assert set(found.values) == {"sparse", METRIC}


def test_modes_that_were_never_trained_are_left_out_unless_asked_for(data):
    encoder = tiny.encoder("bert")
    encoder.config = msgspec.structs.replace(encoder.config, untrained=("sparse", "multi_vector"))
    assert Validation(data).measure(encoder).main == "dense"
    assert Validation(data).measure(encoder, ["dense", "sparse"]).main == "dense+sparse (m3)"
    encoder.config = msgspec.structs.replace(encoder.config, untrained=("dense", "sparse", "multi_vector"))
    assert Validation(data).measure(encoder).main == "all (m3)"
    encoder.config = msgspec.structs.replace(encoder.config, dense=None)
    with pytest.raises(UsageError, match="dense"):
        Validation(data).measure(encoder, ["dense"])


def test_weights_that_changed_give_another_value(data):
    encoder, validation = tiny.encoder("bert"), Validation(data)
    before = validation.measure(encoder)
    tiny.randomise(encoder, seed=123)
    assert validation.measure(encoder).per_query != before.per_query
    assert not encoder.training


def test_a_model_in_training_is_measured_without_dropout_and_stays_in_training(data):
    encoder, validation = tiny.encoder("bert"), Validation(data)
    calm = validation.measure(encoder)
    encoder.train()
    assert validation.measure(encoder) == calm
    assert encoder.training


def test_a_folder_does_too(data, tmp_path):
    write_set(data, tmp_path / "x")
    encoder = tiny.encoder("bert")
    assert Validation(tmp_path / "x").measure(encoder) == Validation(data).measure(encoder)


def test_the_gain_pairs_the_queries_by_name():
    before = Measured({}, {"dense": {"a": 0.0, "b": 1.0}}, "dense")
    after = Measured({}, {"all (m3)": {"b": 1.0, "a": 0.5}, "dense": {"a": 0.0, "b": 0.0}}, "all (m3)")
    found = gain(before, after)
    assert (found.mean, found.low, found.high) == (0.25, 0.0, 0.5)
