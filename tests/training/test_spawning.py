import re

import pytest
import torch

from training import light_workers
from trine.errors import TrainingError, UsageError
from trine.training.spawning import spawn


def test_results_come_by_rank_with_their_tensors():
    found = spawn(light_workers.describe, 2, arguments=("값",), timeout=60.0, device="cpu")
    assert [part[:3] for part in found] == [(0, 2, "값"), (1, 2, "값")]
    assert torch.equal(found[1][3], torch.ones(2))


def test_one_process_runs_here():
    (found,) = spawn(light_workers.describe, 1, arguments=("값",))
    assert found[:3] == (0, 1, "값")


def test_an_error_in_one_ends_all_and_is_told_with_its_place():
    with pytest.raises(TrainingError, match="rank 1: Traceback") as raised:
        spawn(light_workers.one_fails, 2, timeout=30.0, device="cpu", grace=5.0)
    assert "ValueError: 하나가 틀렸다" in str(raised.value)
    # Where the other ends before this one knows its process, there is no name to be told.
    told = r"rank 0: rank 0 was exchanging values, but (rank 1 of 2 has ended|the other ranks did not answer)"
    assert re.search(told, str(raised.value))


def test_a_number_of_processes_that_is_none():
    with pytest.raises(UsageError, match="at least 1, got 0"):
        spawn(light_workers.describe, 0)
