"""A BEIR folder as training examples: judged queries with their documents.

    corpus.jsonl         {"_id": "d1", "title": "...", "text": "..."}
    queries.jsonl        {"_id": "q1", "text": "..."}
    qrels/train.tsv      query-id <tab> corpus-id <tab> grade, with a header or without; or qrels.tsv

Every file may be packed (.gz, .xz). Documents stay on disk; their places are remembered.

Source: Thakur et al., BEIR, NeurIPS 2021.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trine.data.example_formats import Asked, text_of, titled_text
from trine.data.records import Content, JsonLines, Record, Slot, decoded, unpacked
from trine.errors import DataError
from trine.types import Example

_GRADES = frozenset({"score", "relevance", "rel", "grade", "label"})


class Beir:
    """Queries with the documents judged relevant (grade above 0); those judged 0 or less are hard negatives.

    Raises:
        DataError: corpus or judgements are missing or break their format (file and line).
    """

    def __init__(self, asked: Asked) -> None:
        digest = hashlib.sha256()
        self._grades = _judgements(_found(asked.path, _qrels_names(asked.split)), digest)
        self._corpus = _found(asked.path, ("corpus.jsonl",))
        self._content: Content = unpacked(self._corpus)
        self._layout = JsonLines()
        self._places = self._index(digest)
        self.fingerprint = digest.hexdigest()

    def __call__(self, record: Record) -> Example | None:
        """The example of a query; None for a query without a relevant document."""
        if isinstance(record, str):
            raise DataError(f"a JSON object is needed, this is plain text: {record!r:.40}")
        judged = self._grades.get(_id(record), {})
        positives = [name for name, grade in judged.items() if grade > 0]
        if not positives:
            return None
        negatives = [name for name, grade in judged.items() if grade <= 0]
        return Example(
            query=text_of(record, "text"),
            positives=tuple(map(self._document, positives)),
            negatives=tuple(map(self._document, negatives)),
        )

    def _index(self, digest: Any) -> dict[str, tuple[int, int, int]]:
        """Line and bytes of each judged document: the others are never read again."""
        wanted = {name for judged in self._grades.values() for name in judged}
        places: dict[str, tuple[int, int, int]] = {}
        with self._content.stream() as stream:
            for slot in self._layout.slots(stream):
                digest.update(slot.raw)
                name = _id(self._record(slot))
                if name in places:
                    raise DataError(
                        f"{self._corpus}:{slot.line}: _id {name!r} is already that of line {places[name][0]}"
                    )
                if name in wanted:
                    places[name] = (slot.line, slot.start, len(slot.raw))
        return places

    def _record(self, slot: Slot) -> dict[str, Any]:
        try:
            record = self._layout.record(slot.raw)
            assert isinstance(record, dict)
            _id(record)
        except DataError as error:
            raise DataError(f"{self._corpus}:{slot.line}: {error}") from error
        return record

    def _document(self, name: str) -> str:
        if name not in self._places:
            raise DataError(f"judged document {name!r} is not in {self._corpus}")
        line, start, size = self._places[name]
        record = self._record(Slot(line, start, self._content.read(start, size)))
        try:
            return titled_text(record)
        except DataError as error:
            raise DataError(f"{self._corpus}:{line}: {error}") from error


def _qrels_names(split: str) -> tuple[str, ...]:
    return (f"qrels/{split}.tsv", *(("qrels.tsv",) if split in ("train", "test") else ()))


def _found(root: Path, names: tuple[str, ...]) -> Path:
    for name in names:
        for packing in ("", ".gz", ".xz"):
            if (path := root / f"{name}{packing}").is_file():
                return path
    splits = sorted({child.name.split(".")[0] for child in root.glob("qrels/*.tsv*")})
    hint = f"; splits there: {', '.join(splits)}" if splits else ""
    raise DataError(f"{root} has no {' nor '.join(names)} (also .gz, .xz){hint}")


def _judgements(path: Path, digest: Any) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, line in _lines(path, digest):
        fields = [field.strip() for field in line.split("\t" if "\t" in line else None)]
        if number == 1 and fields[-1].lower() in _GRADES:
            continue
        if len(fields) not in (3, 4) or not all(fields):
            raise DataError(f"{path}:{number}: {len(fields)} columns; judgements have 3 (query, document, grade) or 4")
        try:
            grade = int(fields[-1])
        except ValueError as error:
            raise DataError(f"{path}:{number}: grade {fields[-1]!r} is not a whole number") from error
        if grades.setdefault(fields[0], {}).setdefault(fields[-2], grade) != grade:
            raise DataError(f"{path}:{number}: query {fields[0]!r}, document {fields[-2]!r} has another grade before")
    if not grades:
        raise DataError(f"{path}: no judgements in it")
    return grades


def _lines(path: Path, digest: Any) -> Iterator[tuple[int, str]]:
    with unpacked(path).stream() as stream:
        for number, raw in enumerate(stream, 1):
            digest.update(raw)
            try:
                line = decoded(raw)
            except DataError as error:
                raise DataError(f"{path}:{number}: {error}") from error
            if line.strip():
                yield number, line


def _id(record: dict[str, Any]) -> str:
    value = record.get("_id")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"_id is {value!r}; it must be a text that is not empty, or a whole number")
    return str(value)
