"""Paths, folders and patterns -> the files to read, each with its document id."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from trine.data.ingest import INGESTORS
from trine.data.sources import Skipped, printable, skipped
from trine.errors import UsageError
from trine.tables import unknown

_MAGIC = "*?["


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read."""

    path: Path
    """As reached from the path given."""
    name: str
    """Its document id: POSIX, relative to the folder given, composed (NFC) whatever the file system stores."""
    base: Path
    """The folder that the name is relative to."""


@dataclass(slots=True)
class Listing:
    """What was found under the paths given."""

    files: list[SourceFile] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    """Files inside folders whose suffix no reader is known for, by suffix."""


def list_files(paths: Iterable[str | os.PathLike[str]]) -> Listing:
    """Find the files under `paths` (files, folders, or patterns such as ``docs/**/*.md``), in order, each once.

    Within a folder, by name; hidden files, and Word's lock files, are left out. Symbolic links are followed where they
    stay inside the folder; each folder is entered once. Where ids of several folders would clash, those folders' ids
    get the folder's name in front.

    Raises:
        UsageError: a path does not exist, or a pattern finds nothing.
    """
    listing = Listing()
    seen: set[str] = set()
    for given in paths:
        for file in _expand(Path(given), listing):
            real = os.path.realpath(file.path)
            if real not in seen:
                seen.add(real)
                listing.files.append(file)
    listing.files = _told_apart(listing.files)
    return listing


def _expand(given: Path, listing: Listing) -> Iterator[SourceFile]:
    if os.path.isdir(given):
        for path in _walk(given, listing):
            yield from _known(path, given, listing)
    elif os.path.lexists(given):
        if _suffix(given) in INGESTORS:
            yield SourceFile(given, _name(Path(given.name)), given.parent)
        else:
            listing.skipped.append(skipped(given, unknown(_suffix(given), INGESTORS, kind="document type")))
    elif any(character in str(given) for character in _MAGIC):
        yield from _matching(given, listing)
    else:
        raise UsageError(f"there is no file or folder {str(given)!r}")


def _matching(pattern: Path, listing: Listing) -> Iterator[SourceFile]:
    parts = pattern.parts
    fixed = next(number for number, part in enumerate(parts) if any(character in part for character in _MAGIC))
    base = Path(*parts[:fixed])
    wanted = [unicodedata.normalize("NFC", part) for part in parts[fixed:]]
    found = 0
    for path in _walk(base, listing, wanted) if base.is_dir() else ():
        found += 1
        yield from _known(path, base, listing)
    if not found:
        raise UsageError(f"no file matches the pattern {str(pattern)!r}")


def _matched(names: Sequence[str], pattern: Sequence[str]) -> set[int]:
    """How many parts of `pattern` the parts of a path can have used up; ``**`` stands for any number of folders."""
    reached = _past_stars({0}, pattern)
    for name in names:
        onward = {at for at in reached if at < len(pattern) and pattern[at] == "**"}
        onward |= {at + 1 for at in reached if at < len(pattern) and fnmatchcase(name, pattern[at])}
        reached = _past_stars(onward, pattern)
    return reached


def _past_stars(reached: set[int], pattern: Sequence[str]) -> set[int]:
    further = set(reached)
    for at, part in enumerate(pattern):
        if at in further and part == "**":
            further.add(at + 1)
    return further


def _known(path: Path, base: Path, listing: Listing) -> Iterator[SourceFile]:
    if _suffix(path) in INGESTORS:
        yield SourceFile(path, _name(path.relative_to(base)), base)
    else:
        listing.ignored[_suffix(path)] += 1


def _walk(folder: Path, listing: Listing, pattern: Sequence[str] = ("**",)) -> Iterator[Path]:
    """Everything below a folder that is not a folder and matches `pattern`, depth first, by name."""
    root = os.path.realpath(folder)
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        path = waiting.pop()
        matched = _matched(_name(path.relative_to(folder)).split("/") if path != folder else [], pattern)
        try:
            if path.is_dir():
                if any(at < len(pattern) for at in matched) and _may_enter(path, root, entered, listing):
                    waiting.extend(reversed(_visible(path)))
            elif len(pattern) in matched and _stays_inside(path, root, listing):
                yield path
        except OSError as error:
            listing.skipped.append(skipped(path, f"cannot be listed: {error.strerror or error}"))


def _may_enter(folder: Path, root: str, entered: set[tuple[int, int]], listing: Listing) -> bool:
    """Whether a folder is new: a symbolic link may lead back to one that was entered before."""
    status = folder.stat()
    identity = (status.st_dev, status.st_ino)
    if identity in entered or not _stays_inside(folder, root, listing):
        return False
    entered.add(identity)
    return True


def _stays_inside(path: Path, root: str, listing: Listing) -> bool:
    real = os.path.realpath(path)
    if real == root or real.startswith(root.rstrip(os.sep) + os.sep):
        return True
    if path.is_dir() or _suffix(path) in INGESTORS:
        reason = "is a symbolic link out of the folder; give its target as a path of its own"
        listing.skipped.append(skipped(path, reason))
    return False


def _visible(folder: Path) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith((".", "~$"))]
    return [folder / name for name in sorted(names, key=lambda name: (unicodedata.normalize("NFC", name), name))]


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _name(path: Path) -> str:
    """A document id: POSIX, composed (NFC)."""
    return unicodedata.normalize("NFC", Path(printable(path)).as_posix())


def _told_apart(files: list[SourceFile]) -> list[SourceFile]:
    """Put the folder's name before the ids of every folder that shares an id with another."""
    bases_of: dict[str, set[Path]] = {}
    for file in files:
        bases_of.setdefault(file.name, set()).add(file.base)
    clashing = set().union(*(bases for bases in bases_of.values() if len(bases) > 1))
    if not clashing:
        return files
    labels = _labels(sorted(clashing))
    return [replace(file, name=f"{labels[file.base]}/{file.name}") if file.base in labels else file for file in files]


def _labels(bases: Sequence[Path]) -> dict[Path, str]:
    """The shortest ends of the folders' paths that tell them apart."""
    parts = {base: Path(os.path.realpath(base)).parts for base in bases}
    for length in range(1, max(map(len, parts.values())) + 1):
        labels = {base: _name(Path(*parts[base][-length:])).strip("/") for base in bases}
        if len(set(labels.values())) == len(set(parts.values())):
            return labels
    return labels
