"""A finished bulk job, read shard by shard."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trine.encoding.bulk.manifest import JOB, MANIFEST, read_json
from trine.encoding.bulk.storage import EncodedTexts, from_bytes, sha256
from trine.errors import DataError, ModelMismatch, UsageError
from trine.types import Mode, TextEncoder

__all__ = ["EncodedTexts", "Shards", "open_shards"]


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of a job in the order of its input; each is read when it is asked for, and none is kept."""

    folder: Path
    manifest: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.manifest["shards"])

    def __iter__(self) -> Iterator[EncodedTexts]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, number: int) -> EncodedTexts:
        """Ids and embeddings of one shard.

        Raises:
            DataError: its file is missing, or is not the one that the job wrote.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"shard {number} of {len(self)}")
        row = self.manifest["shards"][number]
        path = self.folder / row["file"]
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
        if sha256(raw) != row["sha256"]:
            raise DataError(
                f"{path} has changed since it was written ({len(raw)} bytes, {row['bytes']} then); "
                "remove it and run the same `trine encode` again"
            )
        return from_bytes(raw, shard_format=self.manifest["settings"]["shard_format"], name=str(path))

    @property
    def texts(self) -> int:
        """N of all shards together."""
        return int(self.manifest["input"]["texts"])

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The representations in every shard."""
        return tuple(self.manifest["settings"]["modes"])

    @property
    def fingerprint(self) -> str:
        """Of the model that made them."""
        return str(self.manifest["model"]["fingerprint"])


def open_shards(folder: str | os.PathLike[str], *, encoder: TextEncoder | None = None) -> Shards:
    """Open what `encode_files` wrote.

    Args:
        folder: of the job.
        encoder: the model that is to be used beside them, such as for queries; None asks nothing.

    Raises:
        UsageError: there is no such job, or it is not finished.
        ModelMismatch: `encoder` is not the model that made them.
        DataError: the manifest cannot be read.
    """
    root = Path(folder)
    if not (root / MANIFEST).is_file():
        state = "an unfinished job: run the same `trine encode` again" if (root / JOB).is_file() else "no bulk job"
        raise UsageError(f"{root} holds {state}")
    shards = Shards(root, read_json(root / MANIFEST))
    if encoder is not None and encoder.fingerprint != shards.fingerprint:
        name = shards.manifest["model"]["name"]
        raise ModelMismatch(
            f"{root} was encoded with {name} ({shards.fingerprint}), the encoder given is {encoder.fingerprint}; "
            "load that model"
        )
    return shards
