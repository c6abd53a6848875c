"""The worker's side of the talk: one line in, one line of JSON out. Needs nothing but Python and torch."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import torch


def resident(field: str = "VmRSS") -> float:
    """MiB. VmHWM is the peak of getrusage, but for what a process inherits from the one that started it."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


def adamw(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.AdamW:
    """Both sides': transformers' trainer and trine take torch's fused one."""
    return torch.optim.AdamW(list(parameters), lr=2e-5, weight_decay=0.01, fused=True)


def remember(optimizer: torch.optim.Optimizer) -> None:
    """Make the optimizer's state, which otherwise appears at the end of the first step and is missing at its peak."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


Step = Callable[[], tuple[int, float]]
"""Takes a step; its tokens without padding, and its loss."""


def serve(start: Callable[[SimpleNamespace], tuple[torch.optim.Optimizer, Step]]) -> None:
    """Make the side that the job asks for, and take steps when told to."""
    job = SimpleNamespace(**json.loads(sys.argv[1]))
    torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    answers, sys.stdout = sys.stdout, sys.stderr
    optimizer, step = start(job)
    loaded = resident()
    remember(optimizer)

    def answer(**values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    answer(loaded=loaded)
    for word in sys.stdin:
        if word.strip() == "memory":
            answer(loaded=loaded, peak=resident("VmHWM"))
            continue
        cpu, wall = time.process_time(), time.perf_counter()
        tokens, loss = step()
        answer(tokens=tokens, loss=loss, cpu=time.process_time() - cpu, wall=time.perf_counter() - wall)


def set_dropout(model: torch.nn.Module, share: float | None) -> None:
    if share is None:
        return
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = share
        if hasattr(part, "dropout_prob"):
            part.dropout_prob = share
