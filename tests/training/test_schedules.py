import math

import pytest

from trine.training.schedules import SCHEDULES, factor


def rates(schedule, *, steps=10, warmup=4):
    return [factor(schedule, step, steps=steps, warmup=warmup) for step in range(steps)]


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        ("constant", [1.0] * 6),
        ("linear", [1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        ("cosine", [(1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)]),
        ("inverse_sqrt", [math.sqrt(4 / (4 + n)) for n in range(6)]),
        # 80 % of 6 steps are 5; one step decays, and it begins at the height.
        ("wsd", [1, 1, 1, 1, 1, 1]),
    ],
)
def test_each_by_hand(schedule, wanted):
    assert rates(schedule) == pytest.approx([0.25, 0.5, 0.75, 1.0, *wanted])


def test_wsd_decays_over_the_last_fifth():
    found = rates("wsd", steps=20, warmup=0)
    assert found[:17] == [1.0] * 17
    assert found[17:] == pytest.approx([1 - math.sqrt(n / 4) for n in (1, 2, 3)])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (2, 1), (7, 3), (100, 10), (1000, 0)])
def test_no_step_is_wasted_and_none_exceeds_the_height(schedule, steps, warmup):
    found = rates(schedule, steps=steps, warmup=warmup)
    assert all(0 < rate <= 1 for rate in found)
    assert found[:warmup] == sorted(found[:warmup])
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert max(found) == 1.0
