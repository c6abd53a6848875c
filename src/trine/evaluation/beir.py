"""Evaluation sets on disk: the BEIR folder layout, and runs and qrels in TREC's.

    corpus.jsonl         {"_id": "d1", "title": "...", "text": "...", ...}
    queries.jsonl        {"_id": "q1", "text": "..."}
    qrels/test.tsv       query-id <tab> corpus-id <tab> score, with a header; or qrels.tsv, with or without one

Every file may be compressed (.gz, .xz).

Source: Thakur et al., BEIR, NeurIPS 2021; the TREC columns as trec_eval reads them.
"""

from __future__ import annotations

import gzip
import lzma
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trine.errors import DataError
from trine.evaluation.files import replacing
from trine.evaluation.metrics import ranked
from trine.types import Document, Qrels, Query, Run

_PACKINGS = ("", ".gz", ".xz")
_ARCHIVES = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2", ".zip")
_GRADE_HEADERS = frozenset({"score", "relevance", "rel", "grade", "label"})


@dataclass(frozen=True, slots=True)
class Dataset:
    """Documents, queries and judgements, as they lie in the folder."""

    name: str
    """The folder's own name."""
    corpus: list[Document]
    queries: list[Query]
    """All queries of the file, judged or not."""
    qrels: Qrels
    """All judgements of the split, those of unknown queries and documents included."""
    split: str = "test"

    @property
    def judged(self) -> list[Query]:
        """The queries that have judgements, in the order of the file."""
        return [query for query in self.queries if query.id in self.qrels]

    @property
    def missing_queries(self) -> list[str]:
        """Judged query ids that the queries lack; they score 0 in every mean, as in trec_eval."""
        known = {query.id for query in self.queries}
        return [query for query in self.qrels if query not in known]

    @property
    def missing_documents(self) -> list[str]:
        """Judged document ids that the corpus lacks, sorted; nothing can find them, yet they count as relevant."""
        known = {document.id for document in self.corpus}
        return sorted({document for judged in self.qrels.values() for document in judged} - known)


