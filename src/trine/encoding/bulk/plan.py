"""Rows -> shards: which texts go into which file. A pure function of the rows and the limits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from trine.encoding.bulk.reading import FORMATS, BadRow, InputFile, Row, read_file
from trine.errors import UsageError
from trine.tables import unknown
from trine.types import Kind, Mode

PRECISIONS = ("float32", "float16")
SHARD_FORMATS = ("safetensors", "parquet")

REASONS = 100
"""Lines left out whose reasons are kept; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a shard ends: what a worker holds in memory at a time, and what a kill can cost."""

    texts: int
    characters: int

    @staticmethod
    def of(modes: Sequence[Mode], *, texts: int | None) -> Limits:
        """The limits for these representations.

        4096 texts are what the engine sorts together. A text's token vectors take some hundred times the room of its
        dense vector: 2^18 characters are up to 200,000 tokens, 0.8 GiB of float32 at 1024 dimensions.
        """
        wide = "multi_vector" in modes
        return Limits(texts or (1024 if wide else 4096), 1 << (18 if wide else 23))


@dataclass(frozen=True, slots=True)
class Settings:
    """What a bulk job is to do, beside its input and its model."""

    kind: Kind = "passage"
    modes: tuple[Mode, ...] | None = None
    """None: all that the model gives."""
    instruction: str | None = None
    precision: str = "float32"
    """Of dense and multi-vectors, one of `PRECISIONS`; sparse weights stay float32."""
    shard_format: str = "safetensors"
    """One of `SHARD_FORMATS`."""
    shard_texts: int | None = None
    """Most texts of a shard; None: 4096, or 1024 with multi-vectors."""
    form: str = "auto"
    """How lines are read, one of `FORMATS`."""
    skip_errors: bool = False
    """Leave out and count lines that give no text, in place of an error."""

    def __post_init__(self) -> None:
        """Refuse what no job can do."""
        for value, known, what in (
            (self.precision, PRECISIONS, "precision"),
            (self.shard_format, SHARD_FORMATS, "shard format"),
            (self.form, FORMATS, "input format"),
        ):
            if value not in known:
                raise unknown(value, known, kind=what)
        if self.shard_texts is not None and self.shard_texts < 1:
            raise UsageError(f"shard_texts must be at least 1, got {self.shard_texts}")


@dataclass(frozen=True, slots=True)
class Shard:
    """The rows of one file to be."""

    number: int
    ids: tuple[str | int, ...]
    texts: tuple[str, ...]
    first: str
    """Place of its first row."""
    last: str

    @property
    def characters(self) -> int:
        """The work there is in it, for what time is left."""
        return sum(map(len, self.texts))

    @property
    def digest(self) -> bytes:
        """Changes with any id or text."""
        digest = hashlib.sha256()
        for key, text in zip(self.ids, self.texts, strict=True):
            digest.update(_row_bytes(key, text))
        return digest.digest()


def cut(rows: Iterable[Row], limits: Limits) -> Iterator[Shard]:
    """Shards of as many rows in order as fit, at least one; holds one shard's rows."""
    part: list[Row] = []
    number = held = 0
    for row in rows:
        if part and (len(part) >= limits.texts or held + len(row.text) > limits.characters):
            yield _shard(number, part)
            part, number, held = [], number + 1, 0
        part.append(row)
        held += len(row.text)
    if part:
        yield _shard(number, part)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What an input file holds."""

    name: str
    texts: int
    sha256: str
    """Of its ids and texts: the same for a file and for the packed file."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What reading the whole input once tells."""

    files: tuple[FileFacts, ...]
    digests: tuple[bytes, ...]
    """Of each shard: 32 bytes for some thousand texts."""
    texts: int
    characters: int
    integer_ids: bool
    """Whether every id is a whole number of at most 64 bits."""
    skipped: int
    reasons: tuple[str, ...]
    """Of the first `REASONS` lines left out."""


@dataclass(frozen=True, slots=True)
class Input:
    """Rows that can be read again and again."""

    files: tuple[InputFile, ...]
    form: str
    skip_errors: bool

    def rows(self, skipped: Callable[[BadRow], None] = lambda row: None) -> Iterator[Row]:
        """All rows in order.

        Raises:
            DataError: a line that gives no text, by file and line, unless such are skipped.
        """
        for file in self.files:
            for row in read_file(file, form=self.form):
                if isinstance(row, Row):
                    yield row
                elif self.skip_errors:
                    skipped(row)
                else:
                    raise row.error()


def survey(source: Input, limits: Limits, *, progress: Callable[[int], None] = lambda texts: None) -> Survey:
    """Read everything once: an unusable line is found before any work, and the input has a fingerprint.

    Args:
        source: the input.
        limits: of a shard.
        progress: called after each shard with the texts read so far.
    """
    counts = _Counts([file.name for file in source.files])
    digests = []
    characters = 0
    for shard in cut(counts.counted(source.rows(counts.skip)), limits):
        digests.append(shard.digest)
        characters += shard.characters
        progress(counts.total)
    return Survey(
        files=counts.files(),
        digests=tuple(digests),
        texts=counts.total,
        characters=characters,
        integer_ids=counts.integer_ids,
        skipped=counts.skipped,
        reasons=tuple(counts.reasons),
    )


@dataclass(slots=True)
class _Counts:
    names: list[str]
    total: int = 0
    integer_ids: bool = True
    skipped: int = 0
    reasons: list[str] = field(default_factory=list)
    texts: dict[str, int] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)

    def counted(self, rows: Iterable[Row]) -> Iterator[Row]:
        name, digest = "", hashlib.sha256()
        for row in rows:
            if row.file.name != name:
                self.hashes[name] = digest.hexdigest()
                name, digest = row.file.name, hashlib.sha256()
            digest.update(_row_bytes(row.id, row.text))
            self.texts[name] = self.texts.get(name, 0) + 1
            self.total += 1
            self.integer_ids &= isinstance(row.id, int) and -(1 << 63) <= row.id < 1 << 63
            yield row
        self.hashes[name] = digest.hexdigest()

    def skip(self, row: BadRow) -> None:
        self.skipped += 1
        if len(self.reasons) < REASONS:
            self.reasons.append(f"{row.file.name}:{row.line}: {row.reason}")

    def files(self) -> tuple[FileFacts, ...]:
        empty = hashlib.sha256().hexdigest()
        return tuple(FileFacts(name, self.texts.get(name, 0), self.hashes.get(name, empty)) for name in self.names)


def _shard(number: int, rows: Sequence[Row]) -> Shard:
    return Shard(number, tuple(r.id for r in rows), tuple(r.text for r in rows), rows[0].place, rows[-1].place)


def _row_bytes(key: str | int, text: str) -> bytes:
    """A row as bytes that no other row has."""
    name, content = repr(key).encode("utf-8", "backslashreplace"), text.encode("utf-8", "surrogatepass")
    return len(name).to_bytes(8, "little") + name + len(content).to_bytes(8, "little") + content
