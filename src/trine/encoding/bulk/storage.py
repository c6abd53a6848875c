"""Embeddings as bytes of a file and back, and files that appear whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trine.errors import DataError, UsageError
from trine.tables import missing_extra
from trine.types import Embeddings, PackedRows, SparseRows

_SCRATCH = ".partial"


@dataclass(frozen=True, slots=True)
class EncodedTexts:
    """What one shard holds."""

    ids: tuple[str | int, ...]
    embeddings: Embeddings


def arrays_of(embeddings: Embeddings) -> dict[str, NDArray[Any]]:
    """The flat arrays of a file: dense; sparse.offsets, .ids, .weights, .width; multi_vector.values, .offsets."""
    arrays: dict[str, NDArray[Any]] = {}
    if embeddings.dense is not None:
        arrays["dense"] = np.ascontiguousarray(embeddings.dense)
    if (sparse := embeddings.sparse) is not None:
        arrays |= {"sparse.offsets": sparse.offsets, "sparse.ids": sparse.ids, "sparse.weights": sparse.weights}
        arrays["sparse.width"] = np.array([sparse.width], np.int64)
    if (packed := embeddings.multi_vector) is not None:
        arrays |= {"multi_vector.values": np.ascontiguousarray(packed.values), "multi_vector.offsets": packed.offsets}
    return arrays


def embeddings_of(arrays: Mapping[str, NDArray[Any]]) -> Embeddings:
    """What `arrays_of` made arrays of."""
    sparse = multi_vector = None
    if "sparse.width" in arrays:
        offsets, ids, weights, width = (arrays[f"sparse.{name}"] for name in ("offsets", "ids", "weights", "width"))
        sparse = SparseRows(offsets, ids, weights, int(width[0]))
    if "multi_vector.values" in arrays:
        multi_vector = PackedRows(arrays["multi_vector.values"], arrays["multi_vector.offsets"])
    return Embeddings(arrays.get("dense"), sparse, multi_vector)


def in_precision(embeddings: Embeddings, precision: str) -> Embeddings:
    """Dense and multi-vectors in that number format.

    Raises:
        UsageError: a value is not finite, or too large for the format.
    """
    dense, packed = embeddings.dense, embeddings.multi_vector
    return Embeddings(
        dense=None if dense is None else _cast(dense, precision),
        sparse=embeddings.sparse,
        multi_vector=None if packed is None else PackedRows(_cast(packed.values, precision), packed.offsets),
    )


def to_bytes(texts: EncodedTexts, *, shard_format: str, integer_ids: bool) -> bytes:
    """The content of a shard's file; the same texts give the same bytes.

    Args:
        texts: ids and embeddings.
        shard_format: "safetensors", with the ids as JSON in the metadata under "ids"; or "parquet".
        integer_ids: the type of Parquet's column "id": int64, else string.

    Raises:
        MissingExtra: Parquet without pyarrow.
    """
    if shard_format == "parquet":
        return _to_parquet(texts, integer_ids=integer_ids)
    from safetensors.numpy import save

    # A single key: safetensors writes several in an order that changes from process to process.
    raw: bytes = save(arrays_of(texts.embeddings), {"ids": json.dumps(texts.ids, ensure_ascii=False)})
    return raw


def from_bytes(raw: bytes, *, shard_format: str, name: str) -> EncodedTexts:
    """What `to_bytes` gave bytes of.

    Raises:
        DataError: it is not that, or broken.
    """
    try:
        return _from_parquet(raw) if shard_format == "parquet" else _from_safetensors(raw)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise DataError(f"{name} is no shard that can be read: {error}") from error


def write_whole(path: Path, raw: bytes) -> None:
    """Write a file under another name and rename it when it is on the disk: a kill leaves all of it or none.

    Raises:
        OSError: no room, or no leave to write; what stood there before stays.
    """
    scratch = path.with_name(f".{secrets.token_hex(8)}{_SCRATCH}")
    try:
        with scratch.open("wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(scratch, path)
    except OSError as error:
        # A full disk names no file; others would name the scratch file.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        scratch.unlink(missing_ok=True)
    _sync_names(path.parent)


def clear_scratch(folder: Path) -> None:
    """Remove what killed processes left."""
    for path in folder.glob(f".*{_SCRATCH}"):
        path.unlink(missing_ok=True)


def sha256(raw: bytes) -> str:
    """Hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def _sync_names(folder: Path) -> None:
    """Make the renaming itself outlive a loss of power."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cast(values: NDArray[Any], precision: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        cast = values.astype(precision, copy=False)
    if np.isfinite(cast).all():
        return cast
    if np.isfinite(values).all():
        raise UsageError(f"a value of {np.abs(values).max():g} is beyond {precision}; use float32")
    raise UsageError("the model gave a value that is no number; try it with dtype float32")


def _from_safetensors(raw: bytes) -> EncodedTexts:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(raw)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    size = int.from_bytes(raw[:8], "little")
    ids = json.loads(json.loads(raw[8 : 8 + size])["__metadata__"]["ids"])
    return EncodedTexts(tuple(ids), embeddings_of(arrays))


def _to_parquet(texts: EncodedTexts, *, integer_ids: bool) -> bytes:
    arrow, parquet = pyarrow_parts()
    arrays, count = arrays_of(texts.embeddings), len(texts.ids)
    ids = texts.ids if integer_ids else [str(key) for key in texts.ids]
    columns: dict[str, Any] = {"id": arrow.array(ids, arrow.int64() if integer_ids else arrow.string())}
    facts = {}
    if "dense" in arrays:
        columns["dense"] = _vectors(arrow, arrays["dense"])
    if "sparse.width" in arrays:
        offsets = arrow.array(arrays["sparse.offsets"])
        columns["sparse_ids"] = arrow.LargeListArray.from_arrays(offsets, arrow.array(arrays["sparse.ids"]))
        columns["sparse_weights"] = arrow.LargeListArray.from_arrays(offsets, arrow.array(arrays["sparse.weights"]))
        facts["sparse_width"] = str(int(arrays["sparse.width"][0]))
    if "multi_vector.values" in arrays:
        offsets = arrow.array(arrays["multi_vector.offsets"])
        vectors = _vectors(arrow, arrays["multi_vector.values"])
        columns["multi_vector"] = arrow.LargeListArray.from_arrays(offsets, vectors)
    table = arrow.table(columns).replace_schema_metadata(facts)
    sink = arrow.BufferOutputStream()
    # Vectors do not compress, and statistics of them say nothing.
    parquet.write_table(table, sink, row_group_size=max(count, 1), use_dictionary=False, write_statistics=False)
    return bytes(sink.getvalue().to_pybytes())


def _from_parquet(raw: bytes) -> EncodedTexts:
    arrow, parquet = pyarrow_parts()
    try:
        table = parquet.read_table(arrow.BufferReader(raw)).combine_chunks()
    except arrow.ArrowException as error:
        raise ValueError(str(error)) from error
    held = {name: _one_chunk(arrow, table.column(name)) for name in table.column_names}
    arrays: dict[str, NDArray[Any]] = {}
    if "dense" in held:
        arrays["dense"] = _matrix(held["dense"])
    if "sparse_ids" in held:
        arrays["sparse.offsets"] = held["sparse_ids"].offsets.to_numpy()
        arrays["sparse.ids"] = held["sparse_ids"].flatten().to_numpy()
        arrays["sparse.weights"] = held["sparse_weights"].flatten().to_numpy()
        arrays["sparse.width"] = np.array([int(table.schema.metadata[b"sparse_width"])], np.int64)
    if "multi_vector" in held:
        arrays["multi_vector.offsets"] = held["multi_vector"].offsets.to_numpy()
        arrays["multi_vector.values"] = _matrix(held["multi_vector"].flatten())
    return EncodedTexts(tuple(held["id"].to_pylist()), embeddings_of(arrays))


def _vectors(arrow: Any, values: NDArray[Any]) -> Any:
    """(N, D) as N lists of D numbers."""
    return arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), values.shape[1])


def _matrix(vectors: Any) -> NDArray[Any]:
    return np.asarray(vectors.flatten().to_numpy()).reshape(len(vectors), vectors.type.list_size)


def _one_chunk(arrow: Any, column: Any) -> Any:
    return column.chunk(0) if column.num_chunks else arrow.array([], column.type)


def pyarrow_parts() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet.

    Raises:
        MissingExtra: they are not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra("shards in Parquet", "parquet") from error
    return pyarrow, parquet


def ids_agree(held: Sequence[str | int], asked: Sequence[str | int]) -> bool:
    """Whether a shard's ids are those of the rows; Parquet may hold numbers as text."""
    return len(held) == len(asked) and all(h == a or h == str(a) for h, a in zip(held, asked, strict=True))
