import pytest
import torch
from torch import nn

from trine.errors import UsageError
from trine.training.ranks import OneProcess, Place, gradient_length, place


def test_place_reads_what_torchrun_sets():
    assert place({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "OTHER": "x"}) == Place(3, 8, 1)
    assert place({}) == Place(0, 1, 0)


def test_place_asks_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert place() == Place(0, 1, 0)
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(UsageError, match="not WORLD_SIZE, LOCAL_RANK"):
        place()


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "-1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "-1"},
        {"RANK": "0", "WORLD_SIZE": "둘", "LOCAL_RANK": "0"},
    ],
)
def test_place_refuses_contradictions(environment):
    with pytest.raises(UsageError, match="in the environment"):
        place(environment)


def test_gradient_length_is_that_of_one_vector():
    assert float(gradient_length([torch.tensor([3.0]), torch.tensor([[4.0], [12.0]])])) == 13.0
    assert float(gradient_length([])) == 0.0


def test_one_process_answers_for_itself():
    ranks = OneProcess()
    there, nowhere = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))
    there.grad = torch.tensor([3.0, 4.0])
    ranks.share_gradients([there, nowhere])
    assert ranks.gradient_norm([there, nowhere]) == 5.0
    assert nowhere.grad is None
    assert (ranks.mean(2.0), ranks.collect("하나"), ranks.tell(3), ranks.lost()) == (2.0, ["하나"], 3, [])
    assert torch.equal(ranks.fill(there, torch.ones(3)), torch.ones(3))
    assert torch.equal(ranks.whole(there), torch.zeros(2))
    with pytest.raises(UsageError, match="torchrun"):
        ranks.shard(nn.Linear(2, 2))
    assert "did not answer" in str(ranks.failure("waiting", RuntimeError("line one\nline two")))
