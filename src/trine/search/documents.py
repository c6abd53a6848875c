"""Documents in the form that a store can keep."""

from __future__ import annotations

from dataclasses import replace

from trine.errors import UsageError
from trine.search.filters import storable, stored_form
from trine.types import Document, Heading


def cleaned(document: Document) -> Document:
    """The document as it can be stored, its offsets unchanged.

    Raises:
        UsageError: not a document, without an id, or with metadata that are no scalars.
    """
    if not isinstance(document, Document):
        raise UsageError(f"add takes trine.Document objects, got {type(document).__name__}: {document!r:.80}")
    if not document.id:
        raise UsageError(f"a document has an empty id: {document.text!r:.80}")
    for key, value in document.metadata.items():
        try:
            stored_form(value)
        except UsageError as error:
            raise UsageError(f"document {document.id!r}, metadata {key!r}: {error}") from error
        if not isinstance(key, str) or not key:
            raise UsageError(f"document {document.id!r}: metadata keys are text that is not empty, got {key!r}")
    return replace(
        document,
        id=storable_id(document.id),
        text=storable(document.text),
        title=storable(document.title),
        metadata={
            storable(key): storable(value) if isinstance(value, str) else value
            for key, value in document.metadata.items()
        },
        headings=tuple(Heading(part.start, part.level, storable(part.text)) for part in document.headings),
    )


def storable_id(document_id: str) -> str:
    """An id with what SQLite cannot compare written out, so that different ids stay different.

    File names need not be valid UTF-8; Python shows their odd bytes as lone surrogates.
    """
    return document_id.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
