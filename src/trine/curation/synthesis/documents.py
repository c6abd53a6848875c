"""Passages of one's own documents, for queries to be written for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trine.curation.duplicates import find_duplicates
from trine.curation.sections import pieces, sections
from trine.curation.texts import length_of
from trine.data import Skipped, read_documents
from trine.errors import UsageError
from trine.types import Document

LEAST_PASSAGE = 120
"""Latin characters (`length_of`): less holds too little to ask four different things about."""
MOST_WORDS = 256
"""Of a passage, counted as `trine.curation.sections.word_spans` does; also what the index cuts by default."""


@dataclass(frozen=True, slots=True)
class Grounding:
    """A passage and where it stands."""

    text: str
    title: str
    """The document's title and the headings above the passage."""
    document: str
    """Id of the document."""
    lang: str
    """What the document says of itself; "" where it says nothing."""


@dataclass(frozen=True, slots=True)
class Groundings:
    """Passages, and the files that gave none."""

    passages: tuple[Grounding, ...]
    skipped: tuple[Skipped, ...]


def read_groundings(paths: Sequence[str]) -> Groundings:
    """Cut documents into passages, near copies and short ones left out.

    Raises:
        UsageError: a path does not exist, or no passage is long enough.
    """
    documents: list[Document] = []
    skipped: list[Skipped] = []
    for item in read_documents(paths):
        if isinstance(item, Skipped):
            skipped.append(item)
        else:
            documents.append(item)
    found = [grounding for document in documents for grounding in _of(document)]
    kept = find_duplicates([grounding.text for grounding in found]).kept
    passages = tuple(grounding for grounding, keep in zip(found, kept, strict=True) if keep)
    if not passages:
        reasons = "; ".join(f"{item.path}: {item.reason}" for item in skipped[:3])
        raise UsageError(
            f"no passage of {LEAST_PASSAGE} letters or more in {len(documents)} documents of {', '.join(paths)}"
            + (f" ({reasons})" if reasons else "")
        )
    return Groundings(passages, tuple(skipped))


def _of(document: Document) -> list[Grounding]:
    said = document.metadata.get("lang") or document.metadata.get("language")
    lang = said.split("-")[0].lower() if isinstance(said, str) else ""
    found = []
    for section in sections(document):
        names = dict.fromkeys(name for name in (document.title.strip(), *section.path) if name)
        for text in pieces(section.text, max_tokens=MOST_WORDS):
            if length_of(text) >= LEAST_PASSAGE:
                found.append(Grounding(text, " > ".join(names), document.id, lang))
    return found
