"""The learning rate over the steps, as a factor from 0 to 1.

No step of a run has the rate 0: the first step of the warm-up already learns, and so does the last of the decay.
"""

from __future__ import annotations

import math
from collections.abc import Callable

STABLE = 0.8
"""Share of the steps after the warm-up that "wsd" holds the rate, before its decay of 20 % (arXiv 2405.18392, 4.1)."""


def factor(schedule: str, step: int, *, steps: int, warmup: int) -> float:
    """The factor on the learning rate.

    Args:
        schedule: a name in `SCHEDULES`.
        step: from 0, below `steps`.
        steps: of the run.
        warmup: steps of linear rise, part of `steps`.
    """
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[schedule](step - warmup, steps - warmup, warmup)


def _constant(step: int, steps: int, warmup: int) -> float:
    return 1.0


def _linear(step: int, steps: int, warmup: int) -> float:
    return 1 - step / steps


def _cosine(step: int, steps: int, warmup: int) -> float:
    return (1 + math.cos(math.pi * step / steps)) / 2


def _inverse_sqrt(step: int, steps: int, warmup: int) -> float:
    return math.sqrt(max(warmup, 1) / (max(warmup, 1) + step))


def _wsd(step: int, steps: int, warmup: int) -> float:
    stable = round(STABLE * steps)
    if step < stable:
        return 1.0
    return 1 - math.sqrt((step - stable) / (steps - stable))


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "constant": _constant,
    "cosine": _cosine,
    "inverse_sqrt": _inverse_sqrt,
    "linear": _linear,
    "wsd": _wsd,
}
"""Each takes the step and the number of steps after the warm-up, and the steps of the warm-up.

"wsd" is warm-up, stable, decay with the (1 - sqrt) decay of Hägele et al. (arXiv 2405.18392, section 4);
"inverse_sqrt" is Vaswani et al. (arXiv 1706.03762, section 5.3), scaled to 1 at the end of the warm-up.
"""
