"""Several training processes on one machine, without a launcher."""

from __future__ import annotations

import multiprocessing
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from trine.errors import TrainingError, TrineError, UsageError
from trine.training.distributed import TIMEOUT, connect
from trine.training.ranks import OneProcess, Place

GRACE = 15.0
"""Seconds that the others have to end by themselves once one process has failed, beyond their own timeout."""


def spawn(
    function: Callable[..., Any],
    processes: int,
    *,
    arguments: Sequence[Any] = (),
    timeout: float = TIMEOUT,
    device: str = "auto",
    grace: float = GRACE,
) -> list[Any]:
    """Run ``function(ranks, *arguments)`` in that many processes, and return what each gives, by rank.

    Args:
        function: at the top of a module, so that the processes can import it.
        processes: at least 1; with 1 it runs here.
        arguments: the same for all; they travel by pickle, as do the results.
        timeout: seconds that a rank waits for another.
        device: "auto", "cpu" or "cuda".
        grace: seconds beyond `timeout` after which the others are ended once one has failed.

    Raises:
        TrainingError: a process failed or died; all have ended by then.
    """
    if processes < 1:
        raise UsageError(f"processes must be at least 1, got {processes}")
    if processes == 1:
        return [function(OneProcess(), *arguments)]
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="trine-ranks-") as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        members: list[BaseProcess] = []
        ends: list[Connection] = []
        try:
            for rank in range(processes):
                mine, theirs = context.Pipe(duplex=False)
                where = Place(rank, processes, rank)
                settings = {"device": device, "timeout": timeout, "meeting": meeting}
                member: BaseProcess = context.Process(
                    target=_run, args=(theirs, where, settings, function, tuple(arguments))
                )
                member.start()
                theirs.close()
                members.append(member)
                ends.append(mine)
            return _answers(members, ends, patience=timeout + grace)
        finally:
            for member in members:
                if member.is_alive():
                    member.kill()
                member.join()


def _run(
    answer: Connection, where: Place, settings: dict[str, Any], function: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    try:
        with connect(where, **settings) as ranks:
            result = function(ranks, *arguments)
        # By value: torch would hand tensors over in memory that ends with this process.
        answer.send_bytes(pickle.dumps((True, result)))
    except BaseException as error:
        # An error made for its reader needs no traceback.
        told = str(error) if isinstance(error, TrineError) else traceback.format_exc()
        answer.send_bytes(pickle.dumps((False, told)))
        raise SystemExit(1) from None


def _answers(members: Sequence[BaseProcess], ends: Sequence[Connection], *, patience: float) -> list[Any]:
    """What every process gives; once one has failed, the others have `patience` seconds."""
    results: dict[int, Any] = {}
    failures: dict[int, str] = {}
    open_ends = dict(zip(ends, range(len(ends)), strict=True))
    limit: float | None = None
    while open_ends:
        left = None if limit is None else max(limit - time.monotonic(), 0)
        ready = wait(list(open_ends), left)
        if not ready:
            failures.update({rank: "did not end" for rank in open_ends.values()})
            break
        for end in ready:
            assert isinstance(end, Connection)
            rank = open_ends.pop(end)
            try:
                good, value = pickle.loads(end.recv_bytes())
            except EOFError:
                members[rank].join()
                good, value = False, f"died with exit code {members[rank].exitcode}"
            (results if good else failures)[rank] = value
            if not good and limit is None:
                limit = time.monotonic() + patience
    if failures:
        raise TrainingError("; ".join(f"rank {rank}: {text.strip()}" for rank, text in failures.items()))
    return [results[rank] for rank in range(len(ends))]
