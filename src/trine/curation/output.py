"""Training examples and reports to disk: whole files or none."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np

from trine.errors import UsageError
from trine.types import Example


def write_examples(
    examples: Iterable[Example], path: str | os.PathLike[str], *, report: Mapping[str, Any] | None = None
) -> int:
    """Write examples as JSON lines in FlagEmbedding's convention; the number written.

    Keys: ``query``, ``pos``, ``neg``, and where there are values ``pos_scores``, ``neg_scores``, ``query_prompt``,
    ``passage_prompt`` and ``lang``. The file takes its place when it is complete.

    Args:
        examples: any number, one held at a time.
        path: the file.
        report: what made the examples: the summaries of the steps, seeds, fingerprints. Written to
            ``report_path(path)`` with the count and this package's version.

    Raises:
        UsageError: an example without a positive, or with scores that are not one per text.
        OSError: the disk is full or the place cannot be written; an earlier file stays as it was.
    """
    target = Path(path)
    count = 0
    with _replacing(target) as file:
        for number, example in enumerate(examples):
            file.write(_line(_record(example, number)))
            count += 1
    if report is not None:
        write_json(report_path(target), {"trine": version("trine"), "file": target.name, "examples": count, **report})
    return count


def report_path(path: str | os.PathLike[str]) -> Path:
    """Where the report of an examples file lies: beside it, with ``.report.json`` behind its name."""
    target = Path(path)
    return target.with_name(f"{target.name}.report.json")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write one JSON document; dataclasses, numpy values, sets and tuples are written as what they hold.

    Raises:
        UsageError: a number that JSON cannot hold (NaN, infinity), or a value of another type.
    """
    text = json.dumps(plain(value), ensure_ascii=False, indent=2) + "\n"
    with _replacing(Path(path)) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def plain(value: Any) -> Any:
    """`value` in the types that JSON has."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"a report cannot hold {value}: JSON has no such number; use None")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise UsageError(f"a report cannot hold a {type(value).__name__}; give numbers, text, lists and mappings")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the file system that name no file, such as a full disk, name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


@contextmanager
def _replacing(target: Path) -> Iterator[IO[bytes]]:
    """A scratch file beside `target` that takes its place when the block ends, and is removed when the block fails."""
    scratch = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        with naming(target):
            with scratch.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)


def _record(example: Example, number: int) -> dict[str, Any]:
    if not example.positives:
        raise UsageError(f"example {number} ({example.query[:60]!r}) has no positive; every example needs one")
    for side in ("positive", "negative"):
        texts, scores = getattr(example, f"{side}s"), getattr(example, f"{side}_scores")
        if scores and len(scores) != len(texts):
            raise UsageError(
                f"example {number} ({example.query[:60]!r}) has {len(texts)} {side}s and {len(scores)} {side}_scores; "
                "give one score each, or none"
            )
    record: dict[str, Any] = {"query": example.query, "pos": example.positives, "neg": example.negatives}
    extra = {
        "pos_scores": example.positive_scores,
        "neg_scores": example.negative_scores,
        "query_prompt": example.query_prompt,
        "passage_prompt": example.passage_prompt,
        "lang": example.lang,
    }
    return record | {key: plain(value) for key, value in extra.items() if value not in ((), None, "")}


def _line(record: dict[str, Any]) -> bytes:
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode()
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; as an escape it comes back as it was.
        return (json.dumps(record) + "\n").encode()
