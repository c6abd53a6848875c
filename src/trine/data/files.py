"""Files, folders and patterns -> documents; nothing that a file holds ends the run."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace

from trine.data.ingest import INGESTORS
from trine.data.listing import Listing, SourceFile, list_files
from trine.data.sandbox import Sandbox, without_surrogates
from trine.data.sources import Limits, Skipped, check_source, skipped
from trine.errors import DocumentError, MissingExtra
from trine.tables import resolve
from trine.types import Document

_LONGEST_TITLE = 300
_ROWS_REPORTED = 100
"""Bad rows of one file that are reported singly; the rest are counted."""

Progress = Callable[[int, int], None]
"""Called after each file with the number of files done and found."""


def read_documents(
    paths: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> DocumentReader:
    """Read documents from files, folders (recursively, in order) and patterns such as ``docs/**/*.md``.

    A document's id is its path relative to the folder given (a file's own name where a file was given), or, for a row
    of JSONL or CSV, the row's ``id``. Its metadata hold ``path`` (the file's id), ``type`` (the suffix, unless the row
    or front matter has a type of its own) and what the file itself says; nothing that changes while the content does
    not. What cannot be read comes as `Skipped`, with the reason.

    Raises:
        UsageError: a path does not exist, or a pattern finds nothing.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else paths
    return DocumentReader(list_files(given), limits=limits or Limits(), progress=progress)


class DocumentReader(Iterator[Document | Skipped]):
    """Yields documents and reasons as they are read; holds one file at a time. Closing it ends the worker process."""

    def __init__(self, listing: Listing, *, limits: Limits, progress: Progress | None) -> None:
        self._listing = listing
        self._limits = limits
        self._progress = progress
        self._items = self._read_all()

    @property
    def total(self) -> int:
        """Files found that will be read."""
        return len(self._listing.files)

    @property
    def ignored(self) -> Mapping[str, int]:
        """Files inside folders that no reader is known for: suffix -> number."""
        return self._listing.ignored

    def __next__(self) -> Document | Skipped:
        return next(self._items)

    def close(self) -> None:
        """Stop reading."""
        self._items.close()

    def _read_all(self) -> Generator[Document | Skipped]:
        yield from self._listing.skipped
        seen: set[str] = set()
        with Sandbox(self._limits) as sandbox:
            for done, file in enumerate(self._listing.files, start=1):
                with closing(self._read(file, sandbox)) as items:
                    yield from _few_reasons(_first_of_each_id(items, file, seen), file)
                if self._progress is not None:
                    self._progress(done, self.total)

    def _read(self, file: SourceFile, sandbox: Sandbox) -> Generator[Document | Skipped]:
        suffix = file.path.suffix.lower()
        try:
            if INGESTORS[suffix].extra is None:
                read = resolve(INGESTORS, suffix, kind="document type")
                found = read(file.path, name=file.name, limits=self._limits)
            else:
                check_source(file.path, most_bytes=self._limits.file_bytes)
                found = sandbox.read(file.path, name=file.name, suffix=suffix)
            for item in found:
                yield self._finished(item, file, suffix) if isinstance(item, Document) else item
        except (DocumentError, MissingExtra) as error:
            yield skipped(file.path, error)
        except OSError as error:
            yield skipped(file.path, f"cannot be read: {error.strerror or error}")

    def _finished(self, document: Document, file: SourceFile, suffix: str) -> Document | Skipped:
        if len(document.text) > self._limits.characters:
            return skipped(file.path, f"holds {len(document.text)} characters, over {self._limits.characters}")
        if not document.text.strip():
            return skipped(file.path, "holds no text")
        title = " ".join(without_surrogates(document.title).split())[:_LONGEST_TITLE]
        own = {key: value for key, value in document.metadata.items() if value is not None}
        return replace(
            document,
            text=without_surrogates(document.text),
            title=title,
            metadata={"type": suffix.removeprefix("."), **own, "path": file.name},
        )


def _first_of_each_id(
    items: Iterable[Document | Skipped], file: SourceFile, seen: set[str]
) -> Iterator[Document | Skipped]:
    for item in items:
        if isinstance(item, Skipped):
            yield item
        elif item.id in seen:
            yield skipped(file.path, f"repeats the id {item.id!r} of an earlier document")
        else:
            seen.add(item.id)
            yield item


def _few_reasons(items: Iterable[Document | Skipped], file: SourceFile) -> Iterator[Document | Skipped]:
    """At most `_ROWS_REPORTED` reasons, then their number: a broken file of a million rows is one problem."""
    reasons = 0
    for item in items:
        reasons += isinstance(item, Skipped)
        if isinstance(item, Document) or reasons <= _ROWS_REPORTED:
            yield item
    if reasons > _ROWS_REPORTED:
        yield skipped(file.path, f"and {reasons - _ROWS_REPORTED} more rows that cannot be used")
