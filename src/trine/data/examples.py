"""Training files: any example by its number, lengths and keys of all, and the file and line behind each.

One pass over the file checks every record and remembers where it lies; the text stays on disk.

Shapes: N examples.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from trine.data.example_formats import FORMATS, Asked, Format, detect, example_record
from trine.data.records import Content, Layout, Slot, layout_of, unpacked
from trine.data.sources import Skipped, skipped
from trine.errors import DataError, UsageError
from trine.tables import resolve, unknown
from trine.types import Example

OnError = Literal["raise", "skip"]
_REPORTED = 100
"""Skipped lines that are kept one by one; the rest are counted by reason."""


def text_key(text: str) -> int:
    """A 64-bit hash of a text that is the same on every machine and in every run."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


@dataclass(frozen=True, slots=True)
class Facts:
    """What is remembered of N examples."""

    lengths: NDArray[np.int64]
    """(N, 2) code points of the query, and of the longest passage."""
    keys: NDArray[np.int64]
    """(N, 2) `text_key` of the query, and of the first positive."""
    negatives: NDArray[np.int64]
    """(N,) hard negatives of each."""
    scored: NDArray[np.bool_]
    """(N,) whether a teacher scored every passage of it."""


class Source(Protocol):
    """Examples by number; what samplers and batches read from."""

    name: str
    fingerprint: str
    """Changes whenever an example does."""
    facts: Facts

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...

    def __iter__(self) -> Iterator[Example]: ...

    def where(self, number: int) -> str:
        """The place of an example, for messages."""
        ...


class ExampleList:
    """Examples in memory."""

    def __init__(self, examples: Sequence[Example], *, name: str) -> None:
        if not examples:
            raise DataError(f"{name}: no examples in it")
        self.name = name
        self._examples = list(examples)
        table, digest = _Table(), hashlib.sha256()
        for example in self._examples:
            table.add(example)
            digest.update(msgspec.json.encode(example_record(example)))
        self.facts = table.facts()
        self.fingerprint = digest.hexdigest()[:32]

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, number: int) -> Example:
        return self._examples[_checked(number, len(self))]

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    def where(self, number: int) -> str:
        """Its number."""
        return f"{self.name}[{number}]"


class ExampleFile:
    """The examples of a file or a BEIR folder; `open_examples` makes one.

    Reading is safe from several threads. The file must not be changed meanwhile.
    """

    def __init__(self, path: Path, *, format: str | None, asked: Asked, name: str, on_error: OnError) -> None:
        self.path, format = _main_file(path, format)
        self.name = name
        self._reader = _Reader(self.path, asked, format)
        self._index(on_error)

    @property
    def format(self) -> str:
        """A name in `FORMATS`."""
        return self._reader.name

    def _index(self, on_error: OnError) -> None:
        starts, sizes, lines = array("q"), array("q"), array("q")
        table, digest = _Table(), hashlib.sha256()
        report: list[Skipped] = []
        reasons: Counter[str] = Counter()
        for slot, outcome in self._reader.outcomes():
            digest.update(slot.raw)
            if isinstance(outcome, DataError):
                if on_error == "raise":
                    raise DataError(f"{self.path}:{slot.line}: {outcome}") from outcome
                reasons[str(outcome)[:200]] += 1
                if len(report) < _REPORTED:
                    report.append(skipped(self.path, outcome, line=slot.line))
            elif outcome is not None:
                starts.append(slot.start)
                sizes.append(len(slot.raw))
                lines.append(slot.line)
                table.add(outcome)
        if not lines:
            first = f"; line {report[0].line}: {report[0].reason}" if report else ""
            raise DataError(f"{self.path}: no example that can be used{first}")
        self._starts, self._sizes, self._lines = (np.asarray(column, np.int64) for column in (starts, sizes, lines))
        self.facts = table.facts()
        digest.update(f"{self.format}{self._reader.parse.fingerprint}".encode())
        self.fingerprint = digest.hexdigest()[:32]
        self.skipped: tuple[Skipped, ...] = tuple(report)
        """The first lines that were left out, with the reasons."""
        self.skipped_reasons: dict[str, int] = dict(reasons.most_common())
        """Every reason, and how many lines it took."""

    @property
    def skipped_count(self) -> int:
        """Lines that were left out."""
        return sum(self.skipped_reasons.values())

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> Example:
        number = _checked(number, len(self))
        raw = self._reader.content.read(int(self._starts[number]), int(self._sizes[number]))
        try:
            found = self._reader.parse(self._reader.layout.record(raw))
        except DataError as error:
            raise DataError(f"{self.where(number)}: {error}; it was whole when it was opened") from error
        if found is None:
            raise DataError(f"{self.where(number)}: no longer an example; the file changed since it was opened")
        return found

    def __iter__(self) -> Iterator[Example]:
        return (self[number] for number in range(len(self)))

    def where(self, number: int) -> str:
        """File and line."""
        return f"{self.path}:{self._lines[number]}"


