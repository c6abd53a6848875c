"""Parallel documents: the same path but for a language code, and the same outline."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from trine.curation.sections import Section, sections
from trine.curation.texts import length_of
from trine.types import Document

LANGUAGES = frozenset(
    re.findall(
        "..",
        "amarazbebgbnbscacscydadeeleneoeseteufafifrglguhehihrhuhyidisitjakakkkmkolo"
        "ltlvmkmlmnmrmsmynbnenlnnnopaplpsptrorusiskslsqsrsvswtatethtltrukuruzvizh",
    )
)
"""ISO 639-1 codes that a path component may be, without those that are common words in paths: in, to, as, so."""
_CODE = re.compile(r"([A-Za-z]{2})(?:[-_](?:[A-Za-z]{2}|Han[st]|hans|hant|\d{3}))?")
_IN_NAME = re.compile(r"^(?P<stem>.+)[._-](?P<code>[A-Za-z]{2}(?:[-_][A-Za-z]{2})?)(?P<suffix>\.[^.]+)$")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*")
_MOST_RATIO = 2.5
"""Two translations differ less in length than this, once Hangul and ideographs are weighed: of 20,000 translated
stretches of Microsoft's, Hugging Face's, Python's and Elixir School's documentation 99.9 % are within 2.1."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """One stretch in two languages."""

    left: str
    right: str
    languages: tuple[str, str]
    document_ids: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Unaligned:
    """Two documents that share a path, but not an outline."""

    document_ids: tuple[str, str]
    levels: tuple[tuple[int, ...], tuple[int, ...]]
    """Heading levels of each, in order."""


def language_key(document_id: str) -> tuple[str, str] | None:
    """(path with the language code replaced by "*", code), or None where there is no code.

    The code is in the file's name (``guide.ko.md``, ``guide_ko.md``) or else the last folder that is one
    (``docs/ko/guide.md``, ``docs/pt-BR/guide.md``).
    """
    folders, name = document_id.replace("\\", "/").split("/")[:-1], document_id.replace("\\", "/").rsplit("/", 1)[-1]
    inside = _IN_NAME.match(name)
    if inside and (code := _language(inside["code"])):
        return "/".join([*folders, f"{inside['stem']}.*{inside['suffix']}"]), code
    for place in range(len(folders) - 1, -1, -1):
        code = _language(folders[place])
        if code:
            return "/".join([*folders[:place], "*", *folders[place + 1 :], name]), code
    return None


def align(documents: Sequence[Document]) -> Iterator[Aligned | Unaligned]:
    """Pair the sections of documents that are translations of each other.

    Two documents match when their paths do (`language_key`), their codes differ and their headings have the same
    levels in the same order; a section before the first heading counts as level 0. Sections pair up in order.
    """
    versions: dict[str, list[tuple[str, Document]]] = defaultdict(list)
    for document in documents:
        found = language_key(document.id)
        if found is not None:
            versions[found[0]].append((found[1], document))
    for group in versions.values():
        parsed = [(code, document, sections(document)) for code, document in group]
        for (left_code, left, left_parts), (right_code, right, right_parts) in combinations(parsed, 2):
            if left_code != right_code:
                ids = (left.id, right.id)
                yield from _align(left_parts, right_parts, ids=ids, languages=(left_code, right_code))


def paragraphs_of(pair: Aligned) -> list[Aligned]:
    """The pair cut into its paragraphs where both sides have as many; else as it is."""
    left, right = _PARAGRAPH.split(pair.left.strip()), _PARAGRAPH.split(pair.right.strip())
    if len(left) != len(right):
        return [pair]
    return [Aligned(one, other, pair.languages, pair.document_ids) for one, other in zip(left, right, strict=True)]


def similar_length(left: str, right: str) -> bool:
    """Whether two texts can be translations of each other as far as their lengths go."""
    short, long = sorted((length_of(left), length_of(right)))
    return long <= _MOST_RATIO * short


def _align(
    left: Sequence[Section], right: Sequence[Section], *, ids: tuple[str, str], languages: tuple[str, str]
) -> Iterator[Aligned | Unaligned]:
    levels = tuple(part.level for part in left), tuple(part.level for part in right)
    if levels[0] != levels[1]:
        yield Unaligned(ids, levels)
        return
    for one, other in zip(left, right, strict=True):
        if one.text and other.text:
            yield Aligned(one.text, other.text, languages, ids)


def _language(name: str) -> str | None:
    match = _CODE.fullmatch(name)
    return match[1].lower() if match and match[1].lower() in LANGUAGES else None
