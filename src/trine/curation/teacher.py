"""A teacher's scores, written into examples: what score distillation learns from.

The scores go to a file line by line and the manifest comes last, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from trine.curation.output import naming, write_json
from trine.encoding.progress import progress_bar
from trine.errors import DataError, UsageError
from trine.types import Example

Scorer: TypeAlias = Callable[[Sequence[tuple[str, str]]], ArrayLike]
"""(query, passage) pairs -> one score each; higher is more relevant."""

_PAIRS = 1024
"""Pairs per call, at least, while there are as many: enough for the scorer to sort by length; what an interruption
loses."""


@dataclass(frozen=True, slots=True)
class TeacherScores:
    """Examples with their teacher's scores."""

    examples: tuple[Example, ...]
    """All that were given, in order, every positive and negative with a score."""
    pairs: int
    """Scores in all."""
    resumed: int
    """Examples whose scores were already on disk."""
    teacher: str

    def summary(self) -> dict[str, Any]:
        """Counts, the teacher, and how often it puts a negative above the best positive, ready for JSON."""
        rivals = [example for example in self.examples if example.negatives]
        upset = sum(max(example.negative_scores) > max(example.positive_scores) for example in rivals)
        return {
            "examples": len(self.examples),
            "pairs": self.pairs,
            "resumed": self.resumed,
            "teacher": self.teacher,
            "negative_first": upset / len(rivals) if rivals else None,
        }


def teacher_scores(
    examples: Sequence[Example],
    score: Scorer,
    *,
    path: str | os.PathLike[str],
    teacher: str,
    progress: bool = False,
) -> TeacherScores:
    """Score every positive and negative of every example with a teacher.

    Args:
        examples: N examples; scores that they have are replaced.
        score: the teacher, for example a cross-encoder's scoring of pairs.
        path: JSONL file that takes the scores, one line per example; where it holds lines of an interrupted run over
            the same examples with the same teacher, the run goes on behind them. A manifest ``path + ".json"`` is
            written at the end.
        teacher: says which teacher it is, such as a model's fingerprint; runs of different ones do not mix.
        progress: show a bar.

    Raises:
        UsageError: scores that are not finite, or not one per pair.
        DataError: `path` holds something else, or the scores of other examples or of another teacher.
        OSError: the file cannot be written; what it holds so far is kept.
    """
    target = Path(path)
    header = {"trine": "teacher_scores", "teacher": teacher, "examples": _fingerprint(examples)}
    rows, end = _held(target, examples, header)
    resumed = len(rows)
    with naming(target), target.open("r+b" if end else "wb") as file:
        # A line that was cut short by a crash or a full disk is written again.
        file.seek(end)
        file.truncate()
        if not end:
            _append(file, [header])
        with progress_bar("Teacher scores", total=len(examples), shown=progress) as advance:
            advance(resumed)
            for block in _blocks(examples, resumed):
                fresh = _scored(block, score)
                _append(file, [{"scores": row} for row in fresh])
                rows.extend(fresh)
                advance(len(block))
    result = TeacherScores(
        examples=tuple(_with_scores(example, row) for example, row in zip(examples, rows, strict=True)),
        pairs=sum(map(len, rows)),
        resumed=resumed,
        teacher=teacher,
    )
    write_json(target.with_name(f"{target.name}.json"), header | {"complete": True, **result.summary()})
    return result


def _scored(block: Sequence[Example], score: Scorer) -> list[list[float]]:
    pairs = [(example.query, text) for example in block for text in (*example.positives, *example.negatives)]
    values = np.asarray(score(pairs), np.float64)
    if values.shape != (len(pairs),):
        raise UsageError(f"the teacher gave scores of shape {values.shape} for {len(pairs)} pairs; one each is needed")
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        query, passage = pairs[bad[0]]
        raise UsageError(
            f"the teacher scored {values[bad[0]]} for the query {query[:60]!r} and the passage {passage[:60]!r}; "
            "scores must be finite"
        )
    ends = np.cumsum([len(example.positives) + len(example.negatives) for example in block])
    return [row.tolist() for row in np.split(values, ends[:-1])]


def _blocks(examples: Sequence[Example], first: int) -> Iterator[Sequence[Example]]:
    start, pairs = first, 0
    for number in range(first, len(examples)):
        pairs += len(examples[number].positives) + len(examples[number].negatives)
        if pairs >= _PAIRS or number + 1 == len(examples):
            yield examples[start : number + 1]
            start, pairs = number + 1, 0


def _held(path: Path, examples: Sequence[Example], header: dict[str, str]) -> tuple[list[list[float]], int]:
    """Scores that are on disk, and where the last whole line ends."""
    rows: list[list[float]] = []
    end = 0
    if not path.exists():
        return rows, end
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                break
            record = _record(line, path, number)
            if number == 1:
                _check_header(record, header, path)
            else:
                rows.append(_checked_row(record, examples, path, number))
            end += len(line)
    if end == 0 and path.stat().st_size and not b'{"trine"'.startswith(path.read_bytes()[:8]):
        raise DataError(f"{path}, line 1: not a file of teacher scores; choose another path or remove the file")
    return rows, end


def _record(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}); remove the file to score anew") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}, line {number}: a JSON object is needed, not {type(record).__name__}")
    return record


def _check_header(record: dict[str, Any], header: dict[str, str], path: Path) -> None:
    for key, value in header.items():
        if record.get(key) != value:
            raise DataError(
                f"{path}, line 1: {key} is {record.get(key)!r}, but this run has {value!r}; "
                "choose another path or remove the file"
            )


def _checked_row(record: dict[str, Any], examples: Sequence[Example], path: Path, number: int) -> list[float]:
    place = number - 2
    values = record.get("scores")
    if place >= len(examples):
        raise DataError(f"{path}, line {number}: there are only {len(examples)} examples; remove the file")
    wanted = len(examples[place].positives) + len(examples[place].negatives)
    if not isinstance(values, list) or len(values) != wanted or not all(map(_is_score, values)):
        raise DataError(f"{path}, line {number}: {wanted} finite scores are needed; remove the file to score anew")
    return [float(value) for value in values]


def _is_score(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _with_scores(example: Example, row: Sequence[float]) -> Example:
    count = len(example.positives)
    return replace(example, positive_scores=tuple(row[:count]), negative_scores=tuple(row[count:]))


def _append(file: BinaryIO, records: Sequence[dict[str, Any]]) -> None:
    file.write("".join(json.dumps(record) + "\n" for record in records).encode())
    file.flush()
    os.fsync(file.fileno())


def _fingerprint(examples: Sequence[Example]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for example in examples:
        record = [example.query, example.positives, example.negatives]
        digest.update(json.dumps(record).encode() + b"\n")
    return digest.hexdigest()
