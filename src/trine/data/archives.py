"""Zipped documents (DOCX, HWPX) are measured before a parser may inflate them."""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from trine.data.sources import Limits
from trine.errors import DocumentError

_HARMLESS = 16 * 2**20
_BLOCK = 2**20
_ENCRYPTED = 0x1


def check_zip(path: Path, *, limits: Limits) -> None:
    """Raise DocumentError for a file that is no zip archive, is encrypted, or inflates past the limits.

    The directory's own figures are compared first; then every member is inflated and thrown away, because the figures
    may lie (zipfile stops a member at its declared size and fails on its checksum).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_directory(archive.infolist(), path.stat().st_size, limits)
            _inflate(archive)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError, struct.error) as error:
        raise DocumentError(f"is a broken zip archive: {error}") from error
    except (OSError, RuntimeError) as error:
        raise DocumentError(f"cannot be unpacked: {error}") from error


def _check_directory(members: list[zipfile.ZipInfo], packed: int, limits: Limits) -> None:
    if len(members) > limits.archive_entries:
        raise DocumentError(f"holds {len(members)} zip members, more than the limit of {limits.archive_entries}")
    if any(member.flag_bits & _ENCRYPTED for member in members):
        raise DocumentError("is encrypted: save a copy without a password")
    inflated = sum(member.file_size for member in members)
    if inflated > limits.archive_bytes:
        raise DocumentError(f"would inflate to {inflated} bytes, more than the limit of {limits.archive_bytes}")
    if inflated > _HARMLESS and inflated > limits.archive_ratio * packed:
        raise DocumentError(
            f"would inflate from {packed} to {inflated} bytes, more than the limit of {limits.archive_ratio:g} times"
        )


def _inflate(archive: zipfile.ZipFile) -> None:
    for member in archive.infolist():
        with archive.open(member) as stream:
            while stream.read(_BLOCK):
                pass
