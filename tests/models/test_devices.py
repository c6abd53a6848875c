import pytest
import torch

from trine.errors import UnknownName, UsageError
from trine.models.devices import choose_device, choose_dtype, seeded


def present(monkeypatch, *, cuda=False, mps=False):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_best_there_is(monkeypatch, cuda, mps, expected):
    present(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device("auto").type == expected


def test_names_of_devices(monkeypatch):
    present(monkeypatch, cuda=True, mps=True)
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("mps") == torch.device("mps")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_device_that_is_not_there(monkeypatch, name):
    present(monkeypatch)
    with pytest.raises(
        UsageError, match=f"device '{name}' asked for, but torch .* sees no {name[:4].rstrip(':')}"[:40]
    ):
        choose_device(name)


def test_typos_suggest_the_nearest(monkeypatch):
    present(monkeypatch)
    with pytest.raises(UnknownName, match="no device called 'cudda'; did you mean 'cuda'"):
        choose_device("cudda")
    with pytest.raises(UsageError, match="device 'cpu:x' cannot be used"):
        choose_device("cpu:x")
    with pytest.raises(UnknownName, match="did you mean 'bfloat16'"):
        choose_dtype("bflot16", torch.device("cpu"))


def test_dtype_by_device():
    for device, expected in (("cpu", torch.float32), ("cuda", torch.bfloat16), ("mps", torch.float16)):
        assert choose_dtype("auto", torch.device(device)) == expected
    assert choose_dtype("float16", torch.device("cpu")) == torch.float16


def test_what_is_drawn_from_a_seed_leaves_no_trace():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    with seeded(7):
        inside = torch.rand(3)
    assert torch.equal(torch.rand(2), expected)
    with seeded(7, torch.device("cpu")):
        assert torch.equal(torch.rand(3), inside)
