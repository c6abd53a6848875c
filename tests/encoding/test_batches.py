import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trine.encoding.batches import TokenBudget, without_dropout


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 120))
def test_every_row_comes_once_and_no_batch_is_over_the_budget(lengths, tokens):
    lengths = np.array(lengths, np.int64)
    batches = list(TokenBudget(tokens).batches(lengths))
    assert sorted(np.concatenate([np.zeros(0, np.int64), *batches]).tolist()) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * lengths[rows].max() <= tokens
    longest = [lengths[rows].max() for rows in batches]
    assert longest == sorted(longest, reverse=True)


def test_batches_are_as_large_as_they_can_be():
    batches = list(TokenBudget(10).batches(np.array([2, 5, 5, 2, 2, 11])))
    assert [rows.tolist() for rows in batches] == [[5], [1, 2], [0, 3, 4]]


def test_where_memory_runs_out_halves_are_tried():
    seen, budget = [], TokenBudget(80)

    def forward(rows):
        if len(rows) > 2:
            raise torch.OutOfMemoryError("full")
        seen.append(rows.tolist())

    batches = budget.batches(np.full(13, 10))
    for rows in batches:
        budget.run(rows, forward)
    # The batch of 8 becomes 4 + 4, then 2 + 2; what follows is cut to the budget that was found.
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7], [8], [9], [10], [11], [12]]
    assert budget.tokens == 10


def test_a_single_row_that_is_too_much_is_an_error():
    def forward(rows):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        TokenBudget(80).run(np.array([0, 1]), forward)


def test_dropout_is_off_and_every_part_put_back():
    model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Sequential(torch.nn.Dropout()))
    model[1].eval()
    with without_dropout(model):
        assert not any(part.training for part in model.modules())
    assert [part.training for part in model.modules()] == [True, True, False, False]
