"""Embeddings kept on disk, so that another fusion, metric or depth costs no encoding."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trine.evaluation.files import replacing
from trine.types import Embeddings, Kind, Mode, PackedRows, SparseRows, TextEncoder

_LAYOUT = "trine-embeddings-1"


def encode_cached(
    encoder: TextEncoder,
    texts: Sequence[str],
    *,
    kind: Kind,
    modes: Sequence[Mode],
    folder: str | os.PathLike[str] | None,
    progress: bool = False,
) -> Embeddings:
    """Embed texts, or read what the same encoder made of the same texts before.

    The file's name is a hash of the encoder's fingerprint, the side, the modes and every text. A file that cannot be
    read is made anew.

    Args:
        encoder: what embeds.
        texts: N texts.
        kind: the side they stand on.
        modes: the representations wanted.
        folder: where the files lie, made if it is missing; None keeps nothing.
        progress: shown by the encoder while it works.
    """
    if folder is None:
        return encoder.encode(texts, kind=kind, modes=modes, progress=progress)
    path = Path(folder) / f"{_key(encoder.fingerprint, texts, kind=kind, modes=modes)}.safetensors"
    found = _load(path, len(texts), modes) if path.is_file() else None
    if found is None:
        found = encoder.encode(texts, kind=kind, modes=modes, progress=progress)
        _save(path, found)
    return found


def _key(fingerprint: str, texts: Sequence[str], *, kind: Kind, modes: Sequence[Mode]) -> str:
    digest = hashlib.sha256()
    for part in (_LAYOUT, fingerprint, kind, *sorted(modes), "", *texts):
        raw = part.encode("utf-8", "surrogatepass")
        # With its length before it, no two lists of texts run together into the same bytes.
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()[:32]


def _save(path: Path, embeddings: Embeddings) -> None:
    from safetensors.numpy import save_file

    arrays: dict[str, NDArray[np.generic]] = {}
    if embeddings.dense is not None:
        arrays["dense"] = embeddings.dense
    if (sparse := embeddings.sparse) is not None:
        arrays |= {"sparse.offsets": sparse.offsets, "sparse.ids": sparse.ids, "sparse.weights": sparse.weights}
        arrays["sparse.width"] = np.array([sparse.width], np.int64)
    if (packed := embeddings.multi_vector) is not None:
        arrays |= {"multi_vector.values": packed.values, "multi_vector.offsets": packed.offsets}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as scratch:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, scratch)


def _load(path: Path, count: int, modes: Sequence[Mode]) -> Embeddings | None:
    """What the file holds, or None where it is broken or not what was asked for."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        held = load_file(path)
        found = Embeddings(
            dense=held.get("dense"),
            sparse=SparseRows(
                held["sparse.offsets"], held["sparse.ids"], held["sparse.weights"], int(held["sparse.width"][0])
            )
            if "sparse.width" in held
            else None,
            multi_vector=PackedRows(held["multi_vector.values"], held["multi_vector.offsets"])
            if "multi_vector.values" in held
            else None,
        )
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    return found if set(found.modes) == set(modes) and len(found) == count else None
