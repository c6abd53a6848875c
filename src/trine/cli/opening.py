"""Opening a collection together with the model it was made with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from trine.cli.encoders import load_encoder
from trine.errors import CollectionNotFound, UsageError

if TYPE_CHECKING:
    from trine.search.collection import Collection
    from trine.types import TextEncoder


class Opened(NamedTuple):
    """A collection to search, and its model where one is needed."""

    collection: Collection
    encoder: TextEncoder | None


@contextmanager
def searchable(
    path: Path, *, model: str | None = None, with_model: bool = True, device: str = "auto", dtype: str = "auto"
) -> Iterator[Opened]:
    """Open a collection for reading.

    Args:
        path: its folder.
        model: loaded in place of the recorded one, which it must be equal to; for a model that has moved.
        with_model: False leaves the model out, for searches by BM25 alone.
        device: of the model.
        dtype: of the model.
    """
    from trine.search.collection import Collection

    encoder = None
    if with_model:
        encoder = load_encoder(model or recorded_model(path), device=device, dtype=dtype)
    with Collection.open(path, encoder=encoder, read_only=True) as collection:
        yield Opened(collection, encoder)


def recorded_model(path: Path) -> str | None:
    """The model that a collection was made with, as `load_encoder` takes it."""
    from trine.search.collection import Collection

    with Collection.open(path, read_only=True) as collection:
        name = collection.settings.encoder
    if name is None:
        raise UsageError(f"{path} was made with a model that has no name; say with --model where it is now")
    return name or None


def is_collection(path: Path) -> bool:
    """Whether a collection lies at `path`."""
    from trine.search.database import FILE

    return (path / FILE).is_file()


def require_collection(path: Path, *, hint: str = "") -> None:
    """Raise `CollectionNotFound` with what to do about it."""
    if not is_collection(path):
        raise CollectionNotFound(
            f"no collection at {str(path)!r}; {hint or 'make one with: trine index FOLDER --to ' + str(path)}"
        )
