"""Files into a collection: which document came from which file, and which of them are gone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TypeAlias

from trine.data.files import DocumentReader, Progress
from trine.data.listing import list_files
from trine.data.sources import Limits, Skipped
from trine.errors import UsageError
from trine.search.documents import cleaned
from trine.search.store import NewDocument
from trine.types import Document

_MAGIC = "*?["

Item: TypeAlias = NewDocument | Skipped
"""A document as it can be stored, or the reason why there is none."""

Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]


class FileRun:
    """One reading of files; afterwards it knows which stored documents they no longer hold.

    Files are remembered by their absolute path as bytes, since names need not be text in any encoding.
    """

    def __init__(self, paths: Paths, *, limits: Limits | None, progress: Progress | None) -> None:
        """Find the files.

        Raises:
            UsageError: a path does not exist, or a pattern finds nothing.
        """
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        self._roots = [_absolute(_fixed_part(Path(path))) for path in given]
        listing = list_files(given)
        self._sources = [_absolute(file.path) for file in listing.files]
        self._incomplete: set[int] = set()
        self._seen: set[str] = set()
        self._current = 0
        self._progress = progress
        self._reader = DocumentReader(listing, limits=limits or Limits(), progress=self._advance)

    @property
    def ignored(self) -> Mapping[str, int]:
        """Files that no reader is known for: suffix -> number."""
        return self._reader.ignored

    def items(self) -> Iterator[Item]:
        """Documents with their files, and what was skipped."""
        with closing(self._reader):
            for item in self._reader:
                found = item if isinstance(item, Skipped) else self._sourced(item)
                if isinstance(found, Skipped):
                    self._incomplete.add(self._current)
                yield found

    def stale(self, stored: Iterable[tuple[str, bytes]], *, prune: bool) -> Iterator[str]:
        """Ids among the `stored` documents (with their files) that the files read do not hold any more.

        A file that was read to its end without a fault has replaced all that it gave before. With `prune`, so have the
        paths given: what came from a file below them that does not exist any more is gone, too.
        """
        read = {source for number, source in enumerate(self._sources) if number not in self._incomplete}
        for document_id, source in stored:
            if document_id not in self._seen and (source in read or (prune and self._is_gone(source))):
                yield document_id

    def _advance(self, done: int, found: int) -> None:
        # The reader calls this after the last item of each file, so that what comes next is of the next file.
        self._current = done
        if self._progress is not None:
            self._progress(done, found)

    def _sourced(self, document: Document) -> Item:
        try:
            found = NewDocument(cleaned(document), self._sources[self._current])
        except UsageError as error:
            return Skipped(os.fsdecode(self._sources[self._current]), str(error))
        self._seen.add(found.document.id)
        return found

    def _is_gone(self, source: bytes) -> bool:
        """Whether a file below the paths given does not exist; one that merely cannot be reached may well."""
        if not any(source == root or source.startswith(root.rstrip(b"/") + b"/") for root in self._roots):
            return False
        try:
            os.lstat(source)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return False


def _absolute(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))


def _fixed_part(path: Path) -> Path:
    """The folder that a pattern starts from."""
    if path.exists():
        return path
    fixed = next((number for number, part in enumerate(path.parts) if any(mark in part for mark in _MAGIC)), None)
    return path if fixed is None else Path(*path.parts[:fixed])
