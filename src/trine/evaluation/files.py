"""Whole files or none: a reader never sees half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A scratch file beside `path` that takes its place when the block ends, and is removed when the block fails."""
    target = Path(path)
    scratch = target.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        yield scratch
        os.replace(scratch, target)
    finally:
        scratch.unlink(missing_ok=True)
