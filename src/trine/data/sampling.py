"""Which examples make up which batch: one source a batch, sources mixed by temperature, texts of like length together.

Every example of a source comes once an epoch. What is left of an epoch, fewer examples than a batch, comes first in the
next. All ranks draw the same batches and take equal shares of them. The position is a small JSON object, and a sampler
that loads it goes on exactly as the first would have.

Mixing: source i is drawn with p_i = n_i^a / sum_j n_j^a, one source a batch (Li et al., GTE, arXiv 2308.03281, section
3.3: a = 0.5). Grouping by length under one seed for all ranks: Chen et al., BGE-M3, arXiv 2402.03216, section 3.4.

Shapes: N examples of a source, K keys of an example, B examples of a batch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.data.distinct import batches_of, contested
from trine.errors import UsageError

_SHORTEST = 32
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Part:
    """What the sampler knows of a source."""

    name: str
    lengths: NDArray[np.int64]
    """(N,) tokens of each example's longest text, estimated."""
    keys: NDArray[np.int64] | None = None
    """(N, K) hashes of texts that must not come twice in a batch; None keeps only the example itself apart."""
    weight: float = 1.0
    """Factor on the share."""
    cap: int | None = None
    """A larger source counts as one of this many examples in the mix; it is still read to its end."""
    fingerprint: str = ""
    """Of the source: a position is only good for the same content."""

    def __post_init__(self) -> None:
        """Refuse a source that could never be drawn."""
        if not len(self.lengths):
            raise UsageError(f"source {self.name!r} has no examples")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise UsageError(f"source {self.name!r}: weight must be positive, not {self.weight}; leave the source out")
        if self.cap is not None and self.cap < 1:
            raise UsageError(f"source {self.name!r}: cap must be at least 1, not {self.cap}")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How batches are drawn; exactly one of `batch_size` and `batch_size_at` is given."""

    batch_size: int | None = None
    """Queries of all ranks together, whatever their length."""
    batch_size_at: Callable[[int], int] | None = None
    """Queries of one rank whose texts have up to that many tokens, for instance ``MemoryModel.batch_size``."""
    exponent: float = 0.5
    """a of the mix: 1 draws by size, 0 draws all sources alike."""
    boundaries: Sequence[int] | None = None
    """Greatest lengths of the groups, in tokens; None takes 32 and steps of a half more. (0,) groups nothing."""
    seed: int = 0
    ranks: int = 1
    max_epochs: int | None = None
    """After so many passes a source leaves the mix; the run ends with the last one. None goes on for ever."""
    steps: int | None = None
    """Batches after which the run ends."""

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        if (self.batch_size is None) == (self.batch_size_at is None):
            raise UsageError("give one of batch_size (queries of all ranks) and batch_size_at (queries by length)")
        if self.ranks < 1:
            raise UsageError(f"ranks must be at least 1, not {self.ranks}")
        if self.batch_size is not None and (self.batch_size < 1 or self.batch_size % self.ranks):
            raise UsageError(f"batch_size {self.batch_size} must be positive and a multiple of the {self.ranks} ranks")
        for name in ("max_epochs", "steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        if not (math.isfinite(self.exponent) and self.exponent >= 0):
            raise UsageError(f"exponent must not be negative, and not {self.exponent}")

    def size(self, length: int) -> int:
        """Queries of all ranks together for texts of up to `length` tokens."""
        if self.batch_size is not None:
            return self.batch_size
        assert self.batch_size_at is not None
        return max(int(self.batch_size_at(length)), 1) * self.ranks


@dataclass(frozen=True, slots=True)
class Draw:
    """One batch of all ranks."""

    step: int
    """From 0."""
    source: int
    """Number of the source in the order given."""
    rows: NDArray[np.int64]
    """(B,) numbers of the examples; a multiple of the ranks."""
    epochs: NDArray[np.int64]
    """(B,) the pass over the source that each belongs to, from 0."""
    length: int
    """Greatest estimated tokens of the group."""

    def share(self, rank: int, *, ranks: int) -> slice:
        """The rows of one rank: equal, disjoint, and together all of them."""
        each = len(self.rows) // ranks
        return slice(rank * each, (rank + 1) * each)


class Sampler(Iterator[Draw]):
    """Draws batches; `state_dict` and `load_state_dict` take it up where it stood."""

    def __init__(self, parts: Sequence[Part], *, sampling: Sampling) -> None:
        if not parts:
            raise UsageError("no sources to draw from")
        names = [part.name for part in parts]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UsageError(f"two sources are called {', '.join(twice)}; give each a name of its own")
        self.sampling = sampling
        self._streams = [_Stream(part, sampling) for part in parts]
        self._rates = np.array([stream.rate for stream in self._streams])
        self._step = 0

    @property
    def shares(self) -> Mapping[str, float]:
        """Each source's share of the examples while all are in the mix."""
        weights = np.array([stream.weight for stream in self._streams])
        return {stream.part.name: float(x) for stream, x in zip(self._streams, weights / weights.sum(), strict=True)}

    @property
    def total_steps(self) -> int | None:
        """Batches until the end; None where there is none."""
        limits = []
        if self.sampling.steps is not None:
            limits.append(self.sampling.steps)
        if self.sampling.max_epochs is not None:
            limits.append(sum(stream.total(self.sampling.max_epochs) for stream in self._streams))
        return min(limits, default=None)

    @property
    def left_over(self) -> Mapping[str, int]:
        """Examples of finished sources that came one time less, because they would not divide among the ranks."""
        return {stream.part.name: stream.lost for stream in self._streams if stream.lost}

    def __next__(self) -> Draw:
        active = [number for number, stream in enumerate(self._streams) if not stream.finished]
        if not active or (self.sampling.steps is not None and self._step >= self.sampling.steps):
            raise StopIteration
        rates = self._rates[active]
        generator = np.random.default_rng([self.sampling.seed, self._step])
        number = active[int(generator.choice(len(active), p=rates / rates.sum()))]
        rows, epochs, length = self._streams[number].take()
        self._step += 1
        return Draw(self._step - 1, number, rows, epochs, length)

    def state_dict(self) -> dict[str, Any]:
        """The position, as JSON."""
        return {
            "step": self._step,
            "settings": self._settings(),
            "sources": {stream.part.name: stream.state() for stream in self._streams},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a position.

        Raises:
            UsageError: it is of other sources, other content or other settings, under which it would mean other
                batches.
        """
        if set(state["sources"]) != {stream.part.name for stream in self._streams}:
            names = [stream.part.name for stream in self._streams]
            raise UsageError(f"the position is of the sources {sorted(state['sources'])}, these are {sorted(names)}")
        for key, value in self._settings().items():
            if state["settings"].get(key) != value:
                raise UsageError(
                    f"the position was taken with {key} {state['settings'].get(key)}, now it is {value}; "
                    "resume with the settings of the run"
                )
        for stream in self._streams:
            stream.check(state["sources"][stream.part.name])
        for stream in self._streams:
            stream.load(state["sources"][stream.part.name])
        self._step = int(state["step"])

    def _settings(self) -> dict[str, Any]:
        sampling = self.sampling
        return {
            "seed": sampling.seed,
            "ranks": sampling.ranks,
            "max_epochs": sampling.max_epochs,
            "exponent": sampling.exponent,
        }


@dataclass(slots=True)
class _Plan:
    batches: list[tuple[NDArray[np.int64], NDArray[np.int64], int]]
    """Rows, their epochs, and the length of the group."""
    carry: list[tuple[int, int]]
    """Row and epoch of what is left."""


class _Stream:
    """One source: its groups by length, and the plan of its current epoch."""

    def __init__(self, part: Part, sampling: Sampling) -> None:
        self.part, self.sampling = part, sampling
        count = len(part.lengths)
        if count < sampling.ranks:
            raise UsageError(f"source {part.name!r} has {count} examples for {sampling.ranks} ranks; leave it out")
        self.keys = np.arange(count)[:, None] if part.keys is None else part.keys
        self.contested = contested(self.keys)
        self.groups = _groups(part.lengths, sampling)
        self.group_of = np.empty(count, np.int64)
        for number, group in enumerate(self.groups):
            self.group_of[group.rows] = number
        self.weight = part.weight * min(count, part.cap or count) ** sampling.exponent
        # A batch of long texts holds fewer examples; drawing by batches in an epoch makes the share one of examples.
        self.rate = self.weight * sum(len(group.rows) / group.size for group in self.groups) / count
        self._tag = zlib.crc32(part.name.encode("utf-8", "surrogatepass"))
        self.lost = 0
        self._identity = {
            "fingerprint": part.fingerprint,
            "weight": part.weight,
            "cap": part.cap,
            "examples": count,
            "groups": [[group.length, len(group.rows), group.size] for group in self.groups],
        }
        self._stand(epoch=0, position=0, carry=[])

    def _stand(self, *, epoch: int, position: int, carry: list[tuple[int, int]]) -> None:
        self.epoch, self.position, self.carry = epoch, position, carry
        self._carry_json = [list(pair) for pair in carry]
        self._plan: _Plan | None = None

    @property
    def finished(self) -> bool:
        return self.sampling.max_epochs is not None and self.epoch >= self.sampling.max_epochs

    def take(self) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
        plan = self._plan = self._plan or self._planned()
        batch = plan.batches[self.position]
        self.position += 1
        if self.position == len(plan.batches):
            self._stand(epoch=self.epoch + 1, position=0, carry=plan.carry)
            self.lost = len(plan.carry) if self.finished else 0
        return batch

    def total(self, epochs: int) -> int:
        """Batches of so many epochs."""
        full = sum(epochs * len(group.rows) // group.size for group in self.groups)
        counts = [epochs * len(group.rows) % group.size for group in self.groups]
        return full + len(self._last_sizes(counts)[0])

    def state(self) -> dict[str, Any]:
        # Taken for every batch, so nothing in it is copied; nothing in it is ever changed either.
        return {
            **self._identity,
            "epoch": self.epoch,
            "position": self.position,
            "carry": self._carry_json,
            "lost": self.lost,
        }

    def check(self, state: Mapping[str, Any]) -> None:
        for key, own in self._identity.items():
            if state[key] != own:
                raise UsageError(
                    f"source {self.part.name!r}: {key} {state[key]} when the position was taken, {own} now; "
                    "resume with the same data, tokenizer, weights and batch sizes"
                )

    def load(self, state: Mapping[str, Any]) -> None:
        carry = [(int(row), int(epoch)) for row, epoch in state["carry"]]
        self._stand(epoch=int(state["epoch"]), position=int(state["position"]), carry=carry)
        self.lost = int(state["lost"])

    def _planned(self) -> _Plan:
        generator = np.random.default_rng([self.sampling.seed, self._tag, self.epoch])
        queues: list[list[tuple[int, int]]] = [[] for _ in self.groups]
        for row, epoch in self.carry:
            queues[self.group_of[row]].append((row, epoch))
        batches, rests = [], []
        for group, queue in zip(self.groups, queues, strict=True):
            queue += [(int(row), self.epoch) for row in generator.permutation(group.rows)]
            found, rest = batches_of(
                [row for row, _ in queue], group.size, keys_NK=self.keys, contested_N=self.contested
            )
            batches += [_batch([queue[place] for place in batch], group.length) for batch in found]
            rests.append([queue[place] for place in rest])
        batches = [batches[number] for number in generator.permutation(len(batches))]
        carry = [pair for rest in rests for pair in rest]
        if self.sampling.max_epochs is not None and self.epoch + 1 >= self.sampling.max_epochs:
            last, carry = self._last(rests)
            batches += last
        return _Plan(batches, carry)

    def _last(
        self, rests: list[list[tuple[int, int]]]
    ) -> tuple[list[tuple[NDArray[np.int64], NDArray[np.int64], int]], list[tuple[int, int]]]:
        """What no later epoch will take up: longest first, in batches as large as the longest allows."""
        queue = [pair for rest in reversed(rests) for pair in rest]
        sizes, lengths = self._last_sizes([len(rest) for rest in rests])
        batches, start = [], 0
        for size, length in zip(sizes, lengths, strict=True):
            batches.append(_batch(queue[start : start + size], length))
            start += size
        return batches, queue[start:]

    def _last_sizes(self, counts: Sequence[int]) -> tuple[list[int], list[int]]:
        groups = [group for group, count in zip(self.groups, counts, strict=True) for _ in range(count)][::-1]
        sizes, lengths, start = [], [], 0
        ranks = self.sampling.ranks
        while size := min(groups[start].size if start < len(groups) else 0, (len(groups) - start) // ranks * ranks):
            sizes.append(size)
            lengths.append(groups[start].length)
            start += size
        return sizes, lengths


@dataclass(frozen=True, slots=True)
class _Group:
    length: int
    rows: NDArray[np.int64]
    size: int
    """Of a batch, all ranks together."""


def _groups(lengths: NDArray[np.int64], sampling: Sampling) -> list[_Group]:
    """Examples by length, each group large enough for a batch.

    Too few of one length go with the next longer ones. Where none are longer, the longest of the group below make up
    the batch, and only they: one book among tweets must not put all tweets into the small batches of books.
    """
    longest = int(lengths.max())
    order = np.argsort(lengths, kind="stable")
    bounds = [bound for bound in _boundaries(longest, sampling.boundaries) if 0 < bound < longest]
    ends = [*np.searchsorted(lengths[order], bounds, side="right"), len(order)]
    cuts: list[tuple[int, int]] = []
    start = 0
    for bound, end in zip([*bounds, longest], ends, strict=True):
        if end - start >= sampling.size(bound):
            cuts.append((bound, int(end)))
            start = int(end)
    if start < len(order):
        needed = sampling.size(longest)
        while cuts and len(order) - start < needed:
            bound, _ = cuts.pop()
            below = cuts[-1][1] if cuts else 0
            start = max(len(order) - needed, below)
            if start - below >= min(sampling.size(bound), needed):
                cuts.append((bound, start))
            else:
                start = below
        cuts.append((longest, len(order)))
    groups, start = [], 0
    for bound, end in cuts:
        fits = (end - start) // sampling.ranks * sampling.ranks
        groups.append(_Group(bound, np.sort(order[start:end]), min(sampling.size(bound), fits)))
        start = end
    return groups


def _boundaries(longest: int, given: Sequence[int] | None) -> list[int]:
    if given is not None:
        if list(given) != sorted(set(given)) or not given:
            raise UsageError(f"boundaries must ascend, and there must be one at least: {list(given)}")
        return list(given)
    bounds = [_SHORTEST]
    while bounds[-1] < longest:
        bounds.append(math.ceil(bounds[-1] * _GROWTH))
    return bounds


def _batch(pairs: Sequence[tuple[int, int]], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    table = np.array(pairs, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1], length
