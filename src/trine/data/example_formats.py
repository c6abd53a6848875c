"""The shapes of training files: one class a format, from a record to an `Example`.

A format is recognised by the columns of the file's own first record, or named.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec

from trine.data.records import Record
from trine.errors import DataError
from trine.tables import Row
from trine.types import Example

FORMATS = {
    "beir": Row("trine.data.beir_examples:Beir"),
    "columns": Row("trine.data.example_formats:Columns"),
    "distillation": Row("trine.data.example_formats:Distillation"),
    "flag_embedding": Row("trine.data.example_formats:FlagEmbedding"),
    "pairs": Row("trine.data.example_formats:Pairs"),
    "text": Row("trine.data.example_formats:PlainText"),
}

_LABELS = ("label", "labels", "score", "scores")
_NEGATIVE = re.compile(r"(?:hard_)?neg(?:ative)?s?(?:_?\d+)?")
_DOCUMENT = re.compile(r"(?:document|doc|passage)_(\d+)")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a format may need beside the record."""

    path: Path
    """The file, or the folder."""
    columns: tuple[str, ...] = ()
    """Columns to take, in order (format "columns" only)."""
    split: str = "train"
    """Judgements to take (format "beir" only)."""


class Format(Protocol):
    """Turns records into examples; made anew for each file."""

    fingerprint: str
    """Of files beside the main one; "" where there are none."""

    def __init__(self, asked: Asked) -> None: ...

    def __call__(self, record: Record) -> Example | None:
        """The example of a record; None for a record that is none (a query that nobody judged).

        Raises:
            DataError: the record breaks the format; the message has no place in it.
        """
        ...


class _Columned:
    """A format with named columns: a column that is nearly one of them is taken for a slip."""

    fingerprint = ""
    known: ClassVar[tuple[str, ...]] = ()

    def __init__(self, asked: Asked) -> None:
        self._seen: set[tuple[str, ...]] = set()

    def __call__(self, record: Record) -> Example | None:
        """The example of a record."""
        if isinstance(record, str):
            raise DataError(f"a JSON object or a row of CSV is needed, this is plain text: {record!r:.40}")
        columns = tuple(record)
        if columns not in self._seen:
            self.check(columns)
            self._seen.add(columns)
        return self.example(record)

    def check(self, columns: Sequence[str]) -> None:
        absent = [name for name in self.known if name not in columns]
        for column in columns:
            near = difflib.get_close_matches(column, absent, n=1, cutoff=0.8)
            if column not in self.known and near:
                raise DataError(f"column {column!r} is not read; did you mean {near[0]!r}?")

    def example(self, row: Mapping[str, Any]) -> Example:
        raise NotImplementedError


class FlagEmbedding(_Columned):
    """FlagEmbedding's JSON lines: query, pos [...], neg [...], pos_scores, neg_scores, prompt, type.

    `prompt` is put in front of the query, and for the types "symmetric_sts" and "symmetric_clustering" in front of the
    passages too. `batch_size`, `train_group_size`, `category` and the other types change nothing here: batches are the
    sampler's.
    """

    known = ("query", "pos", "neg", "pos_scores", "neg_scores", "prompt", "query_prompt", "passage_prompt", "type")

    def example(self, row: Mapping[str, Any]) -> Example:
        """Lists of equal length for passages and their scores."""
        positives = _texts(row, "pos")
        if not positives:
            raise DataError("'pos' is an empty list; an example needs a positive")
        negatives = _texts(row, "neg") if row.get("neg") is not None else ()
        prompt = _prompt(row, "query_prompt") or _prompt(row, "prompt")
        symmetric = row.get("type") in ("symmetric_sts", "symmetric_clustering")
        return Example(
            query=text_of(row, "query"),
            positives=positives,
            negatives=negatives,
            positive_scores=_scores(row, "pos_scores", count=len(positives), of="pos"),
            negative_scores=_scores(row, "neg_scores", count=len(negatives), of="neg"),
            query_prompt=prompt,
            passage_prompt=_prompt(row, "passage_prompt") or (prompt if symmetric else None),
            lang=_lang(row),
        )


class Pairs(_Columned):
    """One pair a line: query, positive, and maybe negatives [...], lang; other columns are left alone."""

    known = ("query", "positive", "negatives", "lang", "source", "type")

    def example(self, row: Mapping[str, Any]) -> Example:
        """The pair."""
        return Example(
            query=text_of(row, "query"),
            positives=(text_of(row, "positive"),),
            negatives=_texts(row, "negatives") if row.get("negatives") is not None else (),
            lang=_lang(row),
        )