def read_beir(
    folder: str | os.PathLike[str], *, split: str = "test", corpus: bool = True, judged: bool = True
) -> Dataset:
    """Read an evaluation set; with `corpus` False without its documents, with `judged` False without its judgements.

    The judgements are looked for in ``qrels/{split}.tsv``; the split "test" may also lie in ``qrels.tsv``. They have
    three columns, with a header or without, or the four of TREC (query, iteration, document, grade). Fields of a
    document beside ``_id``, ``title`` and ``text``, also those inside an object called ``metadata``, become its
    metadata where they hold a single value.

    Raises:
        DataError: a file is missing (the message says what was looked for) or breaks its format (file and line).
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(_no_folder(root))
    documents = [_document(row, where) for where, row in _unique_rows(_find(root, "corpus.jsonl"))] if corpus else []
    queries = [Query(_id(row, where), _text(row, where)) for where, row in _unique_rows(_find(root, "queries.jsonl"))]
    qrels = read_qrels(_find_qrels(root, split)) if judged else {}
    return Dataset(root.resolve().name, documents, queries, qrels, split)


def read_qrels(path: str | os.PathLike[str]) -> Qrels:
    """Read judgements of three columns (BEIR, with or without a header) or four (TREC).

    Columns are split at tabs where the first line has one, else at any white space.

    Raises:
        DataError: a line has another number of columns, a grade is not a whole number, or a pair is judged twice with
            unequal grades.
    """
    qrels: Qrels = {}
    separator, width = None, 0
    for number, line in _lines(Path(path)):
        where = f"{path}:{number}"
        if not width:
            separator = "\t" if "\t" in line else None
        fields = [field.strip() for field in line.split(separator)]
        if not width:
            width = len(fields)
            if width not in (3, 4):
                raise DataError(f"{where}: {width} columns; qrels have 3 (query, document, grade) or TREC's 4")
            if _is_header(fields, where):
                continue
        if len(fields) != width or not all(fields):
            raise DataError(f"{where}: {_count(fields)} columns filled; the lines before have {width}")
        query, document, grade = fields[0], fields[-2], _grade(fields[-1], where)
        if qrels.setdefault(query, {}).setdefault(document, grade) != grade:
            raise DataError(
                f"{where}: query {query!r}, document {document!r} has grade {grade} here "
                f"and {qrels[query][document]} before; keep one of the lines"
            )
    if not qrels:
        raise DataError(f"{path}: no judgements in it")
    return qrels


def read_run(path: str | os.PathLike[str]) -> Run:
    """Read a run in TREC's six columns: query, "Q0", document, rank, score, tag; the score alone decides the order.

    Raises:
        DataError: a line has another number of columns, a score is not a finite number, or a document is there twice
            for a query.
    """
    run: Run = {}
    for number, line in _lines(Path(path)):
        where, fields = f"{path}:{number}", line.split()
        if len(fields) != 6:
            raise DataError(f"{where}: {len(fields)} columns; a TREC run has 6 (query Q0 document rank score tag)")
        query, _, document, _, score, _ = fields
        entries = run.setdefault(query, {})
        if document in entries:
            raise DataError(f"{where}: document {document!r} is there twice for query {query!r}")
        entries[document] = _number(score, where)
    return run


def write_run(path: str | os.PathLike[str], run: Run, tag: str) -> None:
    """Write a run in TREC's six columns, best first, with every digit of the scores; replaces the file as a whole.

    Raises:
        DataError: an id or the tag is empty or holds white space, which the format cannot carry.
    """
    documents = (document for entries in run.values() for document in entries)
    _refuse_white_space(path, tag, *run, *documents)
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as stream:
        for query, entries in run.items():
            for rank, document in enumerate(ranked(entries, query=query), 1):
                stream.write(f"{query} Q0 {document} {rank} {entries[document]!r} {tag}\n")


def write_qrels(path: str | os.PathLike[str], qrels: Qrels) -> None:
    """Write judgements in TREC's four columns; replaces the file as a whole.

    Raises:
        DataError: an id is empty or holds white space, which the format cannot carry.
    """
    _refuse_white_space(path, *qrels, *(document for judged in qrels.values() for document in judged))
    with replacing(path) as scratch, scratch.open("w", encoding="utf-8", newline="\n") as stream:
        for query, judged in qrels.items():
            for document, grade in judged.items():
                stream.write(f"{query} 0 {document} {grade}\n")


def _refuse_white_space(path: str | os.PathLike[str], *names: str) -> None:
    for name in names:
        if not name or name.split() != [name]:
            raise DataError(
                f"{name!r} cannot be written to {path}: TREC's files separate columns by white space, "
                "so ids and the tag hold none and are not empty; rename it"
            )


def _no_folder(root: Path) -> str:
    if root.is_file() and root.name.lower().endswith(_ARCHIVES):
        return f"{root} is an archive: unpack it and give the folder that holds corpus.jsonl"
    state = "is a file" if root.exists() else "does not exist"
    return f"{root} {state}; an evaluation set is a folder with corpus.jsonl, queries.jsonl and qrels"


def _find(root: Path, name: str) -> Path:
    for packing in _PACKINGS:
        if (path := root / f"{name}{packing}").is_file():
            return path
    held = ", ".join(sorted(child.name for child in root.iterdir())[:10]) or "nothing"
    raise DataError(f"{root} has no {name} (nor {name}.gz, {name}.xz); it holds {held}")


def _find_qrels(root: Path, split: str) -> Path:
    names = [f"qrels/{split}.tsv", *(["qrels.tsv"] if split == "test" else [])]
    for name in names:
        for packing in _PACKINGS:
            if (path := root / f"{name}{packing}").is_file():
                return path
    splits = sorted({child.name.split(".")[0] for child in root.glob("qrels/*.tsv*")})
    if splits:
        hint = f"splits there: {', '.join(splits)}"
    elif (root / "qrels.tsv").exists():
        hint = "qrels.tsv is there, and holds the split 'test'"
    else:
        hint = "no qrels are there"
    raise DataError(f"{root}: no judgements of split {split!r}; looked for {', '.join(names)} (also .gz, .xz); {hint}")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and the lines that are not blank, decoded, without their ends."""
    opener: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    number = 0
    try:
        with opener(path, "rb") as stream:
            for number, raw in enumerate(stream, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:{number}: not UTF-8: {error}") from error
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read after line {number}: {error}") from error


def _unique_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place ("file:line") and content of each JSON object; an ``_id`` that came before is an error."""
    decode = msgspec.json.Decoder().decode
    seen: dict[str, int] = {}
    for number, line in _lines(path):
        where = f"{path}:{number}"
        try:
            row = decode(line)
        except (msgspec.DecodeError, RecursionError) as error:
            raise DataError(f"{where}: not a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{where}: a JSON object is needed, this is a {type(row).__name__}")
        before = seen.setdefault(_id(row, where), number)
        if before != number:
            raise DataError(f"{where}: _id {row['_id']!r} is already that of line {before}")
        yield where, row
    if not seen:
        raise DataError(f"{path}: no rows in it")


def _id(row: Mapping[str, Any], where: str) -> str:
    value = row.get("_id")
    if value is None:
        raise DataError(f"{where}: no _id; the keys are {', '.join(map(repr, row)) or 'none'}")
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{where}: _id is {value!r}; it must be a text that is not empty, or a whole number")
    return str(value)


def _text(row: Mapping[str, Any], where: str, key: str = "text") -> str:
    value = row.get(key)
    if not isinstance(value, str):
        has = f"it is {value!r}" if key in row else f"the keys are {', '.join(map(repr, row))}"
        raise DataError(f"{where}: {key} must be a text; {has}")
    return value


def _document(row: Mapping[str, Any], where: str) -> Document:
    extra = {**row, **inner} if isinstance(inner := row.get("metadata"), dict) else row
    metadata = {
        key: value
        for key, value in extra.items()
        if key not in ("_id", "title", "text", "metadata") and isinstance(value, str | int | float | bool | None)
    }
    title = _text(row, where, "title") if row.get("title") is not None else ""
    return Document(_id(row, where), _text(row, where), title, metadata)


def _is_header(fields: list[str], where: str) -> bool:
    if fields[-1].lower() not in _GRADE_HEADERS:
        return False
    if not fields[0].lower().startswith("q"):
        raise DataError(f"{where}: header {' '.join(fields)}; the first column must be the query's id")
    return True


def _count(fields: list[str]) -> int:
    return sum(map(bool, fields))


def _grade(field: str, where: str) -> int:
    value = _number(field, where)
    if not value.is_integer():
        raise DataError(f"{where}: grade {field!r} is not a whole number")
    return int(value)


def _number(field: str, where: str) -> float:
    try:
        value = float(field)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{where}: {field!r} is not a finite number; columns end in a grade or score")
    return value
