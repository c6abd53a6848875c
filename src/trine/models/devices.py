"""Which device and which number format a model runs in, and what it draws at random there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from trine.errors import UsageError
from trine.tables import unknown

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" takes CUDA, then MPS, then the CPU."""
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise unknown(name, DEVICES, kind="device")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(kind, True):
        raise UsageError(f"device {name!r} asked for, but torch {torch.__version__} sees no {kind.upper()} device")
    try:
        return torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"device {name!r} cannot be used: {error}") from error


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The number format of that name; "auto" is float32 on the CPU, bfloat16 on CUDA, float16 on MPS."""
    if name == "auto":
        return {"cuda": torch.bfloat16, "mps": torch.float16}.get(device.type, torch.float32)
    if name not in DTYPES:
        raise unknown(name, ["auto", *DTYPES], kind="dtype")
    return DTYPES[name]


@contextlib.contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Draw from `seed`, on the CPU and on `device`, and leave the surrounding random state as it was."""
    cuda = device is not None and device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.manual_seed(seed)
        yield
