"""Metadata filters: parsed from strings or mappings, then turned into parametrised SQL.

A mapping is typed: ``{"year": {">=": 2020, "<": 2024}, "lang": ["ko", "en"]}`` compares numbers with numbers, text with
text (by code point), booleans with booleans and None with null. A string, ``year>=2020`` or ``lang=ko|en``, cannot say
whether 2020 is a number or text, so a bare word stands for every reading it has; quotes make it text.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from trine.errors import UsageError
from trine.tables import unknown
from trine.types import Scalar

Filters: TypeAlias = Mapping[str, object] | str | Sequence[str] | None
"""A mapping of metadata key to condition, one filter string, or several that must all hold."""

OPERATORS = ("!=", ">=", "<=", "==", "=", ">", "<")
"""In the order in which they are looked for: the long ones before their beginnings."""

_ORDERED = frozenset((">=", "<=", ">", "<"))
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_WORDS: Mapping[str, Scalar] = {"true": True, "false": False, "null": None}
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MOST_VALUES = 10_000


@dataclass(frozen=True, slots=True)
class Condition:
    """One comparison of a metadata value."""

    key: str
    operator: str
    """One of ``=  !=  <  <=  >  >=``."""
    values: tuple[Scalar, ...]
    """Any of them may match; the readings of a single one for ``<`` and its kind."""


def parse_filters(filters: Filters) -> tuple[Condition, ...]:
    """The conditions that must all hold, from any of the accepted forms.

    Raises:
        UsageError: a filter that cannot be read; the message says where.
    """
    if filters is None:
        return ()
    if isinstance(filters, str):
        return (_parse(filters),)
    if isinstance(filters, Mapping):
        return tuple(condition for key, wanted in filters.items() for condition in _from_mapping(key, wanted))
    return tuple(_parse(text) for text in filters)


def where(conditions: Iterable[Condition]) -> tuple[str, list[str | int | float]]:
    """SQL that holds for the rows of `documents` that meet all conditions, and its parameters.

    Values only ever travel as parameters. ``!=`` also holds for a document that lacks the key.
    """
    clauses, parameters = ["1"], []
    for condition in conditions:
        test, values = _test(condition)
        negation = "NOT " if condition.operator == "!=" else ""
        clauses.append(f"number {negation}IN (SELECT document FROM metadata WHERE key = ? AND ({test}))")
        parameters += [normal(condition.key), *values]
    return " AND ".join(clauses), parameters


def stored_form(value: Scalar) -> tuple[str, str | int | float | None]:
    """Kind and comparable value of a metadata value, as the `metadata` table holds them.

    Text is brought into NFC: file names from macOS come in NFD, typed filters in NFC, and both mean the same word.

    Raises:
        UsageError: not a scalar, or not a finite number.
    """
    if value is None:
        return "null", None
    if isinstance(value, bool):
        return "boolean", int(value)
    if isinstance(value, str):
        return "text", normal(value)
    if isinstance(value, int | float) and math.isfinite(value):
        # SQLite's integers have 64 bits; beyond them a number is compared as a float.
        return "number", value if isinstance(value, float) or -(2**63) <= value < 2**63 else float(value)
    raise UsageError(f"a metadata value must be text, a finite number, true, false or null; got {value!r}")


def normal(text: str) -> str:
    """The form in which keys and text values are compared."""
    return unicodedata.normalize("NFC", storable(text))


def storable(text: str) -> str:
    """Text with U+FFFD for each character that SQLite cannot keep or compare: lone surrogates and NUL.

    One for one, so that offsets into the text stay right.
    """
    return _UNSTORABLE.sub("\ufffd", text)


def unknown_key(key: str, known: Iterable[str]) -> UsageError:
    """The error for a filter on a key that no document has."""
    names = list(known)
    if not names:
        return UsageError(f"cannot filter by {key!r}: no document of this collection has metadata")
    return unknown(key, names, kind="metadata key")


def _test(condition: Condition) -> tuple[str, list[str | int | float]]:
    """SQL over `kind` and `value`, and its parameters."""
    ordered = condition.operator in _ORDERED
    tests: list[str] = []
    parameters: list[str | int | float] = []
    by_kind: dict[str, list[str | int | float | None]] = {}
    for value in condition.values:
        kind, comparable = stored_form(value)
        by_kind.setdefault(kind, []).append(comparable)
    for kind, values in by_kind.items():
        present = [value for value in values if value is not None]
        parameters += [kind, *present]
        if ordered:
            tests.append(f"kind = ? AND value {condition.operator} ?")
        elif present:
            tests.append(f"kind = ? AND value IN ({', '.join('?' * len(present))})")
        else:
            tests.append("kind = ?")
    return " OR ".join(f"({test})" for test in tests) or "0", parameters


def _from_mapping(key: str, wanted: object) -> list[Condition]:
    if not isinstance(key, str):
        raise UsageError(f"metadata keys are text; the filter names {key!r}")
    if not isinstance(wanted, Mapping):
        return [_typed(key, "=", wanted)]
    if not wanted:
        raise UsageError(f"the filter on {key!r} is empty; give a value, a list of values or {{operator: value}}")
    for operator in wanted:
        if operator not in OPERATORS:
            raise unknown(str(operator), OPERATORS, kind="filter operator")
    return [_typed(key, operator, value) for operator, value in wanted.items()]


def _typed(key: str, operator: str, wanted: object) -> Condition:
    operator = "=" if operator == "==" else operator
    many = isinstance(wanted, Sequence | set | frozenset) and not isinstance(wanted, str | bytes)
    values: tuple[Scalar, ...] = tuple(wanted) if many else (wanted,)  # type: ignore[arg-type, assignment]
    if len(values) > _MOST_VALUES:
        raise UsageError(f"the filter on {key!r} lists {len(values)} values; at most {_MOST_VALUES} are possible")
    for value in values:
        stored_form(value)
        if operator in _ORDERED and (many or not isinstance(value, str | int | float) or isinstance(value, bool)):
            raise UsageError(f"{key!r} {operator} {wanted!r}: only a single number or text can be compared by order")
    return Condition(key, operator, values)


def _parse(text: str) -> Condition:
    if not isinstance(text, str):
        raise UsageError(f"a filter must be text such as 'lang=ko' or a mapping; got {text!r}")
    key, position = _key(text)
    operator = next((name for name in OPERATORS if text.startswith(name, position)), None)
    if operator is None:
        raise _unreadable(text, position, f"expected one of {'  '.join(OPERATORS)}")
    values: list[Scalar] = []
    position += len(operator)
    count = 0
    while True:
        readings, position = _value(text, position)
        values += readings
        count += 1
        if position == len(text):
            break
        position += 1
    operator = "=" if operator == "==" else operator
    if operator in _ORDERED:
        values = [value for value in values if isinstance(value, str | int | float) and not isinstance(value, bool)]
        if count > 1:
            raise _unreadable(text, text.index("|"), f"{operator} compares with one value only")
    return Condition(key, operator, tuple(values))


def _key(text: str) -> tuple[str, int]:
    """The key at the start of a filter string, and the position of what follows it."""
    start = len(text) - len(text.lstrip())
    if text.startswith('"', start):
        key, position = _quoted(text, start)
        position += len(text[position:]) - len(text[position:].lstrip())
    else:
        found = [at for name in OPERATORS if (at := text.find(name, start)) >= 0]
        position = min(found, default=len(text))
        key = text[start:position].strip()
    if not key:
        raise _unreadable(text, start, "a metadata key is missing, as in lang=ko")
    return key, position


def _value(text: str, position: int) -> tuple[list[Scalar], int]:
    """The readings of one alternative, and the position of the ``|`` after it or the end."""
    start = position + len(text[position:]) - len(text[position:].lstrip())
    if text.startswith('"', start):
        word, end = _quoted(text, start)
        stop = text.find("|", end)
        stop = len(text) if stop < 0 else stop
        if text[end:stop].strip():
            raise _unreadable(text, end, "only | may follow a quoted value")
        return [word], stop
    stop = text.find("|", start)
    stop = len(text) if stop < 0 else stop
    word = text[start:stop].strip()
    if not word:
        raise _unreadable(text, min(start, len(text)), 'a value is missing; the empty text is written ""')
    return _readings(word), stop


def _readings(word: str) -> list[Scalar]:
    readings: list[Scalar] = [word]
    if word in _WORDS:
        readings.append(_WORDS[word])
    elif _NUMBER.fullmatch(word) and math.isfinite(float(word)):
        try:
            readings.append(int(word))
        except ValueError:
            readings.append(float(word))
    return readings


def _quoted(text: str, start: int) -> tuple[str, int]:
    """The text of a quoted part, backslash escapes undone, and the position after its closing quote."""
    match = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, start)
    if match is None:
        raise _unreadable(text, start, "this quote is never closed")
    return re.sub(r"\\(.)", r"\1", match.group(1), flags=re.DOTALL), match.end()


def _unreadable(text: str, position: int, reason: str) -> UsageError:
    return UsageError(f"filter {text!r}, character {position + 1}: {reason}")
