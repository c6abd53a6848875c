import json

import pytest

from trine.errors import UnknownName, UsageError
from trine.training.settings import LoopSettings, differences


def make(**changes):
    return LoopSettings(**{"steps": 100, "learning_rate": 1e-3, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"accumulate": 0}, "accumulate must be at least 1"),
        ({"save_every": 0}, "save_every must be at least 1"),
        ({"keep": 0}, "keep must be at least 1"),
        ({"log_every": -1}, "log_every must be at least 1"),
        ({"max_skipped": 0}, "max_skipped must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"epsilon": -1e-8}, "epsilon must be above 0"),
        ({"weight_decay": -0.1}, "weight_decay must be at least 0"),
        ({"warmup": -1}, "warmup must be at least 0"),
        ({"warmup": 100}, "warmup takes 100 of 100 steps"),
        ({"max_grad_norm": 0.0}, "max_grad_norm must be above 0"),
        ({"betas": (0.9, 1.0)}, "betas must be at least 0 and below 1"),
        ({"multipliers": {"head.": 0.0}}, "multipliers\\['head.'\\] must be above 0"),
        ({"evaluate_every": 10}, "need each other"),
        ({"metric": "ndcg@10"}, "need each other"),
        ({"patience": 3}, "no effect"),
        ({"evaluate_every": 0, "metric": "ndcg@10"}, "evaluate_every must be at least 1"),
        ({"evaluate_every": 5, "metric": "ndcg@10", "patience": 0}, "patience must be at least 1"),
    ],
)
def test_what_cannot_be_used_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        make(**changes)


def test_a_mistyped_schedule_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'cosine'"):
        make(schedule="cosin")


@pytest.mark.parametrize(("warmup", "steps"), [(0, 0), (0.1, 10), (0.999, 100), (1, 1), (30, 30)])
def test_warmup_is_a_share_below_one_and_else_a_number(warmup, steps):
    if steps == 100:
        with pytest.raises(UsageError, match="warmup takes 100 of 100"):
            make(warmup=warmup)
    else:
        assert make(warmup=warmup).warmup_steps == steps


def test_as_json_survives_the_file():
    settings = make(multipliers={"head.": 10.0}).as_json()
    assert json.loads(json.dumps(settings)) == settings
    assert settings["betas"] == [0.9, 0.999]


def test_differences_name_both_values_and_pass_over_what_decides_nothing():
    before = make().as_json()
    now = make(learning_rate=2e-3, log_every=1, save_every=7, keep=9).as_json()
    assert differences(before, now) == ["learning_rate was 0.001, is 0.002"]
    assert differences(before, before) == []
    assert differences({"data": "a"}, {}) == ["data was 'a', is 'not given'"]
    assert differences({}, {"data": None}) == ["data was 'not given', is None"]