class Columns(_Columned):
    """sentence-transformers' convention: the order of the columns decides, not their names.

    Anchor, positive, then any number of negatives; a column called label(s) or score(s) is no text. With a pair, it is
    a teacher's score of the positive, except that a label of 0 marks what is no pair. With negatives, one number is the
    margin of the positive over the negative, a list has one margin for each negative or one score for each passage.
    """

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._columns = asked.columns

    def check(self, columns: Sequence[str]) -> None:
        """Refuse fewer than two columns of text, and columns asked for that are not there."""
        for name in self._columns:
            if name not in columns:
                raise _missing(name, columns)
        if len(self._names(columns)) < 2:
            raise DataError(f"two columns of text are needed, anchor and positive; the columns are {_listed(columns)}")

    def _names(self, columns: Iterable[str]) -> list[str]:
        return [name for name in self._columns or columns if name not in _LABELS]

    def example(self, row: Mapping[str, Any]) -> Example:
        """Empty cells among the negatives are left out."""
        anchor, positive, *others = self._names(row)
        filled = [name for name in others if row[name] not in (None, "")]
        positive_scores, negative_scores = self._teacher(row, negatives=len(filled), missing=len(filled) < len(others))
        return Example(
            query=text_of(row, anchor),
            positives=(text_of(row, positive),),
            negatives=tuple(text_of(row, name) for name in filled),
            positive_scores=positive_scores,
            negative_scores=negative_scores,
        )

    def _teacher(
        self, row: Mapping[str, Any], *, negatives: int, missing: bool
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        name = next((name for name in self._columns or row if name in _LABELS), None)
        if name is None or row[name] is None:
            return (), ()
        value = _cell(row[name])
        if not isinstance(value, list):
            return self._single(name, value, negatives)
        scores = [_number(item, name) for item in value]
        if missing or len(scores) not in (negatives, negatives + 1) or not scores:
            raise DataError(
                f"{name!r} has {len(scores)} numbers for 1 positive and {negatives} negatives; "
                "it takes one a passage, or one margin a negative"
            )
        if len(scores) == negatives:
            return (0.0,), tuple(-margin for margin in scores)
        return (scores[0],), tuple(scores[1:])

    def _single(self, name: str, value: Any, negatives: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        number = _number(value, name)
        if negatives > 1:
            raise DataError(f"{name!r} is one number for {negatives} negatives; give a list of one a negative")
        if negatives == 1:
            return (number,), (0.0,)
        if name.startswith("label") and number == 0:
            raise DataError(f"{name!r} is 0: no pair to learn from; keep the pairs that match")
        return (number,), ()


class Distillation(_Columned):
    """A query with scored candidates: query, document_1 ... document_N (or documents [...]), scores [...].

    The candidate with the highest score is the positive, the others are the negatives.
    """

    def example(self, row: Mapping[str, Any]) -> Example:
        """At least two candidates."""
        if "documents" in row:
            documents = _texts(row, "documents")
        else:
            numbered = sorted((int(match[1]), name) for name in row if (match := _DOCUMENT.fullmatch(name)))
            documents = tuple(text_of(row, name) for _, name in numbered)
        if len(documents) < 2:
            raise DataError(
                f"{len(documents)} scored documents; distillation needs two; the columns are {_listed(row)}"
            )
        if "scores" not in row:
            raise _missing("scores", row)
        scores = _scores(row, "scores", count=len(documents), of="documents")
        best = max(range(len(scores)), key=scores.__getitem__)
        return Example(
            query=text_of(row, "query"),
            positives=(documents[best],),
            negatives=documents[:best] + documents[best + 1 :],
            positive_scores=(scores[best],),
            negative_scores=scores[:best] + scores[best + 1 :],
            lang=_lang(row),
        )


class PlainText:
    """Running text, for pre-training and SimCSE: the text is both query and positive.

    A line of a text file, or an object with `text` and maybe `title`, which becomes the first line.
    """

    fingerprint = ""

    def __init__(self, asked: Asked) -> None:
        pass

    def __call__(self, record: Record) -> Example | None:
        """The text on both sides."""
        if isinstance(record, str):
            return Example(record.strip(), (record.strip(),))
        return Example(titled := titled_text(record), (titled,), lang=_lang(record))


def detect(record: Record) -> str:
    """The format that a record's columns belong to.

    Raises:
        DataError: none, or none surely; the message says what is there.
    """
    if isinstance(record, str):
        return "text"
    names = set(record)
    if "pos" in names:
        return "flag_embedding"
    if "scores" in names and ("documents" in names or any(map(_DOCUMENT.fullmatch, names))):
        return "distillation"
    texts = [name for name, value in record.items() if name not in _LABELS and isinstance(value, str | None)]
    negatives = [name for name in record if name != "negatives" and _NEGATIVE.fullmatch(name)]
    if {"query", "positive"} <= names and not negatives:
        return "pairs"
    if "text" in names and not names & {"query", "anchor", "positive"}:
        return "text"
    rest = names - set(_LABELS)
    if len(texts) == len(rest) >= 2 and len(negatives) == len(rest) - 2 and not names & {"_id", "id"}:
        return "columns"
    raise DataError(
        f"the format cannot be told from the columns {_listed(record)}{_near_columns(names)}; name it "
        f"(format= one of {', '.join(FORMATS)}), and for 'columns' the order (columns=('question', 'answer'))"
    )


def example_record(example: Example) -> dict[str, Any]:
    """The example in FlagEmbedding's columns, which every field fits into; empty ones are left out."""
    fields = {
        "query": example.query,
        "pos": list(example.positives),
        "neg": list(example.negatives),
        "pos_scores": list(example.positive_scores),
        "neg_scores": list(example.negative_scores),
        "query_prompt": example.query_prompt,
        "passage_prompt": example.passage_prompt,
        "lang": example.lang,
    }
    return {name: value for name, value in fields.items() if value or name in ("query", "pos", "neg")}


def titled_text(row: Mapping[str, Any]) -> str:
    """`text`, under its `title` where there is one."""
    text = text_of(row, "text")
    title = row.get("title")
    if title is not None and not isinstance(title, str):
        raise DataError(f"'title' must be a text; it is {title!r:.40}")
    return f"{title}\n{text}" if title and title.strip() else text


def text_of(row: Mapping[str, Any], name: str) -> str:
    """A column that must hold a text that is not empty.

    Raises:
        DataError: it does not, or there is no such column; the message says the nearest.
    """
    value = row.get(name)
    if isinstance(value, str) and value.strip():
        return value
    if name not in row:
        raise _missing(name, row)
    if isinstance(value, str):
        raise DataError(f"{name!r} is empty")
    raise DataError(f"{name!r} must be a text; it is {value!r:.40}")


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = row.get(name)
    if name not in row:
        raise _missing(name, row)
    if not isinstance(value, list):
        raise DataError(f"{name!r} must be a list of texts; it is {value!r:.40}")
    for number, text in enumerate(value):
        if not isinstance(text, str):
            raise DataError(f"{name}[{number}] must be a text; it is {text!r:.40}")
        if not text.strip():
            raise DataError(f"{name}[{number}] is empty")
    return tuple(value)


def _scores(row: Mapping[str, Any], name: str, *, count: int, of: str) -> tuple[float, ...]:
    value = _cell(row.get(name))
    if value is None or value == []:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{name!r} must be a list of numbers; it is {value!r:.40}")
    if len(value) != count:
        raise DataError(f"{name!r} has {len(value)} numbers and {of!r} has {count} texts; they must be as many")
    return tuple(_number(item, name) for item in value)


def _cell(value: Any) -> Any:
    """A list written into a cell of a CSV file."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return msgspec.json.decode(value)
        except msgspec.DecodeError as error:
            raise DataError(f"{value!r:.40} is not a list of numbers: {error}") from error
    return value


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{name!r} must hold finite numbers; it holds {value!r:.40}")
    return number


def _prompt(row: Mapping[str, Any], name: str) -> str | None:
    value = row.get(name)
    if value is not None and not isinstance(value, str):
        raise DataError(f"{name!r} must be a text; it is {value!r:.40}")
    return value


def _lang(row: Mapping[str, Any]) -> str:
    value = row.get("lang")
    return value if isinstance(value, str) else ""


def _missing(name: str, columns: Iterable[str]) -> DataError:
    near = difflib.get_close_matches(name, list(columns), n=1, cutoff=0.5)
    return DataError(
        f"no {name!r}; the columns are {_listed(columns)}" + (f"; did you mean {near[0]!r}?" if near else "")
    )


def _near_columns(names: Iterable[str]) -> str:
    known = ("query", "pos", "neg", "positive", "negative", "negatives", "text", "scores")
    for name in sorted(names):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        if name not in known and near:
            return f" (did you mean {near[0]!r} with {name!r}?)"
    return ""


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(repr, columns)) or "none"
