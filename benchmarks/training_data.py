"""Pairs of real text for the training benchmarks, and processes that train on them a step at a time.

The texts are the demo's Markdown, both languages. "mixed" pairs begin at consecutive paragraphs and run on for a
log-normal number of tokens; "paragraphs" are consecutive paragraphs as they stand.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import DOCUMENTS

HERE = Path(__file__).parent
LONGEST = 256


@dataclass(frozen=True)
class Lengths:
    """Tokens of a text: log-normal, cut at both ends."""

    median: float
    spread: float = 0.9
    least: int = 8
    most: int = LONGEST

    def draw(self, rng: np.random.Generator, count: int) -> list[int]:
        found = np.exp(rng.normal(np.log(self.median), self.spread, count))
        return np.clip(found, self.least, self.most).astype(int).tolist()


MIXED = Lengths(40)


class Corpus:
    """The demo's running text, cut at the borders of tokens; `tokenizer` is a fast one of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self.paragraphs: list[str] = []
        self.spans: list[Sequence[tuple[int, int]]] = []
        self.text = ""
        self.begins: list[int] = []
        for path in sorted(DOCUMENTS.rglob("*.md")):
            for part in path.read_text(encoding="utf-8").split("\n\n"):
                if len(part.strip()) >= 20:
                    self.begins.append(len(self.text))
                    self.paragraphs.append(part.strip())
                    self.text += part.strip() + "\n\n"
        encoded = tokenizer(self.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        starts_and_ends = np.asarray(encoded["offset_mapping"])
        self.starts, self.ends = starts_and_ends[:, 0], starts_and_ends[:, 1]

    def piece(self, paragraph: int, tokens: int) -> str:
        """So many tokens, two special ones included, from the beginning of a paragraph on."""
        first = int(np.searchsorted(self.starts, self.begins[paragraph]))
        last = min(first + max(tokens - 2, 1), len(self.ends)) - 1
        return self.text[self.starts[first] : self.ends[last]]

    def pairs(self, count: int, *, query: Lengths, passage: Lengths, group_size: int = 1, seed: int = 0) -> list[dict]:
        """Queries with the text that follows, and G - 1 pieces from anywhere as negatives."""
        rng = np.random.default_rng(seed)
        rows = []
        for number in rng.permutation(max(count, len(self.paragraphs)))[:count] % (len(self.paragraphs) - 8):
            size = query.draw(rng, 1)[0]
            others = rng.integers(len(self.paragraphs) - 8, size=group_size - 1)
            own, *lengths = passage.draw(rng, group_size)
            rows.append(
                {
                    "query": self.piece(number, size),
                    "pos": [self.piece(number + 1, own)],
                    "neg": [self.piece(row, length) for row, length in zip(others, lengths, strict=True)],
                }
            )
        return rows

    def as_they_stand(self, count: int, *, seed: int = 0) -> list[dict]:
        """Consecutive paragraphs."""
        order = np.random.default_rng(seed).permutation(len(self.paragraphs) - 1)[:count]
        return [{"query": self.paragraphs[n], "pos": [self.paragraphs[n + 1]], "neg": []} for n in order]


def write(path: Path, rows: Sequence[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Job:
    """What one process trains; `side` is a class of the worker's file."""

    side: str
    data: str
    model: str
    batch_size: int
    cached: bool = False
    precision: str = "float32"
    bucketed: bool = False
    chunk_tokens: int | None = 1024
    group_size: int = 1
    modes: tuple[str, ...] = ("dense",)
    dropout: float | None = None
    threads: int = 1
    seed: int = 0


class Process:
    """A worker that takes a step whenever it is told to."""

    def __init__(self, job: Job, *, worker: str = "training_sides.py", python: str = "python") -> None:
        self.job = job
        environment = os.environ | {
            "OMP_NUM_THREADS": str(job.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
        }
        self._process = subprocess.Popen(
            [python, str(HERE / worker), json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        self.ready = self._answer()

    def step(self) -> dict[str, float]:
        """One step of the optimizer: tokens without padding, CPU seconds, seconds, loss."""
        return self._ask("step")

    def memory(self) -> dict[str, float]:
        """MiB: resident once the model was loaded, and at the peak."""
        return self._ask("memory")

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, word: str) -> dict[str, float]:
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        line = self._process.stdout.readline()
        if not line.startswith("{"):
            raise RuntimeError(f"the process of {self.job} ended")
        return json.loads(line)
