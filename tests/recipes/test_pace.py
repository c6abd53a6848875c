"""The recipes that a model is adapted by, and how long they train."""

import pytest

from models import tiny
from trine.data.examples import ExampleList
from trine.errors import UnknownName, UsageError
from trine.recipes import pace
from trine.recipes.pace import Pace, batch_size, first_recipe, fitted, second_recipe, settings_of, with_intervals
from trine.types import Example


@pytest.fixture(scope="module")
def encoder():
    return tiny.encoder("bert")


def test_settings_are_of_one_stage_or_of_both():
    found = settings_of({"stage1.steps": "20", "steps": "10", "stage2.modes": "dense"})
    assert found == {"stage1": {"steps": "20"}, "stage2": {"steps": "10", "modes": "dense"}}


def test_a_wrong_stage_or_setting_names_the_nearest(encoder):
    with pytest.raises(UnknownName, match="stage1"):
        settings_of({"stagee1.steps": "20"})
    with pytest.raises(UnknownName, match="batch_size"):
        first_recipe(encoder, examples=10, settings={"batchsize": "3"}, seed=0)


def test_the_first_stage_is_dense_and_keeps_the_model_s_prompts_and_pooling(encoder):
    chosen = first_recipe(encoder, examples=1000, settings={"batch_size": "16"}, seed=5)
    assert (chosen.modes, chosen.query_prompt, chosen.passage_prompt, chosen.pooling) == (("dense",), None, None, None)
    assert (chosen.batch_size, chosen.seed) == (16, 5)
    assert chosen.passage_length == chosen.query_length == tiny.MAX_LENGTH


def test_the_second_stage_trains_all_heads_with_negatives(encoder):
    chosen = second_recipe(encoder, examples=1000, settings={"epochs": "2"}, seed=0)
    assert chosen.modes == ("dense", "sparse", "multi_vector")
    assert chosen.self_distillation
    assert chosen.group_size > 1
    assert (chosen.steps, chosen.epochs) == (None, 2)


@pytest.mark.parametrize(("examples", "size"), [(1, 8), (100, 8), (300, 32), (100_000, 64)])
def test_batches_are_small_where_examples_are_few(examples, size):
    assert batch_size(examples) == size


def test_no_examples_are_refused():
    with pytest.raises(UsageError, match="no examples"):
        batch_size(0)


def test_larger_models_learn_slower(encoder, monkeypatch):
    assert pace.learning_rate(encoder) == 3e-4
    monkeypatch.setattr(pace, "_LEARNING_RATES", ((1, 3e-4), (10**9, 1e-4)))
    assert pace.learning_rate(encoder) == 1e-4
    monkeypatch.setattr(pace, "_LEARNING_RATES", ((1, 3e-4),))
    assert pace.learning_rate(encoder) == 1e-5


def test_steps_fill_the_time_or_the_epochs_whichever_ends_first(encoder):
    chosen = first_recipe(encoder, examples=640, settings={"batch_size": "64"}, seed=0)
    speed = Pace(tokens_per_second=1000, tokens_per_example=100)
    assert speed.seconds(64) == pytest.approx(6.4)

    def steps(settings=("batch_size",), **options):
        return fitted(chosen, dict.fromkeys(settings, ""), examples=640, pace=speed, **options)

    assert steps(epochs=20, seconds=640) == {"batch_size": 64, "steps": 100}
    assert steps(epochs=5, seconds=640) == {"batch_size": 64, "steps": 50}
    assert steps(epochs=5, seconds=-1) == {"batch_size": 64, "steps": 10}


def test_a_short_run_has_smaller_steps_unless_they_are_set(encoder):
    chosen = first_recipe(encoder, examples=640, settings={"batch_size": "64"}, seed=0)
    limits = {"examples": 640, "epochs": 20, "pace": Pace(tokens_per_second=1000, tokens_per_example=100)}
    assert fitted(chosen, {}, seconds=640, **limits) == {"batch_size": 64, "steps": 100}
    assert fitted(chosen, {}, seconds=400, **limits) == {"batch_size": 32, "steps": 125}
    assert fitted(chosen, {}, seconds=32, **limits) == {"batch_size": 16, "steps": 20}


def test_measurements_and_checkpoints_are_spread_over_the_steps(encoder):
    chosen = first_recipe(encoder, examples=640, settings={"steps": "100"}, seed=0)
    spread = with_intervals(chosen, {}, examples=640)
    assert (spread.evaluate_every, spread.save_every, spread.keep) == (20, 20, 1)
    assert with_intervals(chosen, {"save_every": "100"}, examples=640).save_every == chosen.save_every


def test_the_pace_is_that_of_real_steps(tmp_path):
    encoder = tiny.encoder("bert")
    examples = [Example(text[:10], (text,)) for text in tiny.CORPUS]
    chosen = first_recipe(encoder, examples=16, settings={}, seed=0)
    found = pace.measured_pace(encoder, [ExampleList(examples, name="x")], chosen, tmp_path / "probe")
    lengths = [len(encoder.token_spans(text)) + 2 for text in tiny.CORPUS]
    assert found.tokens_per_second > 0
    assert sum(lengths) / 16 < found.tokens_per_example < 2 * sum(lengths) / 16
    assert not (tmp_path / "probe").exists()
