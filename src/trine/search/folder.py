"""The folder of a collection, seen from outside."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from trine.errors import CollectionError, CollectionNotFound
from trine.search import database

LOCK = "lock"
"""Held by the process that may write."""


def holds_collection(folder: Path) -> bool:
    """Whether there is a store, be it whole or not."""
    file = folder / database.FILE
    return file.is_file() and file.stat().st_size > 0


def require_collection(folder: Path) -> None:
    """Refuse a folder without a store.

    Raises:
        CollectionNotFound: there is none.
    """
    if not (folder / database.FILE).is_file():
        raise CollectionNotFound(f"no collection at {folder}: it holds no {database.FILE}")


def require_vacant(folder: Path) -> None:
    """Refuse a folder with other files in it; what a creation that was killed leaves behind does no harm."""
    if folder.exists() and not folder.is_dir():
        raise CollectionError(f"{folder} is a file; give a new folder")
    if holds_collection(folder):
        raise CollectionError(f"{folder} holds a collection already; open it, or give exist_ok=True")
    left_over = {LOCK, *(database.FILE + suffix for suffix in ("", "-wal", "-shm", "-journal"))}
    others = sorted(entry.name for entry in folder.iterdir() if entry.name not in left_over) if folder.exists() else []
    if others:
        raise CollectionError(f"{folder} is not empty (it holds {', '.join(others[:3])}); give a new or empty folder")


def size_of(folder: Path) -> int:
    """Bytes that all files below take up, which is less than their lengths: Qdrant Edge reserves more than it fills."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(path, name)).st_blocks * 512
    return total
