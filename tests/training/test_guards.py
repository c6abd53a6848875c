import pytest
import torch

from trine.training.guards import Skips, all_finite, not_finite


def test_not_finite_names_what_is_wrong():
    values = {"loss": float("nan"), "loss/dense": 1.0, "loss/sparse": float("inf"), "norm": -float("inf")}
    assert not_finite(values) == ["loss=nan", "loss/sparse=inf", "norm=-inf"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_one_bad_number_anywhere_is_seen(bad, dtype):
    for place in (0, 7, 14):
        tensors = [torch.ones(3), torch.zeros(0), torch.arange(15).to(dtype).reshape(3, 5)]
        assert all_finite(tensors)
        tensors[2].view(-1)[place] = bad
        assert not all_finite(tensors)


def test_nothing_and_whole_numbers_are_finite():
    assert all_finite([])
    assert all_finite([torch.arange(3), torch.tensor(2**40)])


def test_skips_count_a_row_and_start_again_after_a_good_step():
    skips = Skips(2)
    assert [skips.note(bad) for bad in (True, False, True, True)] == [False, False, False, True]
    assert (skips.total, skips.row) == (3, 2)
    assert Skips(2, total=5, row=1).note(True)
