"""Functions for processes that need no model, and so begin fast."""

import time

import torch


def describe(ranks, value):
    return ranks.rank, ranks.size, value, torch.full((2,), float(ranks.rank))


def one_fails(ranks):
    if ranks.rank == 1:
        raise ValueError("하나가 틀렸다")
    return ranks.collect(1)


def one_sleeps(ranks, seconds):
    if ranks.rank == 1:
        time.sleep(seconds)
    return ranks.collect(1)
