"""Plain text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trine.data.decoding import decode
from trine.data.sources import Limits, Skipped, read_source
from trine.types import Document


def read(path: Path, *, name: str, limits: Limits) -> Iterator[Document | Skipped]:
    """One document, the whole file."""
    yield Document(name, decode(read_source(path, limits=limits)))
