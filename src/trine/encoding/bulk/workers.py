"""Who encodes the shards: this process, or several others with a device each.

The seam is `encode_shard`: rows and a model in, one file out. Whatever hands shards out and collects what was written
can run a job; it needs no more than `Crew` has.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeAlias

from trine.encoding.bulk.plan import Shard
from trine.encoding.bulk.storage import EncodedTexts, in_precision, sha256, to_bytes, write_whole
from trine.errors import TrineError
from trine.types import Kind, Mode, TextEncoder

Load: TypeAlias = Callable[..., TextEncoder]
"""Called with ``device=``; to run in other processes it must be importable, as ``partial(Encoder.load, name)`` is."""

_SAMPLE = 32
"""Texts of a shard that are cut into tokens a second time, to say how many tokens a second there are."""

_CHARACTERS_A_TOKEN = 8
"""No text of a natural language has longer tokens on average."""


class JobFailed(TrineError):
    """A bulk job that cannot go on; the message says where, why, and what is kept."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a job has to know of the model."""

    name: str
    fingerprint: str
    dtype: str
    dimensions: Mapping[Mode, int]
    untrained: tuple[Mode, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """What is the same for all shards of a job."""

    folder: Path
    kind: Kind
    modes: tuple[Mode, ...]
    instruction: str | None
    precision: str
    shard_format: str
    integer_ids: bool

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / f"shard-{number:06}.{self.shard_format}"


@dataclass(frozen=True, slots=True)
class Done:
    """A shard that is on the disk."""

    number: int
    texts: int
    characters: int
    first: str
    last: str
    bytes: int
    sha256: str
    tokens: int = 0
    """About how many; 0 where it lay there before."""
    seconds: float = 0.0
    worker: int = 0


class Crew(Protocol):
    """Workers with the model loaded."""

    @property
    def facts(self) -> ModelFacts:
        """Of the model that all have."""
        ...

    @property
    def processes(self) -> Sequence[int]:
        """Process ids of the workers, in order."""
        ...

    def run(self, shards: Iterator[Shard], work: Work) -> Iterator[Done]:
        """Encode them in any order; draws at most one more shard than there are workers."""
        ...

    def close(self) -> None:
        """End the workers, whatever they do."""
        ...


def encode_shard(encoder: TextEncoder, shard: Shard, *, work: Work, worker: int = 0) -> Done:
    """Write the file of a shard: a pure function of its rows, the model and `work`."""
    start = time.monotonic()
    embeddings = in_precision(_encoded(encoder, shard.texts, work), work.precision)
    raw = to_bytes(EncodedTexts(shard.ids, embeddings), shard_format=work.shard_format, integer_ids=work.integer_ids)
    write_whole(work.path(shard.number), raw)
    return done_of(shard, raw, tokens=_about(encoder, shard.texts), seconds=time.monotonic() - start, worker=worker)


def done_of(shard: Shard, raw: bytes, *, tokens: int = 0, seconds: float = 0.0, worker: int = 0) -> Done:
    """The facts of a shard whose file holds `raw`."""
    place = (shard.first, shard.last)
    return Done(shard.number, len(shard.ids), shard.characters, *place, len(raw), sha256(raw), tokens, seconds, worker)


class Alone:
    """One device, in the process that asks."""

    def __init__(self, load: Load, device: str) -> None:
        self._encoder, self._device = load(device=device), device
        self.facts = _facts(self._encoder)
        self.processes = (os.getpid(),)

    def run(self, shards: Iterator[Shard], work: Work) -> Iterator[Done]:
        """Encode one after the other.

        Raises:
            JobFailed: a shard could not be encoded or written.
        """
        for shard in shards:
            try:
                yield encode_shard(self._encoder, shard, work=work)
            except Exception as error:
                raise _failed(shard, self._device, reason_of(error)) from error

    def close(self) -> None:
        """Nothing to end."""


class Several:
    """Processes of their own, each with a device and its own copy of the model."""

    def __init__(self, load: Load, devices: Sequence[str]) -> None:
        """Start them and wait until all have loaded the model.

        Raises:
            TrineError: the model cannot be loaded.
            JobFailed: a process died.
        """
        context = multiprocessing.get_context("spawn")
        threads = max((os.cpu_count() or 1) // len(devices), 1)
        self._devices = tuple(devices)
        self._members: list[BaseProcess] = []
        self._ends: list[Connection] = []
        try:
            for number, device in enumerate(devices):
                mine, theirs = context.Pipe()
                member = context.Process(target=_serve, args=(theirs, load, device, threads, number), daemon=True)
                member.start()
                theirs.close()
                self._members.append(member)
                self._ends.append(mine)
            self.facts = [self._loaded(number) for number in range(len(devices))][0]
        except BaseException:
            self.close()
            raise
        self.processes = tuple(member.pid or 0 for member in self._members)

    def run(self, shards: Iterator[Shard], work: Work) -> Iterator[Done]:
        """Give each its next shard as soon as it has written one; the first failure ends the job.

        Raises:
            JobFailed: a shard could not be encoded or written, or a process died.
        """
        idle, busy = list(range(len(self._ends))), dict[int, Shard]()
        # One shard is read ahead, so that a worker waits for a pipe and not for the reader.
        ahead = next(shards, None)
        while ahead is not None or busy:
            while ahead is not None and idle:
                number = idle.pop(0)
                busy[number] = ahead
                self._send(number, (ahead, work), ahead)
                ahead = next(shards, None)
            for end in wait([self._ends[number] for number in busy]):
                number = self._ends.index(end)  # type: ignore[arg-type]
                shard = busy.pop(number)
                answer = self._answer(number, shard)
                if isinstance(answer, _Failure):
                    raise _failed(shard, self._called(number), answer.reason) from _Traceback(answer.traceback)
                idle.append(number)
                yield answer

    def close(self) -> None:
        """End the processes now: what they have not written is lost, and no more."""
        for member in self._members:
            member.kill()
        for member in self._members:
            member.join()
        for end in self._ends:
            end.close()

    def _called(self, number: int) -> str:
        return f"worker {number} ({self._devices[number]})"

    def _loaded(self, number: int) -> ModelFacts:
        answer = self._answer(number, None)
        if not isinstance(answer, _Failure):
            facts: ModelFacts = answer
            return facts
        if answer.kind is not None:
            raise answer.kind(answer.reason)
        raise JobFailed(f"{self._called(number)} could not load the model: {answer.reason}") from _Traceback(
            answer.traceback
        )

    def _send(self, number: int, what: Any, shard: Shard) -> None:
        try:
            self._ends[number].send(what)
        except OSError:
            self._died(number, shard)

    def _answer(self, number: int, shard: Shard | None) -> Any:
        try:
            return self._ends[number].recv()
        except (EOFError, OSError):
            self._died(number, shard)

    def _died(self, number: int, shard: Shard | None) -> NoReturn:
        self._members[number].join(5)
        code = self._members[number].exitcode
        reason = f"the process died with exit code {code}"
        if code == -9:
            reason += " (killed; perhaps there was no memory left: fewer workers or smaller shards take less)"
        if shard is None:
            raise JobFailed(f"{self._called(number)} could not load the model: {reason}")
        raise _failed(shard, self._called(number), reason)


def crew_of(load: Load, devices: Sequence[str]) -> Crew:
    """A worker for each device; a single one is this process."""
    return Alone(load, devices[0]) if len(devices) == 1 else Several(load, devices)


def devices_of(device: str, workers: int | None) -> tuple[str, ...]:
    """The device of each worker: all CUDA devices in turn for "auto" and "cuda", else the one named.

    Args:
        device: "auto", "cuda", or a single one: "cpu", "cuda:1", "mps".
        workers: their number; None: one for each device.
    """
    names = [device]
    if device in ("auto", "cuda"):
        import torch

        names = [f"cuda:{number}" for number in range(torch.cuda.device_count())] or names
    return tuple(names[number % len(names)] for number in range(workers or len(names)))


def reason_of(error: BaseException) -> str:
    """An error in one line."""
    if isinstance(error, TrineError):
        return str(error)
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
    return f"{type(error).__name__}: {error}"


def _failed(shard: Shard, who: str, reason: str) -> JobFailed:
    return JobFailed(
        f"shard {shard.number} ({shard.first} to {shard.last}) failed on {who}: {reason}; "
        "finished shards are kept: mend it and run the same command again"
    )


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    traceback: str
    kind: type[TrineError] | None


class _Traceback(Exception):
    """Where it went wrong in another process."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


def _serve(end: Connection, load: Load, device: str, threads: int, number: int) -> None:
    """The life of a worker process."""
    # Ctrl-C reaches the whole group of processes; the one in front decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _share_cores(threads)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            encoder = load(device=device)
            if "torch" in sys.modules and not device.startswith("cuda") and "OMP_NUM_THREADS" not in os.environ:
                sys.modules["torch"].set_num_threads(threads)
            answer: Any = _facts(encoder)
        except Exception as error:
            end.send(_failure(error))
            return
        end.send(answer)
        while True:
            shard, work = end.recv()
            try:
                answer = encode_shard(encoder, shard, work=work, worker=number)
            except Exception as error:
                answer = _failure(error)
            end.send(answer)


def _end_with_parent() -> None:
    """A killed parent closes nothing and asks for nothing: its end is what ends this process."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _share_cores(threads: int) -> None:
    """Tokenizers would take all cores in every process."""
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def _failure(error: Exception) -> _Failure:
    kind = type(error) if isinstance(error, TrineError) else None
    return _Failure(reason_of(error), traceback.format_exc(), kind)


def _facts(encoder: TextEncoder) -> ModelFacts:
    config = getattr(encoder, "config", None)
    return ModelFacts(
        name=str(getattr(encoder, "name", "") or encoder.fingerprint),
        fingerprint=encoder.fingerprint,
        dtype=str(getattr(encoder, "dtype", "float32")).removeprefix("torch."),
        dimensions=dict(encoder.dimensions),
        untrained=tuple(getattr(config, "untrained", ())),
    )


def _encoded(encoder: TextEncoder, texts: Sequence[str], work: Work) -> Any:
    more: dict[str, Any] = {} if work.instruction is None else {"instruction": work.instruction}
    return encoder.encode(list(texts), kind=work.kind, modes=list(work.modes), **more)


def _about(encoder: TextEncoder, texts: Sequence[str]) -> int:
    """Tokens of all texts, from some of them."""
    longest = encoder.max_length
    some: Iterable[str] = texts[:: max(len(texts) // _SAMPLE, 1)]
    counts = [min(len(encoder.token_spans(text[: longest * _CHARACTERS_A_TOKEN])), longest) for text in some]
    return round(sum(counts) / len(counts) * len(texts))