def open_examples(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] = (),
    split: str = "train",
    name: str | None = None,
    on_error: OnError = "raise",
) -> ExampleFile:
    """Open a file of training examples, or a BEIR folder; every record is read once and checked.

    Args:
        path: JSON lines, CSV, TSV, Parquet (package extra "parquet") or plain text, maybe packed (.gz, .xz); or a
            folder in BEIR's layout.
        format: a name in `FORMATS`; None lets the first record's columns decide.
        columns: of format "columns", those to take, in order: anchor, positive, negatives, scores.
        split: of format "beir", the judgements to take.
        name: of the source in samplers and logs; None takes the file's.
        on_error: "raise" ends at the first bad record, "skip" leaves it out and reports it.

    Raises:
        DataError: a record breaks the format (file and line), or nothing is left.
        UnknownName: no such format.
        UsageError: an option that has no effect on the format.
    """
    place, asked = _asked(path, format, columns, split)
    if on_error not in ("raise", "skip"):
        raise unknown(on_error, ("raise", "skip"), kind="way to treat a bad record")
    return ExampleFile(place, format=format, asked=asked, name=name or _plain_name(place), on_error=on_error)


def read_examples(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    columns: Sequence[str] = (),
    split: str = "train",
    on_skip: Callable[[Skipped], None] | None = None,
) -> Iterator[Example]:
    """Stream the examples of a file once, in order, without remembering anything of them.

    Args:
        path: as in `open_examples`.
        format: as there.
        columns: as there.
        split: as there.
        on_skip: called with each record that cannot be used; None raises instead.

    Raises:
        DataError: a record breaks the format (file and line).
    """
    place, asked = _asked(path, format, columns, split)
    main, format = _main_file(place, format)
    reader = _Reader(main, asked, format)
    for slot, outcome in reader.outcomes():
        if isinstance(outcome, DataError):
            if on_skip is None:
                raise DataError(f"{main}:{slot.line}: {outcome}") from outcome
            on_skip(skipped(main, outcome, line=slot.line))
        elif outcome is not None:
            yield outcome


class _Reader:
    """Records of one file to examples; the format is settled by the first record that can be read."""

    def __init__(self, path: Path, asked: Asked, format: str | None) -> None:
        self.path, self._asked = path, asked
        self.content: Content = unpacked(path)
        self.layout: Layout = layout_of(path, self.content)
        self.name = format or ""
        if format:
            self._settle(format)

    def _settle(self, name: str) -> None:
        self.name = name
        if name != "columns" and self._asked.columns:
            raise UsageError(f"columns= has no effect on format {name!r}; it orders those of format 'columns'")
        factory: Callable[[Asked], Format] = resolve(FORMATS, name, kind="format of examples")
        self.parse = factory(self._asked)

    def outcomes(self) -> Iterator[tuple[Slot, Example | DataError | None]]:
        """Each record with its example, or with what is wrong with it; None where it is none."""
        with self.content.stream() as stream:
            for slot in self.layout.slots(stream):
                try:
                    record = self.layout.record(slot.raw)
                    if not self.name:
                        self._settle("columns" if self._asked.columns else detect(record))
                    outcome: Example | DataError | None = self.parse(record)
                except DataError as error:
                    outcome = error
                yield slot, outcome


class _Table:
    """Facts of examples, as they come."""

    def __init__(self) -> None:
        self._numbers, self._scored = array("q"), array("b")

    def add(self, example: Example) -> None:
        passages = (*example.positives, *example.negatives)
        self._numbers.extend(
            (
                len(example.query),
                max(map(len, passages)),
                text_key(example.query),
                text_key(example.positives[0]),
                len(example.negatives),
            )
        )
        scores = len(example.positive_scores) + len(example.negative_scores)
        self._scored.append(scores == len(passages))

    def facts(self) -> Facts:
        numbers = np.asarray(self._numbers, np.int64).reshape(-1, 5)
        scored = np.asarray(self._scored, np.bool_)
        return Facts(numbers[:, :2].copy(), numbers[:, 2:4].copy(), numbers[:, 4].copy(), scored)


def _asked(path: str | os.PathLike[str], format: str | None, columns: Sequence[str], split: str) -> tuple[Path, Asked]:
    place = Path(path)
    if isinstance(columns, str):
        raise UsageError(f"columns must be a list of names; for one write [{columns!r}]")
    if not place.exists():
        raise DataError(f"{place} does not exist")
    if format is not None and format not in FORMATS:
        raise unknown(format, FORMATS, kind="format of examples")
    if format is not None and place.is_dir() != (format == "beir"):
        raise UsageError(f"format {format!r} and {place} do not fit: 'beir' is a folder, every other format a file")
    if split != "train" and not place.is_dir():
        raise UsageError(f"split={split!r} has no effect on a file; it chooses the judgements of a BEIR folder")
    return place, Asked(place, tuple(columns), split)


def _main_file(path: Path, format: str | None) -> tuple[Path, str | None]:
    """The file that the examples are counted by, and its format where that is settled."""
    if not path.is_dir():
        return path, format
    names = ("queries.jsonl", "queries.jsonl.gz", "queries.jsonl.xz")
    for name in names:
        if (path / name).is_file():
            return path / name, "beir"
    held = ", ".join(sorted(child.name for child in path.iterdir())[:10]) or "nothing"
    raise DataError(f"{path} is no BEIR folder: it has none of {', '.join(names)}; it holds {held}")


def _plain_name(path: Path) -> str:
    name = path.resolve().name
    while (shorter := Path(name)).suffix in (".gz", ".xz", ".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".txt"):
        name = shorter.stem
    return name.removesuffix(".parquet")


def _checked(number: Any, count: int) -> int:
    index = int(number)
    if not -count <= index < count:
        raise IndexError(f"example {index} of {count}")
    return index % count
